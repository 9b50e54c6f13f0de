//! The services `CA` and `NodeCA`.

use bytes::Bytes;
use skep_proto::{
    id,
    v1::{
        Certificate, Cluster, GetRootCaCertificateRequest, GetRootCaCertificateResponse,
        GetUnlockKeyRequest, GetUnlockKeyResponse, IssuanceStatus, IssueNodeCertificateRequest,
        IssueNodeCertificateResponse, Node, NodeCertificateStatusRequest,
        NodeCertificateStatusResponse, NodeRole, NodeSpec, Version, ca_server,
        issuance_status::State, node_ca_server, node_spec::Membership,
    },
};
use skep_security::{Caller, JoinToken, Tls};
use skep_store::{Error as StoreError, Event, Route, Store};
use tonic::{Request, Response, Status};

use crate::keys;

/// Largest signing request taken, in bytes. That of a P-256 key is about 500.
const MAX_CSR_BYTES: usize = 64 * 1024;

/// Largest request of `NodeCA`, in bytes: who sends it may be anyone, so no more than a signing
/// request and a token is read.
pub const MAX_REQUEST_BYTES: usize = 2 * MAX_CSR_BYTES;

/// Answers `CA` and `NodeCA`. What it writes, the signer finishes.
#[derive(Clone, Debug)]
pub struct Ca {
    store: Store,
    tls: Tls,
    cluster_id: String,
}

impl Ca {
    /// The CA services of this manager.
    pub fn new(store: Store, tls: Tls) -> Self {
        let cluster_id = tls.current().identity().cluster_id.clone();
        Self {
            store,
            tls,
            cluster_id,
        }
    }

    /// The role that a join token stands for.
    fn role_of(&self, token: &str) -> Option<NodeRole> {
        let snapshot = self.store.snapshot();
        let tokens = snapshot
            .get::<Cluster>(&self.cluster_id)?
            .root_ca()
            .join_tokens();
        let matches = |known: &str| {
            known
                .parse::<JoinToken>()
                .is_ok_and(|known| known.matches(token))
        };
        if matches(&tokens.manager) {
            Some(NodeRole::Manager)
        } else if matches(&tokens.worker) {
            Some(NodeRole::Worker)
        } else {
            None
        }
    }

    async fn enrol(
        &self,
        request: IssueNodeCertificateRequest,
        role: NodeRole,
    ) -> Result<String, Status> {
        let availability = request.availability();
        let new = |node_id: &str, vxlan_port: u32| Node {
            id: node_id.to_owned(),
            role: role.into(),
            certificate: Some(Certificate {
                role: role.into(),
                csr: request.csr.clone(),
                cn: node_id.to_owned(),
                status: Some(IssuanceStatus {
                    state: State::Pending.into(),
                    err: String::new(),
                }),
                certificate: Bytes::new(),
            }),
            spec: Some(NodeSpec {
                desired_role: role.into(),
                membership: Membership::Accepted.into(),
                availability: availability.into(),
                ..Default::default()
            }),
            vxlanudp_port: vxlan_port,
            ..Default::default()
        };
        // An ID is 129 random bits: a second try is for a broken random source, not for luck.
        for _ in 0..3 {
            let node_id = id::random();
            let created = self
                .store
                .update(|tx| {
                    let port = tx
                        .get::<Cluster>(&self.cluster_id)
                        .map_or(0, |c| c.vxlanudp_port);
                    tx.create(new(&node_id, port)).map(drop)
                })
                .await;
            match created {
                Ok(()) => return Ok(node_id),
                Err(StoreError::Exists) => {}
                Err(err) => return Err(store_status(err)),
            }
        }
        Err(Status::internal("no free node ID found in three tries"))
    }

    async fn renew(&self, node_id: &str, csr: Bytes) -> Result<(), Status> {
        self.store
            .update(|tx| {
                let mut node = tx
                    .get::<Node>(node_id)
                    .map(|n| Node::clone(n))
                    .ok_or(StoreError::NotFound)?;
                let role = node.role();
                node.certificate = Some(Certificate {
                    role: role.into(),
                    csr,
                    cn: node_id.to_owned(),
                    status: Some(IssuanceStatus {
                        state: State::Renew.into(),
                        err: String::new(),
                    }),
                    certificate: Bytes::new(),
                });
                tx.update(node).map(drop)
            })
            .await
            .map_err(|err| match err {
                StoreError::NotFound => Status::not_found(format!(
                    "node {node_id} not found when attempting to renew certificate"
                )),
                err => store_status(err),
            })
    }
}

