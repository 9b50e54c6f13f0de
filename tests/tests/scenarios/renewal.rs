//! Certificates that are replaced, that have expired, and that must not be taken any more.

use std::{
    fs,
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, KeyPair};
use skep_proto::v1::{
    Cluster as ClusterObject, HeartbeatRequest, IssueNodeCertificateRequest, Node,
    NodeCertificateStatusRequest, dispatcher_client::DispatcherClient, issuance_status,
    node_ca_client::NodeCaClient, node_status::State,
};
use skep_security::{RootCa, ServerName};
use skep_store::Store;
use skep_tests::cluster::{Cluster, eventually};
use tonic::Code;

async fn leaders_store(cluster: &Cluster) -> Store {
    let leader = cluster.leader().await;
    cluster.node(&leader).manager().unwrap().store().clone()
}

/// Does what a rotation of the root does to a node.
async fn ask_for_another(cluster: &Cluster, id: &str) {
    let store = leaders_store(cluster).await;
    store
        .update::<_, skep_store::Error>(|tx| {
            let mut node = Node::clone(tx.get::<Node>(id).ok_or(skep_store::Error::NotFound)?);
            let certificate = node.certificate_mut();
            certificate
                .status_mut()
                .set_state(issuance_status::State::Rotate);
            tx.update(node).map(drop)
        })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_that_is_asked_for_is_fetched_and_nothing_else_happens() {
    let cluster = Cluster::start(2, 1).await;
    let web = cluster.create("web", 6, &["sleep", "1000"]).await;
    cluster.running(&web.id, 6).await;
    let term = cluster.raft().await.term;
    for name in ["manager-1", "manager-2", "worker-1"] {
        let (id, before) = (cluster.id(name), cluster.node(name).tls().current());
        ask_for_another(&cluster, &id).await;
        let issued = eventually("another certificate in use", async || {
            let now = cluster.node(name).tls().current();
            (now.cert_pem() != before.cert_pem()).then_some(now)
        })
        .await;
        // It is the one that was issued, and it is on disk.
        let node = cluster.node_object(name).await;
        assert_eq!(node.certificate().certificate, issued.cert_pem());
        assert_eq!(
            node.certificate().status().state(),
            issuance_status::State::Issued
        );
        let file = cluster.state_dir(name).join("certificates/swarm-node.crt");
        assert_eq!(fs::read(file).unwrap(), issued.cert_pem()[..]);
    }
    cluster.all_ready().await;
    assert_eq!(cluster.tasks(&web.id).await.unwrap().len(), 6);
    assert_eq!(cluster.raft().await.term, term, "nobody lost anybody");
}

/// Replaces the certificate of a node that does not run by one for the same key that has expired.
fn expire(cluster: &Cluster, name: &str, who: &skep_security::Identity, ca: &RootCa) {
    let dir = cluster.state_dir(name).join("certificates");
    let key = fs::read_to_string(dir.join("swarm-node.key")).unwrap();
    // Without the headers.
    let lines: Vec<_> = key.lines().filter(|line| !line.contains(": ")).collect();
    let key = KeyPair::from_pem(&lines.join("\n").replace("\n\n", "\n")).unwrap();
    let request = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let hour = Duration::from_secs(3600);
    let then = SystemTime::now() - 5 * hour;
    let expired = ca
        .issue(request.pem().unwrap().as_bytes(), who, hour, then)
        .unwrap();
    fs::write(dir.join("swarm-node.crt"), expired).unwrap();
}

async fn root(cluster: &Cluster) -> RootCa {
    let snapshot = leaders_store(cluster).await.snapshot();
    let object = snapshot.all::<ClusterObject>().next().unwrap();
    let root = object.root_ca();
    RootCa::from_pem(&root.ca_cert, Some(&root.ca_key)).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn r35_managers_whose_certificates_have_all_expired_begin_anew_with_one_of_them() {
    let mut cluster = Cluster::start(2, 1).await;
    let ca = root(&cluster).await;
    let names = ["worker-1", "manager-1", "manager-2"];
    let identities = names.map(|name| cluster.node(name).identity());
    for name in names {
        cluster.kill(name).await;
    }
    for (name, who) in names.iter().zip(&identities) {
        expire(&cluster, name, who, &ca);
    }
    // It starts, and is told by nobody: the log says what to do.
    cluster.restart("manager-2").await;
    cluster.kill("manager-2").await;
    cluster.force("manager-2").await;
    eventually("a valid certificate", async || {
        let current = cluster.node("manager-2").tls().current();
        (current.expires_at() > SystemTime::now()).then_some(())
    })
    .await;
    cluster.node_is("manager-2", State::Ready).await;
    // The worker starts, and comes in again as another node when it has a token.
    cluster.restart("worker-1").await;
    cluster.stop("worker-1").await;
    let token = cluster
        .object()
        .await
        .root_ca()
        .join_tokens()
        .worker
        .clone();
    cluster
        .restart_with("worker-1", "manager-2", token)
        .await
        .unwrap();
    let id = cluster.id("worker-1");
    assert_ne!(id, identities[0].node_id);
    eventually("the new node to be ready", async || {
        let nodes = cluster.node_objects().await.ok()?;
        let node = nodes.into_iter().find(|node| node.id == id)?;
        (node.status().state() == State::Ready).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r40_a_removed_node_is_refused_though_its_certificate_is_valid() {
    let mut cluster = Cluster::start(1, 1).await;
    let id = cluster.id("worker-1");
    let tls = cluster.node("worker-1").tls().clone();
    cluster.kill("worker-1").await;
    cluster.remove_node(&id, true).await;
    let addr = cluster.node("manager-1").advertise_addr().unwrap();
    let channel = tls.channel(addr, ServerName::Manager).unwrap();
    let refused = DispatcherClient::new(channel.clone())
        .heartbeat(HeartbeatRequest::default())
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let text = format!("node {id} was removed from swarm");
    assert!(refused.message().contains(&text), "{refused}");
    // Nor does it get another one.
    let renewed = skep_security::renew(channel, &tls.current()).await;
    let refused = renewed.unwrap_err().to_string();
    assert!(
        refused.contains("A valid join token is necessary"),
        "{refused}"
    );
    // It is barred until the certificate has expired.
    let snapshot = leaders_store(&cluster).await.snapshot();
    let object = snapshot.all::<ClusterObject>().next().unwrap();
    let expiry = object.blacklisted_certificates[&id].expiry.unwrap();
    let seconds = |time: SystemTime| {
        let elapsed = time.duration_since(SystemTime::UNIX_EPOCH).unwrap();
        i64::try_from(elapsed.as_secs()).unwrap()
    };
    assert_eq!(expiry.seconds, seconds(tls.current().expires_at()));
}

#[tokio::test(flavor = "multi_thread")]
async fn forged_requests_get_nothing_that_their_sender_may_not_have() {
    let cluster = Cluster::start(1, 1).await;
    let worker = cluster.node("worker-1");
    let addr = cluster
        .node("manager-1")
        .advertise_addr()
        .unwrap()
        .to_owned();
    let channel = worker.tls().channel(&addr, ServerName::Manager).unwrap();
    let mut ca = NodeCaClient::new(channel);
    let id = worker.identity().node_id;
    // A worker that asks for a manager's name and role, with a manager's token, gets its own.
    let mut params = CertificateParams::new(vec!["swarm-manager".to_owned()]).unwrap();
    let name = &mut params.distinguished_name;
    name.push(rcgen::DnType::CommonName, cluster.id("manager-1"));
    name.push(rcgen::DnType::OrganizationalUnitName, "swarm-manager");
    let key = KeyPair::generate().unwrap();
    let csr = params.serialize_request(&key).unwrap().pem().unwrap();
    let token = cluster
        .object()
        .await
        .root_ca()
        .join_tokens()
        .manager
        .clone();
    let reply = ca
        .issue_node_certificate(IssueNodeCertificateRequest {
            csr: csr.clone().into(),
            token,
            ..Default::default()
        })
        .await
        .unwrap();
    assert_eq!(
        reply.into_inner().node_id,
        id,
        "a renewal, whatever the token"
    );
    let request = NodeCertificateStatusRequest {
        node_id: id.clone(),
    };
    let issued = ca.node_certificate_status(request.clone()).await.unwrap();
    let issued = issued.into_inner().certificate.unwrap();
    assert_eq!(issued.csr, csr.as_bytes());
    let root = root(&cluster).await;
    let forged = skep_security::Credentials::from_pem(
        root.cert_pem(),
        &issued.certificate,
        key.serialize_pem().as_bytes(),
    )
    .unwrap();
    assert_eq!(forged.identity(), &worker.identity());
    // What cannot be signed is said to be so, and what has no key is refused.
    for garbage in ["garbage", &csr.replace("MII", "MIA")] {
        let asked = ca.issue_node_certificate(IssueNodeCertificateRequest {
            csr: garbage.to_owned().into(),
            ..Default::default()
        });
        asked.await.unwrap();
        let status = ca.node_certificate_status(request.clone()).await.unwrap();
        let status = status.into_inner().status.unwrap();
        assert_eq!(status.state(), issuance_status::State::Failed);
        assert!(status.err.contains("certificate request"), "{}", status.err);
    }
    let empty = ca.issue_node_certificate(IssueNodeCertificateRequest::default());
    assert_eq!(empty.await.unwrap_err().code(), Code::InvalidArgument);
    // The node is none the worse for it.
    ask_for_another(&cluster, &id).await;
    cluster.node_is("worker-1", State::Ready).await;
}
