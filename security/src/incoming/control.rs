//! A connection to the control socket: the first byte tells whether it is TLS.

use std::{
    fmt, io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use rustls::ServerConfig;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf},
    net::UnixStream,
};
use tokio_rustls::TlsAcceptor;
use tonic::transport::server::{Connected, UdsConnectInfo};

use crate::BoxedIo;

/// The first byte of a TLS connection: a record of type "handshake". HTTP/2 begins with `P`.
const TLS_HANDSHAKE: u8 = 0x16;

/// A plaintext or TLS connection to the control socket.
pub struct ControlStream {
    io: BoxedIo,
    peer: UdsConnectInfo,
}

impl ControlStream {
    /// Waits for the first byte and, if it says so, does the TLS handshake.
    pub(super) async fn accept(
        mut stream: UnixStream,
        config: Arc<ServerConfig>,
    ) -> io::Result<Self> {
        let peer = stream.connect_info();
        let first = stream.read_u8().await?;
        let stream = Unread {
            first: Some(first),
            stream,
        };
        let io: BoxedIo = if first == TLS_HANDSHAKE {
            Box::new(TlsAcceptor::from(config).accept(stream).await?)
        } else {
            Box::new(stream)
        };
        Ok(Self { io, peer })
    }
}

impl Connected for ControlStream {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> UdsConnectInfo {
        self.peer.clone()
    }
}

impl fmt::Debug for ControlStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ControlStream")
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

impl AsyncRead for ControlStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buf)
    }
}

/// A stream whose first byte was read ahead.
#[derive(Debug)]
struct Unread {
    first: Option<u8>,
    stream: UnixStream,
}

impl AsyncRead for Unread {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() > 0
            && let Some(first) = self.first.take()
        {
            buf.put_slice(&[first]);
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

/// Writes go straight to the inner stream.
macro_rules! write_through {
    ($type:ident, $inner:ident) => {
        impl AsyncWrite for $type {
            fn poll_write(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &[u8],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.$inner).poll_write(cx, buf)
            }

            fn poll_write_vectored(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                bufs: &[io::IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                Pin::new(&mut self.$inner).poll_write_vectored(cx, bufs)
            }

            fn is_write_vectored(&self) -> bool {
                self.$inner.is_write_vectored()
            }

            fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$inner).poll_flush(cx)
            }

            fn poll_shutdown(
                mut self: Pin<&mut Self>,
                cx: &mut Context<'_>,
            ) -> Poll<io::Result<()>> {
                Pin::new(&mut self.$inner).poll_shutdown(cx)
            }
        }
    };
}

pub(super) use write_through;

write_through!(Unread, stream);
write_through!(ControlStream, io);