fn store_status(err: StoreError) -> Status {
    match err {
        StoreError::LostLeadership => Status::aborted("CA signer is stopped"),
        err => Status::unknown(err.to_string()),
    }
}

#[tonic::async_trait]
impl ca_server::Ca for Ca {
    async fn get_root_ca_certificate(
        &self,
        _request: Request<GetRootCaCertificateRequest>,
    ) -> Result<Response<GetRootCaCertificateResponse>, Status> {
        // What the join tokens name. Before the cluster object is there, it is the own root.
        let snapshot = self.store.snapshot();
        let certificate = match snapshot.get::<Cluster>(&self.cluster_id) {
            Some(cluster) if !cluster.root_ca().ca_cert.is_empty() => {
                cluster.root_ca().ca_cert.clone()
            }
            _ => self.tls.current().root_pem().clone(),
        };
        Ok(Response::new(GetRootCaCertificateResponse { certificate }))
    }

    async fn get_unlock_key(
        &self,
        _request: Request<GetUnlockKeyRequest>,
    ) -> Result<Response<GetUnlockKeyResponse>, Status> {
        let snapshot = self.store.snapshot();
        let cluster = snapshot
            .get::<Cluster>(&self.cluster_id)
            .ok_or_else(|| Status::unavailable("the cluster object is not there yet"))?;
        let kek = keys::kek(cluster);
        let key = kek.key.as_ref().map(|key| key.as_bytes().to_vec());
        Ok(Response::new(GetUnlockKeyResponse {
            unlock_key: key.unwrap_or_default().into(),
            version: Some(Version { index: kek.version }),
        }))
    }
}

#[tonic::async_trait]
impl node_ca_server::NodeCa for Ca {
    async fn issue_node_certificate(
        &self,
        request: Request<IssueNodeCertificateRequest>,
    ) -> Result<Response<IssueNodeCertificateResponse>, Status> {
        let caller = request
            .extensions()
            .get::<Caller>()
            .and_then(|caller| caller.identity.clone());
        let request = request.into_inner();
        if request.csr.is_empty() {
            return Err(Status::invalid_argument("InvalidArgument"));
        }
        if request.csr.len() > MAX_CSR_BYTES {
            let text = format!("certificate signing request is larger than {MAX_CSR_BYTES} bytes");
            return Err(Status::invalid_argument(text));
        }
        let node_id = match caller {
            Some(member) => {
                self.renew(&member.node_id, request.csr).await?;
                member.node_id
            }
            None => {
                let role = self.role_of(&request.token).ok_or_else(|| {
                    Status::invalid_argument("A valid join token is necessary to join this cluster")
                })?;
                self.enrol(request, role).await?
            }
        };
        Ok(Response::new(IssueNodeCertificateResponse {
            node_id,
            node_membership: Membership::Accepted.into(),
        }))
    }

    async fn node_certificate_status(
        &self,
        request: Request<NodeCertificateStatusRequest>,
    ) -> Result<Response<NodeCertificateStatusResponse>, Status> {
        let node_id = request.into_inner().node_id;
        if node_id.is_empty() {
            return Err(Status::invalid_argument("InvalidArgument"));
        }
        // Blocks until the state is final; the client gives up when it likes.
        let (mut snapshot, mut subscription) = self.store.watch([Route::Node(node_id.clone())]);
        loop {
            let node = snapshot
                .get::<Node>(&node_id)
                .ok_or_else(|| Status::not_found("NotFound"))?;
            let certificate = node.certificate();
            if matches!(
                certificate.status().state(),
                State::Issued | State::Failed | State::Rotate
            ) {
                return Ok(Response::new(NodeCertificateStatusResponse {
                    status: Some(certificate.status().clone()),
                    certificate: Some(certificate.clone()),
                }));
            }
            snapshot = match subscription.next().await {
                Event::Commits(_) => self.store.snapshot(),
                Event::Lagged(snapshot) => snapshot,
            };
        }
    }
}
