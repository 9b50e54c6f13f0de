//! A secret driver for tests: Docker's plugin protocol on a Unix socket.

use std::{fs, path::Path, sync::Arc};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::UnixListener, task::AbortHandle};

/// A running driver. It ends when this is dropped; its socket stays, as that of a crashed one.
#[derive(Debug)]
pub struct SecretPlugin {
    serving: AbortHandle,
}

impl SecretPlugin {
    /// A driver on this socket, whatever was there, that answers each question with `answer`.
    pub fn start(socket: &Path, answer: impl Fn(Value) -> Value + Send + Sync + 'static) -> Self {
        fs::create_dir_all(socket.parent().unwrap()).unwrap();
        let _ = fs::remove_file(socket);
        let listener = UnixListener::bind(socket).unwrap();
        let serving = tokio::spawn(serve(listener, Arc::new(answer)));
        Self {
            serving: serving.abort_handle(),
        }
    }
}

impl Drop for SecretPlugin {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn serve(listener: UnixListener, answer: Arc<dyn Fn(Value) -> Value + Send + Sync>) {
    loop {
        let (io, _) = listener.accept().await.unwrap();
        let answer = Arc::clone(&answer);
        let service = service_fn(move |request: Request<Incoming>| {
            let answer = Arc::clone(&answer);
            async move {
                let path = request.uri().path().to_owned();
                let body = request.into_body().collect().await?.to_bytes();
                let answer = match &*path {
                    "/Plugin.Activate" => json!({ "Implements": ["secretprovider"] }),
                    "/SecretProvider.GetSecret" => answer(serde_json::from_slice(&body).unwrap()),
                    other => panic!("{other} is not asked of secret drivers"),
                };
                let body = Full::new(Bytes::from(answer.to_string()));
                Ok::<_, hyper::Error>(Response::new(body))
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(io), service));
    }
}
