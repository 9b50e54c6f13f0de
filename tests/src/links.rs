//! A network whose links can be cut: what is sent over a cut link waits, as behind a firewall that
//! drops packets, and goes on when it is healed.

use std::{
    collections::{HashMap, HashSet},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use skep_security::{BoxedIo, Dial, TcpDial};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// All links between the nodes of a cluster, by the nodes' names.
#[derive(Clone, Debug, Default)]
pub struct Links {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Who listens where.
    owners: HashMap<String, String>,
    cut: HashSet<(String, String)>,
    waiting: Vec<Waker>,
}

impl Links {
    /// Says that node `name` listens on `addr`.
    pub fn listens(&self, name: &str, addr: &str) {
        self.state
            .lock()
            .owners
            .insert(addr.to_owned(), name.to_owned());
    }

    /// Cuts the link between two nodes, both ways.
    pub fn cut(&self, a: &str, b: &str) {
        self.state.lock().cut.insert(pair(a, b));
    }

    /// Heals all links.
    pub fn heal(&self) {
        let mut state = self.state.lock();
        state.cut.clear();
        state.waiting.drain(..).for_each(Waker::wake);
    }

    /// How node `name` dials.
    pub fn dialer(&self, name: &str) -> Arc<dyn Dial> {
        Arc::new(Dialer {
            from: name.to_owned(),
            links: self.clone(),
        })
    }

    /// Ready while the link is whole.
    fn poll_whole(&self, link: &(String, String), cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock();
        if state.cut.contains(link) {
            state.waiting.push(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(())
    }
}

fn pair(a: &str, b: &str) -> (String, String) {
    let (first, second) = if a < b { (a, b) } else { (b, a) };
    (first.to_owned(), second.to_owned())
}

struct Dialer {
    from: String,
    links: Links,
}

impl Dial for Dialer {
    fn dial(&self, addr: String) -> BoxFuture<'static, io::Result<BoxedIo>> {
        let (from, links) = (self.from.clone(), self.links.clone());
        Box::pin(async move {
            let to = links.state.lock().owners.get(&addr).cloned();
            // Who is not of the cluster is reached over no link of it.
            let link = pair(&from, to.as_deref().unwrap_or(&from));
            std::future::poll_fn(|cx| links.poll_whole(&link, cx)).await;
            let inner = TcpDial.dial(addr).await?;
            Ok(Box::new(Linked { inner, link, links }) as BoxedIo)
        })
    }
}

/// A connection over a link.
struct Linked {
    inner: BoxedIo,
    link: (String, String),
    links: Links,
}

macro_rules! over_link {
    ($self:ident, $cx:ident, $call:ident $(, $arg:ident)*) => {{
        let this = $self.get_mut();
        std::task::ready!(this.links.poll_whole(&this.link, $cx));
        Pin::new(&mut this.inner).$call($cx $(, $arg)*)
    }};
}

impl AsyncRead for Linked {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        over_link!(self, cx, poll_read, buf)
    }
}

impl AsyncWrite for Linked {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        over_link!(self, cx, poll_write, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        over_link!(self, cx, poll_flush)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        over_link!(self, cx, poll_shutdown)
    }
}
