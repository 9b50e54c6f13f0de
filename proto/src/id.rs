//! Identifiers of objects, sessions and clusters.

use rand::Rng as _;

/// Length of every identifier, in characters.
pub const LEN: usize = 25;

/// A new random identifier: 25 characters of `[0-9a-z]`, about 129 bits. Stock engines check nothing but the
/// length and the alphabet.
pub fn random() -> String {
    const DIGITS: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut rng = rand::rng();
    (0..LEN)
        .map(|_| char::from(DIGITS[rng.random_range(0..DIGITS.len())]))
        .collect()
}

/// Whether `text` has the form of an identifier.
pub fn is_valid(text: &str) -> bool {
    text.len() == LEN
        && text
            .bytes()
            .all(|b| b.is_ascii_digit() || b.is_ascii_lowercase())
}

/// `bytes` as a big-endian number in base 36, without leading zeros (`"0"` for zero).
pub fn base36(bytes: &[u8]) -> String {
    let mut number = bytes.to_vec();
    let mut digits = Vec::new();
    while number.iter().any(|&b| b != 0) {
        let mut remainder = 0_u32;
        for byte in &mut number {
            let value = remainder * 256 + u32::from(*byte);
            *byte = (value / 36) as u8;
            remainder = value % 36;
        }
        digits.push(char::from_digit(remainder, 36).unwrap_or('0'));
    }
    if digits.is_empty() {
        digits.push('0');
    }
    digits.iter().rev().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_ids_have_the_right_form_and_differ() {
        let ids: std::collections::BTreeSet<_> = (0..1000).map(|_| random()).collect();
        assert_eq!(ids.len(), 1000);
        assert!(ids.iter().all(|id| is_valid(id)));
    }

    #[test]
    fn base36_matches_known_values() {
        assert_eq!(base36(&[0]), "0");
        assert_eq!(base36(&[35]), "z");
        assert_eq!(base36(&[36]), "10");
        assert_eq!(base36(&[0xff, 0xff]), "1ekf");
    }

    #[test]
    fn other_forms_are_not_ids() {
        assert!(!is_valid(""));
        assert!(!is_valid(&"a".repeat(24)));
        assert!(!is_valid(&"A".repeat(25)));
    }
}
