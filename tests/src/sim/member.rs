//! One member: the shell around a [`Replica`] and a [`Store`]. It takes the same decisions in the
//! same order as the one that ships (`skep_raft`'s `node.rs`), but time, disk and network are virtual.

mod apply;
mod keys;
mod leading;
mod reads;
mod snapshots;
mod stopping;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use rand::Rng;
use skep_proto::v1::{RaftMember, RaftMemberStatus};
use skep_raft::{Error, LocalMember, OwnSnapshot, Replica, ReplicaConfig, drive};
use skep_store::Store;

pub(super) use self::leading::{Proposals, Queued};
use self::reads::Reads;
use super::{
    Violation, broken, digest,
    disk::Disk,
    mutation::Mutation,
    oracle::MemberChange,
    plan::{Micros, TICK},
    queue::{Event, Flight, Report},
    scene::Scene,
    trace::Note,
    watcher::Watcher,
};

/// A machine with a disk, on which a member runs or does not.
pub(super) struct Member {
    pub(super) id: u64,
    /// Counts the starts.
    pub(super) life: u64,
    pub(super) disk: Disk,
    pub(super) process: Option<Process>,
    /// It has learned that it was removed, and is gone for ever.
    pub(super) gone: bool,
    /// Length of its ticks.
    pub(super) tick: Micros,
    /// Until when it is stopped without knowing it.
    pub(super) paused_until: Micros,
    /// It has to be started again.
    pub(super) start_due: bool,
}

/// What is lost when a member crashes.
pub(super) struct Process {
    pub(super) replica: Replica,
    pub(super) store: Store,
    pub(super) proposals: Arc<parking_lot::Mutex<Proposals>>,
    /// The next proposal, if there is no room for it now.
    held: Option<Queued>,
    /// The term in which the store leads.
    pub(super) leading: Option<u64>,
    /// The store may lead once this entry is applied.
    lead_at: u64,
    changes: VecDeque<(u64, MemberChange)>,
    /// Ticks for which the disk has been busy without getting anything done.
    stalled_ticks: usize,
    /// When others were last heard of.
    heard: BTreeMap<u64, Micros>,
    /// It is to end: whether someone else was asked to lead first.
    stopping: Option<bool>,
    pub(super) reads: Reads,
    newest_snapshot: u64,
    taking: Option<OwnSnapshot>,
    pub(super) watchers: Vec<Watcher>,
    /// Where a snapshot of the leader has taken the store from one index to another.
    pub(super) jumps: Vec<(u64, u64)>,
    turn_due: bool,
    /// Somebody who waits for the store may have an answer.
    pub(super) news: bool,
}

fn wire(id: u64) -> RaftMember {
    RaftMember {
        raft_id: id,
        node_id: format!("member{id}"),
        addr: format!("host{id}:4242"),
        status: Some(RaftMemberStatus::default()),
    }
}

impl Member {
    /// A machine for a member that founds a cluster or joins one.
    pub(super) fn new(id: u64, founder: bool, scene: &mut Scene) -> Result<Self, Violation> {
        let RaftMember { node_id, addr, .. } = wire(id);
        let local = LocalMember {
            raft_id: id,
            node_id,
            addr,
            cluster_id: "simulated".to_owned(),
            ..LocalMember::default()
        };
        if founder {
            scene.oracle.proposes_change(1, MemberChange::Add(id));
        }
        let lies = scene.is(Mutation::SkipSync);
        let keeps = scene.is(Mutation::KeepDropped);
        let disk = Disk::new(scene.plan.disk_queue, lies, keeps).and_then(|mut disk| {
            disk.found(&local, founder)?;
            Ok(disk)
        });
        let disk = match disk {
            Ok(disk) => disk,
            Err(error) => return broken("a new member can be made", error.to_string()),
        };
        Ok(Self {
            id,
            life: 0,
            disk,
            process: None,
            gone: false,
            tick: TICK,
            paused_until: 0,
            start_due: true,
        })
    }

    pub(super) fn is_running(&self) -> bool {
        self.process.is_some()
    }

