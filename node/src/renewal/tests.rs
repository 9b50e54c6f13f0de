//! Renewals where most managers are gone.

use std::{fs, io, sync::Mutex};

use futures_util::future::BoxFuture;
use skep_proto::v1::{
    Certificate, IssuanceStatus, IssueNodeCertificateRequest, IssueNodeCertificateResponse,
    NodeCertificateStatusRequest, NodeCertificateStatusResponse,
    issuance_status::State,
    node_ca_server::{NodeCa, NodeCaServer},
};
use skep_security::{BoxedIo, DEFAULT_NODE_CERT_EXPIRY, RootCa, TcpDial, tls_incoming};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::AbortHandle};
use tonic::{Request, Response, Status, transport::Server};

use super::*;

fn identity(node_id: &str, role: Role) -> Identity {
    Identity {
        node_id: node_id.to_owned(),
        role,
        cluster_id: "c1".to_owned(),
    }
}

/// Signs for the worker whatever it is sent.
struct Signer {
    ca: RootCa,
    csr: Mutex<Bytes>,
}

#[tonic::async_trait]
impl NodeCa for Signer {
    async fn issue_node_certificate(
        &self,
        request: Request<IssueNodeCertificateRequest>,
    ) -> Result<Response<IssueNodeCertificateResponse>, Status> {
        *self.csr.lock().unwrap() = request.into_inner().csr;
        Ok(Response::new(IssueNodeCertificateResponse {
            node_id: "w1".to_owned(),
            ..Default::default()
        }))
    }

    async fn node_certificate_status(
        &self,
        _: Request<NodeCertificateStatusRequest>,
    ) -> Result<Response<NodeCertificateStatusResponse>, Status> {
        let csr = self.csr.lock().unwrap().clone();
        let who = identity("w1", Role::Worker);
        let issued = self
            .ca
            .issue(&csr, &who, DEFAULT_NODE_CERT_EXPIRY, SystemTime::now());
        Ok(Response::new(NodeCertificateStatusResponse {
            status: Some(IssuanceStatus {
                state: State::Issued.into(),
                err: String::new(),
            }),
            certificate: Some(Certificate {
                csr,
                certificate: issued.unwrap(),
                ..Default::default()
            }),
        }))
    }
}

/// A network on which there is one manager, at most, and which remembers who was dialled.
#[derive(Clone, Default)]
struct Network {
    there: Option<String>,
    dialled: Arc<Mutex<Vec<String>>>,
}

impl Dial for Network {
    fn dial(&self, addr: String) -> BoxFuture<'static, io::Result<BoxedIo>> {
        self.dialled.lock().unwrap().push(addr.clone());
        match self.there.as_ref() == Some(&addr) {
            true => TcpDial.dial(addr),
            false => Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) }),
        }
    }
}

struct World {
    renewal: Renewal,
    network: Network,
    manager: Option<AbortHandle>,
    _dir: TempDir,
    _session: watch::Sender<Option<Arc<SessionMessage>>>,
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(manager) = &self.manager {
            manager.abort();
        }
    }
}

/// A worker that knows so many managers that are gone, and one that is there if `alive`.
async fn world(gone: usize, alive: bool) -> World {
    let ca = RootCa::generate().unwrap();
    let credentials = |who| Credentials::self_issue(&ca, &who, DEFAULT_NODE_CERT_EXPIRY).unwrap();
    let mut network = Network::default();
    let mut manager = None;
    if alive {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        network.there = Some(listener.local_addr().unwrap().to_string());
        let tls = Tls::new(credentials(identity("m1", Role::Manager)));
        let csr = Mutex::default();
        let signer = Signer {
            ca: ca.clone(),
            csr,
        };
        let serving = Server::builder()
            .add_service(NodeCaServer::new(signer))
            .serve_with_incoming(tls_incoming(listener, tls));
        manager = Some(tokio::spawn(serving).abort_handle());
    }
    let known: Vec<_> = (1..=gone)
        .map(|number| format!("10.0.0.{number}:2377"))
        .chain(network.there.clone())
        .map(|addr| serde_json::json!({"node_id": addr, "addr": addr}))
        .collect();
    let dir = TempDir::new().unwrap();
    let state_dir = dir.path().to_owned();
    fs::write(
        state_dir.join("state.json"),
        serde_json::to_vec(&known).unwrap(),
    )
    .unwrap();
    let own = credentials(identity("w1", Role::Worker));
    let (sender, session) = watch::channel(None);
    let renewal = Renewal {
        key: NodeKey::new(&state_dir.join("certificates"), &own, Kek::default()).unwrap(),
        tls: Tls::with_dialer(own, Arc::new(network.clone())),
        dialer: Arc::new(network.clone()),
        standing: Standing::new(state_dir.join("removed")),
        session,
        control_socket: state_dir.join("s.sock"),
        state_dir,
    };
    World {
        renewal,
        network,
        manager,
        _dir: dir,
        _session: sender,
    }
}

#[tokio::test]
async fn managers_that_are_gone_do_not_make_a_renewal_fail() {
    let world = world(TRIES - 2, true).await;
    let before = world.renewal.tls.current().cert_pem().clone();
    // Its own manager does not answer either.
    world.renewal.standing.set_manages(true);
    world.renewal.renewed(Cause::Age).await.unwrap();
    assert_ne!(*world.renewal.tls.current().cert_pem(), before);
}

#[tokio::test]
async fn a_renewal_fails_when_five_managers_are_gone_and_each_is_asked_once() {
    let world = world(2 * TRIES, false).await;
    let failed = world.renewal.renewed(Cause::Age).await.unwrap_err();
    assert!(failed.to_string().contains("cannot reach"), "{failed}");
    let mut dialled = world.network.dialled.lock().unwrap().clone();
    assert_eq!(dialled.len(), TRIES);
    dialled.sort();
    dialled.dedup();
    assert_eq!(dialled.len(), TRIES);
}

#[tokio::test]
async fn who_knows_no_manager_says_so() {
    let world = world(0, false).await;
    let failed = world.renewal.renewed(Cause::Age).await.unwrap_err();
    assert!(matches!(failed, Error::NoManager), "{failed}");
}
