//! Nodes that must not come in, and what they are told.

use std::sync::Arc;

use skep_agent::{OnStop, executor::null::NullExecutor};
use skep_node::{Config, Join, Node};
use skep_proto::v1::node_spec::Availability;
use skep_raft::LogKind;
use skep_security::TcpDial;
use skep_tests::cluster::Cluster;

fn config(dir: &std::path::Path, join: Option<(&str, &str)>) -> Config {
    Config {
        state_dir: dir.join("state"),
        join: join.map(|(addr, token)| Join {
            addr: addr.to_owned(),
            token: Some(token.to_owned()),
        }),
        force_new_cluster: false,
        raft_log: LogKind::default(),
        plugin_dirs: Vec::new(),
        listen_remote_api: "127.0.0.1:0".to_owned(),
        advertise_addr: None,
        listen_control_api: dir.join("s.sock"),
        hostname: "stranger".to_owned(),
        executor: Arc::new(NullExecutor),
        generic_resources: Vec::new(),
        availability: Availability::Active,
        on_stop: OnStop::Keep,
        dialer: Arc::new(TcpDial),
        unlock_key: None,
    }
}

async fn refusal(config: Config) -> String {
    let message = Box::pin(Node::start(config)).await.unwrap_err().to_string();
    assert!(!message.contains('\n'), "one line: {message}");
    message
}

#[tokio::test(flavor = "multi_thread")]
async fn joining_wrongly_is_refused_with_advice_and_changes_nothing() {
    let cluster = Cluster::start(1, 0).await;
    let other = Cluster::start(1, 0).await;
    let addr = cluster
        .node("manager-1")
        .advertise_addr()
        .unwrap()
        .to_owned();
    let good = cluster
        .object()
        .await
        .root_ca()
        .join_tokens()
        .worker
        .clone();
    let dir = tempfile::tempdir().unwrap();
    let try_to_join = |addr: &str, token: &str| refusal(config(dir.path(), Some((addr, token))));

    let truncated = try_to_join(&addr, &good[..good.len() - 1]).await;
    assert!(truncated.contains("token"), "{truncated}");
    let nonsense = try_to_join(&addr, "letmein").await;
    assert!(nonsense.contains("token"), "{nonsense}");

    let mut wrong_secret = good.clone();
    let last = wrong_secret.pop().unwrap();
    wrong_secret.push(if last == '0' { '1' } else { '0' });
    let wrong = try_to_join(&addr, &wrong_secret).await;
    assert!(
        wrong.contains("A valid join token is necessary to join this cluster"),
        "{wrong}"
    );

    let foreign = other.object().await.root_ca().join_tokens().worker.clone();
    let foreign = try_to_join(&addr, &foreign).await;
    assert!(
        foreign.contains("remote CA does not match fingerprint"),
        "{foreign}"
    );

    let nodes = cluster.node_objects().await.unwrap();
    assert_eq!(nodes.len(), 1, "nobody came in");
    assert!(
        !dir.path()
            .join("state/certificates/swarm-node.crt")
            .exists()
    );

    // With the right token the same directory works.
    let joined = Box::pin(Node::start(config(dir.path(), Some((&addr, &good)))))
        .await
        .unwrap();
    drop(joined);
    // And it stays with that cluster.
    let foreign = other.object().await.root_ca().join_tokens().worker.clone();
    let moved = try_to_join(&addr, &foreign).await;
    assert!(moved.contains("another cluster"), "{moved}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_address_without_a_manager_is_named() {
    let cluster = Cluster::start(1, 0).await;
    let token = cluster
        .object()
        .await
        .root_ca()
        .join_tokens()
        .worker
        .clone();
    let dir = tempfile::tempdir().unwrap();
    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .to_string();
    let message = refusal(config(dir.path(), Some((&free, &token)))).await;
    assert!(message.contains(&free), "{message}");

    // Someone who listens but is no manager: it hangs up.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let hanging_up = tokio::spawn(async move { while listener.accept().await.is_ok() {} });
    let message = refusal(config(dir.path(), Some((&addr, &token)))).await;
    assert!(message.contains(&addr), "{message}");
    hanging_up.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_or_directory_in_use_is_named_before_anything_happens() {
    let cluster = Cluster::start(1, 0).await;
    let dir = tempfile::tempdir().unwrap();
    let mut taken = config(dir.path(), None);
    taken.listen_remote_api = cluster
        .node("manager-1")
        .advertise_addr()
        .unwrap()
        .to_owned();
    let message = refusal(taken).await;
    assert!(
        message.contains("cannot listen on") && message.contains("--listen-remote-api"),
        "{message}"
    );
    assert!(!dir.path().join("state/raft").exists());

    let mut in_use = config(dir.path(), None);
    in_use.state_dir = cluster.state_dir("manager-1");
    let message = refusal(in_use).await;
    assert!(message.contains("in use by another swarmd"), "{message}");

    let mut long = config(dir.path(), None);
    long.listen_control_api = dir.path().join("x".repeat(150));
    let message = refusal(long).await;
    assert!(message.contains("--listen-control-api"), "{message}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_off_founding_is_no_hindrance_to_joining() {
    let cluster = Cluster::start(1, 0).await;
    let addr = cluster
        .node("manager-1")
        .advertise_addr()
        .unwrap()
        .to_owned();
    let token = cluster
        .object()
        .await
        .root_ca()
        .join_tokens()
        .manager
        .clone();
    let dir = tempfile::tempdir().unwrap();
    // A founder that is killed right before its certificate is saved leaves these.
    let founder = Box::pin(Node::start(config(dir.path(), None)))
        .await
        .unwrap();
    Box::pin(founder.stop()).await;
    let state = dir.path().join("state");
    std::fs::remove_dir_all(state.join("certificates")).unwrap();

    // Without the mark it might be the log of a lost certificate.
    let message = refusal(config(dir.path(), Some((&addr, &token)))).await;
    assert!(message.contains("no certificate"), "{message}");
    assert_eq!(
        cluster.node_objects().await.unwrap().len(),
        1,
        "nobody came in"
    );

    std::fs::write(state.join("founding"), "").unwrap();
    let joined = Box::pin(Node::start(config(dir.path(), Some((&addr, &token)))))
        .await
        .unwrap();
    let cluster_id = &cluster.node("manager-1").identity().cluster_id;
    assert_eq!(&joined.identity().cluster_id, cluster_id);
    assert!(!state.join("founding").exists());
    Box::pin(joined.stop()).await;
}
