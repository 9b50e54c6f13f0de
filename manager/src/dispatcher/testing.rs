//! A store that leads, a dispatcher that runs, and calls as agents make them.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::BoxStream};
use skep_proto::v1::{
    AssignmentsMessage, AssignmentsRequest, Cluster, ClusterSpec, DispatcherConfig, EncryptionKey,
    HeartbeatRequest, Node, NodeDescription, NodeStatus, Peer, RaftMember, RootCa, SessionMessage,
    SessionRequest, Task, TaskState, TaskStatus, UpdateTaskStatusRequest,
    dispatcher_server::Dispatcher as _, node_status::State,
    update_task_status_request::TaskStatusUpdate,
};
use skep_security::{Caller, Identity, Role};
use skep_store::{Error, Object, Route, Store, Tx, testing::leading};
use tokio::{sync::watch, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status};

use super::Dispatcher;
use crate::{secret_drivers::SecretDrivers, time};

/// Anything that takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(10);

pub(super) type SessionStream = BoxStream<'static, Result<SessionMessage, Status>>;
pub(super) type AssignmentsStream = BoxStream<'static, Result<AssignmentsMessage, Status>>;

/// One manager `m1` in its term.
pub(super) struct World {
    pub store: Store,
    pub dispatcher: Dispatcher,
    pub members: watch::Sender<Vec<RaftMember>>,
    cancel: CancellationToken,
    running: JoinHandle<()>,
}

impl World {
    /// With a heartbeat period, and what is in the store before the term begins.
    pub async fn start(period: Duration, before: impl FnOnce(&mut Tx)) -> Self {
        Self::with_drivers(SecretDrivers::new(Vec::new()), period, before).await
    }

    /// The same, with these secret drivers.
    pub async fn with_drivers(
        drivers: SecretDrivers,
        period: Duration,
        before: impl FnOnce(&mut Tx),
    ) -> Self {
        let store = leading(|| time::now().into());
        write(&store, |tx| {
            tx.create(cluster(period)).unwrap();
            before(tx);
        })
        .await;
        let (members, receiver) = watch::channel(vec![member("m1", "10.0.0.1:4242")]);
        let dispatcher = Dispatcher::new(store.clone(), receiver, "m1", drivers);
        let (cancel, running) = run(&dispatcher).await;
        Self {
            store,
            dispatcher,
            members,
            cancel,
            running,
        }
    }

    /// With the default period and nodes `n1` and `n2`.
    pub async fn two_nodes() -> Self {
        Self::start(Duration::ZERO, |tx| {
            tx.create(node("n1", State::Unknown)).unwrap();
            tx.create(node("n2", State::Unknown)).unwrap();
        })
        .await
    }

    /// Ends the term and waits until it is over.
    pub async fn end_term(&mut self) {
        self.cancel.cancel();
        timeout(PATIENCE, &mut self.running).await.unwrap().unwrap();
    }

    pub async fn begin_term(&mut self) {
        (self.cancel, self.running) = run(&self.dispatcher).await;
    }

    pub async fn write<R>(&self, transaction: impl FnOnce(&mut Tx) -> R) -> R {
        write(&self.store, transaction).await
    }

    pub async fn change<T: Object>(&self, id: &str, change: impl FnOnce(&mut T)) {
        self.write(|tx| {
            let mut object = T::clone(tx.get::<T>(id).unwrap());
            change(&mut object);
            tx.update(object).unwrap();
        })
        .await;
    }

    pub fn get<T: Object>(&self, id: &str) -> Arc<T> {
        self.store.snapshot().get::<T>(id).unwrap().clone()
    }

    /// Waits until the node's status is as wanted.
    pub async fn node_status(&self, id: &str, wanted: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
        let (mut snapshot, mut subscription) = self.store.watch([Route::Node(id.to_owned())]);
        let wait = async {
            loop {
                let status = snapshot.get::<Node>(id).unwrap().status();
                if wanted(status) {
                    return status.clone();
                }
                subscription.next().await;
                snapshot = self.store.snapshot();
            }
        };
        timeout(PATIENCE, wait)
            .await
            .expect("the status did not come")
    }

    pub async fn session(&self, node: &str, session_id: &str) -> Result<SessionStream, Status> {
        let request = SessionRequest {
            description: Some(description(node)),
            session_id: session_id.to_owned(),
        };
        Ok(self
            .dispatcher
            .session(from(node, request))
            .await?
            .into_inner())
    }

    /// Opens a session and reads its first message.
    pub async fn register(&self, node: &str) -> (String, SessionStream) {
        let mut stream = self.session(node, "").await.unwrap();
        (next(&mut stream).await.unwrap().session_id, stream)
    }

