//! When a member takes a snapshot, and what becomes of it.

use skep_proto::v1::Cluster;

use super::{Member, Process};
use crate::sim::{Violation, broken, disk::Job, queue::Event, scene::Scene, trace::Note};

/// Entries between snapshots, and entries kept behind one, before there is a cluster object.
const DEFAULTS: (u64, u64) = (10_000, 500);

impl Process {
    fn snapshot_config(&self) -> (u64, u64) {
        let store = self.store.snapshot();
        let cluster = store.all::<Cluster>().next();
        let config = cluster.and_then(|cluster| cluster.spec().raft.as_ref());
        config.map_or(DEFAULTS, |config| {
            (
                config.snapshot_interval,
                config.log_entries_for_slow_followers,
            )
        })
    }
}

impl Member {
    /// Begins a snapshot if one is due or a peer needs one.
    pub(super) fn take_snapshot(&mut self, scene: &mut Scene) {
        let Some(process) = &mut self.process else {
            return;
        };
        if process.taking.is_some() {
            return;
        }
        let due = || {
            let interval = process.snapshot_config().0;
            interval > 0 && process.replica.applied() >= process.newest_snapshot + interval
        };
        let rotates = || {
            let rotation = self.disk.rotation();
            rotation.is_some_and(|rotation| rotation.wants_snapshot(process.replica.applied()))
        };
        if !process.replica.wants_snapshot() && !due() && !rotates() {
            return;
        }
        let store = process.store.snapshot();
        let Some(header) = process.replica.snapshot_header() else {
            return;
        };
        if header.index() != store.index() {
            return;
        }
        process.taking = Some(header.with_store(store));
        let sync = scene.plan.sync.clone();
        let time = scene.between(&sync) * self.disk.slow * 3;
        let (member, life) = (self.id, self.life);
        scene.after(time, Event::Snapshot { member, life });
    }

    /// A snapshot has been written beside the log.
    pub(in crate::sim) fn snapshot_taken(&mut self, scene: &mut Scene) -> Result<(), Violation> {
        let writer = self.disk.snapshot_writer();
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        let Some(own) = process.taking.take() else {
            return Ok(());
        };
        let index = own.index();
        let snapshot = match writer.write(&own) {
            Ok(snapshot) => snapshot,
            Err(error) => return broken("snapshots can be written", error.to_string()),
        };
        if process.replica.wants_snapshot() {
            process.replica.offer(own);
        }
        let rotation = self.disk.rotation();
        let aged = rotation
            .as_ref()
            .and_then(|rotation| rotation.must_drop(index));
        // One of the leader may have come in between.
        let newest = process.newest_snapshot;
        if index > newest || (index == newest && aged.is_some()) {
            let unneeded = index.saturating_sub(process.snapshot_config().1);
            let compact = unneeded.max(aged.unwrap_or(0));
            if self.disk.submit(Job::Save { snapshot, compact }) {
                process.newest_snapshot = index;
                process.replica.compact(unneeded);
                scene.counts.snapshots[0] += 1;
                scene.note(self.id, Note::Snapshot { index, compact });
            } else if let Some(rotation) = rotation {
                rotation.discarded();
            }
        }
        self.turn(scene)
    }
}
