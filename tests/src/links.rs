//! A network whose links can be cut and slowed down: what is sent over a cut link waits, as behind a
//! firewall that drops packets, and goes on when it is healed.

use std::{
    collections::{HashMap, HashSet},
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use skep_security::{BoxedIo, Dial, TcpDial};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep_until},
};

/// Bytes that pass a slow link at once.
const PIECE: usize = 8 * 1024;

/// How late a timer may be.
const LATE: Duration = Duration::from_millis(50);

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
    slow: HashMap<(String, String), Slow>,
    /// How often the first of a pair has dialled the second.
    dialled: HashMap<(String, String), u64>,
}

/// A link that carries so much and no more, in each direction.
#[derive(Clone, Debug)]
struct Slow {
    bytes_per_second: u32,
    /// When the next bytes may pass from the first to the second by name, and back.
    free: [Instant; 2],
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

    /// Makes the link between two nodes carry no more than so many bytes a second each way.
    pub fn slow(&self, a: &str, b: &str, bytes_per_second: u32) {
        let slow = Slow {
            bytes_per_second,
            free: [Instant::now(); 2],
        };
        self.state.lock().slow.insert(pair(a, b), slow);
    }

    /// How often one node has dialled another.
    pub fn dialled(&self, from: &str, to: &str) -> u64 {
        let dialled = (from.to_owned(), to.to_owned());
        let state = self.state.lock();
        state.dialled.get(&dialled).copied().unwrap_or(0)
    }

    /// When bytes may pass in a direction; `None` on a link that is not slow.
    fn free(&self, link: &(String, String), back: bool) -> Option<Instant> {
        let state = self.state.lock();
        state
            .slow
            .get(link)
            .map(|slow| slow.free[usize::from(back)])
    }

    /// Bytes have passed.
    fn passed(&self, link: &(String, String), back: bool, bytes: usize) {
        if let Some(slow) = self.state.lock().slow.get_mut(link) {
            let time = Duration::from_secs_f64(bytes as f64 / f64::from(slow.bytes_per_second));
            let free = &mut slow.free[usize::from(back)];
            // A timer that fires late does not make the link slower.
            let earliest = Instant::now() - LATE;
            *free = earliest.max(*free) + time;
        }
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
            let to = to.unwrap_or_else(|| from.clone());
            let link = pair(&from, &to);
            let out = from > to;
            *(links.state.lock().dialled.entry((from, to))).or_default() += 1;
            std::future::poll_fn(|cx| links.poll_whole(&link, cx)).await;
            let inner = TcpDial.dial(addr).await?;
            Ok(Box::new(Linked {
                inner,
                link,
                links,
                out,
                pauses: [Pause::default(), Pause::default()],
            }) as BoxedIo)
        })
    }
}

/// A connection over a link.
struct Linked {
    inner: BoxedIo,
    link: (String, String),
    links: Links,
    /// Whether what is written goes from the second to the first by name.
    out: bool,
    /// Of writing and of reading.
    pauses: [Pause; 2],
}

/// Waits for a slow link.
#[derive(Default)]
struct Pause(Option<Pin<Box<Sleep>>>);

impl Pause {
    /// Ready when the time has come.
    fn poll(&mut self, until: Instant, cx: &mut Context<'_>) -> Poll<()> {
        if until <= Instant::now() {
            self.0 = None;
            return Poll::Ready(());
        }
        let sleep = self.0.get_or_insert_with(|| Box::pin(sleep_until(until)));
        if sleep.deadline() != until {
            sleep.as_mut().reset(until);
        }
        sleep.as_mut().poll(cx)
    }
}

impl Linked {
    /// Ready while the link is whole.
    fn poll_whole(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.links.poll_whole(&self.link, cx)
    }

    /// How many bytes may pass, when any may; `None` for as many as there are.
    fn poll_free(&mut self, back: bool, cx: &mut Context<'_>) -> Poll<Option<usize>> {
        let Some(free) = self.links.free(&self.link, self.out != back) else {
            return Poll::Ready(None);
        };
        ready!(self.pauses[usize::from(back)].poll(free, cx));
        Poll::Ready(Some(PIECE))
    }
}

impl AsyncRead for Linked {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_whole(cx));
        let Some(limit) = ready!(this.poll_free(true, cx)) else {
            return Pin::new(&mut this.inner).poll_read(cx, buf);
        };
        let mut piece = vec![0; limit.min(buf.remaining())];
        let mut part = ReadBuf::new(&mut piece);
        ready!(Pin::new(&mut this.inner).poll_read(cx, &mut part))?;
        this.links
            .passed(&this.link, !this.out, part.filled().len());
        buf.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Linked {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_whole(cx));
        let limit = ready!(this.poll_free(false, cx));
        let part = &buf[..limit.unwrap_or(buf.len()).min(buf.len())];
        let written = ready!(Pin::new(&mut this.inner).poll_write(cx, part))?;
        this.links.passed(&this.link, this.out, written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_whole(cx));
        Pin::new(&mut this.inner).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_whole(cx));
        Pin::new(&mut this.inner).poll_shutdown(cx)
    }
}
