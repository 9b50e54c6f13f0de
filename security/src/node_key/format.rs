//! What `swarm-node.key` looks like: the private key in PEM, and in the PEM's headers the keys of a
//! manager's log. The names and forms are SwarmKit's.
//!
//! Without an unlock key all of it is plain. With one the private key is encrypted with it as
//! PKCS#8 says, and the headers as sealed records.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use pem::{EncodeConfig, LineEnding, Pem};
use zeroize::Zeroizing;

use super::{DataKeys, Kek, pkcs8};
use crate::{
    DataKey, Error, UnlockKey,
    crypto::MAX_PEM_BYTES,
    seal::{self, SealError},
};

const KEK_VERSION: &str = "kek-version";
const DEK: &str = "raft-dek";
const NEEDS_ROTATION: &str = "raft-dek-needs-rotation";
const PENDING: &str = "raft-dek-pending";

const ENCRYPTED: &str = "ENCRYPTED PRIVATE KEY";
const PLAIN: &str = "PRIVATE KEY";
const WHAT: &str = "node key";

/// The contents of a key file, opened.
#[derive(Clone)]
pub(crate) struct KeyFile {
    /// Label of the private key's PEM.
    label: String,
    /// The private key in DER.
    der: Zeroizing<Vec<u8>>,
    pub(super) kek: Kek,
    pub(super) data_keys: Option<DataKeys>,
}

impl KeyFile {
    /// The file of a key that has nothing but itself.
    pub(super) fn new(key_pem: &[u8], kek: Kek) -> Result<Self, Error> {
        let pem = parse_pem(key_pem)?;
        Ok(Self {
            label: pem.tag().to_owned(),
            der: Zeroizing::new(pem.into_contents()),
            kek,
            data_keys: None,
        })
    }

    /// Reads a file. A key that is not needed is not an error: whoever turned the lock off meanwhile
    /// is not locked out.
    ///
    /// # Errors
    /// [`Error::Locked`] if it takes another key than `unlock`.
    pub(crate) fn parse(file: &[u8], unlock: Option<&UnlockKey>) -> Result<Self, Error> {
        let pem = parse_pem(file)?;
        let headers = pem.headers().clone();
        let version = headers.get(KEK_VERSION).map_or(Ok(0), str::parse);
        let version = version.map_err(|_| {
            Error::unusable(WHAT, format!("its header {KEK_VERSION} is not a number"))
        })?;
        let (label, der, key) = match pem.tag() {
            ENCRYPTED => {
                let key = unlock.ok_or(Error::Locked)?;
                let der = pkcs8::decrypt(pem.contents(), key)?;
                (PLAIN.to_owned(), der, Some(key.clone()))
            }
            _ if headers.get("Proc-Type").is_some() => {
                let reason = "it is encrypted in the old form of OpenSSL; convert it to PKCS#8";
                return Err(Error::unusable(WHAT, reason));
            }
            plain => {
                let label = plain.to_owned();
                (label, Zeroizing::new(pem.into_contents()), None)
            }
        };
        let data_key = |name| {
            let record = headers.get(name);
            record
                .map(|record| parse_data_key(name, record, key.as_ref()))
                .transpose()
        };
        let (current, pending) = (data_key(DEK)?, data_key(PENDING)?);
        let data_keys = match (current, pending) {
            (Some(current), pending) => Some(DataKeys {
                current,
                pending,
                needs_rotation: headers.get(NEEDS_ROTATION) == Some("true"),
            }),
            (None, None) => None,
            (None, Some(_)) => {
                let reason = format!("it has a header {PENDING} but no {DEK}");
                return Err(Error::unusable(WHAT, reason));
            }
        };
        Ok(Self {
            label,
            der,
            kek: Kek { key, version },
            data_keys,
        })
    }

    /// The file's bytes.
    pub(super) fn to_bytes(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let key = self.kek.key.as_ref();
        let mut pem = match key {
            None => Pem::new(&self.label, self.der.as_slice()),
            Some(key) if self.label == PLAIN => {
                Pem::new(ENCRYPTED, pkcs8::encrypt(&self.der, key)?)
            }
            Some(_) => {
                let reason = "only PKCS#8 keys can be locked; convert it with `openssl pkcs8`";
                return Err(Error::unusable(WHAT, reason));
            }
        };
        // In the order of their names, as SwarmKit writes them.
        let mut headers = vec![(KEK_VERSION, self.kek.version.to_string())];
        if let Some(keys) = &self.data_keys {
            headers.push((DEK, data_key_header(&keys.current, key)));
            if keys.needs_rotation {
                headers.push((NEEDS_ROTATION, "true".to_owned()));
            }
            if let Some(pending) = &keys.pending {
                headers.push((PENDING, data_key_header(pending, key)));
            }
        }
        for (name, value) in headers {
            let added = pem.headers_mut().add(name, &value);
            added.map_err(|error| Error::unusable(WHAT, error))?;
        }
        Ok(Zeroizing::new(render(&pem).into_bytes()))
    }

    /// The private key as plain PEM without headers.
    pub(crate) fn key_pem(&self) -> Zeroizing<Vec<u8>> {
        let pem = Pem::new(&self.label, self.der.as_slice());
        Zeroizing::new(render(&pem).into_bytes())
    }

    /// Puts another private key in place, and leaves everything else.
    pub(super) fn set_key(&mut self, key_pem: &[u8]) -> Result<(), Error> {
        let new = Self::new(key_pem, Kek::default())?;
        (self.label, self.der) = (new.label, new.der);
        Ok(())
    }
}

fn render(pem: &Pem) -> String {
    pem::encode_config(pem, EncodeConfig::new().set_line_ending(LineEnding::LF))
}

fn parse_pem(pem: &[u8]) -> Result<Pem, Error> {
    if pem.len() > MAX_PEM_BYTES {
        return Err(Error::unusable(WHAT, "it is larger than 1 MiB"));
    }
    let pem = pem::parse(pem)
        .map_err(|_| Error::unusable(WHAT, "it holds no PEM private key, or a damaged one"))?;
    if !pem.tag().ends_with(PLAIN) {
        return Err(Error::unusable(WHAT, "it holds no PEM private key"));
    }
    Ok(pem)
}

fn data_key_header(key: &DataKey, kek: Option<&UnlockKey>) -> String {
    STANDARD.encode(match kek {
        Some(kek) => kek.seal(key.as_bytes()),
        None => seal::plain(key.as_bytes()),
    })
}

fn parse_data_key(name: &str, value: &str, kek: Option<&UnlockKey>) -> Result<DataKey, Error> {
    let broken = |reason: String| Error::unusable(WHAT, format!("its header {name}: {reason}"));
    let record = STANDARD
        .decode(value)
        .map_err(|error| broken(error.to_string()))?;
    let record = Bytes::from(record);
    let key = match kek {
        Some(kek) => kek.open(record).map_err(|error| match error {
            SealError::WrongKey => Error::Locked,
            error => broken(error.to_string()),
        })?,
        None => seal::open_plain(record)
            .map_err(|error| broken(error.to_string()))?
            .ok_or_else(|| broken("it is encrypted, but the private key is not".into()))?,
    };
    DataKey::from_bytes(&key).ok_or_else(|| broken("the key does not have 32 bytes".into()))
}