    /// Starts from what the disk has.
    pub(super) fn start(&mut self, scene: &mut Scene) -> Result<(), Violation> {
        self.start_due = false;
        if self.gone || self.process.is_some() {
            return Ok(());
        }
        self.life += 1;
        let rule = "a member starts again from its log";
        let mut loaded = match self.disk.open() {
            Ok(loaded) => loaded,
            Err(_) if self.disk.keys.power_lost() => {
                self.power_lost(scene);
                return Ok(());
            }
            Err(error) => return broken(rule, format!("member {}: {error}", self.id)),
        };
        if scene.is(Mutation::VoteTwice) {
            drive::forget_vote(&mut loaded);
        }
        let mut config = ReplicaConfig::new(self.id);
        // The library draws from a range by chance of its own: this one leaves it no choice.
        let patience = scene.plan.patience.clone();
        let patience = scene.rng.random_range(patience);
        config.election_ticks = patience..patience + 1;
        let (replica, restored) = match Replica::new(&config, loaded) {
            Ok(started) => started,
            Err(error) => return broken(rule, format!("member {}: {error}", self.id)),
        };
        let store = Store::new(scene.clock());
        let newest_snapshot = restored.as_ref().map_or(0, |(index, _)| *index);
        if let Some((index, tables)) = restored {
            store.restore(index, tables);
            let digest = digest::of_store(&store.snapshot());
            scene.oracle.check_store(self.id, index, digest)?;
        }
        let (applied, last) = (replica.applied(), replica.last_index());
        scene.note(self.id, Note::Started { applied, last });
        let (member, life) = (self.id, self.life);
        let mut watchers = Vec::new();
        for watcher in 0..Watcher::COUNT {
            watchers.push(Watcher::new(member, watcher, &store, scene)?);
            let wait = scene.plan.watch.clone();
            let wait = scene.between(&wait);
            scene.after(
                wait,
                Event::Watch {
                    member,
                    life,
                    watcher,
                },
            );
        }
        self.process = Some(Process {
            replica,
            store,
            proposals: Arc::default(),
            held: None,
            leading: None,
            lead_at: 0,
            changes: VecDeque::new(),
            stalled_ticks: 0,
            heard: BTreeMap::new(),
            stopping: None,
            reads: Reads::default(),
            newest_snapshot,
            taking: None,
            watchers,
            jumps: Vec::new(),
            turn_due: false,
            news: false,
        });
        let phase = scene.between(&(0..self.tick));
        scene.after(phase, Event::Tick { member, life });
        self.turn(scene)
    }

    /// The machine loses its power, or the process is killed.
    pub(super) fn crash(&mut self, scene: &mut Scene) -> Result<(), Violation> {
        if self.process.take().is_some() {
            scene.note(self.id, Note::Crashed);
            self.drop_disk(scene)?;
        }
        Ok(())
    }

    /// The process ends by itself. Whoever waits for its store is told.
    fn stop(&mut self, scene: &mut Scene, why: &'static str) -> Result<(), Violation> {
        if let Some(process) = self.process.take() {
            process.store.follow();
            scene.note(self.id, Note::Stopped(why));
            self.drop_disk(scene)?;
        }
        Ok(())
    }

    fn drop_disk(&mut self, scene: &mut Scene) -> Result<(), Violation> {
        self.paused_until = 0;
        match self.disk.crash(&mut scene.rng) {
            Ok(()) => Ok(()),
            Err(error) => broken(
                "what a member writes follows what it wrote",
                error.to_string(),
            ),
        }
    }

    pub(super) fn tick(&mut self, scene: &mut Scene) -> Result<(), Violation> {
        let (member, life) = (self.id, self.life);
        // The library draws its patience for each election, a member here only when it starts. Ticks of
        // one length would let two of the same patience stand at the same time for ever.
        let tick = match scene.healed {
            true => scene.between(&(self.tick..2 * self.tick)),
            false => self.tick,
        };
        scene.after(tick, Event::Tick { member, life });
        if let Some(process) = &mut self.process {
            process.replica.tick();
            process.replica.campaign_if_alone();
            process.give_way_if_stalled(member, self.disk.is_busy(), scene);
        }
        self.turn(scene)
    }

    pub(super) fn receive(&mut self, flight: &Flight, scene: &mut Scene) -> Result<(), Violation> {
        let wait = scene.plan.delay.clone();
        let wait = scene.between(&wait);
        let Some(process) = &mut self.process else {
            scene.report(flight, false, wait);
            return Ok(());
        };
        let (from, kind, bytes) = (flight.from, flight.kind, flight.bytes.len());
        scene.note(self.id, Note::Received { from, kind, bytes });
        if process.replica.removed().contains(&from) {
            let (member, life) = (from, flight.from_life);
            let report = Report::Removed;
            scene.after(
                wait,
                Event::Report {
                    member,
                    life,
                    report,
                },
            );
            return Ok(());
        }
        process.heard.insert(from, scene.now);
        scene.report(flight, true, wait);
        let stepped =
            drive::incoming(&flight.bytes).and_then(|(_, incoming)| process.replica.step(incoming));
        match stepped {
            // No disk was lost.
            Err(lost @ Error::Lost { .. }) => broken(
                "members keep what they acknowledged",
                format!("member {}: {lost}", self.id),
            ),
            // As the shell does, which drops what makes no sense.
            _ => self.turn(scene),
        }
    }

