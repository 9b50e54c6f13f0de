//! What a manager holds of its replication.

use std::{sync::Arc, thread, time::Duration};

use skep_proto::v1;
use skep_security::Tls;
use skep_store::Store;
use tokio::sync::{Mutex, mpsc, oneshot, watch};

use crate::{
    Error, Reader, Status, Ticks,
    codec::Incoming,
    log::LogStore,
    node::{
        Command, End, FollowOnDrop, Inputs, MAX_COMMANDS, MAX_INCOMING, MAX_READS, Node, Read,
        Reads,
    },
};

/// Ticks of this length make heartbeats every 100 ms and replace a dead leader within 1.5 s.
pub const DEFAULT_TICK: Duration = Duration::from_millis(100);

/// Who a member is and how it starts.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's ID.
    pub node_id: String,
    /// The cluster's ID. A log of another node or cluster is refused.
    pub cluster_id: String,
    /// `host:port` where the other members reach this one.
    pub addr: String,
    /// Length of a tick; the leader's heartbeats are one tick apart, elections ten or more.
    pub tick: Duration,
    /// How the leader answered [`crate::request_join`]. `None` begins a new group. Does not matter
    /// once there is a log.
    pub join: Option<v1::JoinResponse>,
}

/// Replication on this manager. Clones share it; when the last one is dropped it ends, without
/// handing over leadership.
#[derive(Clone, Debug)]
pub struct Raft {
    pub(crate) inner: Arc<Inner>,
}

pub(crate) struct Inner {
    pub(crate) commands: mpsc::Sender<Command>,
    incoming: mpsc::Sender<Incoming>,
    pub(crate) reads: mpsc::Sender<Read>,
    status: watch::Receiver<Status>,
    end: watch::Receiver<End>,
    /// One change of the members at a time.
    pub(crate) membership: Mutex<()>,
    pub(crate) tls: Tls,
    /// This node's ID, and where it is reached.
    pub(crate) node_id: String,
    pub(crate) addr: String,
    pub(crate) request_timeout: Duration,
}

impl Inner {
    /// The present status.
    pub(crate) fn status(&self) -> watch::Ref<'_, Status> {
        self.status.borrow()
    }
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let status = self.status.borrow();
        f.debug_struct("Raft")
            .field("raft_id", &status.raft_id)
            .field("leading", &status.leading)
            .finish_non_exhaustive()
    }
}

impl Raft {
    /// Starts replicating `store` with what `log` holds. Returns when the log is read.
    pub async fn start(
        config: Config,
        store: Store,
        tls: Tls,
        log: Box<dyn LogStore>,
    ) -> Result<Self, Error> {
        let (commands, command_queue) = mpsc::channel(MAX_COMMANDS);
        let (incoming, incoming_queue) = mpsc::channel(MAX_INCOMING);
        let (reads, read_queue) = mpsc::channel(MAX_READS);
        let (status_sender, status) = watch::channel(Status::default());
        let (end_sender, end) = watch::channel(None);
        let (started, starting) = oneshot::channel();
        let inputs = Inputs {
            commands: command_queue,
            incoming: incoming_queue,
            reads: Reads::new(read_queue),
            status: status_sender,
        };
        let dial = tls.clone();
        let (node_id, addr, tick) = (config.node_id.clone(), config.addr.clone(), config.tick);
        thread::Builder::new()
            .name("raft".into())
            .spawn(move || run(&config, store, tls, log, inputs, started, &end_sender))
            .map_err(|error| Error::Thread(error.to_string()))?;
        let ticks = starting
            .await
            .unwrap_or_else(|_| Err(Error::Thread("the raft thread has panicked".into())))?;
        Ok(Self {
            inner: Arc::new(Inner {
                commands,
                incoming,
                reads,
                status,
                end,
                membership: Mutex::new(()),
                tls: dial,
                node_id,
                addr,
                request_timeout: Duration::from_secs(5) + 2 * ticks.election * tick,
            }),
        })
    }

    /// How replication stands, and a way to wait for changes of that. The channel is closed when
    /// replication has ended; what it held last stays readable.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.inner.status.clone()
    }

    /// Waits for the end. `Ok` if it was asked for, otherwise the reason: the disk fails, this
    /// member was removed ([`Error::Removed`]), or the log lacks what it should have.
    pub async fn stopped(&self) -> Result<(), Arc<Error>> {
        let mut end = self.inner.end.clone();
        match end.wait_for(Option::is_some).await {
            Ok(end) => end.clone().unwrap_or(Ok(())),
            Err(_) => Err(Arc::new(Error::Thread(
                "the raft thread has panicked".into(),
            ))),
        }
    }

    /// Hands over leadership, if there is someone to hand it to, and ends. When this returns the
    /// log is closed.
    pub async fn stop(&self) {
        // If the queue is closed it has ended already.
        let _ = self.inner.commands.send(Command::Stop).await;
        let _ = self.stopped().await;
    }

    /// Lets the member lead that this one could reach for the longest time.
    pub async fn transfer_leadership(&self) -> Result<(), Error> {
        self.request(Command::Transfer).await
    }

    /// What reads through this member. It does not keep replication running.
    pub fn reader(&self) -> Reader {
        Reader::new(&self.inner)
    }

    /// Passes on a message of a peer.
    pub(crate) async fn deliver(&self, incoming: Incoming) -> Result<(), Error> {
        let sent = self.inner.incoming.send(incoming).await;
        sent.map_err(|_| Error::Stopped)
    }

    /// Sends a command and waits for its answer.
    pub(crate) async fn request(
        &self,
        command: impl FnOnce(oneshot::Sender<Result<(), Error>>) -> Command,
    ) -> Result<(), Error> {
        let (done, answer) = oneshot::channel();
        let sent = self.inner.commands.send(command(done)).await;
        sent.map_err(|_| Error::Stopped)?;
        match tokio::time::timeout(self.inner.request_timeout, answer).await {
            Ok(answer) => answer.unwrap_or(Err(Error::Stopped)),
            Err(_) => Err(Error::Timeout(self.inner.request_timeout)),
        }
    }
}

/// The thread: a runtime of its own, for the owner of the replica and the tasks of the peers.
fn run(
    config: &Config,
    store: Store,
    tls: Tls,
    log: Box<dyn LogStore>,
    inputs: Inputs,
    started: oneshot::Sender<Result<Ticks, Error>>,
    end: &watch::Sender<End>,
) {
    let _follow = FollowOnDrop(store.clone());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let _ = started.send(Err(Error::Thread(error.to_string())));
            return;
        }
    };
    runtime.block_on(async {
        let node = match Node::start(config, store, tls, log, inputs) {
            Ok(node) => node,
            Err(error) => {
                // Who asked may have gone away; it has not begun then.
                let _ = started.send(Err(error));
                return;
            }
        };
        if started.send(Ok(node.ticks_of_group())).is_err() {
            return;
        }
        let reason = Box::pin(node.run()).await.map_err(Arc::new);
        if let Err(error) = &reason {
            tracing::error!(%error, "replication has ended");
        }
        end.send_replace(Some(reason));
    });
}