    pub async fn heartbeat(&self, node: &str, session_id: &str) -> Result<Duration, Status> {
        let request = HeartbeatRequest {
            session_id: session_id.to_owned(),
        };
        let reply = self
            .dispatcher
            .heartbeat(from(node, request))
            .await?
            .into_inner();
        Ok(reply.period.unwrap().try_into().unwrap())
    }

    pub async fn assignments(
        &self,
        node: &str,
        session_id: &str,
    ) -> Result<AssignmentsStream, Status> {
        let request = AssignmentsRequest {
            session_id: session_id.to_owned(),
        };
        Ok(self
            .dispatcher
            .assignments(from(node, request))
            .await?
            .into_inner())
    }

    pub async fn report(
        &self,
        node: &str,
        session_id: &str,
        updates: &[(&str, TaskState)],
    ) -> Result<(), Status> {
        let updates = updates
            .iter()
            .map(|(task, state)| TaskStatusUpdate {
                task_id: (*task).to_owned(),
                status: Some(TaskStatus {
                    state: (*state).into(),
                    ..Default::default()
                }),
            })
            .collect();
        let request = UpdateTaskStatusRequest {
            session_id: session_id.to_owned(),
            updates,
        };
        self.dispatcher
            .update_task_status(from(node, request))
            .await
            .map(drop)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.running.abort();
        self.store.follow();
    }
}

async fn run(dispatcher: &Dispatcher) -> (CancellationToken, JoinHandle<()>) {
    let cancel = CancellationToken::new();
    let running = tokio::spawn({
        let (dispatcher, cancel) = (dispatcher.clone(), cancel.clone());
        async move { dispatcher.run(cancel).await }
    });
    while dispatcher.term().is_err() {
        tokio::task::yield_now().await;
    }
    (cancel, running)
}

async fn write<R>(store: &Store, transaction: impl FnOnce(&mut Tx) -> R) -> R {
    store
        .update(|tx| Ok::<_, Error>(transaction(tx)))
        .await
        .unwrap()
}

/// The next item of a stream that must not have ended.
pub(super) async fn next<T>(
    stream: &mut BoxStream<'static, Result<T, Status>>,
) -> Result<T, Status> {
    timeout(PATIENCE, stream.next())
        .await
        .expect("nothing came")
        .expect("the stream ended")
}

/// The stream's final error, after any messages.
pub(super) async fn last<T>(mut stream: BoxStream<'static, Result<T, Status>>) -> (Code, String) {
    loop {
        if let Err(error) = next(&mut stream).await {
            assert!(
                stream.next().await.is_none(),
                "nothing comes after an error"
            );
            return told(error);
        }
    }
}

pub(super) fn told(error: Status) -> (Code, String) {
    (error.code(), error.message().to_owned())
}

/// A request of the node, from 192.0.2.7.
pub(super) fn from<T>(node: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(Caller {
        identity: Some(Identity {
            node_id: node.to_owned(),
            role: Role::Worker,
            cluster_id: "c1".to_owned(),
        }),
        remote_addr: "192.0.2.7:31000".to_owned(),
        forwarded_by: None,
    });
    request
}

pub(super) fn node(id: &str, state: State) -> Node {
    let status = NodeStatus {
        state: state.into(),
        ..Default::default()
    };
    Node {
        id: id.to_owned(),
        status: Some(status),
        ..Default::default()
    }
}

pub(super) fn task(id: &str, node: &str, state: TaskState) -> Task {
    Task {
        id: id.to_owned(),
        node_id: node.to_owned(),
        status: Some(TaskStatus {
            state: state.into(),
            ..Default::default()
        }),
        ..Default::default()
    }
}

pub(super) fn description(node: &str) -> NodeDescription {
    NodeDescription {
        hostname: format!("host-{node}"),
        ..Default::default()
    }
}

pub(super) fn member(node: &str, addr: &str) -> RaftMember {
    RaftMember {
        node_id: node.to_owned(),
        addr: addr.to_owned(),
        ..Default::default()
    }
}

pub(super) fn peers(message: &SessionMessage) -> Vec<(Peer, i64)> {
    message
        .managers
        .iter()
        .map(|m| (m.peer.clone().unwrap(), m.weight))
        .collect()
}

fn cluster(period: Duration) -> Cluster {
    let dispatcher = DispatcherConfig {
        heartbeat_period: period.try_into().ok(),
    };
    Cluster {
        id: "c1".to_owned(),
        spec: Some(ClusterSpec {
            dispatcher: Some(dispatcher),
            ..Default::default()
        }),
        root_ca: Some(RootCa {
            ca_cert: "root".into(),
            ..Default::default()
        }),
        network_bootstrap_keys: vec![EncryptionKey {
            lamport_time: 7,
            ..Default::default()
        }],
        ..Default::default()
    }
}
