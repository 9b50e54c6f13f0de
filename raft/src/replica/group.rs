//! Groups of replicas on a simulated network and simulated disks. Everything random comes from one
//! seed; a failing test prints it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use rand::{Rng, SeedableRng, rngs::StdRng};
use skep_proto::{Timestamp, v1};
use skep_store::{Image, Store};

use super::{Append, ReadIndex, Replica, ReplicaConfig};
use crate::{
    Ticks,
    codec::{Incoming, Message, MessageType},
    drive,
    log::{LogStore, MemoryLog},
    member::{Change, LocalMember},
};

mod chaos;
mod disk;
mod hostile;
mod membership;
mod reads;
mod recovery;
mod scenarios;

/// Steps of the simulation per tick of a replica.
const STEPS_PER_TICK: u64 = 10;

#[derive(Default)]
struct Member {
    log: MemoryLog,
    /// `None` while it is crashed.
    replica: Option<Replica>,
    unwritten: VecDeque<Append>,
    /// What it has applied, in order: the "store".
    applied: Vec<String>,
}

struct Group {
    seed: u64,
    rng: StdRng,
    now: u64,
    /// Probability that a message is lost.
    loss: f64,
    /// Longest delay of a message in steps.
    delay: u64,
    members: BTreeMap<u64, Member>,
    network: Vec<(u64, Message)>,
    acknowledged: Vec<String>,
    /// Proposed and not yet seen as applied by the proposer.
    proposed: BTreeSet<String>,
    counter: u64,
    trace: u64,
    /// A member whose disk writes nothing.
    stalled: Option<u64>,
    /// A member whose messages, to and from it, are lost.
    isolated: Option<u64>,
    /// Reads that may go on, by member.
    reads: Vec<(u64, ReadIndex)>,
    /// What members run with that are started.
    ticks: Ticks,
}

fn local(raft_id: u64) -> LocalMember {
    LocalMember {
        raft_id,
        node_id: format!("node{raft_id}"),
        addr: format!("host{raft_id}:4242"),
        ..LocalMember::default()
    }
}

impl Group {
    /// One member that has bootstrapped a group.
    fn new(seed: u64) -> Self {
        println!("seed {seed}");
        let mut group = Self {
            seed,
            rng: StdRng::seed_from_u64(seed),
            now: 0,
            loss: 0.0,
            delay: 5,
            members: BTreeMap::new(),
            network: Vec::new(),
            acknowledged: Vec::new(),
            proposed: BTreeSet::new(),
            counter: 0,
            trace: 0,
            stalled: None,
            isolated: None,
            reads: Vec::new(),
            ticks: Ticks::default(),
        };
        let mut first = Member::default();
        first.log.append(&local(1).bootstrap()).unwrap();
        group.members.insert(1, first);
        group.start(1);
        group
    }

    /// A group of members `1..=count`, each of which joined by replaying the log.
    fn of(seed: u64, count: u64) -> Self {
        let mut group = Self::new(seed);
        for id in 2..=count {
            group.join(id);
        }
        group
    }

    fn join(&mut self, id: u64) {
        self.change(&Change::AddLearner(local(id).to_wire()));
        self.members.insert(id, Member::default());
        self.start(id);
        self.run_until("the new member votes, and knows all members", |group| {
            let known = |id: &u64| group.members[id].members();
            known(&id) == known(&group.leader().unwrap_or(id))
                && known(&id).contains(&id)
                && group.learners(id).is_empty()
        });
    }

    /// As a member knows them.
    fn learners(&self, id: u64) -> &[u64] {
        let replica = self.members[&id].replica.as_ref();
        replica.map_or(&[], Replica::learners)
    }

    /// A leader gives its vote to a learner that has caught up.
    fn promote(&mut self, id: u64) {
        let replica = self.replica(id);
        let learner = replica.caught_up_learners().next();
        if let Some(learner) = learner
            && replica.can_change()
        {
            let member = replica.members()[&learner].clone();
            replica.propose_change(1, &Change::Add(member)).unwrap();
            self.drain(id);
        }
    }

