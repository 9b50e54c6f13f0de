//! The ways to all peers, by Raft ID.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use skep_proto::v1::{
    ResolveAddressRequest, raft_client::RaftClient, raft_member_status::Reachability,
};
use skep_security::{ServerName, Tls};
use tokio::{
    sync::mpsc,
    task::{AbortHandle, JoinSet},
    time::{Instant, timeout},
};
use tonic::transport::Channel;

use crate::{
    codec::{self, Message},
    log::OwnSnapshot,
    peer::{self, Health, MAX_QUEUE, Parcel, PeerEvent},
};

/// Time for one peer to tell the address of another.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);

/// Owns the tasks that talk to the peers. Dropping it ends them.
pub(crate) struct Peers {
    tls: Tls,
    events: mpsc::Sender<PeerEvent>,
    table: HashMap<u64, Peer>,
    /// IDs whose address is being asked for.
    resolving: HashSet<u64>,
    tasks: JoinSet<()>,
}

struct Peer {
    addr: String,
    channel: Channel,
    queue: mpsc::Sender<Parcel>,
    health: Arc<Health>,
    task: AbortHandle,
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Peers {
    pub(crate) fn new(tls: Tls, events: mpsc::Sender<PeerEvent>) -> Self {
        Self {
            tls,
            events,
            table: HashMap::new(),
            resolving: HashSet::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Makes these, with these addresses, the peers. Returns those to whom the way is not the one it
    /// was, so that messages may have been lost.
    pub(crate) fn set(&mut self, addresses: &BTreeMap<u64, String>) -> Vec<u64> {
        let gone = |(id, peer): &(&u64, &mut Peer)| addresses.get(id) != Some(&peer.addr);
        let gone: Vec<u64> = self
            .table
            .extract_if(|id, peer| gone(&(id, peer)))
            .map(|(id, _)| id)
            .collect();
        for (id, addr) in addresses {
            if !self.table.contains_key(id) {
                self.add(*id, addr);
            }
        }
        while self.tasks.try_join_next().is_some() {}
        gone
    }

    /// Adds a peer. One whose address cannot be used is left out: sending to it fails.
    pub(crate) fn add(&mut self, id: u64, addr: &str) {
        let channel = match self.tls.channel(addr, ServerName::Manager) {
            Ok(channel) => channel,
            Err(error) => {
                tracing::warn!(peer = format_args!("{id:x}"), addr, %error, "peer cannot be dialled");
                return;
            }
        };
        let (queue, queued) = mpsc::channel(MAX_QUEUE);
        let health = Arc::new(Health::default());
        let task = self.tasks.spawn(peer::run(
            id,
            channel.clone(),
            queued,
            health.clone(),
            self.events.clone(),
        ));
        let addr = addr.to_owned();
        let peer = Peer {
            addr,
            channel,
            queue,
            health,
            task,
        };
        self.table.insert(id, peer);
    }

    /// Queues a message to its receiver, with what one with a snapshot stands for. `false` if it is lost.
    pub(crate) fn send(&mut self, mut message: Message, snapshot: Option<OwnSnapshot>) -> bool {
        let id = message.to;
        codec::drop_foreign_fields(&mut message);
        match self.table.get(&id) {
            Some(peer) => peer.queue.try_send(Parcel { message, snapshot }).is_ok(),
            None => {
                self.resolve(id);
                false
            }
        }
    }

    /// Asks the known peers, the one longest reachable first, where an unknown one is.
    fn resolve(&mut self, id: u64) {
        if self.table.is_empty() || !self.resolving.insert(id) {
            return;
        }
        let mut known: Vec<_> = self.table.values().collect();
        known.sort_by_key(|peer| {
            let since = peer.health.reachable_since();
            (since.is_none(), since)
        });
        let channels: Vec<_> = known.iter().map(|peer| peer.channel.clone()).collect();
        let events = self.events.clone();
        self.tasks.spawn(async move {
            let mut addr = None;
            for channel in channels {
                let mut client = RaftClient::new(channel);
                let request = ResolveAddressRequest { raft_id: id };
                let answer = Box::pin(timeout(RESOLVE_TIMEOUT, client.resolve_address(request)));
                if let Ok(Ok(answer)) = answer.await {
                    addr = Some(answer.into_inner().addr);
                    break;
                }
            }
            // The owner may be gone; then this task is about to be aborted.
            let _ = events.send(PeerEvent::Resolved { id, addr }).await;
        });
    }

    /// Takes the answer of [`PeerEvent::Resolved`].
    pub(crate) fn resolved(&mut self, id: u64, addr: Option<&str>) {
        self.resolving.remove(&id);
        if let Some(addr) = addr
            && !self.table.contains_key(&id)
        {
            self.add(id, addr);
        }
    }

    pub(crate) fn reachability(&self, id: u64) -> Reachability {
        self.table
            .get(&id)
            .map_or(Reachability::Unknown, |peer| peer.health.reachability())
    }

    /// The peer that was reachable for the longest time without a break, of those who pass.
    pub(crate) fn longest_reachable(&self, pass: impl Fn(u64) -> bool) -> Option<u64> {
        let reachable = |(id, peer): (&u64, &Peer)| -> Option<(Instant, u64)> {
            Some((peer.health.reachable_since()?, *id))
        };
        self.table
            .iter()
            .filter(|(id, _)| pass(**id))
            .filter_map(reachable)
            .min()
            .map(|(_, id)| id)
    }
}
