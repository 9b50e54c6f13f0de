//! A certificate authority outside of the cluster that signs for it, asked in CFSSL's way: a sign
//! request as JSON over HTTPS, with this manager's certificate.
//!
//! It decides nothing: who gets which certificate is said to it, and what it answers is checked.

mod http;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DistinguishedName,
    DnType, IsCa, PublicKey, PublicKeyData as _,
};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{
    Dial, Error, Identity, RootCa, Tls,
    crypto::certificates,
    root_ca::{certificate_names, csr_der, pem_of},
    tls::config,
};
use http::Endpoint;

/// How long one URL may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Largest answer that is read, in bytes.
const MAX_ANSWER_BYTES: usize = 256 * 1024;

/// Name of the signing profile for certificates of CAs.
const CA_PROFILE: &str = "CA";

const WHAT: &str = "answer of the external CA";

/// Why an external CA did not sign.
#[derive(Debug, thiserror::Error)]
pub enum ExternalCaError {
    /// None of its URLs can be used now: asking again later may help.
    #[error("the external CA cannot be reached: {0}; check its URL and that it runs")]
    Unreachable(String),
    /// It does not want to, or what it signed is something else.
    #[error("the external CA did not sign: {0}")]
    Refused(String),
}

impl From<Error> for ExternalCaError {
    fn from(error: Error) -> Self {
        Self::Refused(error.to_string())
    }
}

/// An external CA for one root.
pub struct ExternalCa {
    urls: Vec<String>,
    root: RootCa,
    roots: Arc<RootCertStore>,
    intermediate: Bytes,
    config: Arc<ClientConfig>,
    dialer: Arc<dyn Dial>,
}

impl ExternalCa {
    /// The CA at these URLs, tried in their order. Servers must prove to be of the root that they sign
    /// for; `tls` is the identity that they see, and how they are dialled.
    ///
    /// # Errors
    /// When `root_pem` is no root certificate.
    pub fn new(tls: &Tls, root_pem: &[u8], urls: Vec<String>) -> Result<Self, Error> {
        let root = RootCa::from_pem(root_pem, None)?;
        let roots = config::roots(&certificates("root certificate", root_pem)?)?;
        let identity = tls.current().certified_key().clone();
        Ok(Self {
            urls,
            root,
            config: config::https_client(roots.clone(), identity)?,
            roots,
            intermediate: Bytes::new(),
            dialer: tls.dialer(),
        })
    }

    /// The same CA, whose certificates are followed by this PEM.
    #[must_use]
    pub fn with_intermediate(mut self, pem: Bytes) -> Self {
        self.intermediate = pem;
        self
    }

    /// Whether any of its URLs leads to a server of the root.
    ///
    /// # Errors
    /// [`ExternalCaError::Unreachable`]
    pub async fn reachable(&self) -> Result<(), ExternalCaError> {
        let mut last = ExternalCaError::Unreachable("it has no URL".to_owned());
        for url in &self.urls {
            let reached = async {
                let endpoint = Endpoint::parse(url)?;
                endpoint.connect(&*self.dialer, self.config.clone()).await
            };
            match timeout(TIMEOUT, reached).await {
                Ok(Ok(_)) => return Ok(()),
                Ok(Err(reason)) => last = ExternalCaError::Unreachable(format!("{url}: {reason}")),
                Err(_) => {
                    last = ExternalCaError::Unreachable(format!("{url}: no answer within 5 s"))
                }
            }
        }
        Err(last)
    }

    /// Has a certificate made for `who` with the public key of the request. Returns PEM: the
    /// certificate and what is to follow it.
    ///
    /// # Errors
    /// [`ExternalCaError`]
    pub async fn issue(&self, csr_pem: &[u8], who: &Identity) -> Result<Bytes, ExternalCaError> {
        // Nobody is bothered with what cannot be signed.
        let key = CertificateSigningRequestParams::from_der(&csr_der(csr_pem)?)
            .map_err(|error| Error::unusable("certificate request", error))?
            .public_key;
        let text = String::from_utf8_lossy(csr_pem);
        let request = json!({
            "certificate_request": text,
            "subject": {
                "CN": who.node_id,
                "names": [{ "O": who.cluster_id, "OU": who.role.as_ou() }],
            },
            "hosts": certificate_names(who),
        });
        let answer = self.sign(&request).await?;
        let chain = [answer.as_bytes(), &self.intermediate].concat();
        self.check(&chain, &key, who)?;
        Ok(chain.into())
    }

