//! Serving one door: HTTP/2 connections, each in a task of its own.
//!
//! Not by tonic's server, which cannot leave out the header `date`. Each second has another one, and
//! HTTP/2 keeps what it has sent in a table: ten thousand sessions would take 80 MB more for it after a
//! few minutes. Nobody who speaks gRPC looks at it.

use std::{convert::Infallible, pin::pin, time::Duration};

use futures_util::{Stream, StreamExt as _};
use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::{JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tonic::{body::Body, transport::server::Connected};
use tower::{Service, ServiceExt as _};
use tracing::{debug, error};

use crate::logbroker::MAX_SUBSCRIPTIONS;

/// What a caller may have on the way to us on one connection, in bytes. A call that is not read holds
/// its stream's megabyte of it (HTTP/2 counts per stream and per connection), and a node's heartbeats
/// share the connection with its logs, which nobody may be reading at all. Those are at most
/// [`MAX_SUBSCRIPTIONS`].
const CONNECTION_WINDOW: u32 = 2 * (MAX_SUBSCRIPTIONS as u32) * STREAM_WINDOW;
const STREAM_WINDOW: u32 = 1024 * 1024;

/// A caller that says nothing for so long is asked whether it is there, and then has as long to answer.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Serves these connections until `cancel`, and then until the calls have ended that are under way.
/// Dropping it ends all connections. A caller's `grpc-timeout` is not kept: when it is over the caller
/// resets its stream, which ends the call.
pub(crate) async fn serve<I, IO, S>(incoming: I, service: S, cancel: CancellationToken)
where
    I: Stream<Item = std::io::Result<IO>> + Send,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    let mut http = http2::Builder::new(TokioExecutor::new());
    http.timer(TokioTimer::new())
        .auto_date_header(false)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        // A proxy may bring the calls of many clients on one connection.
        .max_concurrent_streams(None)
        .keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE);
    let mut connections = JoinSet::new();
    {
        // Dropped before the calls have ended, so that nobody connects any more.
        let mut incoming = pin!(incoming);
        loop {
            tokio::select! {
                () = cancel.cancelled() => break,
                Some(ended) = connections.join_next() => note(ended),
                accepted = incoming.next() => match accepted {
                    Some(Ok(io)) => {
                        let connection = connection(&http, io, service.clone(), cancel.clone());
                        connections.spawn(connection);
                    }
                    Some(Err(error)) => debug!(%error, "no connection"),
                    None => break,
                },
            }
        }
    }
    while let Some(ended) = connections.join_next().await {
        note(ended);
    }
}

fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        error!(%error, "a connection's task broke off");
    }
}

/// Serves one connection to its end.
fn connection<IO, S>(
    http: &http2::Builder<TokioExecutor>,
    io: IO,
    service: S,
    cancel: CancellationToken,
) -> impl Future<Output = ()> + Send + 'static
where
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>,
    S: Clone + Send + 'static,
    S::Future: Send,
{
    let caller = io.connect_info();
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(caller.clone());
        service.clone().oneshot(request)
    });
    let connection = http.serve_connection(TokioIo::new(io), service);
    async move {
        let mut connection = pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = cancel.cancelled() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            debug!(
                error = &error as &dyn std::error::Error,
                "a connection ended"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use hyper::client::conn::http2 as client;
    use tokio::{
        net::UnixStream,
        sync::{Notify, mpsc},
        task::JoinHandle,
    };

    use super::*;

    /// Serves one connection, each call of which says that it has begun and waits to be let go on. The
    /// sender hears when no more connections are taken.
    async fn serving(
        calls: &'static Calls,
        cancel: &CancellationToken,
    ) -> (
        client::SendRequest<Body>,
        JoinHandle<()>,
        mpsc::Sender<UnixStream>,
    ) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (door, accepted) = mpsc::channel(1);
        door.send(ours).await.unwrap();
        let incoming = stream::unfold(accepted, async |mut accepted| {
            Some((Ok(accepted.recv().await?), accepted))
        });
        let service = tower::service_fn(async |_: Request<Body>| {
            calls.begun.notify_one();
            calls.go_on.notified().await;
            Ok(Response::new(Body::empty()))
        });
        let served = tokio::spawn(serve(incoming, service, cancel.clone()));
        let io = TokioIo::new(theirs);
        let (caller, connection) = client::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        (caller, served, door)
    }

    struct Calls {
        begun: Notify,
        go_on: Notify,
    }

    impl Calls {
        const fn new() -> Self {
            Self {
                begun: Notify::const_new(),
                go_on: Notify::const_new(),
            }
        }
    }

    #[tokio::test]
    async fn answers_have_no_date() {
        static CALLS: Calls = Calls::new();
        CALLS.go_on.notify_one();
        let (mut caller, _served, _door) = serving(&CALLS, &CancellationToken::new()).await;
        let answer = caller.send_request(Request::new(Body::empty())).await;
        let answer = answer.unwrap();
        assert!(answer.headers().is_empty(), "{:?}", answer.headers());
    }

    #[tokio::test]
    async fn the_door_closes_at_once_and_a_call_that_is_under_way_ends() {
        static CALLS: Calls = Calls::new();
        let cancel = CancellationToken::new();
        let (mut caller, served, door) = serving(&CALLS, &cancel).await;
        let call = tokio::spawn(caller.send_request(Request::new(Body::empty())));
        CALLS.begun.notified().await;
        cancel.cancel();
        door.closed().await;
        assert!(!served.is_finished(), "a call is under way");
        CALLS.go_on.notify_one();
        call.await.unwrap().unwrap();
        served.await.unwrap();
    }
}
