//! A root's certificate under another root: same subject, key, validity and extensions, signed by
//! the other one's key.
//!
//! The fields are taken over as the bytes they are: nothing is rebuilt from its parts, so whoever
//! compares subject or key with those of the new root finds them equal.

use pkcs8::der::{Any, Decode as _, Encode as _};
use rcgen::{KeyPair, SigningKey as _};
use x509_parser::{certificate::X509Certificate, extensions::ParsedExtension};

use super::{WHAT, random_serial};
use crate::Error;

/// DER tags.
const INTEGER: u8 = 0x02;
const BIT_STRING: u8 = 0x03;
const OCTET_STRING: u8 = 0x04;
const SEQUENCE: u8 = 0x30;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const KEY_IDENTIFIER: u8 = 0x80;

/// authorityKeyIdentifier (2.5.29.35) with tag and length.
const AUTHORITY_KEY_ID: &[u8] = &[0x06, 0x03, 0x55, 0x1d, 0x23];

/// ecdsa-with-SHA256, ecdsa-with-SHA384 and sha256WithRSAEncryption as AlgorithmIdentifiers.
const ECDSA_SHA256: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x02";
const ECDSA_SHA384: &[u8] = b"\x30\x0a\x06\x08\x2a\x86\x48\xce\x3d\x04\x03\x03";
const RSA_SHA256: &[u8] = b"\x30\x0d\x06\x09\x2a\x86\x48\x86\xf7\x0d\x01\x01\x0b\x05\x00";

/// The DER of `new`'s certificate, issued by `issuer`, whose key is `key`.
pub(super) fn cross_sign(
    key: &KeyPair,
    issuer: &X509Certificate<'_>,
    new: &X509Certificate<'_>,
) -> Result<Vec<u8>, Error> {
    let unusable = |reason: &str| Error::unusable(WHAT, reason);
    let algorithm = signature_algorithm(key)?;
    let tbs = new.tbs_certificate.as_ref();
    let fields = Vec::<Any>::from_der(tbs).map_err(|error| Error::unusable(WHAT, error))?;
    let mut raw = Vec::with_capacity(fields.len());
    for field in &fields {
        raw.push(
            field
                .to_der()
                .map_err(|error| Error::unusable(WHAT, error))?,
        );
    }
    // version, serial, algorithm, issuer, validity, subject, key, extensions; a version 1
    // certificate has neither the first nor the last.
    let is_v3 = raw.len() >= 8 && raw[0][0] == VERSION;
    let extensions = raw.pop().filter(|field| is_v3 && field[0] == EXTENSIONS);
    let extensions = extensions.ok_or_else(|| unusable("it has no extensions"))?;
    raw[1] = tlv(INTEGER, random_serial().as_ref());
    raw[2] = algorithm.to_vec();
    raw[3] = issuer.subject().as_raw().to_vec();
    raw.push(with_authority(&extensions, issuer)?);

    let tbs = tlv(SEQUENCE, &raw.concat());
    let signature = key
        .sign(&tbs)
        .map_err(|error| Error::unusable("root key", error))?;
    let signature = [&[0][..], &signature].concat();
    let parts = [tbs, algorithm.to_vec(), tlv(BIT_STRING, &signature)];
    Ok(tlv(SEQUENCE, &parts.concat()))
}

fn signature_algorithm(key: &KeyPair) -> Result<&'static [u8], Error> {
    let known = [
        (&rcgen::PKCS_ECDSA_P256_SHA256, ECDSA_SHA256),
        (&rcgen::PKCS_ECDSA_P384_SHA384, ECDSA_SHA384),
        (&rcgen::PKCS_RSA_SHA256, RSA_SHA256),
    ];
    known
        .into_iter()
        .find(|(algorithm, _)| key.algorithm() == *algorithm)
        .map(|(_, identifier)| identifier)
        .ok_or_else(|| Error::unusable("root key", "unsupported kind of key"))
}

/// The extensions, with the issuer's key identifier for the one of the root itself.
fn with_authority(extensions: &[u8], issuer: &X509Certificate<'_>) -> Result<Vec<u8>, Error> {
    let unusable = |error| Error::unusable(WHAT, error);
    let list = Any::from_der(extensions).map_err(unusable)?;
    let mut list = Vec::<Any>::from_der(list.value()).map_err(unusable)?;
    list.retain(|extension| !extension.value().starts_with(AUTHORITY_KEY_ID));
    let mut raw = Vec::new();
    for extension in list {
        raw.extend(extension.to_der().map_err(unusable)?);
    }
    let key_id =
        issuer
            .extensions()
            .iter()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
                _ => None,
            });
    if let Some(key_id) = key_id {
        let value = tlv(OCTET_STRING, &tlv(SEQUENCE, &tlv(KEY_IDENTIFIER, key_id)));
        raw.extend(tlv(SEQUENCE, &[AUTHORITY_KEY_ID, &value].concat()));
    }
    Ok(tlv(EXTENSIONS, &tlv(SEQUENCE, &raw)))
}

/// Tag, length and value.
pub(super) fn tlv(tag: u8, value: &[u8]) -> Vec<u8> {
    let length = value.len().to_be_bytes();
    let zeros = length.iter().take_while(|byte| **byte == 0).count();
    let mut der = vec![tag];
    if value.len() < 0x80 {
        der.push(value.len() as u8);
    } else {
        // At most eight bytes of length.
        der.push(0x80 | (length.len() - zeros) as u8);
        der.extend(&length[zeros..]);
    }
    der.extend(value);
    der
}
