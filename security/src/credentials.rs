//! What a node proves its identity with: root bundle, certificate chain and private key.

pub(crate) mod files;
mod request;

use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use rustls::{
    ClientConfig, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    sign::CertifiedKey,
};
use skep_proto::v1;
use x509_parser::{certificate::X509Certificate, prelude::FromDer as _, time::ASN1Time};

pub use request::CertificateRequest;

use crate::{
    Error, Identity, Kek, NodeKey, Role, RootCa, UnlockKey,
    crypto::{MAX_PEM_BYTES, certificates, provider},
    tls::config,
};

const WHAT: &str = "node certificate";

/// A node's validated identity and the TLS configurations made of it. Immutable.
pub struct Credentials {
    root_pem: Bytes,
    cert_pem: Bytes,
    key_pem: Bytes,
    identity: Identity,
    issuer: Issuer,
    valid_from: SystemTime,
    expires_at: SystemTime,
    key: CertifiedKey,
    roots: Vec<CertificateDer<'static>>,
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
}

/// The certificate right above the node's: the root, or a cross-signed one during a rotation.
struct Issuer {
    subject: Bytes,
    public_key: Bytes,
}

/// What to make of a certificate whose time is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expired {
    Refuse,
    Accept,
}

impl Credentials {
    /// Credentials from a root bundle, a chain (the node's certificate first, then intermediates)
    /// and an unencrypted private key.
    ///
    /// # Errors
    /// [`Error::Unusable`] when the chain does not lead to the root, is not valid now or may not
    /// authenticate both servers and clients, when the key is another one's, or when the subject
    /// lacks O, OU or CN.
    pub fn from_pem(root_pem: &[u8], cert_pem: &[u8], key_pem: &[u8]) -> Result<Self, Error> {
        Self::build(root_pem, cert_pem, key_pem, Expired::Refuse)
    }

    /// Makes a key and has `ca` sign its certificate: how the first manager of a cluster begins.
    ///
    /// # Errors
    /// As [`RootCa::issue`].
    pub fn self_issue(ca: &RootCa, who: &Identity, validity: Duration) -> Result<Self, Error> {
        let request = CertificateRequest::generate()?;
        let cert = ca.issue(request.csr_pem(), who, validity, SystemTime::now())?;
        request.finish(ca.cert_pem(), &cert)
    }

    /// The same certificate and key under another root, if the certificate leads to that one too.
    ///
    /// # Errors
    /// As [`Self::from_pem`].
    pub fn with_root(&self, root_pem: &[u8]) -> Result<Self, Error> {
        Self::from_pem(root_pem, &self.cert_pem, &self.key_pem)
    }

    /// What was saved in `dir`, with the owner of its key file, or `None` if no certificate and key
    /// are there. `unlock` opens the key, should it be locked. A certificate whose time is over
    /// loads too, with a warning: a manager that holds the CA's key can renew it, anyone else sees
    /// from [`Self::expires_at`] that it must join again.
    ///
    /// This reads files: call it off the async threads.
    ///
    /// # Errors
    /// [`Error::Locked`] if the key is locked with another key than `unlock`. Otherwise when the
    /// files cannot be read, are incomplete or do not belong together.
    pub fn load(dir: &Path, unlock: Option<&UnlockKey>) -> Result<Option<(Self, NodeKey)>, Error> {
        let loaded = files::load(dir, unlock)?;
        if let Some((credentials, _)) = loaded.as_ref()
            && credentials.expires_at < SystemTime::now()
        {
            match credentials.identity.role {
                Role::Worker => tracing::warn!(
                    node_id = credentials.identity.node_id,
                    "the certificate of this node has expired and managers will refuse it; check this \
                     machine's clock, or start once with --join-addr and --join-token to join again"
                ),
                Role::Manager => tracing::warn!(
                    node_id = credentials.identity.node_id,
                    "the certificate of this manager has expired and others will refuse it; check this \
                     machine's clock. If all managers are like this, start one with \
                     --force-new-cluster: it renews its own, and the others join it again"
                ),
            }
        }
        Ok(loaded.map(|(credentials, file)| {
            let key = NodeKey::loaded(dir, file, credentials.identity.role);
            (credentials, key)
        }))
    }

    /// Saves the credentials of a new node whose key is not locked; see [`NodeKey::save`].
    ///
    /// # Errors
    /// [`Error::File`]
    pub fn save(&self, dir: &Path) -> Result<(), Error> {
        NodeKey::new(dir, self, Kek::default())?.save(self)
    }

    /// Who the certificate says the node is.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The root bundle, byte for byte.
    pub fn root_pem(&self) -> &Bytes {
        &self.root_pem
    }

    /// The node's certificate and the intermediates after it.
    pub fn cert_pem(&self) -> &Bytes {
        &self.cert_pem
    }

