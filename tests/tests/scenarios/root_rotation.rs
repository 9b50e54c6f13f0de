//! The root CA is replaced under a running cluster, and signed for from outside.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ServerConfig, crypto::ring, pki_types::CertificateDer, pki_types::pem::PemObject as _,
};
use serde_json::{Value, json};
use skep_proto::v1::{
    Cluster as ClusterObject, ExternalCa, IssueNodeCertificateRequest,
    NodeCertificateStatusRequest, NodeDescription, SessionMessage, SessionRequest,
    UpdateClusterRequest, dispatcher_client::DispatcherClient, issuance_status::State,
    node_ca_client::NodeCaClient, node_spec::Availability,
};
use skep_security::{CertificateRequest, Identity, Role, RootCa, ServerName, TcpDial, Tls, join};
use skep_tests::cluster::{Cluster, eventually};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;
use tonic::Streaming;

/// A worker made by hand, which does what the wire asks of one and nothing else.
struct Guest {
    tls: Tls,
    addr: String,
    session: Streaming<SessionMessage>,
}

impl Guest {
    async fn join(addr: &str, token: &str) -> Result<Self, String> {
        let token = token.parse().unwrap();
        let dialer = Arc::new(TcpDial);
        let joined = join::join(dialer, addr, &token, Availability::Active).await;
        let tls = Tls::new(joined.map_err(|err| err.to_string())?);
        let session = open(&tls, addr).await;
        Ok(Self {
            tls,
            addr: addr.to_owned(),
            session,
        })
    }

    fn id(&self) -> String {
        self.tls.current().identity().node_id.clone()
    }

    /// Gets a new certificate and says so.
    async fn renew(&mut self) {
        renew(&self.tls, &self.addr).await;
        self.session = open(&self.tls, &self.addr).await;
    }
}

async fn open(tls: &Tls, addr: &str) -> Streaming<SessionMessage> {
    let description = NodeDescription {
        hostname: "guest".to_owned(),
        tls_info: Some(tls.current().tls_info()),
        ..Default::default()
    };
    eventually("a session", async || {
        let channel = tls.channel(addr, ServerName::Manager).unwrap();
        let request = SessionRequest {
            description: Some(description.clone()),
            session_id: String::new(),
        };
        let session = DispatcherClient::new(channel).session(request).await;
        session.ok().map(tonic::Response::into_inner)
    })
    .await
}

async fn renew(tls: &Tls, addr: &str) {
    let request = CertificateRequest::generate().unwrap();
    let mut client = NodeCaClient::new(tls.channel(addr, ServerName::Manager).unwrap());
    let issue = IssueNodeCertificateRequest {
        csr: request.csr_pem().to_vec().into(),
        ..Default::default()
    };
    let node_id = client.issue_node_certificate(issue).await.unwrap();
    let node_id = node_id.into_inner().node_id;
    let asked = NodeCertificateStatusRequest { node_id };
    let answer = client.node_certificate_status(asked).await.unwrap();
    let certificate = answer.into_inner().certificate.unwrap();
    assert_eq!(certificate.csr, request.csr_pem());
    let current = tls.current();
    let renewed = request.finish(current.root_pem(), &certificate.certificate);
    tls.replace(renewed.unwrap());
}

async fn update(cluster: &Cluster, change: impl Fn(&mut ClusterObject)) -> ClusterObject {
    eventually("the update", async || {
        let mut object = cluster.object().await;
        change(&mut object);
        let request = UpdateClusterRequest {
            cluster_id: object.id.clone(),
            cluster_version: object.meta().version,
            spec: object.spec.take(),
            rotation: None,
        };
        let updated = cluster.control().await.update_cluster(request).await;
        updated.ok()?.into_inner().cluster
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_moves_to_a_new_root_while_it_runs() {
    let cluster = Cluster::start(1, 0).await;
    // Guests do not tell that they are there.
    cluster.set_heartbeat(Duration::from_secs(60)).await;
    let node = cluster.node("manager-1");
    let addr = node.advertise_addr().unwrap().to_owned();
    let before = cluster.object().await.root_ca().clone();
    let old_token = before.join_tokens().worker.clone();
    let mut guest = Guest::join(&addr, &old_token).await.unwrap();

    let started = update(&cluster, |object| {
        object.spec_mut().ca_config_mut().force_rotate = 1;
    })
    .await;
    let rotation = started.root_ca().root_rotation.clone().unwrap();
    assert!(rotation.ca_key.is_empty(), "it does not leave");
    assert_eq!(started.root_ca().ca_cert, before.ca_cert);
    // In the middle of it the old token is good.
    let mut newcomer = Guest::join(&addr, &old_token).await.unwrap();
    let first = newcomer.session.message().await.unwrap().unwrap();
    assert_eq!(first.root_ca, before.ca_cert);

    let told = |node_id: String| {
        let cluster = &cluster;
        async move {
            eventually("the order to renew", async || {
                let nodes = cluster.node_objects().await.ok()?;
                let node = nodes.into_iter().find(|node| node.id == node_id)?;
                (node.certificate().status().state() == State::Rotate).then_some(())
            })
            .await;
        }
    };
    told(guest.id()).await;
    // The manager's own node renews by itself.
    guest.renew().await;

    let after = eventually("the new root", async || {
        let root = cluster.object().await.root_ca().clone();
        root.root_rotation.is_none().then_some(root)
    })
    .await;
    assert_eq!(after.ca_cert, rotation.ca_cert);
    assert_ne!(after.ca_cert_hash, before.ca_cert_hash);
    // Sessions hear of it, those that were open all the time too.
    let heard = async {
        while let Some(message) = newcomer.session.message().await.unwrap() {
            if message.root_ca == after.ca_cert {
                return;
            }
        }
        panic!("the session has ended");
    };
    tokio::time::timeout(Duration::from_secs(30), heard)
        .await
        .unwrap();

    // Who comes now knows nothing but the new root.
    let refused = Guest::join(&addr, &old_token).await.err().unwrap();
    assert!(
        refused.contains("remote CA does not match fingerprint"),
        "{refused}"
    );
    let late = Guest::join(&addr, &after.join_tokens().worker)
        .await
        .unwrap();
    assert_eq!(late.tls.current().root_pem(), &after.ca_cert);
    let chain = late.tls.current().cert_pem().clone();
    let certificates = CertificateDer::pem_slice_iter(&chain).count();
    assert_eq!(certificates, 1, "nothing of the old root is left");
}

/// CFSSL as far as it is spoken to: an HTTPS server of `root` that signs with its key what it is asked
/// to, after it has failed as often as `failures` says. Counts the requests.
async fn cfssl(root: RootCa, failures: usize) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "https://localhost:{}/api/v1/cfssl/sign",
        listener.local_addr().unwrap().port()
    );
    let (asked, count) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counter = asked.clone();
    let acceptor = TlsAcceptor::from(Arc::new(server_of(&root)));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Who only looks whether it is there hangs up.
            let Ok(mut stream) = acceptor.accept(stream).await else {
                continue;
            };
            let Some(request) = request(&mut stream).await else {
                continue;
            };
            counter.fetch_add(1, Ordering::Relaxed);
            let answer = match count.fetch_add(1, Ordering::Relaxed) < failures {
                true => "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n".to_owned(),
                false => {
                    let body = signed(&root, &request).to_string();
                    format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                        body.len()
                    )
                }
            };
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (url, asked)
}