    /// Starts a member from what its disk has.
    fn start(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        let mut config = ReplicaConfig::with_ticks(id, self.ticks);
        // Members differ, so that elections end; each by itself is deterministic.
        let patience = self.ticks.election as usize + id as usize * 2;
        config.election_ticks = patience..patience + 1;
        let (replica, store) = Replica::new(&config, member.log.load().unwrap()).unwrap();
        member.applied = store.map(|(_, store)| names(store)).unwrap_or_default();
        member.replica = Some(replica);
        member.unwritten.clear();
        self.drain(id);
    }

    fn crash(&mut self, id: u64) {
        let member = self.members.get_mut(&id).unwrap();
        member.replica = None;
        // What was being written may have reached the disk or not.
        let survives = self.rng.random_range(0..=member.unwritten.len());
        for append in member.unwritten.drain(..).take(survives) {
            member.log.append(&append.batch).unwrap();
        }
    }

    fn replica(&mut self, id: u64) -> &mut Replica {
        self.members.get_mut(&id).unwrap().replica.as_mut().unwrap()
    }

    fn is_removed(&self, id: u64) -> bool {
        let replica = self.members[&id].replica.as_ref();
        replica.is_some_and(Replica::is_removed)
    }

    /// The leader of the highest term.
    fn leader(&self) -> Option<u64> {
        self.members
            .iter()
            .filter_map(|(id, member)| Some((member.replica.as_ref()?.role(), *id)))
            .filter(|(role, _)| role.leads)
            .max_by_key(|(role, _)| role.term)
            .map(|(_, id)| id)
    }

    fn step(&mut self) {
        self.now += 1;
        let ids: Vec<u64> = self.members.keys().copied().collect();
        let (due, later) = std::mem::take(&mut self.network)
            .into_iter()
            .partition::<Vec<_>, _>(|(at, _)| *at <= self.now);
        self.network = later;
        for (_, message) in due {
            let id = message.to;
            let running = self.members.get(&id).is_some_and(|m| m.replica.is_some());
            self.report(&message, running);
            if let Some(replica) = self.members.get_mut(&id).and_then(|m| m.replica.as_mut()) {
                self.trace = self.trace.rotate_left(5) ^ message.index ^ (message.term << 20);
                self.trace ^= id << 40;
                replica.step(Incoming::new(message).unwrap()).unwrap();
                self.drain(id);
            }
        }
        for id in ids {
            let member = self.members.get_mut(&id).unwrap();
            if member.replica.is_none() {
                continue;
            }
            // The disk takes a few steps for each write.
            let stalled = self.stalled == Some(id);
            if !stalled && !member.unwritten.is_empty() && self.rng.random_bool(0.3) {
                let append = member.unwritten.pop_front().unwrap();
                member.log.append(&append.batch).unwrap();
                self.replica(id).persisted(append.number);
                self.drain(id);
            }
            if self.now.is_multiple_of(STEPS_PER_TICK) {
                self.replica(id).tick();
                self.drain(id);
                self.promote(id);
            }
        }
        self.check();
    }

    /// Does what a member wants done.
    fn drain(&mut self, id: u64) {
        loop {
            let member = self.members.get_mut(&id).unwrap();
            let replica = member.replica.as_mut().unwrap();
            if !replica.has_output() {
                return;
            }
            let output = replica.take_output().unwrap();
            let leads = replica.role().leads;
            let confirmed = output.reads.into_iter();
            self.reads.extend(confirmed.map(|read| (id, read)));
            if let Some((_, store)) = output.restore {
                member.applied = names(store);
            }
            for committed in output.committed {
                if committed.data.is_empty() {
                    continue;
                }
                let data = String::from_utf8(committed.data.to_vec()).unwrap();
                if self.proposed.remove(&data) && leads {
                    self.acknowledged.push(data.clone());
                }
                member.applied.push(data);
            }
            member.unwritten.extend(output.append);
            for mut message in output.messages {
                if !drive::fill(self.replica(id), &mut message).unwrap() {
                    continue;
                }
                let cut = [message.from, message.to]
                    .map(Some)
                    .contains(&self.isolated);
                if cut || self.rng.random_bool(self.loss) {
                    self.report(&message, false);
                } else {
                    let delay = self.rng.random_range(1..=self.delay);
                    self.network.push((self.now + delay, message));
                }
            }
            let member = self.members.get_mut(&id).unwrap();
            if member.replica.as_ref().unwrap().wants_snapshot() {
                let snapshot = own_snapshot(member);
                member.replica.as_mut().unwrap().offer(snapshot);
            }
        }
    }

