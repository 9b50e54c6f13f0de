//! The raft settings that the cluster object holds, as far as a member needs them before it can read
//! the store: how many ticks lie between heartbeats, and how many without one make an election.

use bytes::Bytes;
use prost::Message as _;
use skep_proto::v1;

use crate::log::Loaded;

/// Longest time between elections in ticks: 10 minutes with ticks of 100 ms. It keeps a slip of the
/// hand from leaving a cluster without a leader for hours.
const MAX_ELECTION: u32 = 6000;

/// Ticks of the clock that matter to all members of a group; they should agree on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticks {
    /// Between two heartbeats of a leader.
    pub(crate) heartbeat: u32,
    /// Without a leader before an election, at least.
    pub(crate) election: u32,
}

impl Default for Ticks {
    /// SwarmKit's.
    fn default() -> Self {
        Self {
            heartbeat: 1,
            election: 10,
        }
    }
}

impl Ticks {
    /// The ticks that a configuration asks for; the default if it leaves both out.
    ///
    /// # Errors
    /// The reason why no group can run with these.
    pub fn of(config: &v1::RaftConfig) -> Result<Self, String> {
        let (heartbeat, election) = (config.heartbeat_tick, config.election_tick);
        match (heartbeat, election) {
            (0, 0) => Ok(Self::default()),
            (0, _) | (_, 0) => Err("raft heartbeat tick and election tick must not be 0".into()),
            _ if election <= heartbeat => Err(format!(
                "raft election tick must be greater than heartbeat tick, and {election} is not \
                 greater than {heartbeat}"
            )),
            _ if election > MAX_ELECTION => Err(format!(
                "raft election tick must be at most {MAX_ELECTION}, and {election} is greater"
            )),
            _ => Ok(Self {
                heartbeat,
                election,
            }),
        }
    }

    /// What a member starts with: the settings that its log ends with, or the default with a warning.
    pub(crate) fn of_log(loaded: &Loaded) -> Self {
        let Some(config) = stored(loaded) else {
            return Self::default();
        };
        if config.keep_old_snapshots > 0 {
            tracing::warn!(
                keep_old_snapshots = config.keep_old_snapshots,
                "this cluster asks for old raft snapshots to be kept; only the newest one is"
            );
        }
        Self::of(&config).unwrap_or_else(|reason| {
            tracing::warn!(reason, "the stored raft settings are not used");
            Self::default()
        })
    }
}

/// The settings as of the end of the log. Entries at its end that are not committed count too: it is
/// not known which are, and a member that is ahead with its settings does no harm.
fn stored(loaded: &Loaded) -> Option<v1::RaftConfig> {
    let newest = loaded
        .entries
        .iter()
        .rev()
        .find_map(|entry| of_entry(&entry.data));
    newest.or_else(|| {
        let data = loaded.snapshot.as_ref()?.data.clone();
        // One that does not decode is told of when the store is made of it.
        let store = SnapshotPart::decode(data).ok()?.store?;
        store.clusters.into_iter().next()?.spec?.raft
    })
}

fn of_entry(data: &Bytes) -> Option<v1::RaftConfig> {
    let request = RequestPart::decode(data.clone()).ok()?;
    let clusters = request.action.into_iter().rev();
    clusters
        .filter_map(|action| action.cluster)
        .next()?
        .spec?
        .raft
}

/// The part of a [`v1::Snapshot`] that is wanted here; the rest is skipped, not decoded.
#[derive(Clone, PartialEq, prost::Message)]
struct SnapshotPart {
    #[prost(message, optional, tag = "3")]
    store: Option<StorePart>,
}

/// The part of a [`v1::StoreSnapshot`].
#[derive(Clone, PartialEq, prost::Message)]
struct StorePart {
    #[prost(message, repeated, tag = "5")]
    clusters: Vec<v1::Cluster>,
}

