//! Data that is encrypted and authenticated under a [`DataKey`] or an [`UnlockKey`], in the form in
//! which SwarmKit stores it: a serialised `MaybeEncryptedRecord` with a NaCl secretbox in it, which
//! is the 16-byte Poly1305 tag followed by the XSalsa20 stream.

use bytes::Bytes;
use crypto_secretbox::{AeadInPlace as _, KeyInit as _, Nonce, Tag, XSalsa20Poly1305};
use prost::{
    Message as _,
    encoding::{WireType, encode_key, encode_varint},
};
use rand::RngCore as _;
use skep_proto::v1::{MaybeEncryptedRecord, maybe_encrypted_record::Algorithm};

use crate::{
    DataKey,
    secret::{Secret, UnlockKey},
};

pub(crate) const TAG_BYTES: usize = 16;
pub(crate) const NONCE_BYTES: usize = 24;

/// Numbers of the fields of `MaybeEncryptedRecord`.
const ALGORITHM: u32 = 1;
const DATA: u32 = 2;
const NONCE: u32 = 3;

/// Bytes of a record besides its data, at most.
const OVERHEAD: usize = 64;

/// Why sealed data cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// It does not have the form of a record.
    #[error("it is not a sealed record: {0}")]
    Malformed(String),
    /// Only secretboxes can be opened.
    #[error("it is encrypted with algorithm {0}, which is not supported")]
    Algorithm(i32),
    /// The record says itself that it is not encrypted.
    #[error("it is not encrypted")]
    Plain,
    /// The key is another one, or the record was changed.
    #[error("the key does not fit, or it was changed")]
    WrongKey,
}

impl DataKey {
    /// Encrypts data into a record. The same data never gives the same record twice.
    pub fn seal(&self, data: &[u8]) -> Bytes {
        seal(&self.0, data)
    }

    /// The data in a record that was made with this key.
    ///
    /// # Errors
    /// Says what is wrong with the record.
    pub fn open(&self, record: Bytes) -> Result<Bytes, SealError> {
        open(&self.0, record)
    }
}

impl UnlockKey {
    pub(crate) fn seal(&self, data: &[u8]) -> Bytes {
        seal(&self.0, data)
    }

    pub(crate) fn open(&self, record: Bytes) -> Result<Bytes, SealError> {
        open(&self.0, record)
    }
}

/// A record that is not encrypted.
pub(crate) fn plain(data: &[u8]) -> Bytes {
    let record = MaybeEncryptedRecord {
        data: Bytes::copy_from_slice(data),
        ..Default::default()
    };
    record.encode_to_vec().into()
}

/// The data of a record that must not be encrypted; `None` if it is.
pub(crate) fn open_plain(record: Bytes) -> Result<Option<Bytes>, SealError> {
    let record = decode(record)?;
    Ok((record.algorithm == Algorithm::None as i32).then_some(record.data))
}

fn decode(record: Bytes) -> Result<MaybeEncryptedRecord, SealError> {
    MaybeEncryptedRecord::decode(record).map_err(|error| SealError::Malformed(error.to_string()))
}

/// Writes the record's fields itself, so that a large snapshot is copied once and not twice.
fn seal(key: &Secret, data: &[u8]) -> Bytes {
    let mut nonce = Nonce::default();
    rand::rng().fill_bytes(&mut nonce);
    let mut record = Vec::with_capacity(data.len() + OVERHEAD);
    write_head(data.len() as u64, &[0; TAG_BYTES], &mut record);
    let head = record.len();
    record.extend_from_slice(data);
    let (head, stream) = record.split_at_mut(head);
    let sum = cipher(key)
        .encrypt_in_place_detached(&nonce, &[], stream)
        .expect("it only fails for associated data, and there is none");
    let tag = head.len() - TAG_BYTES;
    head[tag..].copy_from_slice(&sum);
    write_end(nonce.as_ref(), &mut record);
    record.into()
}

/// What comes before the encrypted form of `len` bytes in a record.
pub(crate) fn write_head(len: u64, tag: &[u8; TAG_BYTES], record: &mut Vec<u8>) {
    encode_key(ALGORITHM, WireType::Varint, record);
    encode_varint(Algorithm::SecretboxSalsa20Poly1305 as u64, record);
    encode_key(DATA, WireType::LengthDelimited, record);
    encode_varint(TAG_BYTES as u64 + len, record);
    record.extend_from_slice(tag);
}

/// What comes behind it.
pub(crate) fn write_end(nonce: &[u8], record: &mut Vec<u8>) {
    encode_key(NONCE, WireType::LengthDelimited, record);
    encode_varint(NONCE_BYTES as u64, record);
    record.extend_from_slice(nonce);
}