fn server_of(root: &RootCa) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let who = Identity {
        node_id: "localhost".to_owned(),
        role: Role::Worker,
        cluster_id: "outside".to_owned(),
    };
    let csr = csr.pem().unwrap();
    let cert = root.issue(csr.as_bytes(), &who, Duration::ZERO, SystemTime::now());
    let cert = CertificateDer::from_pem_slice(&cert.unwrap()).unwrap();
    ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert], key.serialize_der().try_into().unwrap())
        .unwrap()
}

async fn request(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Option<Value> {
    let mut bytes = Vec::new();
    loop {
        if stream.read_buf(&mut bytes).await.ok()? == 0 {
            return None;
        }
        let body = bytes.windows(4).position(|end| end == b"\r\n\r\n");
        if let Some(body) = body
            && let Ok(request) = serde_json::from_slice(&bytes[body + 4..])
        {
            return Some(request);
        }
    }
}

fn signed(root: &RootCa, request: &Value) -> Value {
    let name = &request["subject"]["names"][0];
    let who = Identity {
        node_id: request["subject"]["CN"].as_str().unwrap().to_owned(),
        role: Role::from_ou(name["OU"].as_str().unwrap()).unwrap(),
        cluster_id: name["O"].as_str().unwrap().to_owned(),
    };
    let csr = request["certificate_request"].as_str().unwrap();
    let cert = root.issue(csr.as_bytes(), &who, Duration::ZERO, SystemTime::now());
    let cert = String::from_utf8(cert.unwrap().to_vec()).unwrap();
    json!({ "success": true, "result": { "certificate": cert }, "errors": [] })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_external_ca_signs_and_is_asked_again_when_it_fails() {
    let cluster = Cluster::start(1, 0).await;
    let node = cluster.node("manager-1");
    let addr = node.advertise_addr().unwrap().to_owned();
    let id = &node.identity().cluster_id;
    let store = node.manager().unwrap().store().clone();
    let object = store.snapshot().get::<ClusterObject>(id).unwrap().clone();
    let root = RootCa::from_pem(&object.root_ca().ca_cert, Some(&object.root_ca().ca_key)).unwrap();
    let (url, asked) = cfssl(root, 1).await;
    // From now on the key is nowhere but there.
    let external = ExternalCa {
        url,
        ..Default::default()
    };
    let updated = update(&cluster, |object| {
        object.spec_mut().ca_config_mut().external_cas = vec![external.clone()];
    })
    .await;
    store
        .update(|tx| {
            let mut cluster = ClusterObject::clone(tx.get::<ClusterObject>(id).unwrap());
            cluster.root_ca_mut().ca_key.clear();
            tx.update(cluster).map(drop)
        })
        .await
        .unwrap();
    let token = &updated.root_ca().join_tokens().worker;
    let guest = Guest::join(&addr, token).await.unwrap();
    assert_eq!(guest.tls.current().identity().cluster_id, *id);
    assert_eq!(
        asked.load(Ordering::Relaxed),
        2,
        "refused once, asked again"
    );

    // Another external one cannot take over; it is not even asked.
    let mut object = cluster.object().await;
    object.spec_mut().ca_config_mut().force_rotate = 1;
    object.spec_mut().ca_config_mut().external_cas.clear();
    let request = UpdateClusterRequest {
        cluster_id: object.id.clone(),
        cluster_version: object.meta().version,
        spec: object.spec.take(),
        rotation: None,
    };
    let refused = cluster
        .control()
        .await
        .update_cluster(request)
        .await
        .unwrap_err();
    assert_eq!(
        refused.message(),
        "there must be at least one valid, reachable external CA corresponding to the current CA \
         certificate"
    );
}
