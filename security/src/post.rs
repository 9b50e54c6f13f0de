//! One HTTP request over a connection of its own, to something beside the swarm: an external CA, a
//! plugin.

use std::convert::Infallible;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};

/// Sends the request over `io` and returns the body of the answer, which must be a plain success of at
/// most `limit` bytes. Callers bound its time.
///
/// # Errors
/// Why there is no such answer, in words.
pub async fn post<IO>(io: IO, request: Request<Bytes>, limit: usize) -> Result<Bytes, String>
where
    IO: AsyncRead + AsyncWrite + Unpin,
{
    let failed = |error: hyper::Error| match std::error::Error::source(&error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(failed)?;
    let exchange = async {
        let request = request.map(Full::new);
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
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        answer = exchange => answer,
        never = driven => match never {},
    }
}
