//! Who is let in: a layer in front of all services that puts the [`Caller`] into the request.

use std::{
    cell::Cell,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::future::Either;
use http::{Request, Response};
use skep_proto::v1::{Cluster, Node, NodeRole};
use skep_security::{Caller, Identity, authorize};
use skep_store::{Snapshot, Store};
use tonic::body::Body;
use tower::{Layer, Service};

use super::proxy::JOIN;

/// The services that carry the messages of managers.
const RAFT: [&str; 2] = ["/docker.swarmkit.v1.Raft/", "/skep.v1.RaftStream/"];

/// A manager that is to be a worker has its certificate still. It must not come back by it.
#[allow(clippy::result_large_err)] // A refusal is answered as it is.
fn may_join(snapshot: &Snapshot, caller: &Caller) -> Result<(), tonic::Status> {
    let node_id = caller.identity.as_ref().map_or("", |who| &who.node_id);
    match snapshot.get::<Node>(node_id) {
        Some(node) if node.spec().desired_role() == NodeRole::Worker => {
            Err(tonic::Status::failed_precondition(format!(
                "node {node_id} is to be a worker and cannot join as a manager; promote it first"
            )))
        }
        _ => Ok(()),
    }
}

/// How callers are told apart.
#[derive(Clone, Debug)]
pub enum Admission {
    /// By certificate, against the roles that an RPC allows.
    Certificate {
        /// The cluster that certificates must be of.
        cluster_id: Arc<str>,
        /// Knows which nodes were removed.
        store: Store,
    },
    /// Not at all: the operating system has let the caller open the control socket. Calls are made
    /// as the manager itself.
    Socket(Identity),
}

impl Admission {
    #[allow(clippy::result_large_err)] // A refusal is answered as it is.
    fn admit<B>(&self, request: &Request<B>) -> Result<Caller, tonic::Status> {
        match self {
            Self::Certificate { cluster_id, store } => {
                let (snapshot, barred) = (store.snapshot(), Cell::new(false));
                let removed = |node_id: &str| {
                    let cluster = snapshot.get::<Cluster>(cluster_id);
                    let listed = cluster.is_some_and(|cluster| {
                        cluster.blacklisted_certificates.contains_key(node_id)
                    });
                    barred.set(listed);
                    listed
                };
                let path = request.uri().path();
                match authorize(request, cluster_id, &removed) {
                    Ok(caller) if path == JOIN => may_join(&snapshot, &caller).map(|()| caller),
                    // Its manager must not go on for ever: this is what makes it end.
                    Err(_) if barred.get() && RAFT.iter().any(|raft| path.starts_with(raft)) => {
                        Err(tonic::Status::not_found(skep_raft::REMOVED))
                    }
                    decided => decided,
                }
            }
            Self::Socket(identity) => Ok(Caller {
                identity: Some(identity.clone()),
                remote_addr: String::new(),
                forwarded_by: None,
            }),
        }
    }
}

impl<S> Layer<S> for Admission {
    type Service = Admitted<S>;
    fn layer(&self, inner: S) -> Admitted<S> {
        Admitted {
            admission: Arc::new(self.clone()),
            inner,
        }
    }
}

/// The services behind an [`Admission`].
#[derive(Clone, Debug)]
pub struct Admitted<S> {
    /// Cloned for every call.
    admission: Arc<Admission>,
    inner: S,
}

impl<S> Service<Request<Body>> for Admitted<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        match self.admission.admit(&request) {
            Ok(caller) => {
                request.extensions_mut().insert(caller);
                Either::Left(self.inner.call(request))
            }
            Err(refusal) => Either::Right(ready(Ok(refusal.into_http()))),
        }
    }
}
