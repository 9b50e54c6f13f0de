//! Single connections to the manager that is joined, and what its refusals mean.

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
};

use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::time::timeout;
use tonic::{Code, Response, Status, transport::Channel};

use super::CALL_TIMEOUT;
use crate::{
    Dial, Error, ServerName,
    tls::{CONNECT_TIMEOUT, connect, endpoint},
};

/// The manager that is joined.
pub(super) struct Manager {
    pub dialer: Arc<dyn Dial>,
    pub addr: String,
}

impl Manager {
    /// Opens one connection. It does not come back by itself when it breaks: a lazy channel would
    /// hide why it could not connect.
    pub(super) async fn open(
        &self,
        config: Arc<ClientConfig>,
        name: ServerName,
    ) -> Result<Channel, Error> {
        let stream = connect(&*self.dialer, config, &self.addr, name, CONNECT_TIMEOUT).await?;
        let once = Mutex::new(Some(stream));
        let connector = tower::service_fn(move |_: http::Uri| {
            let stream = once.lock().unwrap_or_else(PoisonError::into_inner).take();
            async move { stream.map(TokioIo::new).ok_or("the connection is gone") }
        });
        endpoint(name)
            .connect_with_connector(connector)
            .await
            .map_err(|error| {
                let source = std::io::Error::other(error);
                Error::Unreachable {
                    addr: self.addr.clone(),
                    source,
                }
            })
    }

    /// Awaits a call, within [`CALL_TIMEOUT`].
    pub(super) async fn call<T>(
        &self,
        what: &'static str,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        timeout(CALL_TIMEOUT, call)
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer within 5 s")))
            .map(Response::into_inner)
            .map_err(|status| self.failed(what, &status))
    }

    fn failed(&self, call: &'static str, status: &Status) -> Error {
        let (addr, code) = (self.addr.clone(), status.code());
        // What an HTTP/2 server says that knows nothing of gRPC, or not of this service.
        let foreign = code == Code::Unimplemented
            || status.message().contains("mapped from HTTP status code");
        if foreign {
            return Error::NotAManager {
                addr,
                reason: "it does not issue certificates".to_owned(),
            };
        }
        Error::Rpc {
            addr,
            call,
            code,
            message: status.message().to_owned(),
        }
    }
}
