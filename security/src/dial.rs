//! How a TCP connection is opened. A seam: tests put a faulty network here.

use std::io;

use futures_util::future::BoxFuture;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};

/// A duplex byte stream.
pub trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A duplex byte stream of any kind.
pub type BoxedIo = Box<dyn Io>;

/// How a connection to `host:port` is opened.
pub trait Dial: Send + Sync + 'static {
    /// Opens a connection. Callers bound its time.
    fn dial(&self, addr: String) -> BoxFuture<'static, io::Result<BoxedIo>>;
}

/// Plain TCP, without Nagle's delay.
#[derive(Debug, Clone, Copy, Default)]
pub struct TcpDial;

impl Dial for TcpDial {
    fn dial(&self, addr: String) -> BoxFuture<'static, io::Result<BoxedIo>> {
        Box::pin(async move {
            let stream = TcpStream::connect(addr).await?;
            stream.set_nodelay(true)?;
            Ok(Box::new(stream) as BoxedIo)
        })
    }
}
