//! A connection under TLS that knows who is at its other end: read from the certificate once, and not for
//! every call.

use std::{
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};
use tokio_rustls::server::TlsStream;
use tonic::transport::server::Connected;

use super::control::write_through;
use crate::identity::Subject;

/// The other end of a connection, as the handshake has verified it.
#[derive(Debug)]
pub struct Peer {
    /// Of its certificate; empty if that cannot be read, `None` if it has shown none.
    pub(crate) subject: Option<Subject>,
    /// `host:port`, empty if unknown.
    pub(crate) addr: String,
}

/// An accepted connection under TLS.
#[derive(Debug)]
pub struct PeerStream {
    stream: TlsStream<TcpStream>,
    peer: Arc<Peer>,
}

impl PeerStream {
    pub(super) fn new(stream: TlsStream<TcpStream>) -> Self {
        let (tcp, session) = stream.get_ref();
        let cert = session.peer_certificates().and_then(|certs| certs.first());
        let addr = tcp.peer_addr();
        let peer = Peer {
            subject: cert.map(|cert| Subject::from_der(cert).unwrap_or_default()),
            addr: addr.map(|addr| addr.to_string()).unwrap_or_default(),
        };
        Self {
            stream,
            peer: Arc::new(peer),
        }
    }
}

impl Connected for PeerStream {
    type ConnectInfo = Arc<Peer>;

    fn connect_info(&self) -> Arc<Peer> {
        Arc::clone(&self.peer)
    }
}

impl AsyncRead for PeerStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

write_through!(PeerStream, stream);
