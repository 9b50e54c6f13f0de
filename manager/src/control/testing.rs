//! What the tests of this room share: a control API on a store that commits at once.

use std::sync::Arc;

use parking_lot::Mutex;
use skep_proto::{Timestamp, v1::*};
use skep_raft::Status as RaftStatus;
use skep_store::{Object, Store};
use tonic::{Code, Request, Response, Status};

use super::{ApiError, Control};

/// The time of all writes.
pub(crate) const NOW: Timestamp = Timestamp {
    seconds: 1_700_000_000,
    nanos: 0,
};

/// A control API with its store and the member list that it sees.
pub(crate) struct Swarm {
    pub control: Control,
    pub store: Store,
    pub members: Arc<Mutex<Vec<RaftMember>>>,
}

impl Swarm {
    /// An empty one.
    pub fn new() -> Self {
        let store = skep_store::testing::leading(|| NOW);
        let members = Arc::new(Mutex::new(Vec::new()));
        let seen = members.clone();
        Self {
            control: Control::new(store.clone(), move || seen_by_leader(seen.lock().clone())),
            store,
            members,
        }
    }

    /// Stores an object as it is.
    pub async fn put<T: Object>(&self, object: T) -> Arc<T> {
        self.store
            .update(|tx| tx.create(object))
            .await
            .expect("the store takes it")
    }

    /// The committed object with this ID.
    pub fn stored<T: Object>(&self, id: &str) -> Option<Arc<T>> {
        self.store.snapshot().get::<T>(id).cloned()
    }
}

/// Replication as the leader among these sees it.
pub(crate) fn seen_by_leader(members: Vec<RaftMember>) -> RaftStatus {
    let leader = members.iter().find(|member| member.status().leader);
    RaftStatus {
        raft_id: leader.map_or(0, |leader| leader.raft_id),
        leader: leader.cloned(),
        members,
        ..RaftStatus::default()
    }
}

/// The reply of a call that must succeed.
pub(crate) fn reply<T>(result: Result<Response<T>, Status>) -> T {
    result.expect("the call succeeds").into_inner()
}

/// Code and text of a call that must fail.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<Response<T>, Status>) -> (Code, String) {
    let status = result.expect_err("the call fails");
    (status.code(), status.message().to_owned())
}

/// A request.
pub(crate) fn ask<T>(message: T) -> Request<T> {
    Request::new(message)
}

/// The text of an error, empty if there is none.
pub(crate) fn text(result: Result<(), ApiError>) -> String {
    result.err().map_or_else(String::new, |err| err.to_string())
}

/// Annotations with a name.
pub(crate) fn named(name: &str) -> Option<Annotations> {
    Some(Annotations {
        name: name.to_owned(),
        ..Default::default()
    })
}

/// Annotations with a name and one label.
pub(crate) fn labelled(name: &str, key: &str, value: &str) -> Option<Annotations> {
    Some(Annotations {
        name: name.to_owned(),
        labels: [(key.to_owned(), value.to_owned())].into(),
        ..Default::default()
    })
}

/// A replicated service of plain containers.
pub(crate) fn service_spec(name: &str) -> ServiceSpec {
    ServiceSpec {
        annotations: named(name),
        task: Some(TaskSpec {
            runtime: Some(task_spec::Runtime::Container(ContainerSpec {
                image: "nginx:1.27".to_owned(),
                ..Default::default()
            })),
            ..Default::default()
        }),
        mode: Some(service_spec::Mode::Replicated(ReplicatedService {
            replicas: 2,
        })),
        ..Default::default()
    }
}
