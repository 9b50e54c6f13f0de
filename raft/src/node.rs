//! The owner of a replica: one task, one loop, on a thread of its own, so that nothing a manager is
//! busy with delays a heartbeat.
//!
//! Each turn takes what has arrived (ticks, messages, proposals, news of the disk and of peers) and
//! then does what the replica wants done. Many proposals make one turn, and one turn makes at most one
//! append: the busier it gets, the larger the batches.

mod leadership;
mod moved;
mod outputs;
mod reads;
mod settings;
mod snapshots;

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use skep_security::Tls;
use skep_store::{Entry, Store};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, Interval, MissedTickBehavior, interval, sleep_until},
};

use self::{
    leadership::Queued,
    settings::Settings,
    snapshots::{Snapshots, Taken},
};
use crate::{
    Config, Error, LocalMember, Status, Ticks,
    announce::Moved,
    codec::Incoming,
    disk::{Disk, Progress},
    log::{Loaded, LogStore},
    member::{Change, Membership},
    peer::PeerEvent,
    peers::Peers,
    replica::{Replica, ReplicaConfig},
};

pub(crate) use self::leadership::MAX_STALLED_TICKS;
pub(crate) use self::reads::{MAX_READS, Read, Reads};

/// Proposals that may wait. More than the store ever has under way, so it never sees this full.
pub(crate) const MAX_PROPOSALS: usize = 8192;
/// Messages that may wait; then peers have to.
pub(crate) const MAX_INCOMING: usize = 4096;
/// Requests that may wait; they are rare.
pub(crate) const MAX_COMMANDS: usize = 64;
/// Events that may wait; then the peers' tasks have to.
const MAX_EVENTS: usize = 1024;
/// Messages taken in one turn, so that what they cause leaves soon.
const MESSAGES_PER_TURN: usize = 256;
/// Proposals taken in one turn, in bytes: what fits in one message to each peer.
const BYTES_PER_TURN: usize = 512 * 1024;
/// So many proposals in a turn are a crowd, of writers who are about to come again.
const CROWD: usize = 16;
/// How long proposals gather after those of a crowd were taken. Each turn with proposals costs a write
/// of the log and an append to each peer, with all the threads that wakes; a crowd waits for several
/// times as long anyway.
const GATHERING: Duration = Duration::from_millis(1);
/// Time to hand over leadership before this member stops anyway.
pub(crate) const HANDOVER_TIMEOUT: Duration = Duration::from_millis(1500);

/// Where the answer to a request goes.
pub(crate) type Answer = oneshot::Sender<Result<(), Error>>;

/// A request to the owner.
pub(crate) enum Command {
    /// Change the members; answered once that is applied here.
    Change(Change, Answer),
    /// Let another member lead; answered once this one does not.
    Transfer(Answer),
    /// Read the log: what comes after the first index, up to the second one.
    Entries(u64, u64, oneshot::Sender<Result<Vec<Entry>, Error>>),
    /// A member is somewhere else than the log says. With `hearsay` it has not said so itself.
    Moved {
        raft_id: u64,
        addr: String,
        hearsay: bool,
    },
    /// Hand over leadership and end.
    Stop,
}

/// What an owner is made with.
pub(crate) struct Inputs {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) incoming: mpsc::Receiver<Incoming>,
    pub(crate) reads: Reads,
    pub(crate) status: watch::Sender<Status>,
}

pub(crate) struct Node {
    replica: Replica,
    local: LocalMember,
    store: Store,
    peers: Peers,
    moved: Moved,
    disk: Disk,
    ticks: Interval,
    inputs: Inputs,
    events: mpsc::Receiver<PeerEvent>,
    /// What the store proposes while this member leads.
    proposals: mpsc::Receiver<Queued>,
    /// The other end, for the store.
    proposer: mpsc::Sender<Queued>,
    /// The next proposal, if there is no room for it now.
    held: Option<Queued>,
    /// Until when proposals are left to gather.
    gathering: Option<Instant>,
    /// The term in which the store leads.
    leading: Option<u64>,
    /// Ticks for which the disk has been busy without getting anything done.
    stalled_ticks: usize,
    /// The store may lead once this entry is applied.
    lead_at: u64,
    /// Membership changes that are not proposed yet.
    changes: VecDeque<(Change, Answer)>,
    /// Membership changes that are not committed yet, by their IDs.
    changing: HashMap<u64, Answer>,
    /// Who waits for another leader.
    transfers: Vec<Answer>,
    snapshots: Snapshots,
    settings: Settings,
    /// Answers that are given once the status tells the same.
    answers: Vec<(Answer, Result<(), Error>)>,
    /// Whether the status must be told anew.
    news: bool,
    /// Set when this member was asked to stop: until when it may take.
    stopping: Option<Instant>,
}