    pub(super) fn told(&mut self, report: Report, scene: &mut Scene) -> Result<(), Violation> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        match report {
            Report::Unreachable(id) => process.replica.report_unreachable(id),
            Report::Snapshot { to, delivered } => process.replica.report_snapshot(to, delivered),
            Report::Removed => return self.removed(scene),
        }
        self.turn(scene)
    }

    fn removed(&mut self, scene: &mut Scene) -> Result<(), Violation> {
        self.gone = true;
        self.stop(scene, "removed")?;
        if scene.oracle.removed.contains(&self.id) {
            return Ok(());
        }
        broken(
            "only who was removed ends",
            format!("member {} was told that it was removed", self.id),
        )
    }

    /// The disk has done what it was at.
    pub(super) fn written(&mut self, scene: &mut Scene) -> Result<(), Violation> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        match self.disk.finish() {
            Ok(Some(number)) => {
                scene.note(self.id, Note::Written { number });
                process.stalled_ticks = 0;
                process.replica.persisted(number);
            }
            Ok(None) => {}
            Err(_) if self.disk.keys.power_lost() => {
                self.power_lost(scene);
                return self.crash(scene);
            }
            Err(_) if self.disk.fails => return self.stop(scene, "its disk fails"),
            Err(error) => {
                return broken(
                    "what a member writes follows what it wrote",
                    error.to_string(),
                );
            }
        }
        self.write(scene);
        self.turn(scene)
    }

    /// Has the disk begin the next write.
    fn write(&mut self, scene: &mut Scene) {
        if self.disk.begin() {
            let sync = scene.plan.sync.clone();
            let time = match scene.is(Mutation::SkipSync) {
                true => 1,
                false => scene.between(&sync) * self.disk.slow,
            };
            let (member, life) = (self.id, self.life);
            scene.after(time, Event::Written { member, life });
        }
    }

    /// What follows every event, in the order of the shell.
    pub(super) fn turn(&mut self, scene: &mut Scene) -> Result<(), Violation> {
        if let Some(process) = &mut self.process {
            process.turn_due = false;
            process.propose(self.id, scene);
            process.propose_changes(self.id, scene);
            process.begin_reads(scene);
        }
        self.process_outputs(scene)?;
        if let Some(process) = &mut self.process {
            process.finish_reads();
        }
        self.take_snapshot(scene);
        self.write(scene);
        self.end_if_stopped(scene)
    }

    /// The store has something to propose: there is a turn soon, in which it is taken with all that
    /// comes until then.
    pub(super) fn wake(&mut self, scene: &mut Scene) {
        if let Some(process) = &mut self.process
            && !std::mem::replace(&mut process.turn_due, true)
        {
            let turn = scene.plan.turn.clone();
            let soon = scene.between(&turn);
            let (member, life) = (self.id, self.life);
            scene.after(soon, Event::Turn { member, life });
        }
    }

    /// Lets a watcher look at what it was told.
    pub(super) fn watch(&mut self, watcher: usize, scene: &mut Scene) -> Result<(), Violation> {
        if let Some(process) = &mut self.process {
            process.watchers[watcher].look(&process.jumps, scene)?;
            let wait = scene.plan.watch.clone();
            let wait = scene.between(&wait);
            let (member, life) = (self.id, self.life);
            scene.after(
                wait,
                Event::Watch {
                    member,
                    life,
                    watcher,
                },
            );
        }
        Ok(())
    }

    /// Watchers have been told everything that the store has.
    pub(super) fn check_watchers(&mut self, scene: &mut Scene) -> Result<(), Violation> {
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let index = process.store.snapshot().index();
        for watcher in &mut process.watchers {
            watcher.check_end(index, &process.jumps, scene)?;
        }
        Ok(())
    }

    /// Asks another member to take over.
    pub(super) fn transfer(&mut self, to: u64, scene: &mut Scene) -> Result<(), Violation> {
        if let Some(process) = &mut self.process
            && process.replica.role().leads
            && process.replica.members().contains_key(&to)
        {
            process.replica.transfer_leader(to);
        }
        self.turn(scene)
    }

    /// Somebody asks this member to change the members.
    pub(super) fn ask_change(&mut self, change: MemberChange, scene: &mut Scene) {
        if let Some(process) = &mut self.process {
            let id = scene.rng.random::<u64>().max(2);
            process.changes.push_back((id, change));
            self.wake(scene);
        }
    }
}
