//! The dispatcher of one term of leadership: what all its sessions share.

use std::time::Duration;

use parking_lot::Mutex;
use skep_proto::v1::{Cluster, Node, NodeDescription, RaftMember, node_status};
use skep_store::{Error, Snapshot, Store, Tx};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::Status;

use super::{
    period,
    registry::{Lapse, Moment, Refusal, Registry},
    reports::Reports,
    status,
};
use crate::secret_drivers::SecretDrivers;

/// What the parts of a running dispatcher share. It is dropped when the last stream of the term is.
pub(super) struct Term {
    pub store: Store,
    pub members: watch::Receiver<Vec<RaftMember>>,
    pub own_node_id: String,
    pub secret_drivers: SecretDrivers,
    /// Reports on their way into a batch.
    pub reports: Reports,
    /// Cancelled at the end of the term.
    pub ending: CancellationToken,
    /// Holds a token for every stream.
    pub streams: TaskTracker,
    /// Told when the next deadline has become an earlier one.
    pub earlier: Notify,
    began: Instant,
    registry: Mutex<Registry<Session>>,
}

/// What belongs to one call of the RPC `Session`, as the registry keeps it.
struct Session {
    /// Cancelled when the session is over or continued by another call.
    gone: CancellationToken,
    /// Whether the assignments of this session are already being streamed.
    assigned: bool,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.gone.cancel();
    }
}

/// A session as its streams know it.
pub(super) struct Handle {
    pub node_id: String,
    pub session_id: String,
    /// Cancelled when the session is over, also at the end of the term.
    pub gone: CancellationToken,
}

impl Term {
    pub fn new(
        store: Store,
        members: watch::Receiver<Vec<RaftMember>>,
        own_node_id: String,
        secret_drivers: SecretDrivers,
        reports: Reports,
    ) -> Self {
        Self {
            store,
            members,
            own_node_id,
            secret_drivers,
            reports,
            ending: CancellationToken::new(),
            streams: TaskTracker::new(),
            earlier: Notify::new(),
            began: Instant::now(),
            registry: Mutex::default(),
        }
    }

    /// Registers the node, or goes on with its session, and waits until that is stored. A node that
    /// is stored as it is now costs no write.
    ///
    /// `addr` is the IP address it called from, if known.
    pub async fn open(
        &self,
        node_id: String,
        wanted: &str,
        addr: Option<String>,
        description: Option<NodeDescription>,
    ) -> Result<Handle, Status> {
        let snapshot = self.store.snapshot();
        if snapshot.get::<Node>(&node_id).is_none() {
            return Err(status::node_not_found());
        }
        let gone = self.ending.child_token();
        let session = Session {
            gone: gone.clone(),
            assigned: false,
        };
        let ttl = self.chosen_period(&snapshot).saturating_mul(period::GRACE);
        // Before the write, so that a failing old session can no longer mark the node as down
        // after it: see `liveness`.
        let session_id = self.change_deadlines(|registry, now| {
            registry.open(
                &node_id,
                wanted,
                skep_proto::id::random(),
                session,
                now,
                ttl,
            )
        })?;
        let written = tokio::select! {
            biased;
            () = self.ending.cancelled() => Err(Error::LostLeadership),
            written = self.store.update(|tx| mark_ready(tx, &node_id, addr, description)) => written,
        };
        match written {
            Ok(()) => Ok(Handle {
                node_id,
                session_id,
                gone,
            }),
            Err(Error::NotFound) => {
                self.remove(&node_id);
                Err(status::node_not_found())
            }
            Err(error) => Err(status::from_store(error)),
        }
    }

    /// Takes a sign of life and says when to give the next.
    pub fn heartbeat(&self, node_id: &str, session_id: &str) -> Result<Duration, Refusal> {
        let period = self.chosen_period(&self.store.snapshot());
        let ttl = period.saturating_mul(period::GRACE);
        self.change_deadlines(|registry, now| registry.heartbeat(node_id, session_id, now, ttl))?;
        Ok(period)
    }

    /// Whether this is the node's present session.
    pub fn check(&self, node_id: &str, session_id: &str) -> Result<(), Refusal> {
        self.registry.lock().session(node_id, session_id).map(drop)
    }