    /// Has the certificate of `new` signed by this root.
    ///
    /// # Errors
    /// [`ExternalCaError`]
    pub async fn cross_sign(&self, new: &RootCa) -> Result<Bytes, ExternalCaError> {
        let (csr, subject) = new.request()?;
        let request = json!({
            "certificate_request": csr,
            "subject": subject,
            "profile": CA_PROFILE,
            // basicConstraints, CA:TRUE. CFSSL does not take it from the request.
            "extensions": [{ "id": "2.5.29.19", "critical": true, "value": "30030101ff" }],
        });
        let answer = self.sign(&request).await?;
        let signed = certificates(WHAT, answer.as_bytes())?;
        if !new.is_certified_by(&signed[0], &self.root)? {
            let text = "its certificate does not certify the new root's subject and key";
            return Err(ExternalCaError::Refused(text.to_owned()));
        }
        Ok(pem_of("CERTIFICATE", signed[0].to_vec()).into())
    }

    /// The certificate in the answer of the first URL that gives one.
    async fn sign(&self, request: &Value) -> Result<String, ExternalCaError> {
        let mut last = ExternalCaError::Unreachable("it has no URL".to_owned());
        for url in &self.urls {
            match timeout(TIMEOUT, self.post(url, request)).await {
                Ok(Ok(answer)) => return certificate_of(&answer),
                Ok(Err(reason)) => last = ExternalCaError::Unreachable(format!("{url}: {reason}")),
                Err(_) => {
                    last = ExternalCaError::Unreachable(format!("{url}: no answer within 5 s"))
                }
            }
        }
        Err(last)
    }

    async fn post(&self, url: &str, request: &Value) -> Result<Bytes, String> {
        let endpoint = Endpoint::parse(url)?;
        let stream = endpoint.connect(&*self.dialer, self.config.clone()).await?;
        let body = Bytes::from(request.to_string());
        endpoint.post(stream, body, MAX_ANSWER_BYTES).await
    }

    /// Whether a chain is for this key and node, and of the root.
    fn check(&self, chain: &[u8], key: &PublicKey, who: &Identity) -> Result<(), Error> {
        let chain = certificates(WHAT, chain)?;
        config::verify_chain(&chain, &self.roots, SystemTime::now())
            .map_err(|error| Error::unusable(WHAT, error))?;
        if Identity::from_der(&chain[0])? != *who {
            return Err(Error::unusable(WHAT, "it names another node"));
        }
        let (_, leaf) = x509_parser::parse_x509_certificate(&chain[0])
            .map_err(|error| Error::unusable(WHAT, error))?;
        if leaf.public_key().raw != key.subject_public_key_info() {
            return Err(Error::unusable(WHAT, "it certifies another key"));
        }
        Ok(())
    }
}

impl fmt::Debug for ExternalCa {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExternalCa")
            .field("urls", &self.urls)
            .finish_non_exhaustive()
    }
}

/// What CFSSL answers: `{"success", "result": {"certificate"}, "errors": [{"code", "message"}]}`.
pub(crate) fn certificate_of(answer: &[u8]) -> Result<String, ExternalCaError> {
    let refused = |text: String| Err(ExternalCaError::Refused(text));
    let answer: Value = match serde_json::from_slice(answer) {
        Ok(answer) => answer,
        Err(error) => return refused(format!("its answer is no JSON: {error}")),
    };
    if answer["success"] == Value::Bool(true)
        && let Some(certificate) = answer["result"]["certificate"].as_str()
    {
        return Ok(certificate.to_owned());
    }
    let errors = answer["errors"].as_array().into_iter().flatten();
    let errors: Vec<_> = errors
        .filter_map(|error| error["message"].as_str())
        .collect();
    match errors.is_empty() {
        true => refused("it says neither a certificate nor why not".to_owned()),
        false => refused(errors.join("; ")),
    }
}

impl RootCa {
    /// A request to certify this root, signed with its key, and its subject as CFSSL writes it.
    fn request(&self) -> Result<(String, Value), Error> {
        let unusable = |error| Error::unusable("root certificate", error);
        let (mut common_name, mut names) = (String::new(), serde_json::Map::new());
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in self.subject_parts()? {
            let kind = match kind.as_str() {
                "2.5.4.3" => {
                    params
                        .distinguished_name
                        .push(DnType::CommonName, value.as_str());
                    common_name = value;
                    continue;
                }
                "2.5.4.6" => "C",
                "2.5.4.7" => "L",
                "2.5.4.8" => "ST",
                "2.5.4.10" => "O",
                "2.5.4.11" => "OU",
                _ => continue,
            };
            names.insert(kind.to_owned(), Value::String(value));
        }
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let csr = params
            .serialize_request(self.signing_key()?)
            .and_then(|csr| csr.pem())
            .map_err(unusable)?;
        Ok((csr, json!({ "CN": common_name, "names": [names] })))
    }
}

#[cfg(test)]
mod tests;
