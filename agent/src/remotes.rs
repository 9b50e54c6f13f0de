//! The managers a worker knows, and which of them it tries next.
//!
//! Each manager has a weight that follows what was seen of it: being listed by a manager raises
//! it, a failed session lowers it. The choice is random in proportion to the weights, so workers
//! spread over the managers and leave a bad one alone without forgetting it. The set outlives the
//! process in `state.json`, in the form stock workers use.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use skep_proto::v1;

use crate::disk;

/// What being listed by a manager, or being named in the configuration, says of a manager.
pub(crate) const LISTED: i64 = 10;
/// What a failed session says of a manager.
pub(crate) const FAILED: i64 = -10;
/// Weights stay within ± this.
const MAX_WEIGHT: f64 = 256.0;
/// Added to every weight in the choice: nobody is ever out of reach.
const BIAS: f64 = 0.001;
/// More managers than any cluster has; a longer list is cut.
const MAX_PEERS: usize = 1000;
/// More bytes than `MAX_PEERS` entries take.
const MAX_FILE: u64 = 1 << 20;

/// A manager's node and the address it is reached at.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Remote {
    #[serde(default)]
    pub(crate) node_id: String,
    pub(crate) addr: String,
}

impl From<v1::Peer> for Remote {
    fn from(peer: v1::Peer) -> Self {
        Self {
            node_id: peer.node_id,
            addr: peer.addr,
        }
    }
}

/// Where the managers are kept.
pub(crate) fn file(state_dir: &Path) -> PathBuf {
    state_dir.join("state.json")
}

/// The managers that the agent with this state directory knows, as of the last list it was sent.
/// Nobody if it was never sent one, or the file makes no sense.
pub fn known_managers(state_dir: &Path) -> Vec<v1::Peer> {
    let stored = disk::read(&file(state_dir), MAX_FILE).ok().flatten();
    let stored: Vec<Remote> = stored
        .and_then(|bytes| serde_json::from_slice(&bytes).ok())
        .unwrap_or_default();
    let peers = stored.into_iter().map(|remote| v1::Peer {
        node_id: remote.node_id,
        addr: remote.addr,
    });
    peers.collect()
}

/// The managers and their weights, kept on disk.
#[derive(Debug)]
pub(crate) struct Remotes {
    path: PathBuf,
    weights: BTreeMap<Remote, i64>,
}

impl Remotes {
    /// What `path` holds (nothing if it does not exist) with `configured` added. A file that
    /// makes no sense is no reason not to start: the configuration may name a manager.
    pub(crate) fn open(
        path: PathBuf,
        configured: impl IntoIterator<Item = Remote>,
    ) -> io::Result<Self> {
        let stored: Vec<Remote> = match disk::read(&path, MAX_FILE)? {
            Some(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|error| {
                tracing::error!(path = %path.display(), %error, "the stored managers are ignored");
                Vec::new()
            }),
            None => Vec::new(),
        };
        let mut remotes = Self {
            path,
            weights: BTreeMap::new(),
        };
        for remote in stored.into_iter().chain(configured) {
            remotes.observe(&remote, LISTED);
        }
        Ok(remotes)
    }

    /// The manager that `random`, uniform in `[0, 1)`, picks.
    pub(crate) fn choose(&self, random: f64) -> Option<&Remote> {
        choose(&self.weights, random)
    }

    /// Takes one observation of a manager into its weight.
    pub(crate) fn observe(&mut self, remote: &Remote, observation: i64) {
        if remote.addr.is_empty()
            || (self.weights.len() >= MAX_PEERS && !self.weights.contains_key(remote))
        {
            return;
        }
        let weight = self.weights.entry(remote.clone()).or_default();
        *weight = observed(*weight, observation);
    }

    /// Takes the list a manager sent: listed ones are observed, others are dropped. A list that
    /// names nobody changes nothing, because a worker that knows nobody could never come back.
    ///
    /// Returns whether the set of managers is another one now.
    pub(crate) fn listed(&mut self, managers: &[v1::WeightedPeer]) -> bool {
        let listed: BTreeMap<Remote, i64> = managers
            .iter()
            .filter_map(|manager| Some((Remote::from(manager.peer.clone()?), manager.weight)))
            .filter(|(remote, _)| !remote.addr.is_empty())
            .take(MAX_PEERS)
            .collect();
        if listed.is_empty() {
            return false;
        }
        let before = self.weights.len();
        self.weights.retain(|remote, _| listed.contains_key(remote));
        let mut changed = self.weights.len() != before;
        for (remote, weight) in listed {
            changed |= !self.weights.contains_key(&remote);
            self.observe(&remote, weight);
        }
        changed
    }

