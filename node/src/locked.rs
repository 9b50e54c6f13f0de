//! A manager whose key is locked: it answers on its control socket that it is, and waits for someone
//! to bring the unlock key.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use skep_proto::{
    id,
    skep::{
        UnlockRequest, UnlockResponse,
        node_server::{Node, NodeServer},
    },
};
use skep_security::{
    Credentials, DEFAULT_NODE_CERT_EXPIRY, Error as SecurityError, Identity, NodeKey, Role, RootCa,
    Tls, UnlockKey, control_incoming,
};
use tokio::{
    net::UnixListener,
    sync::{mpsc, oneshot},
};
use tonic::{Request, Response, Status, body::Body, service::Routes, transport::Server};
use tracing::{info, warn};

use crate::Error;

/// The answer to all other calls. The first sentence is Docker's.
const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \
                      \"swarmctl cluster unlock\" to unlock it.";

/// Docker's text.
const WRONG_KEY: &str = "swarm could not be unlocked: invalid key provided";

/// How long connections may take to end once the key is there.
const GRACE: Duration = Duration::from_secs(1);

type Loaded = (Credentials, NodeKey);

/// Serves `control` until someone brings the key that opens what is in `certificates`.
pub(crate) async fn until_unlocked(
    control: &mut UnixListener,
    certificates: &Path,
) -> Result<Loaded, Error> {
    warn!("this manager is locked; unlock it with `swarmctl cluster unlock`");
    let tls = nobody()?;
    let (opened, mut unlocked) = mpsc::channel(1);
    let locked = Locked {
        certificates: certificates.to_owned(),
        opened,
    };
    let refuse = || async { Status::failed_precondition(LOCKED).into_http::<Body>() };
    let router = Routes::new(NodeServer::new(locked)).into_axum_router();
    let routes = Routes::from(router.fallback(refuse));
    let listener = duplicate(control).map_err(Error::Locked)?;
    let (done, stop) = oneshot::channel::<()>();
    let mut serving = Box::pin(
        Server::builder()
            .add_routes(routes)
            .serve_with_incoming_shutdown(control_incoming(listener, tls), async {
                let _ = stop.await;
            }),
    );
    let loaded = tokio::select! {
        loaded = unlocked.recv() => loaded,
        _ = &mut serving => None,
    };
    drop(done);
    // The answer to whoever brought the key is still on its way.
    if tokio::time::timeout(GRACE, serving).await.is_err() {
        info!("a connection did not end in time");
    }
    loaded.ok_or_else(|| Error::Locked(io::Error::other("the control socket was closed")))
}

/// The same socket once more.
fn duplicate(listener: &UnixListener) -> io::Result<UnixListener> {
    use std::os::fd::AsFd as _;
    let copy = listener.as_fd().try_clone_to_owned()?;
    UnixListener::from_std(copy.into())
}

/// A certificate of nobody. Some clients speak TLS on the socket; none asks who the server is.
fn nobody() -> Result<Tls, Error> {
    let identity = Identity {
        node_id: id::random(),
        role: Role::Manager,
        cluster_id: id::random(),
    };
    let credentials =
        Credentials::self_issue(&RootCa::generate()?, &identity, DEFAULT_NODE_CERT_EXPIRY)?;
    Ok(Tls::new(credentials))
}

/// The node service of a locked manager.
#[derive(Clone, Debug)]
struct Locked {
    certificates: PathBuf,
    opened: mpsc::Sender<Loaded>,
}

#[tonic::async_trait]
impl Node for Locked {
    async fn unlock(
        &self,
        request: Request<UnlockRequest>,
    ) -> Result<Response<UnlockResponse>, Status> {
        let key = request.into_inner().unlock_key;
        let key: UnlockKey = key
            .parse()
            .map_err(|error: SecurityError| Status::invalid_argument(error.to_string()))?;
        let certificates = self.certificates.clone();
        let load = move || Credentials::load(&certificates, Some(&key));
        let loaded = tokio::task::spawn_blocking(load)
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        let loaded = match loaded {
            Ok(Some(loaded)) => loaded,
            Ok(None) => return Err(Status::internal("the certificate of this node is gone")),
            Err(SecurityError::Locked) => return Err(Status::invalid_argument(WRONG_KEY)),
            Err(error) => return Err(Status::internal(error.to_string())),
        };
        self.opened
            .try_send(loaded)
            .map_err(|_| Status::failed_precondition("swarm is not locked"))?;
        Ok(Response::new(UnlockResponse {}))
    }
}