    /// The session, to stream its assignments. There is one such stream a session: a second one
    /// would have to begin with a second complete message, which agents can make nothing of.
    pub fn assign(&self, node_id: String, session_id: String) -> Result<Handle, Refusal> {
        let mut registry = self.registry.lock();
        let session = registry.session(&node_id, &session_id)?;
        if std::mem::replace(&mut session.assigned, true) {
            return Err(Refusal::InvalidSession);
        }
        let gone = session.gone.clone();
        Ok(Handle {
            node_id,
            session_id,
            gone,
        })
    }

    /// The final error of a stream whose session is gone.
    pub fn farewell(&self, session: &Handle) -> Status {
        if self.ending.is_cancelled() {
            return status::must_disconnect();
        }
        // If the ID is still good, another call goes on with the session.
        self.check(&session.node_id, &session.session_id)
            .err()
            .unwrap_or(Refusal::InvalidSession)
            .into()
    }

    /// A node of earlier terms has to register within its time.
    pub fn expect<'a>(&self, nodes: impl IntoIterator<Item = &'a str>) {
        let period = period::configured(cluster(&self.store.snapshot()));
        self.change_deadlines(|registry, now| {
            for node_id in nodes {
                let ttl =
                    period::chosen(period, rand::random()).saturating_mul(period::GRACE_UNKNOWN);
                registry.expect(node_id, now.saturating_add(ttl));
            }
        });
    }

    /// Ends the sessions whose time has run out.
    pub fn expire(&self) -> Vec<Lapse> {
        self.registry.lock().expire(self.now())
    }

    /// How long until a session's time runs out.
    pub fn next_expiry(&self) -> Option<Duration> {
        Some(
            self.registry
                .lock()
                .next_deadline()?
                .saturating_sub(self.now()),
        )
    }

    pub fn is_unknown(&self, node_id: &str) -> bool {
        self.registry.lock().is_unknown(node_id)
    }

    pub fn is_lapsed(&self, node_id: &str) -> bool {
        self.registry.lock().is_lapsed(node_id)
    }

    pub fn forget_lapsed(&self, lapses: &[Lapse]) {
        let mut registry = self.registry.lock();
        for lapse in lapses {
            registry.forget_lapsed(&lapse.node_id);
        }
    }

    /// The node was removed from the cluster.
    pub fn remove(&self, node_id: &str) {
        self.registry.lock().remove(node_id);
    }

    fn change_deadlines<R>(&self, change: impl FnOnce(&mut Registry<Session>, Moment) -> R) -> R {
        let mut registry = self.registry.lock();
        let before = registry.next_deadline();
        let result = change(&mut registry, self.now());
        let after = registry.next_deadline();
        drop(registry);
        if after.is_some_and(|after| before.is_none_or(|before| after < before)) {
            self.earlier.notify_one();
        }
        result
    }

    fn chosen_period(&self, snapshot: &Snapshot) -> Duration {
        period::chosen(period::configured(cluster(snapshot)), rand::random())
    }

    fn now(&self) -> Moment {
        self.began.elapsed()
    }
}

/// The swarm's own object.
pub(super) fn cluster(snapshot: &Snapshot) -> Option<&Cluster> {
    snapshot.all::<Cluster>().next().map(AsRef::as_ref)
}

/// Stores that the node has a session, unless that is what is stored.
fn mark_ready(
    tx: &mut Tx,
    node_id: &str,
    addr: Option<String>,
    description: Option<NodeDescription>,
) -> Result<(), Error> {
    let node = tx.get::<Node>(node_id).ok_or(Error::NotFound)?;
    let mut status = node.status().clone();
    status.set_state(node_status::State::Ready);
    status.message.clear();
    if let Some(addr) = addr {
        status.addr = addr;
    }
    let new_description = description.filter(|new| node.description.as_ref() != Some(new));
    if status == *node.status() && new_description.is_none() {
        return Ok(());
    }
    let mut node = Node::clone(node);
    node.status = Some(status);
    if new_description.is_some() {
        node.description = new_description;
    }
    tx.update(node).map(drop)
}