/// The part of a [`v1::InternalRaftRequest`].
#[derive(Clone, PartialEq, prost::Message)]
struct RequestPart {
    #[prost(message, repeated, tag = "2")]
    action: Vec<ActionPart>,
}

/// The part of a [`v1::StoreAction`].
#[derive(Clone, PartialEq, prost::Message)]
struct ActionPart {
    #[prost(message, optional, tag = "6")]
    cluster: Option<v1::Cluster>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::{Entry, EntryType, Snapshot};

    fn config(heartbeat_tick: u32, election_tick: u32) -> v1::RaftConfig {
        v1::RaftConfig {
            heartbeat_tick,
            election_tick,
            ..v1::RaftConfig::default()
        }
    }

    fn cluster(heartbeat: u32, election: u32) -> v1::Cluster {
        let mut cluster = v1::Cluster::default();
        cluster.spec_mut().raft = Some(config(heartbeat, election));
        cluster
    }

    fn entry(index: u64, target: v1::store_action::Target) -> Entry {
        let request = v1::InternalRaftRequest {
            id: index,
            action: vec![v1::StoreAction {
                action: v1::StoreActionKind::StoreActionUpdate.into(),
                target: Some(target),
            }],
        };
        Entry {
            index,
            term: 1,
            data: request.encode_to_vec().into(),
            ..Entry::default()
        }
    }

    fn snapshot(index: u64, cluster: v1::Cluster) -> Snapshot {
        let store = v1::StoreSnapshot {
            nodes: vec![v1::Node::default()],
            clusters: vec![cluster],
            ..v1::StoreSnapshot::default()
        };
        let content = v1::Snapshot {
            store: Some(store),
            ..v1::Snapshot::default()
        };
        let mut snapshot = Snapshot {
            data: content.encode_to_vec().into(),
            ..Snapshot::default()
        };
        snapshot.mut_metadata().index = index;
        snapshot
    }

    #[test]
    fn only_ticks_that_a_group_can_run_with_are_taken() {
        let ticks = |heartbeat, election| Ticks {
            heartbeat,
            election,
        };
        assert_eq!(Ticks::of(&config(0, 0)), Ok(Ticks::default()));
        assert_eq!(Ticks::of(&config(1, 10)), Ok(Ticks::default()));
        assert_eq!(Ticks::of(&config(1, 3)), Ok(ticks(1, 3)));
        assert_eq!(Ticks::of(&config(5, 6000)), Ok(ticks(5, 6000)));
        for (heartbeat, election) in [(0, 10), (1, 0), (1, 1), (10, 3), (1, 6001)] {
            let refused = Ticks::of(&config(heartbeat, election)).unwrap_err();
            assert!(refused.starts_with("raft "), "{refused}");
        }
    }

    #[test]
    fn the_newest_settings_in_the_log_count() {
        use v1::store_action::Target;
        let mut loaded = Loaded::default();
        assert_eq!(Ticks::of_log(&loaded), Ticks::default());
        loaded.snapshot = Some(snapshot(4, cluster(2, 20)));
        assert_eq!(Ticks::of_log(&loaded).election, 20);
        // A membership change does not decode as a change of the store, or says nothing of clusters.
        let change = Entry {
            entry_type: EntryType::EntryConfChange,
            index: 6,
            data: vec![0xff; 9].into(),
            ..Entry::default()
        };
        loaded.entries = vec![
            entry(5, Target::Node(v1::Node::default())),
            change,
            entry(7, Target::Cluster(cluster(3, 30))),
            entry(8, Target::Cluster(cluster(3, 40))),
            entry(9, Target::Node(v1::Node::default())),
        ];
        assert_eq!(Ticks::of_log(&loaded).election, 40);
        loaded
            .entries
            .push(entry(10, Target::Cluster(cluster(9, 3))));
        assert_eq!(
            Ticks::of_log(&loaded),
            Ticks::default(),
            "nonsense is not used"
        );
    }
}