fn open(key: &Secret, record: Bytes) -> Result<Bytes, SealError> {
    let record = decode(record)?;
    match Algorithm::try_from(record.algorithm) {
        Ok(Algorithm::SecretboxSalsa20Poly1305) => {}
        Ok(Algorithm::None) => return Err(SealError::Plain),
        _ => return Err(SealError::Algorithm(record.algorithm)),
    }
    if record.nonce.len() != NONCE_BYTES {
        return Err(SealError::Malformed("its nonce has not 24 bytes".into()));
    }
    let Some((tag, stream)) = record.data.split_at_checked(TAG_BYTES) else {
        return Err(SealError::Malformed("its data is cut off".into()));
    };
    let mut data = stream.to_vec();
    cipher(key)
        .decrypt_in_place_detached(
            Nonce::from_slice(&record.nonce),
            &[],
            &mut data,
            Tag::from_slice(tag),
        )
        .map_err(|_| SealError::WrongKey)?;
    Ok(data.into())
}

fn cipher(key: &Secret) -> XSalsa20Poly1305 {
    XSalsa20Poly1305::new(key.bytes().into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(byte: u8) -> DataKey {
        DataKey::from_bytes(&[byte; 32]).unwrap()
    }

    #[test]
    fn what_is_sealed_is_opened() {
        for size in [0, 1, 16, 300, 70_000] {
            let data: Vec<u8> = (0..size).map(|i| i as u8).collect();
            let record = key(1).seal(&data);
            assert_eq!(key(1).open(record.clone()).unwrap(), data);
            assert_eq!(key(2).open(record.clone()), Err(SealError::WrongKey));
            assert_ne!(key(1).seal(&data), record);
        }
    }

    #[test]
    fn a_record_is_what_any_protobuf_library_would_write() {
        let record = key(1).seal(b"data");
        let decoded = MaybeEncryptedRecord::decode(record.clone()).unwrap();
        assert_eq!(decoded.algorithm(), Algorithm::SecretboxSalsa20Poly1305);
        assert_eq!(decoded.encode_to_vec(), record);
    }

    /// The test vector of NaCl itself (`tests/secretbox.c`).
    #[test]
    fn the_box_is_that_of_nacl() {
        let bytes = |hex: &str| -> Vec<u8> {
            let digits = (0..hex.len()).step_by(2);
            digits
                .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
                .collect()
        };
        let firstkey = "1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389";
        let nonce = "69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37";
        let data = "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffce5ecbaaf33bd75\
                    1a1ac728d45e6c61296cdc3c01233561f41db66cce314adb310e3be8250c46f06dceea3a7fa1348\
                    057e2f6556ad6b1318a024a838f21af1fde048977eb48f59ffd4924ca1c60902e52f0a089bc76897\
                    040e082f937763848645e0705";
        let boxed = "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce48332ea7164d96\
                     a4476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c97271d2c20f9b928fe2270d6fb863d51\
                     738b48eeee314a7cc8ab932164548e526ae90224368517acfeabd6bb3732bc0e9da99832b61ca01b\
                     6de56244a9e88d5f9b37973f622a43d14a6599b1f654cb45a74e355a5";
        let record = MaybeEncryptedRecord {
            algorithm: Algorithm::SecretboxSalsa20Poly1305.into(),
            data: bytes(boxed).into(),
            nonce: bytes(nonce).into(),
        };
        let key = DataKey::from_bytes(&bytes(firstkey)).unwrap();
        let opened = key.open(record.encode_to_vec().into()).unwrap();
        assert_eq!(opened, bytes(data));
    }

    #[test]
    fn every_change_is_noticed() {
        let record = key(1).seal(b"data");
        for at in 0..record.len() {
            let mut changed = record.to_vec();
            changed[at] ^= 0x04;
            assert!(key(1).open(changed.into()).is_err(), "byte {at}");
            assert!(key(1).open(record.slice(..at)).is_err(), "cut at {at}");
        }
    }

    #[test]
    fn other_records_are_named() {
        assert_eq!(key(1).open(plain(b"data")), Err(SealError::Plain));
        assert_eq!(
            open_plain(plain(b"data")).unwrap(),
            Some(Bytes::from("data"))
        );
        assert_eq!(open_plain(key(1).seal(b"data")).unwrap(), None);
        let mut fernet = MaybeEncryptedRecord::decode(key(1).seal(b"data")).unwrap();
        fernet.set_algorithm(Algorithm::FernetAes128Cbc);
        let opened = key(1).open(fernet.encode_to_vec().into());
        assert_eq!(opened, Err(SealError::Algorithm(2)));
        assert!(matches!(
            key(1).open(Bytes::from_static(&[0xff; 9])),
            Err(SealError::Malformed(_))
        ));
    }
}
