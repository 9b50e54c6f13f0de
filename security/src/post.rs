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

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

    use super::*;

    /// What becomes of a request that is answered with these bytes, when at most ten are wanted.
    async fn answered(bytes: &str) -> Result<Bytes, String> {
        let (ours, mut theirs) = duplex(4096);
        let request = Request::post("/").body(Bytes::from_static(b"question"));
        let answer = async {
            let mut question = Vec::new();
            while !question.ends_with(b"question") {
                theirs.read_buf(&mut question).await.unwrap();
            }
            theirs.write_all(bytes.as_bytes()).await.unwrap();
            drop(theirs);
        };
        tokio::join!(post(ours, request.unwrap(), 10), answer).0
    }

    #[tokio::test]
    async fn only_a_success_that_is_not_too_large_is_an_answer() {
        let ok = "HTTP/1.1 200 OK\r\n";
        let whole = format!("{ok}content-length: 10\r\n\r\n0123456789");
        assert_eq!(answered(&whole).await.unwrap(), "0123456789");
        for (bytes, error) in [
            (
                format!("{ok}content-length: 11\r\n\r\n0123456789a"),
                "length limit",
            ),
            (format!("{ok}\r\n0123456789a"), "length limit"),
            (
                format!("{ok}content-length: 10\r\n\r\n0123"),
                "its answer cannot be read",
            ),
            (
                "HTTP/1.1 404 Not Found\r\n\r\n".to_owned(),
                "it answers 404 Not Found",
            ),
            (String::new(), "connection closed"),
            ("SSH-2.0-OpenSSH_9.2\r\n".to_owned(), "invalid HTTP version"),
        ] {
            let answer = answered(&bytes).await;
            let refused = answer.as_ref().is_err_and(|text| text.contains(error));
            assert!(refused, "{bytes:?}: {answer:?}");
        }
    }
}