    /// When the certificate begins to be valid.
    pub fn valid_from(&self) -> SystemTime {
        self.valid_from
    }

    /// When the certificate ceases to be valid.
    pub fn expires_at(&self) -> SystemTime {
        self.expires_at
    }

    /// What a node reports of its certificate: its trust root, and subject and public key (DER)
    /// of its issuer.
    pub fn tls_info(&self) -> v1::NodeTlsInfo {
        v1::NodeTlsInfo {
            trust_root: self.root_pem.clone(),
            cert_issuer_subject: self.issuer.subject.clone(),
            cert_issuer_public_key: self.issuer.public_key.clone(),
        }
    }

    /// The private key in plain.
    pub(crate) fn key_pem(&self) -> &[u8] {
        &self.key_pem
    }

    /// Chain and key, as TLS takes them.
    pub(crate) fn certified_key(&self) -> &CertifiedKey {
        &self.key
    }

    /// The configurations of a node that trusts more roots than its own.
    pub(crate) fn trusting(
        &self,
        others: &[CertificateDer<'static>],
    ) -> Result<(Arc<ServerConfig>, Arc<ClientConfig>), Error> {
        let roots = config::roots(&[&self.roots, others].concat())?;
        Ok((
            config::server(roots.clone(), self.key.clone())?,
            config::client(roots, Some(self.key.clone()))?,
        ))
    }

    pub(crate) fn server_config(&self) -> &Arc<ServerConfig> {
        &self.server
    }

    pub(crate) fn client_config(&self) -> &Arc<ClientConfig> {
        &self.client
    }

    fn build(
        root_pem: &[u8],
        cert_pem: &[u8],
        key_pem: &[u8],
        expired: Expired,
    ) -> Result<Self, Error> {
        let root = RootCa::from_pem(root_pem, None)?;
        let root_certs = certificates("root certificate", root_pem)?;
        let chain = certificates(WHAT, cert_pem)?;
        let (_, leaf) =
            X509Certificate::from_der(&chain[0]).map_err(|error| Error::unusable(WHAT, error))?;
        let validity = leaf.validity();
        let (valid_from, expires_at) = (
            system_time(validity.not_before)?,
            system_time(validity.not_after)?,
        );

        let roots = config::roots(&root_certs)?;
        let mut now = SystemTime::now();
        if expired == Expired::Accept {
            now = now.min(expires_at);
        }
        config::verify_chain(&chain, &roots, now)
            .map_err(|error| Error::unusable(WHAT, explain(error)))?;
        let identity = Identity::from_der(&chain[0])?;
        let issuer = issuer(&leaf, chain[1..].iter().chain(&root_certs))?;
        drop(leaf);
        let key = CertifiedKey::from_der(chain, private_key(key_pem)?, &provider())
            .map_err(|error| Error::unusable("node key", error))?;
        Ok(Self {
            root_pem: root.cert_pem().clone(),
            cert_pem: Bytes::copy_from_slice(cert_pem),
            key_pem: Bytes::copy_from_slice(key_pem),
            identity,
            issuer,
            valid_from,
            expires_at,
            server: config::server(roots.clone(), key.clone())?,
            client: config::client(roots, Some(key.clone()))?,
            key,
            roots: root_certs,
        })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", &self.identity)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, Error> {
    if pem.len() > MAX_PEM_BYTES {
        return Err(Error::unusable("node key", "it is larger than 1 MiB"));
    }
    PrivateKeyDer::from_pem_slice(pem).map_err(|error| {
        Error::unusable(
            "node key",
            format!("it holds no unencrypted PEM private key: {error}"),
        )
    })
}

/// The first of `candidates` that signed `leaf`.
fn issuer<'a>(
    leaf: &X509Certificate<'_>,
    mut candidates: impl Iterator<Item = &'a CertificateDer<'static>>,
) -> Result<Issuer, Error> {
    candidates
        .find_map(|candidate| {
            let (_, candidate) = X509Certificate::from_der(candidate).ok()?;
            let signed = candidate.subject().as_raw() == leaf.issuer().as_raw()
                && leaf.verify_signature(Some(candidate.public_key())).is_ok();
            signed.then(|| Issuer {
                subject: Bytes::copy_from_slice(candidate.subject().as_raw()),
                public_key: Bytes::copy_from_slice(candidate.public_key().raw),
            })
        })
        .ok_or_else(|| Error::unusable(WHAT, "its issuer is not in the chain"))
}

fn system_time(time: ASN1Time) -> Result<SystemTime, Error> {
    u64::try_from(time.timestamp())
        .ok()
        .and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)))
        .ok_or_else(|| Error::unusable(WHAT, "its validity lies before 1970"))
}

fn explain(error: rustls::Error) -> String {
    match error {
        rustls::Error::InvalidCertificate(error) => format!("it {}", config::explain(&error)),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests;
