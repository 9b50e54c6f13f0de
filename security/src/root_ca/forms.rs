//! The forms that certificates and keys come in, and the one that they are kept or used in.

use bytes::Bytes;
use pkcs8::der::{Any, Decode as _, Encode as _};
use rustls::pki_types::PrivateKeyDer;
use x509_parser::certificate::X509Certificate;

use super::{WHAT, cross_sign::tlv};
use crate::{Error, crypto::certificates};

/// One certificate after the other in the one form that the swarm keeps PEM in: a header line,
/// base64 in lines of 64, a footer line, each with a line feed. Digests are over these bytes, so what
/// users hand in is brought to it once.
///
/// # Errors
/// When it is no PEM, or holds no certificate.
pub fn canonical_pem(pem: &[u8]) -> Result<Bytes, Error> {
    let certs = certificates(WHAT, pem)?;
    let pem: String = certs
        .into_iter()
        .map(|cert| pem_of("CERTIFICATE", cert.to_vec()))
        .collect();
    Ok(pem.into())
}

pub(crate) fn pem_of(label: &str, der: Vec<u8>) -> String {
    let config = pem::EncodeConfig::new().set_line_ending(pem::LineEnding::LF);
    pem::encode_config(&pem::Pem::new(label, der), config)
}

/// A key of the older forms (PKCS#1, SEC 1: what `openssl` writes by itself) in the form that can be
/// used. Which kind of key it is says the certificate it belongs to.
pub(super) fn pkcs8_of(
    key: PrivateKeyDer<'static>,
    cert: &X509Certificate<'_>,
) -> Result<PrivateKeyDer<'static>, Error> {
    if matches!(key, PrivateKeyDer::Pkcs8(_)) {
        return Ok(key);
    }
    let unusable = |error| Error::unusable(WHAT, error);
    let public_key = Vec::<Any>::from_der(cert.public_key().raw).map_err(unusable)?;
    let algorithm = public_key
        .first()
        .ok_or_else(|| Error::unusable(WHAT, "it has no key"))?
        .to_der()
        .map_err(unusable)?;
    let version = tlv(0x02, &[0]);
    let wrapped = tlv(0x04, key.secret_der());
    let der = tlv(0x30, &[version, algorithm, wrapped].concat());
    Ok(PrivateKeyDer::Pkcs8(der.into()))
}