    /// Writes the set to disk.
    pub(crate) fn save(&self) -> io::Result<()> {
        let remotes: Vec<_> = self.weights.keys().collect();
        disk::write(&self.path, &serde_json::to_vec(&remotes)?)
    }
}

/// The weight after an observation: halfway between the two, rounded up, within ±256.
fn observed(old: i64, observation: i64) -> i64 {
    let mean = 0.5 * observation as f64 + 0.5 * old as f64;
    mean.clamp(-MAX_WEIGHT, MAX_WEIGHT).ceil() as i64
}

/// Random choice in proportion to `max(weight, 0) + 0.001`; `random` is uniform in `[0, 1)`.
fn choose<K>(weights: &BTreeMap<K, i64>, random: f64) -> Option<&K> {
    let chance = |weight: i64| weight.max(0) as f64 + BIAS;
    let total: f64 = weights.values().map(|&weight| chance(weight)).sum();
    let mut left = random * total;
    for (key, &weight) in weights {
        left -= chance(weight);
        if left < 0.0 {
            return Some(key);
        }
    }
    // Rounding may leave a little at the end.
    weights.keys().next_back()
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use proptest::prelude::*;

    use super::*;

    fn remote(name: &str) -> Remote {
        Remote {
            node_id: name.to_owned(),
            addr: format!("{name}:2377"),
        }
    }

    fn listed(names: &[&str]) -> Vec<v1::WeightedPeer> {
        names
            .iter()
            .map(|name| v1::WeightedPeer {
                peer: Some(v1::Peer {
                    node_id: (*name).to_owned(),
                    addr: format!("{name}:2377"),
                }),
                weight: LISTED,
            })
            .collect()
    }

    #[test]
    fn weights_follow_the_formula() {
        assert_eq!(observed(0, 10), 5);
        assert_eq!(observed(5, 10), 8, "7.5 is rounded up");
        assert_eq!(observed(10, -10), 0);
        assert_eq!(observed(0, -10), -5);
        assert_eq!(observed(-5, -10), -7, "-7.5 is rounded up");
        assert_eq!(observed(1000, i64::MAX), 256);
        assert_eq!(observed(0, i64::MIN), -256);
    }

    #[test]
    fn a_failing_manager_is_rarely_chosen() {
        let weights = BTreeMap::from([("bad", -10), ("good", 10)]);
        assert_eq!(
            choose(&weights, 0.00001),
            Some(&"bad"),
            "but never out of reach"
        );
        assert_eq!(choose(&weights, 0.01), Some(&"good"));
        assert_eq!(choose(&weights, 0.999), Some(&"good"));
        assert_eq!(choose(&BTreeMap::<&str, i64>::new(), 0.5), None);
    }

    #[test]
    fn a_list_replaces_the_set_and_an_empty_one_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state.json");
        let mut remotes = Remotes::open(path.clone(), [remote("a")]).unwrap();
        assert!(remotes.listed(&listed(&["b", "c"])));
        assert!(!remotes.listed(&listed(&["c", "b"])), "the same set");
        assert!(!remotes.listed(&[]));
        assert!(
            !remotes.listed(&[v1::WeightedPeer::default()]),
            "nobody is named"
        );
        assert_eq!(
            remotes.weights.keys().collect::<Vec<_>>(),
            [&remote("b"), &remote("c")]
        );

        remotes.save().unwrap();
        assert_eq!(
            fs::read_to_string(&path).unwrap(),
            r#"[{"node_id":"b","addr":"b:2377"},{"node_id":"c","addr":"c:2377"}]"#
        );
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let again = Remotes::open(path.clone(), []).unwrap();
        assert_eq!(again.weights.len(), 2);
        let addrs: Vec<_> = known_managers(dir.path())
            .into_iter()
            .map(|peer| peer.addr)
            .collect();
        assert_eq!(addrs, ["b:2377", "c:2377"]);
        fs::write(&path, "[{").unwrap();
        let again = Remotes::open(path, [remote("a")]).unwrap();
        assert_eq!(again.weights.keys().collect::<Vec<_>>(), [&remote("a")]);
    }

    proptest! {
        #[test]
        fn somebody_is_always_chosen(
            weights in prop::collection::btree_map(any::<u8>(), -300_i64..300, 1..9),
            random in 0.0..1.0_f64,
        ) {
            prop_assert!(choose(&weights, random).is_some());
        }

        #[test]
        fn weights_stay_in_range(observations in prop::collection::vec(any::<i64>(), 0..50)) {
            let weight = observations.into_iter().fold(0, observed);
            prop_assert!((-256..=256).contains(&weight));
        }
    }
}
