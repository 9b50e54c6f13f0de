//! The network between the managers: a proxy for each ordered pair of them.
//!
//! A manager dials every other one through a proxy of its own, so each direction between two of them
//! can be cut, slowed down or broken by itself. Cut means as behind a firewall that drops packets:
//! bytes wait, and arrive when the link is whole again.

use std::{collections::BTreeMap, io, net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, sleep_until},
};

use super::plan::Link;

/// Bytes that a connection takes at once; a delay counts for each piece.
const PIECE: usize = 16 * 1024;

/// How late a timer may be.
const LATE: Duration = Duration::from_millis(50);

/// How one direction between two managers is.
#[derive(Clone, Debug, Default)]
struct State {
    /// Faults that cut it at present.
    cuts: usize,
    /// Delays of the faults that slow it down at present, summed up.
    delay: Duration,
    /// Bytes that each connection carries in a second, if that is limited.
    limit: Option<u32>,
    /// How often its connections have been closed.
    breaks: u64,
}

/// All links. Dropping it closes them.
pub struct Network {
    links: BTreeMap<Link, watch::Sender<State>>,
    doors: BTreeMap<Link, SocketAddr>,
    _proxies: JoinSet<()>,
}

impl Network {
    /// Links between managers that listen on `addresses`.
    pub async fn open(addresses: &[SocketAddr]) -> io::Result<Self> {
        let mut links = BTreeMap::new();
        for from in 0..addresses.len() {
            for to in (0..addresses.len()).filter(|&to| to != from) {
                links.insert((from, to), watch::Sender::new(State::default()));
            }
        }
        let (mut doors, mut proxies) = (BTreeMap::new(), JoinSet::new());
        for &(from, to) in links.keys() {
            let listener = TcpListener::bind("127.0.0.1:0").await?;
            doors.insert((from, to), listener.local_addr()?);
            let there = links[&(from, to)].subscribe();
            let back = links[&(to, from)].subscribe();
            proxies.spawn(proxy(listener, addresses[to], there, back));
        }
        Ok(Self {
            links,
            doors,
            _proxies: proxies,
        })
    }

    /// Where manager `from` has to dial to reach `to`.
    pub fn door(&self, link: Link) -> SocketAddr {
        self.doors[&link]
    }

    /// Cuts a link. Cuts are counted.
    pub fn cut(&self, link: Link) {
        self.links[&link].send_modify(|state| state.cuts += 1);
    }

    /// Takes back one cut.
    pub fn mend(&self, link: Link) {
        self.links[&link].send_modify(|state| state.cuts -= 1);
    }

    /// Slows a link down.
    pub fn slow(&self, link: Link, delay: Duration) {
        self.links[&link].send_modify(|state| state.delay += delay);
    }

    /// Takes back one [`Self::slow`].
    pub fn hurry(&self, link: Link, delay: Duration) {
        self.links[&link].send_modify(|state| state.delay -= delay);
    }

    /// Lets each connection of a link carry no more than so many bytes a second.
    pub fn limit(&self, link: Link, bytes_per_second: u32) {
        self.links[&link].send_modify(|state| state.limit = Some(bytes_per_second));
    }

    /// Closes all connections of a link.
    pub fn break_off(&self, link: Link) {
        self.links[&link].send_modify(|state| state.breaks += 1);
    }
}

