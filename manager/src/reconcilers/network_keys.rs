//! The keys with which nodes talk about their networks: made when there are none, replaced one by one.
//!
//! SwarmKit counts the twelve hours by the leader's uptime, so leaders that change daily never get
//! there. No time is stored with the keys, but they are at least as old as the last change of the
//! cluster object that they are in; what this remembers only makes that more exact.

use std::time::Duration;

use rand::Rng as _;
use skep_proto::v1::{Cluster, EncryptionKey, encryption_key::Algorithm};
use skep_store::Kind;

use super::facts;
use crate::{
    reconcile::{Plan, Reconciler, View},
    time::Time,
};

/// How often each subsystem gets a new key (SwarmKit's number).
const PERIOD: Duration = Duration::from_secs(12 * 60 * 60);

/// Whom keys are for (SwarmKit's names).
const SUBSYSTEMS: [&str; 2] = ["networking:gossip", "networking:ipsec"];

/// Keys of each (SwarmKit's number): the one in use, the one before and the next one. Agents expect
/// no others.
const KEYS: usize = 3;

const KEY_BYTES: usize = 16;

/// The clock of a new cluster begins below this (SwarmKit's number).
const FIRST_CLOCK: u64 = 65536;

/// Renews keys.
#[derive(Debug, Default)]
pub(super) struct NetworkKeys {
    /// The newest key seen, by its clock, and since when it is there at least.
    newest: Option<(u64, Time)>,
}

impl Reconciler for NetworkKeys {
    fn name(&self) -> &'static str {
        "network keys"
    }

    fn watches(&self) -> &'static [Kind] {
        &[Kind::Cluster]
    }

    fn plan(&mut self, view: &View<'_>) -> Plan {
        let mut plan = Plan::default();
        let Some(stored) = facts::cluster(view.snapshot) else {
            return plan;
        };
        let mut cluster = Cluster::clone(stored);
        if complete(&mut cluster) {
            plan.update(cluster);
            return plan;
        }
        let newest = clocks(stored).max().unwrap_or_default();
        let since = match self.newest {
            Some((known, since)) if known == newest => since,
            _ => stored.meta().updated_at.map_or(view.now, Time::from),
        };
        self.newest = Some((newest, since));
        let due = since + PERIOD;
        if view.now < due {
            plan.wake_at(due);
        } else {
            rotate(&mut cluster);
            plan.update(cluster);
        }
        plan
    }
}

/// Makes the keys that are missing. Returns whether there were any.
pub(crate) fn complete(cluster: &mut Cluster) -> bool {
    if cluster.network_bootstrap_keys.is_empty() && cluster.encryption_key_lamport_clock == 0 {
        cluster.encryption_key_lamport_clock = rand::rng().random_range(0..FIRST_CLOCK);
    }
    let mut changed = false;
    for subsystem in SUBSYSTEMS {
        let keys = cluster.network_bootstrap_keys.iter();
        let present = keys.filter(|key| key.subsystem == subsystem).count();
        for _ in present..KEYS {
            add(cluster, subsystem);
            changed = true;
        }
    }
    changed
}

/// Each subsystem loses its oldest key and gains one.
fn rotate(cluster: &mut Cluster) {
    for subsystem in SUBSYSTEMS {
        let keys = cluster.network_bootstrap_keys.iter().enumerate();
        let oldest = keys
            .filter(|(_, key)| key.subsystem == subsystem)
            .min_by_key(|(_, key)| key.lamport_time);
        if let Some((oldest, _)) = oldest {
            cluster.network_bootstrap_keys.remove(oldest);
        }
        add(cluster, subsystem);
    }
}

/// A new key, of the next tick of the clock.
fn add(cluster: &mut Cluster, subsystem: &str) {
    // Above all that are there, whatever is stored: agents take the order from it.
    let newest = clocks(cluster).max().unwrap_or_default();
    let clock = cluster
        .encryption_key_lamport_clock
        .max(newest)
        .saturating_add(1);
    cluster.encryption_key_lamport_clock = clock;
    let key: [u8; KEY_BYTES] = rand::rng().random();
    cluster.network_bootstrap_keys.push(EncryptionKey {
        subsystem: subsystem.to_owned(),
        algorithm: Algorithm::Aes128Gcm.into(),
        key: key.to_vec().into(),
        lamport_time: clock,
    });
}

