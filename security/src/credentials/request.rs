//! A fresh key and the request to certify it.

use rcgen::{CertificateParams, DistinguishedName, KeyPair};

use crate::{Credentials, Error};

/// A new ECDSA P-256 key and its signing request, which names nobody: the CA knows who asks.
pub struct CertificateRequest {
    key_pem: String,
    csr_pem: String,
}

impl CertificateRequest {
    /// Makes a key.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, Error> {
        let unusable = |error| Error::unusable("node key", error);
        let key = KeyPair::generate().map_err(unusable)?;
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        let csr = params.serialize_request(&key).map_err(unusable)?;
        let csr_pem = csr.pem().map_err(unusable)?;
        Ok(Self {
            key_pem: key.serialize_pem(),
            csr_pem,
        })
    }

    /// The request as PEM.
    pub fn csr_pem(&self) -> &[u8] {
        self.csr_pem.as_bytes()
    }

    #[cfg(test)]
    pub(crate) fn key_pem(&self) -> &[u8] {
        self.key_pem.as_bytes()
    }

    /// The credentials, now that the certificate (and intermediates) came.
    ///
    /// # Errors
    /// As [`Credentials::from_pem`].
    pub fn finish(&self, root_pem: &[u8], cert_pem: &[u8]) -> Result<Credentials, Error> {
        Credentials::from_pem(root_pem, cert_pem, self.key_pem.as_bytes())
    }
}

impl std::fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CertificateRequest")
            .field("csr", &self.csr_pem)
            .finish_non_exhaustive()
    }
}
