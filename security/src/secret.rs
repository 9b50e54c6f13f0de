//! Secret keys of 32 bytes: the unlock key that people keep, and the keys that encrypt a manager's
//! log. Neither shows itself in logs, and both are wiped from memory when dropped.

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use rand::RngCore as _;
use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use crate::Error;

/// Bytes of every key here.
pub(crate) const KEY_BYTES: usize = 32;

/// What an unlock key begins with, and its only version.
const PREFIX: &str = "SWMKEY-1-";

#[derive(Clone)]
pub(crate) struct Secret(Zeroizing<[u8; KEY_BYTES]>);

impl Secret {
    fn random() -> Self {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        rand::rng().fill_bytes(bytes.as_mut());
        Self(bytes)
    }

    pub(crate) fn bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&*other.0).into()
    }
}

impl Eq for Secret {}

macro_rules! key {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        pub struct $name(pub(crate) Secret);

        impl $name {
            /// A new random key.
            pub fn generate() -> Self {
                Self(Secret::random())
            }

            /// The key with these bytes; `None` unless there are 32 of them.
            pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
                let bytes = <[u8; KEY_BYTES]>::try_from(bytes).ok()?;
                Some(Self(Secret(Zeroizing::new(bytes))))
            }

            /// The 32 bytes of the key.
            pub fn as_bytes(&self) -> &[u8] {
                self.0.bytes()
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(concat!(stringify!($name), "(..)"))
            }
        }
    };
}

key!(
    /// The key that unlocks a manager: SwarmKit's "key encryption key". People see it as
    /// `SWMKEY-1-` and the standard base64 of its bytes without padding; that is what `Display`
    /// shows, so it must not go where secrets must not.
    UnlockKey
);
key!(
    /// A key that encrypts a manager's log and snapshots: SwarmKit's "data encryption key".
    DataKey
);

impl fmt::Display for UnlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = Zeroizing::new(STANDARD_NO_PAD.encode(self.as_bytes()));
        write!(f, "{PREFIX}{}", *text)
    }
}

impl FromStr for UnlockKey {
    type Err = Error;

    /// Reads what `Display` shows, without regard to white space around it.
    fn from_str(text: &str) -> Result<Self, Error> {
        let encoded = text
            .trim()
            .strip_prefix(PREFIX)
            .ok_or(Error::InvalidUnlockKey("it does not begin with SWMKEY-1-"))?;
        let bytes = STANDARD_NO_PAD
            .decode(encoded)
            .map(Zeroizing::new)
            .map_err(|_| Error::InvalidUnlockKey("what follows SWMKEY-1- is not base64"))?;
        Self::from_bytes(&bytes).ok_or(Error::InvalidUnlockKey("it does not have 32 bytes"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unlock_key_looks_as_people_know_it() {
        let key = UnlockKey::from_bytes(&[0xfb; 32]).unwrap();
        let text = "SWMKEY-1-+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s";
        assert_eq!(key.to_string(), text);
        assert_eq!(text.parse::<UnlockKey>().unwrap(), key);
        assert_eq!(format!(" {text}\n").parse::<UnlockKey>().unwrap(), key);
        assert_eq!(format!("{key:?}"), "UnlockKey(..)");
        assert_ne!(UnlockKey::generate(), UnlockKey::generate());
    }

    #[test]
    fn what_is_no_unlock_key_is_refused_without_being_repeated() {
        for (text, reason) in [
            ("", "does not begin"),
            ("SWMTKN-1-abc-def", "does not begin"),
            ("SWMKEY-2-AAAA", "does not begin"),
            ("SWMKEY-1-****", "not base64"),
            ("SWMKEY-1-AAAA", "32 bytes"),
            (
                "SWMKEY-1-+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/v7+/s=",
                "not base64",
            ),
        ] {
            let error = text.parse::<UnlockKey>().unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
            assert!(!error.contains("AAAA") && !error.contains("abc"), "{error}");
        }
    }
}
