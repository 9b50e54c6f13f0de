//! What a manager does while it leads: it makes sure of the first objects and runs everything that
//! decides.

use std::{sync::Arc, time::Duration};

use skep_proto::{
    Duration as WireDuration,
    v1::{
        Annotations, CaConfig, Certificate, Cluster, ClusterSpec, DispatcherConfig, IssuanceStatus,
        JoinTokens, Node, NodeRole, NodeSpec, OrchestrationConfig, RaftConfig,
        RootCa as WireRootCa,
        issuance_status::State,
        node_spec::{Availability, Membership},
    },
};
use skep_raft::Status as RaftStatus;
use skep_security::{Identity, JoinToken, RootCa, Tls};
use skep_store::{Error, Store};
use tokio::{
    sync::watch,
    task::{JoinError, JoinSet},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, error, info, info_span};

use crate::{
    ca::{Signer, external, rotation::Rotation},
    dispatcher::Dispatcher,
    logbroker::LogBroker,
    reconcile::{Reconciler, drive},
    reconcilers::{self, network_keys},
    roles::{self, Group},
};

/// Pause before what a leader does is begun anew in the same term. A loss of leadership is told well
/// within it.
const RESTART: Duration = Duration::from_millis(500);

/// What the first manager of a cluster puts into the store.
#[derive(Clone, Debug)]
pub struct Founding {
    /// The root, with its key.
    pub ca: RootCa,
    /// Whether the first manager takes tasks.
    pub availability: Availability,
}

/// Runs terms of leadership until `cancel`.
pub(crate) struct Leader {
    pub(crate) identity: Identity,
    pub(crate) founding: Option<Founding>,
    pub(crate) store: Store,
    pub(crate) tls: Tls,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) log_broker: LogBroker,
    pub(crate) status: watch::Receiver<RaftStatus>,
    pub(crate) group: Arc<dyn Group>,
}

impl Leader {
    pub(crate) async fn run(mut self, cancel: CancellationToken) {
        while let Some(term) = self.elected(&cancel).await {
            let span = info_span!("leader", term);
            info!(parent: &span, "leading");
            self.term(term, cancel.child_token())
                .instrument(span.clone())
                .await;
            info!(parent: &span, "no longer leading");
        }
    }

    /// Waits to be leader and returns the term.
    async fn elected(&mut self, cancel: &CancellationToken) -> Option<u64> {
        // If replication has panicked, its last word may have been that this manager leads.
        self.status.has_changed().ok()?;
        tokio::select! {
            biased;
            () = cancel.cancelled() => None,
            leading = self.status.wait_for(|status| status.leading) => Some(leading.ok()?.term),
        }
    }

    /// Everything of one term, until that or a part of it ends. All of it has ended when this
    /// returns.
    async fn term(&mut self, term: u64, cancel: CancellationToken) {
        if let Err(err) = self.found().await {
            // Usually leadership went away again.
            error!(%err, "the first objects could not be written");
            let _ = timeout(RESTART, self.ended(term, &cancel)).await;
            return;
        }
        // Before the dispatcher: a node that has a session listens for subscriptions at once.
        let log_broker = self.log_broker.begin();
        let mut parts = JoinSet::new();
        let dispatcher = self.dispatcher.clone();
        let dispatcher_cancel = cancel.clone();
        parts.spawn(async move { dispatcher.run(dispatcher_cancel).await });
        let roles = roles::run(self.store.clone(), self.group.clone(), self.status.clone());
        let roles_cancel = cancel.clone();
        parts.spawn(async move {
            let _ = roles_cancel.run_until_cancelled(roles).await;
        });
        let cluster_id = || self.identity.cluster_id.clone();
        let external = external::run(self.store.clone(), self.tls.clone(), cluster_id());
        let external_cancel = cancel.clone();
        parts.spawn(async move {
            let _ = external_cancel.run_until_cancelled(external).await;
        });
        let of_the_ca: [Box<dyn Reconciler>; 2] = [
            Box::new(Signer::new(cluster_id())),
            Box::new(Rotation::new(cluster_id())),
        ];
        let others = reconcilers::all().into_iter().chain(reconcilers::upkeep());
        for reconciler in of_the_ca.into_iter().chain(others) {
            let (store, cancel) = (self.store.clone(), cancel.clone());
            parts.spawn(async move {
                // A reconciler ends with the leadership that it writes under; so do we all then.
                let _ = cancel.run_until_cancelled(drive(reconciler, store)).await;
            });
        }
        let early = tokio::select! {
            () = self.ended(term, &cancel) => None,
            early = parts.join_next() => early,
        };
        if let Some(early) = early {
            // Usually it was told first that leadership is lost. Otherwise nobody would do its work
            // in this term: all begin anew, each from a snapshot.
            report(early);
            if timeout(RESTART, self.ended(term, &cancel)).await.is_err() {
                error!("a part of the leader has ended before its term; all begin anew");
            }
        }
        cancel.cancel();
        drop(log_broker);
        while let Some(ended) = parts.join_next().await {
            report(ended);
        }
    }

