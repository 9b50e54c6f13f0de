//! A plain client of a control socket: Skep's, or any other that speaks this protocol.

mod direct;

use std::{io, path::Path, sync::Arc, time::Duration};

use anyhow::Context as _;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, ServerName, UnixTime},
};
use skep_proto::v1::control_client::ControlClient;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::UnixStream,
};
use tokio_rustls::TlsConnector;
use tonic::transport::{Channel, Endpoint};

pub use self::direct::{Call, Direct};

/// A client of the control API on this socket.
pub async fn connect(socket: &Path, tls: bool) -> anyhow::Result<ControlClient<Channel>> {
    let channel = channel(socket, tls).await?;
    Ok(ControlClient::new(channel).max_decoding_message_size(usize::MAX))
}

/// Connects to a control socket, in plaintext or with TLS that verifies nothing (who may connect is
/// up to the socket's permissions). It connects again when the connection is lost.
pub async fn channel(socket: &Path, tls: bool) -> anyhow::Result<Channel> {
    let path = socket.to_owned();
    let endpoint =
        Endpoint::from_static("http://localhost").connect_timeout(Duration::from_secs(5));
    let dial = move |_| {
        let path = path.clone();
        async move { io::Result::Ok(TokioIo::new(dial(&path, tls).await?)) }
    };
    endpoint
        .connect_with_connector(tower::service_fn(dial))
        .await
        .with_context(|| format!("connecting to {}", socket.display()))
}

/// A stream to a control socket.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn dial(socket: &Path, tls: bool) -> io::Result<Box<dyn Stream>> {
    let stream = UnixStream::connect(socket).await?;
    if !tls {
        return Ok(Box::new(stream));
    }
    let connector = TlsConnector::from(Arc::new(unverified().map_err(io::Error::other)?));
    let name = ServerName::try_from("swarm-manager").map_err(io::Error::other)?;
    Ok(Box::new(connector.connect(name, stream).await?))
}

fn unverified() -> anyhow::Result<ClientConfig> {
    let provider = Arc::new(ring::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
        .with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}

/// Takes every certificate.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
