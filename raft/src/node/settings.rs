//! Settings of the group that only count from the next start on.

use skep_proto::v1;

use super::Node;
use crate::Ticks;

/// What this member runs with, and what it has last said about it.
pub(super) struct Settings {
    running: Ticks,
    told: Ticks,
    /// Index of the last entry that was in the log at the start: until it is applied, the store holds
    /// settings of the past.
    replayed: u64,
}

impl Settings {
    pub(super) fn new(running: Ticks, replayed: u64) -> Self {
        Self {
            running,
            told: running,
            replayed,
        }
    }
}

impl Node {
    /// The ticks that this member runs with.
    pub(crate) fn ticks_of_group(&self) -> Ticks {
        self.settings.running
    }

    /// Says in the log when the stored ticks are not those that this member runs with.
    pub(super) fn check_settings(&mut self) {
        if self.replica.applied() < self.settings.replayed {
            return;
        }
        // Without settings, or with those that no group can run with, the next start uses the default.
        let stored = self.raft_config().map(|config| Ticks::of(&config));
        let stored = stored.and_then(Result::ok).unwrap_or_default();
        if stored == self.settings.told {
            return;
        }
        self.settings.told = stored;
        if stored != self.settings.running {
            tracing::warn!(
                heartbeat_tick = stored.heartbeat,
                election_tick = stored.election,
                "the heartbeat and election ticks of the cluster have changed; this manager follows \
                 at its next start"
            );
        }
    }

    /// The raft settings in the cluster object.
    pub(super) fn raft_config(&self) -> Option<v1::RaftConfig> {
        let store = self.store.snapshot();
        let cluster = store.all::<v1::Cluster>().next();
        cluster.and_then(|cluster| cluster.spec().raft)
    }
}