/// What a turn begins with.
#[allow(
    clippy::large_enum_variant,
    reason = "there is one, it lives for one turn, and the large variant is the usual one"
)]
enum Event {
    Command(Option<Command>),
    Disk(Progress),
    Tick,
    Message(Incoming),
    Peer(PeerEvent),
    Gathered,
    Proposal(Queued),
    Read,
    Snapshot(Result<Taken, Error>),
    HandoverTimeout,
}

impl Node {
    /// Loads the log and makes the member that it describes, or a new one if it is empty.
    pub(crate) fn start(
        config: &Config,
        store: Store,
        tls: Tls,
        mut log: Box<dyn LogStore>,
        inputs: Inputs,
    ) -> Result<Self, Error> {
        let (loaded, local) = prepare(config, log.as_mut())?;
        let running = Ticks::of_log(&loaded);
        let replayed = loaded.last_index();
        let snapshot_bytes = loaded.snapshot.as_ref().map_or(0, |it| it.data.len());
        let replica_config = ReplicaConfig::with_ticks(local.raft_id, running);
        let (replica, restored) = Replica::new(&replica_config, loaded)?;
        let snapshot_index = restored.as_ref().map_or(0, |(index, _)| *index);
        if let Some((index, tables)) = restored {
            store.restore(index, tables);
        }
        let (proposer, proposals) = mpsc::channel(MAX_PROPOSALS);
        let (event_sender, events) = mpsc::channel(MAX_EVENTS);
        let mut ticks = interval(config.tick);
        // After a stall the missed ticks must not come at once: that would look like a dead leader.
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let snapshots = Snapshots::new(snapshot_index, snapshot_bytes, log.as_ref());
        let settings = Settings::new(running, replayed);
        let mut node = Self {
            replica,
            local,
            store,
            peers: Peers::new(tls, event_sender),
            moved: Moved::default(),
            disk: Disk::spawn(log)?,
            ticks,
            inputs,
            events,
            proposals,
            proposer,
            held: None,
            gathering: None,
            leading: None,
            stalled_ticks: 0,
            lead_at: 0,
            changes: VecDeque::new(),
            changing: HashMap::new(),
            transfers: Vec::new(),
            snapshots,
            settings,
            answers: Vec::new(),
            news: true,
            stopping: None,
        };
        node.connect();
        node.process()?;
        node.tell_status();
        Ok(node)
    }

    /// Runs until the end and says why it came: `Ok` if it was asked for.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        let end = loop {
            match self.turn().await {
                Ok(true) => {}
                Ok(false) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        self.stop_leading();
        self.tell_status();
        self.snapshots.close().await;
        self.disk.close().await;
        end
    }

