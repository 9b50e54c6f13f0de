//! Helpers of this crate's tests.

use std::{net::SocketAddr, time::Duration};

use rustls::pki_types::CertificateDer;
use skep_proto::v1::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tonic::{Request, Response, Status, transport::Server};

use crate::{
    Caller, Credentials, Identity, Role, RootCa, Tls, authorize, crypto::certificates, tls_incoming,
};

pub(crate) const CLUSTER: &str = "cluster1cluster1cluster1c";

pub(crate) fn identity(node_id: &str, role: Role) -> Identity {
    Identity {
        node_id: node_id.to_owned(),
        role,
        cluster_id: CLUSTER.to_owned(),
    }
}

pub(crate) fn credentials(ca: &RootCa, node_id: &str, role: Role) -> Credentials {
    Credentials::self_issue(ca, &identity(node_id, role), Duration::ZERO).unwrap()
}

pub(crate) fn leaf(pem: &[u8]) -> CertificateDer<'static> {
    certificates("certificate", pem).unwrap().remove(0)
}

/// A server that ends with this value.
pub(crate) struct Serving(pub JoinHandle<()>);

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Answers SERVING to callers that [`authorize`] admits, or to all that it was not asked about.
pub(crate) struct TestHealth;

#[tonic::async_trait]
impl Health for TestHealth {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if let Some(decision) = request.extensions().get::<Result<Caller, Status>>() {
            let caller = decision.clone()?;
            assert!(caller.remote_addr.starts_with("127.0.0.1:"), "{caller:?}");
        }
        Ok(Response::new(HealthCheckResponse {
            status: ServingStatus::Serving.into(),
        }))
    }
}

/// A Health server behind [`tls_incoming`] and [`authorize`], as managers run them.
pub(crate) async fn serve_health(tls: Tls) -> (SocketAddr, Serving) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let authorizing = tower::layer::layer_fn(|inner| {
        tower::util::MapRequest::new(inner, |mut request: http::Request<tonic::body::Body>| {
            let decision = authorize(&request, CLUSTER, &|id| id == "removed");
            request.extensions_mut().insert(decision);
            request
        })
    });
    let server = Server::builder()
        .layer(authorizing)
        .add_service(HealthServer::new(TestHealth));
    let task = tokio::spawn(async move {
        server
            .serve_with_incoming(tls_incoming(listener, tls))
            .await
            .unwrap();
    });
    (addr, Serving(task))
}
