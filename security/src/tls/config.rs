//! The TLS configurations of a node, built anew for each identity.
//!
//! Session resumption is off on both sides: a resumed session would carry the identity of the
//! session it resumes.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig,
    SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor,
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{NoServerSessionStorage, ParsedCertificate, WebPkiClientVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
};

use crate::{
    Error,
    crypto::{ALPN, VERSIONS, provider},
};

const WHAT: &str = "TLS identity";

/// The trust anchors in a root bundle.
pub(crate) fn roots(certs: &[CertificateDer<'static>]) -> Result<Arc<RootCertStore>, Error> {
    let mut store = RootCertStore::empty();
    for cert in certs {
        store
            .add(cert.clone())
            .map_err(|error| Error::unusable("root certificate", error))?;
    }
    Ok(Arc::new(store))
}

/// Asks for a client certificate, does without one, and verifies the one it gets: joining nodes
/// have none yet, and what they may call is decided per RPC.
pub(crate) fn server(
    roots: Arc<RootCertStore>,
    identity: CertifiedKey,
) -> Result<Arc<ServerConfig>, Error> {
    let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider())
        .allow_unauthenticated()
        .build()
        .map_err(|error| Error::unusable("root certificate", error))?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|error| Error::unusable(WHAT, error))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

/// Verifies servers against the roots and the name asked for; presents `identity` if there is one.
pub(crate) fn client(
    roots: Arc<RootCertStore>,
    identity: Option<CertifiedKey>,
) -> Result<Arc<ClientConfig>, Error> {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|error| Error::unusable(WHAT, error))?
        .with_root_certificates(roots);
    Ok(finish_client(match identity {
        Some(identity) => {
            builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)))
        }
        None => builder.with_no_client_auth(),
    }))
}

/// For a server that speaks HTTP/1.1 and must be of these roots; presents `identity`.
pub(crate) fn https_client(
    roots: Arc<RootCertStore>,
    identity: CertifiedKey,
) -> Result<Arc<ClientConfig>, Error> {
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|error| Error::unusable(WHAT, error))?
        .with_root_certificates(roots)
        .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(identity)));
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// Believes any server. Only for fetching a root whose digest is known.
pub(crate) fn unverified_client() -> Result<Arc<ClientConfig>, Error> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(VERSIONS)
        .map_err(|error| Error::unusable(WHAT, error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(AnyServer(provider())))
        .with_no_client_auth();
    Ok(finish_client(config))
}

fn finish_client(mut config: ClientConfig) -> Arc<ClientConfig> {
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    Arc::new(config)
}

/// Checks at time `now` that `chain` leads from its first certificate to one of the roots and may
/// authenticate a node on either side of a connection.
pub(crate) fn verify_chain(
    chain: &[CertificateDer<'static>],
    roots: &Arc<RootCertStore>,
    now: SystemTime,
) -> Result<(), rustls::Error> {
    let (leaf, intermediates) = chain
        .split_first()
        .ok_or(rustls::Error::NoCertificatesPresented)?;
    let elapsed = now
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    let now = UnixTime::since_unix_epoch(elapsed);
    verify_server_cert_signed_by_trust_anchor(
        &ParsedCertificate::try_from(leaf)?,
        roots,
        intermediates,
        now,
        provider().signature_verification_algorithms.all,
    )?;
    WebPkiClientVerifier::builder_with_provider(roots.clone(), provider())
        .build()
        .map_err(|error| rustls::Error::General(error.to_string()))?
        .verify_client_cert(leaf, intermediates, now)?;
    Ok(())
}

/// What is wrong with a certificate, to be read after "it".
pub(crate) fn explain(error: &CertificateError) -> String {
    use CertificateError::*;
    match error {
        // All roots are named alike, so a stranger's root shows as a wrong signature.
        UnknownIssuer | BadSignature => "is not signed by the root CA of this cluster".to_owned(),
        NotValidYet | NotValidYetContext { .. } => {
            "is not valid yet, which is clock skew: set the clocks of both machines right"
                .to_owned()
        }
        Expired | ExpiredContext { .. } => {
            "has expired: set the clocks of both machines right if it is clock skew, or join the \
             cluster again"
                .to_owned()
        }
        other => format!("is not valid: {other}"),
    }
}

#[derive(Debug)]
struct AnyServer(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, cert, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, cert, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
