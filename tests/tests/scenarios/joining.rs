//! Managers that die while they join.

use std::sync::Arc;

use skep_agent::{OnStop, executor::null::NullExecutor};
use skep_manager::server::Health;
use skep_node::{Config, Node};
use skep_proto::v1::{health_server::HealthServer, node_spec::Availability};
use skep_raft::LogKind;
use skep_security::{JoinToken, TcpDial, Tls, join, tls_incoming};
use skep_tests::cluster::Cluster;
use tonic::transport::Server;

/// The second manager is the worst: with a vote it would be needed for a quorum, and it may have died
/// before it knew that it is a member.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_manager_that_dies_while_it_joins_comes_back() {
    let cluster = Cluster::start(1, 0).await;
    let founder = cluster.node("manager-1");
    let addr = founder.advertise_addr().unwrap().to_owned();
    let token = cluster
        .object()
        .await
        .root_ca()
        .join_tokens()
        .manager
        .clone();
    let dir = tempfile::tempdir().unwrap();
    let state_dir = dir.path().join("state");

    // As far as it got: it has a certificate and knows whom to ask, and the leader has taken it in.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own_addr = listener.local_addr().unwrap().to_string();
    let parsed: JoinToken = token.parse().unwrap();
    let joined = join::join(Arc::new(TcpDial), &addr, &parsed, Availability::Active);
    let credentials = Box::pin(joined).await.unwrap();
    credentials.save(&state_dir.join("certificates")).unwrap();
    std::fs::write(state_dir.join("joining"), &addr).unwrap();
    let tls = Tls::new(credentials);
    let health = Health::new(&[Health::RAFT]);
    health.set(Health::RAFT, true);
    // Its connections die with it: the leader must not go on to use one.
    let process = tokio::runtime::Runtime::new().unwrap();
    let listener = listener.into_std().unwrap();
    let identity = tls.clone();
    process.spawn(async move {
        let listener = tokio::net::TcpListener::from_std(listener).unwrap();
        let server = Server::builder().add_service(HealthServer::new(health));
        server
            .serve_with_incoming(tls_incoming(listener, identity))
            .await
    });
    let taken_in = Box::pin(skep_raft::request_join(&tls, &addr, &own_addr))
        .await
        .unwrap();
    process.shutdown_background();
    let status = founder.manager().unwrap().status();
    assert!(status.borrow().learners.contains(&taken_in.raft_id));
    // The first one decides alone meanwhile.
    cluster
        .set_availability("manager-1", Availability::Drain)
        .await;
    assert!(status.borrow().leading);

    let config = Config {
        state_dir,
        join: None,
        force_new_cluster: false,
        raft_log: LogKind::default(),
        plugin_dirs: Vec::new(),
        listen_remote_api: own_addr,
        advertise_addr: None,
        listen_control_api: dir.path().join("s.sock"),
        hostname: "manager-2".to_owned(),
        executor: Arc::new(NullExecutor),
        generic_resources: Vec::new(),
        availability: Availability::Active,
        on_stop: OnStop::Keep,
        dialer: Arc::new(TcpDial),
        unlock_key: None,
    };
    // It needs no flags to go on.
    let mark = config.state_dir.join("joining");
    let second = Box::pin(Node::start(config)).await.unwrap();
    let status = second.manager().unwrap().status();
    assert_eq!(status.borrow().raft_id, taken_in.raft_id);
    assert!(!mark.exists());
    let status = status.borrow().clone();
    assert!(status.votes() && status.members.len() == 2, "{status:?}");
    Box::pin(second.stop()).await;
}