    async fn ended(&mut self, term: u64, cancel: &CancellationToken) {
        tokio::select! {
            biased;
            () = cancel.cancelled() => {}
            // An error means that raft has stopped, and with it the term.
            _ = self.status.wait_for(|status| !status.leading || status.term != term) => {}
        }
    }

    /// Writes the cluster and this manager's own node if this is the first term of all.
    async fn found(&self) -> Result<(), Error> {
        let Some(founding) = &self.founding else {
            return Ok(());
        };
        self.store
            .update(|tx| {
                if tx.get::<Cluster>(&self.identity.cluster_id).is_none() {
                    tx.create(new_cluster(&self.identity.cluster_id, &founding.ca))?;
                }
                if tx.get::<Node>(&self.identity.node_id).is_none() {
                    tx.create(first_node(&self.identity.node_id, founding.availability))?;
                }
                Ok(())
            })
            .await
    }
}

fn report(ended: Result<(), JoinError>) {
    if let Err(err) = ended {
        error!(%err, "a part of the leader panicked");
    }
}

/// A cluster with SwarmKit's defaults.
fn new_cluster(id: &str, ca: &RootCa) -> Cluster {
    let wire = |duration: Duration| WireDuration::try_from(duration).ok();
    let mut cluster = Cluster {
        id: id.to_owned(),
        spec: Some(ClusterSpec {
            annotations: Some(Annotations {
                name: "default".to_owned(),
                ..Default::default()
            }),
            orchestration: Some(OrchestrationConfig {
                task_history_retention_limit: 5,
            }),
            raft: Some(RaftConfig {
                snapshot_interval: 10_000,
                keep_old_snapshots: 0,
                log_entries_for_slow_followers: 500,
                heartbeat_tick: 1,
                election_tick: 10,
            }),
            dispatcher: Some(DispatcherConfig {
                heartbeat_period: wire(Duration::from_secs(5)),
            }),
            ca_config: Some(CaConfig {
                node_cert_expiry: wire(Duration::from_secs(90 * 24 * 3600)),
                ..Default::default()
            }),
            ..Default::default()
        }),
        root_ca: Some(WireRootCa {
            ca_key: ca.key_pem().cloned().unwrap_or_default(),
            ca_cert: ca.cert_pem().clone(),
            ca_cert_hash: ca.hash(),
            join_tokens: Some(JoinTokens {
                worker: JoinToken::generate(ca).to_string(),
                manager: JoinToken::generate(ca).to_string(),
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    network_keys::complete(&mut cluster);
    cluster
}

/// The node of the manager that founds the cluster; all others are made when they join.
fn first_node(id: &str, availability: Availability) -> Node {
    Node {
        id: id.to_owned(),
        role: NodeRole::Manager.into(),
        spec: Some(NodeSpec {
            desired_role: NodeRole::Manager.into(),
            membership: Membership::Accepted.into(),
            availability: availability.into(),
            ..Default::default()
        }),
        certificate: Some(Certificate {
            role: NodeRole::Manager.into(),
            cn: id.to_owned(),
            status: Some(IssuanceStatus {
                state: State::Issued.into(),
                err: String::new(),
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::future::BoxFuture;
    use prost::Message as _;
    use skep_proto::v1::{InternalRaftRequest, StoreAction, StoreActionKind, store_action::Target};
    use skep_security::{Credentials, Role};
    use skep_store::{Entry, Kind, Proposal, Propose, Route, testing};
    use tokio::sync::mpsc;

    use super::*;
    use crate::secret_drivers::SecretDrivers;
    use crate::time;

    /// A node that waits for a certificate, as another leader's entry.
    fn joining(index: u64) -> Entry {
        let mut node = first_node("n2", Availability::Active);
        node.certificate_mut()
            .status_mut()
            .set_state(State::Pending);
        let request = InternalRaftRequest {
            id: 99,
            action: vec![StoreAction {
                action: StoreActionKind::StoreActionCreate.into(),
                target: Some(Target::Node(node)),
            }],
        };
        let data = Bytes::from(request.encode_to_vec());
        Entry { index, data }
    }

    /// Takes no proposals, and tells of each.
    struct Refusing(mpsc::UnboundedSender<()>);

    impl Propose for Refusing {
        fn propose(&self, _: Proposal) -> Result<(), Error> {
            let _ = self.0.send(());
            Err(Error::LostLeadership)
        }
    }

    /// A group that nobody leaves.
    struct Nobody;

    impl Group for Nobody {
        fn remove(&self, _: u64) -> BoxFuture<'_, Result<(), skep_raft::Error>> {
            Box::pin(async { Err(skep_raft::Error::UnknownMember) })
        }
    }

    #[tokio::test]
    async fn a_part_that_ends_within_the_term_is_begun_anew() {
        let store = testing::leading(|| time::now().into());
        let (status, receiver) = watch::channel(RaftStatus {
            leading: true,
            term: 1,
            ..Default::default()
        });
        let (_members, members) = watch::channel(Vec::new());
        let identity = Identity {
            node_id: "n1".to_owned(),
            role: Role::Manager,
            cluster_id: "c1".to_owned(),
        };
        let ca = RootCa::generate().unwrap();
        let credentials = Credentials::self_issue(&ca, &identity, Duration::ZERO).unwrap();
        let leader = Leader {
            identity,
            founding: Some(Founding {
                ca,
                availability: Availability::Active,
            }),
            store: store.clone(),
            tls: Tls::new(credentials),
            dispatcher: Dispatcher::new(store.clone(), members, "n1", SecretDrivers::default()),
            log_broker: LogBroker::new(store.clone()),
            status: receiver,
            group: Arc::new(Nobody),
        };
        let cancel = CancellationToken::new();
        let running = tokio::spawn(leader.run(cancel.clone()));
        let (mut snapshot, mut subscription) = store.watch([Route::Kind(Kind::Node)]);
        while snapshot.get::<Node>("n1").is_none() {
            subscription.next().await;
            snapshot = store.snapshot();
        }
        // The signer finds that it cannot write. Then the store leads again, in the same term.
        store.follow();
        let (refused, mut refusals) = mpsc::unbounded_channel();
        store.apply(&[joining(snapshot.index() + 1)]).unwrap();
        store.lead(1, Arc::new(Refusing(refused)));
        refusals.recv().await.unwrap();
        store.follow();
        testing::lead(&store);
        let answered = async {
            // Without a signing request the answer is a refusal.
            while snapshot
                .get::<Node>("n2")
                .is_none_or(|node| node.certificate().status().state() != State::Failed)
            {
                subscription.next().await;
                snapshot = store.snapshot();
            }
        };
        timeout(Duration::from_secs(10), answered)
            .await
            .expect("the signer is back");
        cancel.cancel();
        running.await.unwrap();
        drop(status);
    }
}
