//! One HTTPS request: dial, handshake, POST, and an answer of limited size.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Uri, header};
use rustls::{ClientConfig, pki_types::ServerName};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{BoxedIo, Dial, post};

/// Where HTTPS URLs lead unless they name a port.
const HTTPS_PORT: u16 = 443;

/// The server that a URL names.
pub(super) struct Endpoint {
    uri: Uri,
    name: ServerName<'static>,
    addr: String,
}

impl Endpoint {
    pub(super) fn parse(url: &str) -> Result<Self, String> {
        let uri: Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
        if uri.scheme_str() != Some("https") {
            return Err("not an https:// URL".to_owned());
        }
        let host = uri.host().unwrap_or_default();
        // Brackets are how URLs write IPv6 addresses; a certificate does not have them.
        let name = ServerName::try_from(host.trim_matches(['[', ']']).to_owned())
            .map_err(|error| format!("{host:?} is no host: {error}"))?;
        let addr = format!("{host}:{}", uri.port_u16().unwrap_or(HTTPS_PORT));
        Ok(Self { uri, name, addr })
    }

    /// Callers bound its time, as that of [`Self::post`].
    pub(super) async fn connect(
        &self,
        dialer: &dyn Dial,
        config: Arc<ClientConfig>,
    ) -> Result<TlsStream<BoxedIo>, String> {
        let io = dialer
            .dial(self.addr.clone())
            .await
            .map_err(|error| error.to_string())?;
        TlsConnector::from(config)
            .connect(self.name.clone(), io)
            .await
            .map_err(|error| error.to_string())
    }

    /// The body of the answer.
    pub(super) async fn post(
        &self,
        stream: TlsStream<BoxedIo>,
        body: Bytes,
        limit: usize,
    ) -> Result<Bytes, String> {
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self
            .uri
            .authority()
            .map_or("", |authority| authority.as_str());
        let request = Request::post(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(body)
            .map_err(|error| error.to_string())?;
        post(stream, request, limit).await
    }
}