    /// A sender learns what became of a snapshot.
    fn report(&mut self, message: &Message, delivered: bool) {
        if message.msg_type == MessageType::MsgSnapshot
            && let Some(sender) = self.members.get_mut(&message.from)
            && let Some(sender) = sender.replica.as_mut()
        {
            sender.report_snapshot(message.to, delivered);
        }
    }

    /// All members have applied the same, some more of it than others.
    fn check(&self) {
        let mut longest: &[String] = &[];
        for member in self.members.values() {
            let common = longest.len().min(member.applied.len());
            assert_eq!(
                longest[..common],
                member.applied[..common],
                "seed {}",
                self.seed
            );
            if member.applied.len() > longest.len() {
                longest = &member.applied;
            }
        }
    }

    fn run_until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        for _ in 0..100_000 {
            if done(self) {
                return;
            }
            self.step();
        }
        panic!("seed {}: it never happens that {what}", self.seed);
    }

    fn elect(&mut self) -> u64 {
        self.run_until("a leader has applied an entry of its own", |group| {
            group.leader().is_some_and(|id| {
                let replica = group.members[&id].replica.as_ref().unwrap();
                replica.applied_in_term()
            })
        });
        self.leader().unwrap()
    }

    /// Proposes without waiting. Without a leader nothing happens.
    fn propose(&mut self) -> Option<String> {
        let leader = self.leader()?;
        self.counter += 1;
        let data = format!("write {}", self.counter);
        self.replica(leader)
            .propose(vec![Bytes::from(data.clone())])
            .ok()?;
        self.proposed.insert(data.clone());
        self.drain(leader);
        Some(data)
    }

    /// Writes until one write is acknowledged.
    fn write(&mut self) {
        let before = self.acknowledged.len();
        for _ in 0..1000 {
            self.propose();
            for _ in 0..1000 {
                if self.acknowledged.len() > before {
                    return;
                }
                self.step();
            }
        }
        panic!("seed {}: no write is acknowledged", self.seed);
    }

    fn change(&mut self, change: &Change) {
        let leader = self.elect();
        let id = self.rng.random();
        self.run_until("a change can be proposed", |group| {
            let replica = group.members[&leader].replica.as_ref().unwrap();
            replica.can_change() || !replica.role().leads
        });
        self.replica(leader).propose_change(id, change).unwrap();
        self.drain(leader);
        let target = self.replica(leader).last_index();
        self.run_until("the change is applied", |group| {
            let replica = group.members[&leader].replica.as_ref().unwrap();
            replica.applied() >= target
        });
    }

    /// Every member that runs has applied every acknowledged write.
    fn settle(&mut self) {
        self.run_until(
            "all members have applied all acknowledged writes",
            |group| {
                group.members.values().all(|member| {
                    member.replica.is_none()
                        || group
                            .acknowledged
                            .iter()
                            .all(|data| member.applied.contains(data))
                })
            },
        );
    }
}

impl Member {
    fn members(&self) -> BTreeSet<u64> {
        let replica = self.replica.as_ref();
        replica.map_or_else(BTreeSet::new, |r| r.members().keys().copied().collect())
    }
}

fn names(image: Image) -> Vec<String> {
    let store = Store::new(Timestamp::default);
    store.restore(1, image);
    let nodes = store.snapshot();
    nodes
        .all::<v1::Node>()
        .map(|node| node.id[NUMBER..].to_owned())
        .collect()
}

/// What an image keeps in order are IDs: they start with a number of so many digits.
const NUMBER: usize = 8;

fn own_snapshot(member: &Member) -> crate::OwnSnapshot {
    let nodes = member
        .applied
        .iter()
        .enumerate()
        .map(|(at, data)| v1::Node {
            id: format!("{at:0NUMBER$}{data}"),
            ..v1::Node::default()
        });
    let store = v1::StoreSnapshot {
        nodes: nodes.collect(),
        ..v1::StoreSnapshot::default()
    };
    let header = member.replica.as_ref().unwrap().snapshot_header().unwrap();
    let tables = Store::new(Timestamp::default);
    tables.restore(1, store);
    header.with_store(tables.snapshot())
}

fn save_own_snapshot(member: &mut Member) {
    let snapshot = own_snapshot(member);
    let written = member.log.snapshot_writer().write(&snapshot).unwrap();
    member.log.save_snapshot(&written).unwrap();
}
