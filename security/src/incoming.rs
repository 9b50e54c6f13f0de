//! Accepted connections, ready to be served.
//!
//! A handshake never holds up accepting: handshakes run beside each other in tasks that end with
//! the stream.

mod control;
mod peer;

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    net::{TcpListener, TcpStream, UnixListener},
    task::JoinSet,
    time::{Sleep, sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::{
    Stream,
    wrappers::{TcpListenerStream, UnixListenerStream},
};

pub use control::ControlStream;
pub use peer::{Peer, PeerStream};

use crate::Tls;

/// How many handshakes may be under way on one listener; more connections wait in the kernel's
/// backlog. At about 40 KiB each they take 20 MiB at most, and a whole cluster that reconnects at
/// once gets through in a few rounds of milliseconds. Strangers who say nothing can hold these places
/// for five seconds at most.
pub const MAX_HANDSHAKES: usize = 512;

/// A handshake that takes longer is given up.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// Pause after accepting failed, usually for want of file descriptors: trying at once would spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// TLS connections to `listener`, each with the credentials `tls` has when it arrives. Requests
/// over them carry an `Arc<Peer>` in their extensions, which [`crate::authorize`] looks at. Failed handshakes are
/// logged and dropped; dropping the stream closes the listener and ends all handshakes.
pub fn tls_incoming(
    listener: TcpListener,
    tls: Tls,
) -> impl Stream<Item = io::Result<PeerStream>> + Send + Unpin + 'static {
    Incoming::new(
        TcpListenerStream::new(listener),
        move |stream: TcpStream| {
            let acceptor = TlsAcceptor::from(tls.server_config());
            Box::pin(async move {
                stream.set_nodelay(true)?;
                Ok(PeerStream::new(acceptor.accept(stream).await?))
            })
        },
    )
}

/// Connections to the control socket, in plaintext or under TLS as the first byte tells. Requests
/// over them carry `UdsConnectInfo` in their extensions. Otherwise as [`tls_incoming`].
pub fn control_incoming(
    listener: UnixListener,
    tls: Tls,
) -> impl Stream<Item = io::Result<ControlStream>> + Send + Unpin + 'static {
    Incoming::new(UnixListenerStream::new(listener), move |stream| {
        let config = tls.server_config();
        Box::pin(ControlStream::accept(stream, config))
    })
}

/// Connections from `listener` after what `start` does with them.
struct Incoming<L, F, T> {
    listener: L,
    start: F,
    handshakes: JoinSet<Option<T>>,
    pause: Option<Pin<Box<Sleep>>>,
}

impl<L, F, T> Incoming<L, F, T> {
    fn new<Io>(listener: L, start: F) -> Self
    where
        L: Stream<Item = io::Result<Io>>,
        F: Fn(Io) -> BoxFuture<'static, io::Result<T>>,
    {
        Self {
            listener,
            start,
            handshakes: JoinSet::new(),
            pause: None,
        }
    }

    /// The next raw connection, sitting out a pause first.
    fn poll_accept<Io>(&mut self, cx: &mut Context<'_>) -> Poll<Option<io::Result<Io>>>
    where
        L: Stream<Item = io::Result<Io>> + Unpin,
    {
        if let Some(pause) = &mut self.pause {
            ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        Pin::new(&mut self.listener).poll_next(cx)
    }
}

impl<L, F, T, Io> Stream for Incoming<L, F, T>
where
    L: Stream<Item = io::Result<Io>> + Unpin,
    F: Fn(Io) -> BoxFuture<'static, io::Result<T>> + Unpin,
    T: Send + 'static,
{
    type Item = io::Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            match this.handshakes.poll_join_next(cx) {
                Poll::Ready(Some(Ok(Some(stream)))) => return Poll::Ready(Some(Ok(stream))),
                Poll::Ready(Some(Ok(None))) => continue,
                Poll::Ready(Some(Err(error))) => {
                    tracing::error!(%error, "a handshake task broke off");
                    continue;
                }
                Poll::Ready(None) | Poll::Pending => {}
            }
            if this.handshakes.len() >= MAX_HANDSHAKES {
                return Poll::Pending;
            }
            match ready!(this.poll_accept(cx)) {
                Some(Ok(io)) => {
                    let handshake = timeout(HANDSHAKE_TIMEOUT, (this.start)(io));
                    this.handshakes.spawn(async move {
                        let result = handshake
                            .await
                            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
                        result
                            .inspect_err(|error| tracing::debug!(%error, "handshake failed"))
                            .ok()
                    });
                }
                Some(Err(error)) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    this.pause = Some(Box::pin(sleep(ACCEPT_PAUSE)));
                }
                None => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests;
