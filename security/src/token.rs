//! Join tokens: what a new node needs to know a cluster and to be let in.
//!
//! `SWMTKN-1-<digest>-<secret>`, or `SWMTKN-2-<f>-<digest>-<secret>` where `f` is `1` if the
//! cluster mandates FIPS mode. The digest is the SHA-256 of the root bundle's exact bytes as a
//! base 36 number of 50 digits; the secret is 16 random bytes as one of 25 digits.

use std::{fmt, str::FromStr};

use rand::RngCore as _;
use skep_proto::id::base36;
use subtle::ConstantTimeEq as _;

use crate::{Error, RootCa};

const PREFIX: &str = "SWMTKN";
const DIGEST_DIGITS: usize = 50;
const SECRET_DIGITS: usize = 25;

/// A join token. `Display` shows it whole; `Debug` hides the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// `None` for version 1; for version 2 whether FIPS mode is mandatory.
    fips: Option<bool>,
    digest: [u8; 32],
    secret: String,
}

impl JoinToken {
    /// A new token for the cluster of this root, with a fresh secret.
    pub fn generate(ca: &RootCa) -> Self {
        let mut secret = [0_u8; 16];
        rand::rng().fill_bytes(&mut secret);
        Self {
            fips: None,
            digest: ca.digest(),
            secret: format!("{:0>SECRET_DIGITS$}", base36(&secret)),
        }
    }

    /// Whether `presented` is this token. The time it takes does not tell where they differ.
    pub fn matches(&self, presented: &str) -> bool {
        self.to_string()
            .as_bytes()
            .ct_eq(presented.as_bytes())
            .into()
    }

    /// Whether the cluster wants FIPS mode of its members.
    pub fn mandates_fips(&self) -> bool {
        self.fips == Some(true)
    }

    /// Whether the token is of the cluster with this root bundle.
    pub fn pins(&self, root_pem: &[u8]) -> bool {
        crate::crypto::sha256(root_pem) == self.digest
    }

    /// SHA-256 of the cluster's root bundle.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}

impl FromStr for JoinToken {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parts: Vec<_> = text.trim().splitn(6, '-').collect();
        let (fips, digest, secret) = match parts[..] {
            [PREFIX, "1", digest, secret] => (None, digest, secret),
            [PREFIX, "2", "0", digest, secret] => (Some(false), digest, secret),
            [PREFIX, "2", "1", digest, secret] => (Some(true), digest, secret),
            [PREFIX, ..] => return Err(Error::InvalidToken("some of its parts are missing")),
            _ => return Err(Error::InvalidToken("it does not begin with SWMTKN-")),
        };
        if digest.len() != DIGEST_DIGITS {
            return Err(Error::InvalidToken(
                "its third part must have 50 characters",
            ));
        }
        if secret.len() != SECRET_DIGITS {
            return Err(Error::InvalidToken("its last part must have 25 characters"));
        }
        if !digest.bytes().chain(secret.bytes()).all(is_base36) {
            return Err(Error::InvalidToken(
                "it has characters other than 0-9 and a-z",
            ));
        }
        let digest = from_base36(digest).ok_or(Error::InvalidToken(
            "its third part is not a SHA-256 digest",
        ))?;
        Ok(Self {
            fips,
            digest,
            secret: secret.to_owned(),
        })
    }
}

impl fmt::Display for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_prefix(f, self)?;
        f.write_str(&self.secret)
    }
}

impl fmt::Debug for JoinToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_prefix(f, self)?;
        f.write_str("(hidden)")
    }
}

fn write_prefix(f: &mut fmt::Formatter<'_>, token: &JoinToken) -> fmt::Result {
    match token.fips {
        None => write!(f, "{PREFIX}-1-")?,
        Some(fips) => write!(f, "{PREFIX}-2-{}-", u8::from(fips))?,
    }
    write!(f, "{:0>DIGEST_DIGITS$}-", base36(&token.digest))
}

fn is_base36(byte: u8) -> bool {
    byte.is_ascii_digit() || byte.is_ascii_lowercase()
}

