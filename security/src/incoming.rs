//! Incoming.
use std::io;

use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;

use crate::Tls;
/// x
pub const MAX_HANDSHAKES: usize = 512;
/// x
pub type ControlStream = tokio::net::UnixStream;
/// x
#[allow(unused)]
pub fn tls_incoming(listener: TcpListener, tls: Tls) -> impl Stream<Item = io::Result<TlsStream<TcpStream>>> + Send + Unpin + 'static {
    tokio_stream::pending()
}
/// x
#[allow(unused)]
pub fn control_incoming(listener: UnixListener, tls: Tls) -> impl Stream<Item = io::Result<ControlStream>> + Send + Unpin + 'static {
    tokio_stream::pending()
}