    /// One turn. `false` if this member is to end.
    async fn turn(&mut self) -> Result<bool, Error> {
        let (handover, gathering) = (self.stopping, self.gathering);
        let event = tokio::select! {
            biased;
            command = self.inputs.commands.recv() => Event::Command(command),
            progress = self.disk.progress() => Event::Disk(progress),
            _ = self.ticks.tick() => Event::Tick,
            Some(incoming) = self.inputs.incoming.recv() => Event::Message(incoming),
            Some(event) = self.events.recv() => Event::Peer(event),
            () = at(gathering), if gathering.is_some() => Event::Gathered,
            Some(proposal) = self.proposals.recv(), if self.held.is_none() && gathering.is_none() => {
                Event::Proposal(proposal)
            }
            () = self.inputs.reads.arrived() => Event::Read,
            taken = self.snapshots.taken() => Event::Snapshot(taken),
            () = at(handover), if handover.is_some() => Event::HandoverTimeout,
        };
        match event {
            Event::Command(None) | Event::HandoverTimeout => return Ok(false),
            Event::Command(Some(command)) => self.command(command),
            Event::Disk(progress) => self.persisted(progress)?,
            Event::Tick => self.tick(),
            Event::Message(incoming) => self.step(incoming)?,
            Event::Peer(event) => self.peer_event(event)?,
            Event::Proposal(proposal) => self.held = Some(proposal),
            Event::Gathered => self.gathering = None,
            Event::Read => {}
            Event::Snapshot(taken) => self.snapshot_taken(taken?),
        }
        for _ in 0..MESSAGES_PER_TURN {
            let Ok(incoming) = self.inputs.incoming.try_recv() else {
                break;
            };
            self.step(incoming)?;
        }
        self.propose();
        self.propose_changes();
        self.begin_reads();
        self.process()?;
        self.tell_status();
        self.finish_reads();
        self.check_settings();
        self.take_snapshot();
        Ok(self.stopping.is_none() || self.replica.role().leads)
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Change(change, done) => self.changes.push_back((change, done)),
            Command::Transfer(done) => match self.transfer() {
                Ok(()) => self.transfers.push(done),
                refused => self.answers.push((done, refused)),
            },
            Command::Entries(after, through, done) => {
                // Who asked may have gone away.
                let _ = done.send(self.replica.entries_after(after, through));
            }
            Command::Moved {
                raft_id,
                addr,
                hearsay,
            } => self.note_moved(raft_id, addr, hearsay),
            Command::Stop => {
                let patience = match self.transfer() {
                    Ok(()) => HANDOVER_TIMEOUT,
                    Err(_) => Duration::ZERO,
                };
                self.stopping = Some(Instant::now() + patience);
            }
        }
    }

    fn tick(&mut self) {
        self.replica.tick();
        self.replica.campaign_if_alone();
        self.give_way_if_stalled();
        let positions = self.replica.positions(self.snapshots.newest());
        self.inputs.status.send_if_modified(|status| {
            status.positions = positions;
            false
        });
        if !self.replica.is_transferring() {
            let refused = self.transfers.drain(..);
            self.answers
                .extend(refused.map(|done| (done, Err(Error::HandOver))));
        }
    }

    fn persisted(&mut self, progress: Progress) -> Result<(), Error> {
        if let Some(error) = progress.failed {
            return Err(Error::Disk(error));
        }
        self.stalled_ticks = 0;
        self.replica.persisted(progress.number);
        Ok(())
    }

    fn step(&mut self, incoming: Incoming) -> Result<(), Error> {
        match self.replica.step(incoming) {
            Err(error) if error.is_newer() || matches!(error, Error::Lost { .. }) => Err(error),
            Err(error) => {
                tracing::debug!(%error, "raft message dropped");
                Ok(())
            }
            Ok(()) => Ok(()),
        }
    }

    fn peer_event(&mut self, event: PeerEvent) -> Result<(), Error> {
        match event {
            PeerEvent::Unreachable(id) => self.replica.report_unreachable(id),
            PeerEvent::Snapshot { to, delivered } => self.replica.report_snapshot(to, delivered),
            PeerEvent::Health => self.news = true,
            PeerEvent::Removed => return Err(Error::Removed),
            PeerEvent::Resolved { id, addr } => self.peers.resolved(id, addr.as_deref()),
        }
        Ok(())
    }
}

/// Waits until then.
async fn at(time: Option<Instant>) {
    sleep_until(time.unwrap_or_else(Instant::now)).await;
}

/// Reads the log. An empty one gets an identity, and as the first member of a group its first entry.
fn prepare(config: &Config, log: &mut dyn LogStore) -> Result<(Loaded, LocalMember), Error> {
    let mut loaded = log.load()?;
    let local = match loaded.member.take() {
        Some(mut found) => {
            found.check_owner(&config.node_id, &config.cluster_id)?;
            if found.addr != config.addr {
                found.addr.clone_from(&config.addr);
                log.set_member(&found)?;
            }
            found
        }
        None if !loaded.is_empty() => {
            return Err(Error::malformed("raft log", "it does not say whose it is"));
        }
        None => {
            let (raft_id, peers) = match &config.join {
                Some(join) => (join.raft_id, join.members.clone()),
                None => (Membership::fresh_id(&[], &BTreeSet::new()), Vec::new()),
            };
            let local = LocalMember {
                raft_id,
                node_id: config.node_id.clone(),
                addr: config.addr.clone(),
                cluster_id: config.cluster_id.clone(),
                peers,
                ..LocalMember::default()
            };
            log.set_member(&local)?;
            local
        }
    };
    if loaded.is_empty() && local.peers.is_empty() {
        log.append(&local.bootstrap())?;
        loaded = log.load()?;
    }
    Ok((loaded, local))
}

/// Keeps the store from waiting for an owner that is gone, however it went.
pub(crate) struct FollowOnDrop(pub(crate) Store);

impl Drop for FollowOnDrop {
    fn drop(&mut self) {
        self.0.follow();
    }
}

/// The reason why a member ended, for all who ask.
pub(crate) type End = Option<Result<(), Arc<Error>>>;