async fn proxy(
    listener: TcpListener,
    to: SocketAddr,
    there: watch::Receiver<State>,
    back: watch::Receiver<State>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                // Out of file descriptors at worst: who dialled sees it as a network that fails.
                if let Ok((stream, _)) = accepted {
                    connections.spawn(connection(stream, to, there.clone(), back.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection. Its end, whatever the reason, is what both sides see of an error.
async fn connection(
    near: TcpStream,
    to: SocketAddr,
    mut there: watch::Receiver<State>,
    mut back: watch::Receiver<State>,
) {
    let broken = broken(there.clone(), back.clone());
    let serve = async {
        // The first packets go both ways.
        whole(&mut there).await;
        whole(&mut back).await;
        let far = TcpStream::connect(to).await?;
        near.set_nodelay(true)?;
        far.set_nodelay(true)?;
        let (near_read, near_write) = near.into_split();
        let (far_read, far_write) = far.into_split();
        tokio::try_join!(
            carry(near_read, far_write, there),
            carry(far_read, near_write, back)
        )?;
        io::Result::Ok(())
    };
    tokio::select! {
        _ = serve => {}
        () = broken => {}
    }
}

/// Carries bytes one way until their end.
async fn carry(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut link: watch::Receiver<State>,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut free = Instant::now();
    loop {
        let length = from.read(&mut piece).await?;
        let (delay, limit) = (link.borrow().delay, link.borrow().limit);
        if !delay.is_zero() {
            sleep(delay).await;
        }
        if let Some(limit) = limit {
            sleep_until(free).await;
            let time = Duration::from_secs_f64(length as f64 / f64::from(limit));
            // A timer that fires late does not make the link slower.
            free = free.max(Instant::now() - LATE) + time;
        }
        whole(&mut link).await;
        if length == 0 {
            return to.shutdown().await;
        }
        to.write_all(&piece[..length]).await?;
    }
}

/// Waits until a link is not cut.
async fn whole(link: &mut watch::Receiver<State>) {
    // An error means that the network is closed, and this connection with it.
    let _ = link.wait_for(|state| state.cuts == 0).await;
}

/// Waits until connections of one of the links are to be closed.
async fn broken(mut there: watch::Receiver<State>, mut back: watch::Receiver<State>) {
    let (first, second) = (there.borrow().breaks, back.borrow().breaks);
    tokio::select! {
        _ = there.wait_for(|state| state.breaks != first) => {}
        _ = back.wait_for(|state| state.breaks != second) => {}
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(20);
    /// Long enough for bytes that are not held up.
    const MOMENT: Duration = Duration::from_millis(100);

    /// Two ends of a connection from manager 0 to manager 1.
    async fn ends() -> (Network, TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let here = "127.0.0.1:1".parse().unwrap();
        let addresses = [here, listener.local_addr().unwrap()];
        let network = Network::open(&addresses).await.unwrap();
        let near = TcpStream::connect(network.door((0, 1))).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        (network, near, far)
    }

    #[tokio::test]
    async fn each_direction_is_cut_and_mended_by_itself() {
        let (network, mut near, mut far) = ends().await;
        network.cut((0, 1));
        network.cut((0, 1));
        near.write_all(b"there").await.unwrap();
        far.write_all(b"back").await.unwrap();
        let mut bytes = [0; 4];
        timeout(SOON, near.read_exact(&mut bytes))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&bytes, b"back");
        let mut bytes = [0; 5];
        network.mend((0, 1));
        timeout(MOMENT, far.read_exact(&mut bytes))
            .await
            .unwrap_err();
        network.mend((0, 1));
        timeout(SOON, far.read_exact(&mut bytes))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&bytes, b"there");
    }

    #[tokio::test]
    async fn a_limited_link_carries_so_much_and_no_more() {
        const BYTES: usize = 500_000;
        let (network, mut near, mut far) = ends().await;
        network.limit((0, 1), BYTES as u32);
        let before = Instant::now();
        let sent = tokio::spawn(async move { near.write_all(&vec![0; BYTES]).await });
        let mut bytes = vec![0; BYTES];
        let read = timeout(SOON, far.read_exact(&mut bytes)).await;
        read.unwrap().unwrap();
        sent.await.unwrap().unwrap();
        assert!(before.elapsed() >= Duration::from_millis(900));
    }

    #[tokio::test]
    async fn a_slow_link_delays_and_a_broken_one_ends() {
        let (network, mut near, mut far) = ends().await;
        network.slow((0, 1), MOMENT);
        let before = Instant::now();
        near.write_all(b"there").await.unwrap();
        let mut bytes = [0; 5];
        timeout(SOON, far.read_exact(&mut bytes))
            .await
            .unwrap()
            .unwrap();
        assert!(before.elapsed() >= MOMENT);
        network.break_off((1, 0));
        let ended = timeout(SOON, near.read(&mut bytes)).await.unwrap();
        assert!(matches!(ended, Ok(0) | Err(_)));
    }
}
