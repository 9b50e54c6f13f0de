//! Renewals from a CA that is made up, over plain connections.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::SystemTime,
};

use skep_proto::v1::{
    Certificate, GetRootCaCertificateResponse, GetUnlockKeyRequest, GetUnlockKeyResponse,
    IssuanceStatus, IssueNodeCertificateResponse, NodeCertificateStatusResponse,
    ca_server::{Ca, CaServer},
    issuance_status::State,
    node_ca_server::{NodeCa, NodeCaServer},
};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    Request,
    transport::{Endpoint, Server},
};

use super::*;
use crate::{
    Identity, Role, RootCa,
    testing::{Serving, credentials, identity},
};

/// How the CA behaves.
#[derive(Clone)]
struct Script {
    signer: RootCa,
    /// What it says the root is.
    root: Bytes,
    /// Whom it takes the caller for, and whom it issues for.
    asked: String,
    who: Identity,
    not_before: SystemTime,
    /// Answers before the final one.
    first: Vec<(State, bool)>,
    last: State,
}

struct TestCa {
    script: Mutex<Script>,
    csr: Mutex<Bytes>,
}

#[tonic::async_trait]
impl Ca for TestCa {
    async fn get_root_ca_certificate(
        &self,
        _: Request<GetRootCaCertificateRequest>,
    ) -> Result<Response<GetRootCaCertificateResponse>, Status> {
        let certificate = self.script.lock().unwrap().root.clone();
        Ok(Response::new(GetRootCaCertificateResponse { certificate }))
    }

    async fn get_unlock_key(
        &self,
        _: Request<GetUnlockKeyRequest>,
    ) -> Result<Response<GetUnlockKeyResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

#[tonic::async_trait]
impl NodeCa for TestCa {
    async fn issue_node_certificate(
        &self,
        request: Request<IssueNodeCertificateRequest>,
    ) -> Result<Response<IssueNodeCertificateResponse>, Status> {
        let request = request.into_inner();
        assert_eq!(request.token, "", "a member needs none");
        *self.csr.lock().unwrap() = request.csr;
        let node_id = self.script.lock().unwrap().asked.clone();
        Ok(Response::new(IssueNodeCertificateResponse {
            node_id,
            ..Default::default()
        }))
    }

    async fn node_certificate_status(
        &self,
        _: Request<NodeCertificateStatusRequest>,
    ) -> Result<Response<NodeCertificateStatusResponse>, Status> {
        let mut script = self.script.lock().unwrap();
        let (state, own) = match script.first.is_empty() {
            true => (script.last, true),
            false => script.first.remove(0),
        };
        let csr = self.csr.lock().unwrap().clone();
        let issued = script
            .signer
            .issue(&csr, &script.who, Duration::ZERO, script.not_before);
        let csr = match own {
            true => csr,
            false => Bytes::from_static(b"another one"),
        };
        Ok(Response::new(NodeCertificateStatusResponse {
            status: Some(IssuanceStatus {
                state: state.into(),
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

async fn serve(script: Script) -> (SocketAddr, Serving) {
    let ca = Arc::new(TestCa {
        script: Mutex::new(script),
        csr: Mutex::default(),
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let server = Server::builder()
        .add_service(CaServer::from_arc(ca.clone()))
        .add_service(NodeCaServer::from_arc(ca))
        .serve_with_incoming(TcpListenerStream::new(listener));
    let task = tokio::spawn(async move { server.await.unwrap() });
    (addr, Serving(task))
}

fn script(ca: &RootCa) -> Script {
    Script {
        signer: ca.clone(),
        root: ca.cert_pem().clone(),
        asked: "n1".to_owned(),
        who: identity("n1", Role::Worker),
        not_before: SystemTime::now(),
        first: Vec::new(),
        last: State::Issued,
    }
}

async fn renewed(script: Script, current: &Credentials) -> Result<Credentials, Error> {
    let (addr, _serving) = serve(script).await;
    let channel = Endpoint::from_shared(format!("http://{addr}"))
        .unwrap()
        .connect_lazy();
    renew(channel, current).await
}

async fn refusal(script: Script, current: &Credentials) -> String {
    let refused = renewed(script, current).await.unwrap_err().to_string();
    assert!(!refused.contains('\n'), "one line: {refused}");
    refused
}

#[tokio::test]
async fn the_answer_to_another_request_is_waited_out() {
    let ca = RootCa::generate().unwrap();
    let current = credentials(&ca, "n1", Role::Worker);
    // A replayed answer, as of another request, does not count; nor do failures.
    let script = Script {
        first: vec![(State::Issued, false), (State::Failed, true)],
        who: identity("n1", Role::Manager),
        ..script(&ca)
    };
    let new = renewed(script, &current).await.unwrap();
    assert_eq!(new.identity(), &identity("n1", Role::Manager));
    assert_ne!(new.key_pem(), current.key_pem(), "a new key each time");
}

/// A rotation of the root marks the node between signing and download.
#[tokio::test]
async fn r39_a_certificate_is_taken_though_another_is_asked_for_already() {
    let ca = RootCa::generate().unwrap();
    let script = Script {
        last: State::Rotate,
        ..script(&ca)
    };
    renewed(script, &credentials(&ca, "n1", Role::Worker))
        .await
        .unwrap();
}

#[tokio::test]
async fn another_root_counts_only_with_a_certificate_that_leads_to_it() {
    let (ca, next) = (RootCa::generate().unwrap(), RootCa::generate().unwrap());
    let current = credentials(&ca, "n1", Role::Worker);
    let moved = Script {
        signer: next.clone(),
        root: next.cert_pem().clone(),
        ..script(&ca)
    };
    let new = renewed(moved, &current).await.unwrap();
    assert_eq!(new.root_pem(), next.cert_pem());
    // Another root than that of the certificate is not believed, nor is the old one.
    for root in [RootCa::generate().unwrap().cert_pem(), ca.cert_pem()] {
        let forged = Script {
            signer: next.clone(),
            root: root.clone(),
            ..script(&ca)
        };
        let refused = refusal(forged, &current).await;
        assert!(refused.contains("not signed by the root CA"), "{refused}");
    }
}

#[tokio::test]
async fn certificates_of_others_and_of_other_times_are_refused() {
    let ca = RootCa::generate().unwrap();
    let current = credentials(&ca, "n1", Role::Worker);
    let other = Script {
        asked: "n2".to_owned(),
        ..script(&ca)
    };
    assert!(
        refusal(other, &current)
            .await
            .contains("takes this node for n2")
    );
    let other = Script {
        who: identity("n2", Role::Worker),
        ..script(&ca)
    };
    assert!(
        refusal(other, &current)
            .await
            .contains("takes this node for n2")
    );
    let mut elsewhere = script(&ca);
    elsewhere.who.cluster_id = "another".to_owned();
    assert!(
        refusal(elsewhere, &current)
            .await
            .contains("takes this node for n1")
    );
    let future = Script {
        not_before: SystemTime::now() + Duration::from_secs(3 * 3600),
        ..script(&ca)
    };
    assert!(refusal(future, &current).await.contains("clock skew"));
}
