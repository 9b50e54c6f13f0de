//! Short strings that are kept in place: keys of the tables.
//!
//! An ID has 25 characters. In place it needs no allocation and no count of references, which a
//! persistent map would have to touch for every key of every node that it copies.

use std::{
    cmp::Ordering,
    fmt,
    hash::{Hash, Hasher},
    sync::Arc,
};

/// Bytes that fit in place: an ID, a separator and four digits of a slot. It makes [`Text`] 32 bytes.
const IN_PLACE: usize = 30;

/// A string, ordered by its bytes.
#[derive(Clone)]
pub(crate) enum Text {
    /// Zeros follow the first `len` bytes.
    Short {
        bytes: [u8; IN_PLACE],
        len: u8,
    },
    Long(Arc<[u8]>),
}

impl Text {
    /// The strings of `parts` one after the other.
    pub(crate) fn join(parts: &[&[u8]]) -> Self {
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if len > IN_PLACE {
            return Self::Long(parts.concat().into());
        }
        let mut bytes = [0; IN_PLACE];
        let mut end = 0;
        for part in parts {
            bytes[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        Self::Short {
            bytes,
            len: len as u8,
        }
    }

    /// `text` in lower case.
    pub(crate) fn lower(text: &str) -> Self {
        if !text.is_ascii() {
            return Self::from(&*text.to_lowercase());
        }
        match Self::from(text) {
            Self::Short { mut bytes, len } => {
                bytes.make_ascii_lowercase();
                Self::Short { bytes, len }
            }
            Self::Long(_) => Self::from(&*text.to_ascii_lowercase()),
        }
    }

    /// The key of a slot of a service.
    pub(crate) fn slot(service_id: &str, mut slot: u64) -> Self {
        // As many digits as the largest number has.
        let mut digits = [0; 20];
        let mut start = digits.len();
        loop {
            start -= 1;
            digits[start] = b'0' + (slot % 10) as u8;
            slot /= 10;
            if slot == 0 {
                break;
            }
        }
        Self::join(&[service_id.as_bytes(), b"\0", &digits[start..]])
    }

    pub(crate) fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Short { bytes, len } => &bytes[..usize::from(*len)],
            Self::Long(bytes) => bytes,
        }
    }
}

impl From<&str> for Text {
    fn from(text: &str) -> Self {
        Self::join(&[text.as_bytes()])
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            // Of two strings that differ in nothing but zeros at the end, the shorter comes first.
            (Self::Short { bytes, len }, Self::Short { bytes: b, len: l }) => {
                words(bytes).cmp(words(b)).then(len.cmp(l))
            }
            _ => self.as_bytes().cmp(other.as_bytes()),
        }
    }
}

/// `bytes` as numbers in the same order, the last two of which overlap. A search through a table compares
/// some twenty keys, most of which differ in the first of these, so that a call for each would be dear.
fn words(bytes: &[u8; IN_PLACE]) -> impl Iterator<Item = u64> {
    [0, 8, 16, IN_PLACE - 8].into_iter().map(|start| {
        let mut word = [0; 8];
        word.copy_from_slice(&bytes[start..start + 8]);
        u64::from_be_bytes(word)
    })
}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Text {}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        String::from_utf8_lossy(self.as_bytes()).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_text_is_as_small_as_two_fat_pointers() {
        assert_eq!(size_of::<Text>(), 32);
    }

    #[test]
    fn a_slot_is_written_in_decimal() {
        for slot in [0, 9, 10, 9999, u64::MAX] {
            let expected = format!("service\0{slot}");
            assert_eq!(Text::slot("service", slot).as_bytes(), expected.as_bytes());
        }
    }

    proptest! {
        /// Also around the length at which the form changes, and with zeros at the end.
        #[test]
        fn order_and_case_are_those_of_strings(
            a in "[ab\0]{0,4}|[aBÄ]{28,33}", b in "[ab\0]{0,4}|[aBÄ]{28,33}",
        ) {
            let (x, y) = (Text::from(&*a), Text::from(&*b));
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
            prop_assert_eq!(x == y, a == b);
            prop_assert_eq!(Text::lower(&a), Text::from(&*a.to_lowercase()));
            prop_assert_eq!(x.as_bytes(), a.as_bytes());
        }
    }
}