fn clocks(cluster: &Cluster) -> impl Iterator<Item = u64> {
    let keys = cluster.network_bootstrap_keys.iter();
    keys.map(|key| key.lamport_time)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use skep_proto::v1::Meta;

    use crate::reconcile::Trigger;

    use super::*;

    fn keys<'a>(cluster: &'a Cluster, subsystem: &str) -> Vec<&'a EncryptionKey> {
        let keys = cluster.network_bootstrap_keys.iter();
        keys.filter(|key| key.subsystem == subsystem).collect()
    }

    #[test]
    fn every_subsystem_has_three_keys_and_they_have_one_order() {
        let mut cluster = Cluster::default();
        assert!(complete(&mut cluster));
        assert!(!complete(&mut cluster), "nothing is missing now");
        let first = cluster.clone();
        rotate(&mut cluster);
        for subsystem in SUBSYSTEMS {
            let (before, after) = (keys(&first, subsystem), keys(&cluster, subsystem));
            assert_eq!((before.len(), after.len()), (3, 3));
            assert_eq!(before[1..], after[..2], "the oldest goes");
            assert_eq!(after[2].key.len(), 16);
        }
        let unique: BTreeSet<_> = clocks(&first).chain(clocks(&cluster)).collect();
        assert_eq!(unique.len(), 8);
        assert_eq!(unique.last(), Some(&cluster.encryption_key_lamport_clock));
        let start = first.encryption_key_lamport_clock - 6;
        assert!(start < FIRST_CLOCK, "{start}");
    }

    #[test]
    fn keys_of_another_kind_of_manager_are_kept() {
        let mut cluster = Cluster::default();
        complete(&mut cluster);
        cluster.network_bootstrap_keys.remove(0);
        cluster.encryption_key_lamport_clock = 0;
        let newest = clocks(&cluster).max().unwrap();
        assert!(complete(&mut cluster));
        assert_eq!(cluster.network_bootstrap_keys.len(), 6);
        assert_eq!(clocks(&cluster).max(), Some(newest + 1));
    }

    #[tokio::test]
    async fn they_change_every_twelve_hours_whoever_leads() {
        const HOUR: i64 = 3600;
        let at = |hours: i64| {
            Time::from(skep_proto::Timestamp {
                seconds: hours * HOUR,
                nanos: 0,
            })
        };
        let seconds = std::sync::Arc::new(std::sync::atomic::AtomicI64::new(100 * HOUR));
        let clock = seconds.clone();
        let store = skep_store::testing::leading(move || skep_proto::Timestamp {
            seconds: clock.load(std::sync::atomic::Ordering::Relaxed),
            nanos: 0,
        });
        let mut cluster = Cluster {
            id: "c1".to_owned(),
            ..Default::default()
        };
        complete(&mut cluster);
        let write = |cluster: Cluster| {
            store.update(move |tx| match tx.get::<Cluster>("c1").is_some() {
                true => tx.update(cluster).map(drop),
                false => tx.create(cluster).map(drop),
            })
        };
        write(cluster).await.unwrap();
        let plan = |keys: &mut NetworkKeys, hours: i64| {
            keys.plan(&View {
                snapshot: &store.snapshot(),
                trigger: &Trigger::Resync,
                now: at(hours),
            })
        };
        let mut lasting = NetworkKeys::default();
        assert_eq!(plan(&mut lasting, 100).wake_at, Some(at(112)));

        // Something else changes in the cluster: it does not count for who has seen the keys before.
        seconds.store(105 * HOUR, std::sync::atomic::Ordering::Relaxed);
        let same = store.snapshot().get::<Cluster>("c1").unwrap().clone();
        assert_ne!(same.meta(), &Meta::default());
        write(Cluster::clone(&same)).await.unwrap();
        assert_eq!(plan(&mut lasting, 105).wake_at, Some(at(112)));
        assert_eq!(
            plan(&mut NetworkKeys::default(), 106).wake_at,
            Some(at(117)),
            "a new leader knows no better"
        );
        assert!(plan(&mut NetworkKeys::default(), 116).writes.is_empty());
        assert_eq!(plan(&mut NetworkKeys::default(), 117).writes.len(), 1);
        assert_eq!(plan(&mut lasting, 112).writes.len(), 1);
        store.follow();
    }
}
