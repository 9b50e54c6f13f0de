//! The one crypto provider and the reading of PEM, shared by everything here.
//!
//! The provider is passed explicitly everywhere, so no process-wide default is needed.

use std::sync::{Arc, LazyLock};

use rustls::{
    SupportedProtocolVersion,
    crypto::{CryptoProvider, ring as provider},
    pki_types::{CertificateDer, pem::PemObject as _},
    version::{TLS12, TLS13},
};

use crate::Error;

/// TLS 1.2 is what older engines speak; both sides prefer 1.3.
pub(crate) const VERSIONS: &[&SupportedProtocolVersion] = &[&TLS13, &TLS12];

/// The protocol stock gRPC clients insist on having negotiated.
pub(crate) const ALPN: &[u8] = b"h2";

/// No PEM bundle of ours or of stock parts comes near this many bytes.
pub(crate) const MAX_PEM_BYTES: usize = 1 << 20;

/// ring, with all of TLS 1.3 and forward-secret AEAD suites of TLS 1.2 alone.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
        use provider::cipher_suite::*;
        let mut ring = provider::default_provider();
        ring.cipher_suites = vec![
            TLS13_AES_256_GCM_SHA384,
            TLS13_AES_128_GCM_SHA256,
            TLS13_CHACHA20_POLY1305_SHA256,
            TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
            TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
            TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
            TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
            TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        ];
        Arc::new(ring)
    });
    PROVIDER.clone()
}

/// SHA-256.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut digest = [0; 32];
    digest.copy_from_slice(ring::digest::digest(&ring::digest::SHA256, bytes).as_ref());
    digest
}

/// Lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// All certificates of a PEM bundle, at least one. `what` names it in errors.
pub(crate) fn certificates(
    what: &'static str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, Error> {
    if pem.len() > MAX_PEM_BYTES {
        return Err(Error::unusable(what, "it is larger than 1 MiB"));
    }
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| Error::unusable(what, format!("it is not valid PEM: {error}")))?;
    if certificates.is_empty() {
        return Err(Error::unusable(what, "it holds no PEM certificate"));
    }
    Ok(certificates)
}
