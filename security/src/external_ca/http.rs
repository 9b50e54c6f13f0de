//! One HTTPS request: dial, handshake, POST, and an answer of limited size.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, pki_types::ServerName};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::{BoxedIo, Dial};

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

    /// The body of the answer, which must be a plain success.
    pub(super) async fn post(
        &self,
        stream: TlsStream<BoxedIo>,
        body: Bytes,
        limit: usize,
    ) -> Result<Bytes, String> {
        let failed = |error: hyper::Error| error.to_string();
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(failed)?;
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let host = self
            .uri
            .authority()
            .map_or("", |authority| authority.as_str());
        let request = Request::post(path)
            .header(header::HOST, host)
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(failed)?;
            if response.status() != StatusCode::OK {
                return Err(format!("it answers {}", response.status()));
            }
            let body = Limited::new(response.into_body(), limit).collect().await;
            body.map(|body| body.to_bytes())
                .map_err(|error| format!("its answer cannot be read: {error}"))
        };
        // The end of the connection shows in the exchange, after what came before it was read.
        let driven = async {
            let _ = connection.await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            answer = exchange => answer,
            () = driven => Err("the connection ended".to_owned()),
        }
    }
}