/// The 256-bit number that base 36 `digits` write, big-endian; `None` if it is larger.
fn from_base36(digits: &str) -> Option<[u8; 32]> {
    let mut number = [0_u8; 32];
    for digit in digits.chars() {
        let mut carry = digit.to_digit(36)?;
        for byte in number.iter_mut().rev() {
            carry += u32::from(*byte) * 36;
            *byte = (carry & 0xff) as u8;
            carry >>= 8;
        }
        if carry != 0 {
            return None;
        }
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_generated_token_survives_its_text_and_matches_itself_alone() {
        let ca = RootCa::generate().unwrap();
        let token = JoinToken::generate(&ca);
        let text = token.to_string();
        assert!(text.starts_with("SWMTKN-1-"));
        assert_eq!(text.len(), "SWMTKN-1-".len() + 50 + 1 + 25);
        assert_eq!(text.parse::<JoinToken>().unwrap(), token);
        assert_eq!(format!("  {text}\n").parse::<JoinToken>().unwrap(), token);
        assert_eq!(token.digest(), &ca.digest());
        assert!(token.matches(&text));
        assert!(!token.matches(&JoinToken::generate(&ca).to_string()));
        assert!(!token.matches(&text[..text.len() - 1]));
        assert!(!token.matches(""));
    }

    #[test]
    fn the_digest_is_padded_to_fifty_digits() {
        let token = JoinToken {
            fips: None,
            digest: [0; 32],
            secret: "0".repeat(25),
        };
        assert_eq!(
            token.to_string(),
            format!("SWMTKN-1-{}-{}", "0".repeat(50), "0".repeat(25))
        );
        let largest = JoinToken {
            digest: [0xff; 32],
            ..token
        };
        assert_eq!(largest.to_string().parse::<JoinToken>().unwrap(), largest);
    }

    #[test]
    fn debug_hides_the_secret() {
        let token = JoinToken::generate(&RootCa::generate().unwrap());
        assert!(!format!("{token:?}").contains(&token.secret));
    }

    #[test]
    fn version_two_carries_the_fips_flag() {
        let (digest, secret) = ("0".repeat(50), "a".repeat(25));
        for (flag, mandates) in [("0", false), ("1", true)] {
            let text = format!("SWMTKN-2-{flag}-{digest}-{secret}");
            let token: JoinToken = text.parse().unwrap();
            assert_eq!(token.mandates_fips(), mandates);
            assert_eq!(token.to_string(), text);
        }
    }

    #[test]
    fn bad_tokens_are_refused_with_one_helpful_line() {
        let good = JoinToken::generate(&RootCa::generate().unwrap()).to_string();
        let (digest, secret) = ("0".repeat(50), "a".repeat(25));
        let bad = [
            String::new(),
            "hello".to_owned(),
            good[..good.len() - 1].to_owned(),
            good[..30].to_owned(),
            format!("{good}x"),
            format!("{good}-x"),
            good.replace("SWMTKN", "swmtkn"),
            format!("SWMTKN-3-{digest}-{secret}"),
            format!("SWMTKN-2-{digest}-{secret}"),
            format!("SWMTKN-2-2-{digest}-{secret}"),
            format!("SWMTKN-1-{}-{secret}", "z".repeat(50)),
            format!("SWMTKN-1-{}-{secret}", "A".repeat(50)),
            format!("SWMTKN-1-{digest}-{}", "+".repeat(25)),
        ];
        for text in bad {
            let error = text.parse::<JoinToken>().unwrap_err().to_string();
            assert!(error.starts_with("invalid join token: "), "{text}: {error}");
            assert!(!error.contains('\n'));
        }
    }

    proptest! {
        #[test]
        fn the_parser_never_panics(text in "\\PC*") {
            let _ = text.parse::<JoinToken>();
        }

        #[test]
        fn what_parses_is_written_back(text in "SWMTKN-(1|2-0|2-1)-[01][0-9a-z]{49}-[0-9a-z]{25}") {
            if let Ok(token) = text.parse::<JoinToken>() {
                prop_assert_eq!(token.to_string(), text);
            }
        }

        #[test]
        fn digests_survive_base36(digest: [u8; 32]) {
            prop_assert_eq!(from_base36(&base36(&digest)), Some(digest));
        }
    }
}
