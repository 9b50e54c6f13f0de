//! Reads of the control API see everything that was acknowledged before them: a layer in front of all
//! services that makes them wait until this manager has proved that it leads and is level.
//!
//! It comes after the proxy: a manager that follows has passed the call on, and one that is believed
//! to lead but was deposed cannot prove it.

use std::task::{Context, Poll};

use futures_util::future::{BoxFuture, Either};
use http::{Request, Response};
use skep_raft::Reader;
use tonic::{Status, body::Body};
use tower::{Layer, Service};

/// Whether the answer to the RPC of this path is read from the store and must be current. Health says
/// how this manager is, and a watch tells the versions that it has come to.
fn must_be_current(path: &str) -> bool {
    let rpc = path.strip_prefix("/docker.swarmkit.v1.");
    match rpc.and_then(|rpc| rpc.split_once('/')) {
        Some(("Control", method)) => method.starts_with("Get") || method.starts_with("List"),
        Some(("CA", method)) => method == "GetUnlockKey",
        _ => false,
    }
}

/// Makes reads wait.
#[derive(Clone, Debug)]
pub struct ReadBarrier {
    reader: Reader,
}

impl ReadBarrier {
    /// A barrier for the store that `reader` belongs to.
    pub fn new(reader: Reader) -> Self {
        Self { reader }
    }
}

impl<S> Layer<S> for ReadBarrier {
    type Service = Current<S>;
    fn layer(&self, inner: S) -> Current<S> {
        Current {
            barrier: self.clone(),
            inner,
        }
    }
}

/// The services behind a [`ReadBarrier`].
#[derive(Clone, Debug)]
pub struct Current<S> {
    barrier: ReadBarrier,
    inner: S,
}

impl<S> Service<Request<Body>> for Current<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if !must_be_current(request.uri().path()) {
            return Either::Left(self.inner.call(request));
        }
        // The clone takes its turn; the one that was polled ready stays with us.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let reader = self.barrier.reader.clone();
        Either::Right(Box::pin(async move {
            match reader.barrier().await {
                Ok(_) => inner.call(request).await,
                Err(error) => Ok(Status::unknown(error.to_string()).into_http()),
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_reads_of_the_control_api_and_nothing_else_must_be_current() {
        let services = include_str!("../../../proto/tests/wire/services.tsv");
        let rpcs = services.lines().skip(1).map(|line| {
            let mut columns = line.split('\t');
            (columns.next().unwrap(), columns.next().unwrap())
        });
        let mut current = Vec::new();
        for (service, method) in rpcs {
            if must_be_current(&format!("/{service}/{method}")) {
                current.push(format!("{service}/{method}"));
            }
        }
        let starts = |prefix| current.iter().filter(|rpc| rpc.starts_with(prefix)).count();
        assert_eq!(starts("docker.swarmkit.v1.Control/Get"), 10);
        assert_eq!(starts("docker.swarmkit.v1.Control/List"), 10);
        assert_eq!(starts("docker.swarmkit.v1.CA/"), 1);
        assert_eq!(current.len(), 21, "{current:?}");
        assert!(!must_be_current("/other.Control/GetNode"));
    }
}
