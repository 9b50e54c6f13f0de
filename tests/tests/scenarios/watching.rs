//! Watches over the control socket, while managers come and go.

use std::{sync::Arc, time::Duration};

use skep_proto::v1::{
    Annotations, ConfigSpec, CreateConfigRequest, GetClusterRequest, UpdateClusterRequest, Version,
    WatchMessage, WatchRequest, node_spec::Availability, object::Object, watch_client::WatchClient,
    watch_request::WatchEntry,
};
use skep_security::{JoinToken, ServerName, TcpDial, Tls, join};
use skep_tests::cluster::{Cluster, eventually};
use tokio::time::timeout;
use tonic::{Code, Status, Streaming};

const PATIENCE: Duration = Duration::from_secs(60);

/// All that happens to configs, from now on or from after a version.
fn configs(resume_from: Option<u64>) -> WatchRequest {
    WatchRequest {
        entries: vec![WatchEntry {
            kind: "config".to_owned(),
            action: 7,
            filters: Vec::new(),
        }],
        resume_from: resume_from.map(|index| Version { index }),
        include_old_object: false,
    }
}

async fn next(stream: &mut Streaming<WatchMessage>) -> Result<WatchMessage, Status> {
    let message = timeout(PATIENCE, stream.message()).await;
    let message = message.expect("something comes in time")?;
    Ok(message.expect("a watch ends with an error"))
}

/// A watch that is in place.
async fn watch(
    cluster: &Cluster,
    manager: &str,
    resume_from: Option<u64>,
) -> Streaming<WatchMessage> {
    let mut client = cluster.watch_of(manager).await;
    let opened = client.watch(configs(resume_from)).await.unwrap();
    let mut stream = opened.into_inner();
    assert_eq!(next(&mut stream).await.unwrap(), WatchMessage::default());
    stream
}

/// Name and version of what a message tells: each is about one config here.
fn told(message: &WatchMessage) -> (String, u64) {
    let [event] = &message.events[..] else {
        panic!("one write, one event: {message:?}");
    };
    assert_eq!(event.action, 1);
    let Some(Object::Config(config)) = event.object.clone().unwrap().object else {
        panic!("not a config: {event:?}");
    };
    let name = config.spec().annotations().name.clone();
    let version = message.version.expect("a whole message has a version");
    assert!(config.meta().version().index <= version.index);
    (name, version.index)
}

async fn read(stream: &mut Streaming<WatchMessage>, count: usize) -> Vec<(String, u64)> {
    let mut all = Vec::new();
    while all.len() < count {
        all.push(told(&next(stream).await.unwrap()));
    }
    all
}

async fn write_sized(cluster: &Cluster, name: &str, size: usize) {
    let spec = ConfigSpec {
        annotations: Some(Annotations {
            name: name.to_owned(),
            ..Default::default()
        }),
        data: vec![b'x'; size].into(),
        ..Default::default()
    };
    eventually("the write to be acknowledged", async || {
        let request = CreateConfigRequest {
            spec: Some(spec.clone()),
        };
        match cluster.control().await.create_config(request).await {
            Ok(_) => Some(()),
            // An earlier try, whose answer was lost.
            Err(status) if status.code() == Code::AlreadyExists => Some(()),
            Err(_) => None,
        }
    })
    .await;
}

async fn write(cluster: &Cluster, names: &[&str]) {
    for name in names {
        write_sized(cluster, name, 10).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_resumes_on_any_manager_after_a_change_of_leader_and_a_restart() {
    let mut cluster = Cluster::start(3, 0).await;
    let old = cluster.leader().await;
    let mut stream = watch(&cluster, &old, None).await;
    write(&cluster, &["a", "b", "c"]).await;
    let mut history = read(&mut stream, 3).await;
    cluster.kill(&old).await;
    assert!(next(&mut stream).await.is_err());

    write(&cluster, &["d", "e"]).await;
    let survivor = cluster.follower().await;
    let mut stream = watch(&cluster, &survivor, Some(history[2].1)).await;
    history.extend(read(&mut stream, 2).await);
    // It goes on live, and whoever was away tells the same from wherever one resumes.
    write(&cluster, &["f"]).await;
    history.extend(read(&mut stream, 1).await);
    cluster.restart(&old).await;
    write(&cluster, &["g"]).await;
    history.extend(read(&mut stream, 1).await);
    let names: Vec<_> = history.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["a", "b", "c", "d", "e", "f", "g"]);
    assert!(history.is_sorted_by(|a, b| a.1 < b.1));
    for manager in cluster.managers() {
        for seen in 0..history.len() {
            let mut stream = watch(&cluster, &manager, Some(history[seen].1)).await;
            let rest = &history[seen + 1..];
            assert_eq!(read(&mut stream, rest.len()).await, rest, "{manager}");
        }
    }
    // And what comes next comes once, everywhere.
    let last = Some(history[history.len() - 1].1);
    let mut streams = Vec::new();
    for manager in cluster.managers() {
        streams.push(watch(&cluster, &manager, last).await);
    }
    write(&cluster, &["h", "i"]).await;
    let mut seen = Vec::new();
    for stream in &mut streams {
        seen.push(read(stream, 2).await);
    }
    assert_eq!(seen[0][0].0, "h");
    assert!(seen.iter().all(|other| *other == seen[0]), "{seen:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_cannot_be_resumed_from_what_is_compacted() {
    let cluster = Cluster::start(1, 0).await;
    let manager = cluster.leader().await;
    let mut stream = watch(&cluster, &manager, None).await;
    write(&cluster, &["first"]).await;
    let first = read(&mut stream, 1).await[0].1;
    let control = cluster.control().await;
    eventually("the raft settings to be stored", async || {
        let cluster_id = cluster.object().await.id;
        let got = control
            .clone()
            .get_cluster(GetClusterRequest { cluster_id })
            .await;
        let object = got.ok()?.into_inner().cluster?;
        let mut spec = object.spec().clone();
        spec.raft_mut().snapshot_interval = 5;
        spec.raft_mut().log_entries_for_slow_followers = 0;
        let request = UpdateClusterRequest {
            cluster_id: object.id.clone(),
            cluster_version: object.meta().version,
            spec: Some(spec),
            rotation: None,
        };
        control.clone().update_cluster(request).await.ok()
    })
    .await;
    for number in 0..20 {
        write(&cluster, &[&format!("more-{number}")]).await;
    }
    let mut client = cluster.watch_of(&manager).await;
    let refused = eventually("the log to be compacted", async || {
        client.clone().watch(configs(Some(first))).await.err()
    })
    .await;
    assert_eq!(refused.code(), Code::Unknown);
    let text = "requested index is unavailable due to compaction";
    assert!(refused.message().starts_with(text), "{refused}");
    // Who goes on reading misses nothing.
    assert_eq!(read(&mut stream, 20).await[19].0, "more-19");
    let refused = client.watch(configs(Some(u64::MAX))).await.unwrap_err();
    let text = "versions are out of order";
    assert!(refused.message().starts_with(text), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn r41_a_client_that_does_not_read_is_told_to_resume() {
    let cluster = Cluster::start(1, 0).await;
    let manager = cluster.leader().await;
    let mut stream = watch(&cluster, &manager, None).await;
    for number in 0..12 {
        write_sized(&cluster, &format!("large-{number}"), 900_000).await;
    }
    let mut history = Vec::new();
    let end = loop {
        match next(&mut stream).await {
            Ok(message) => history.push(told(&message)),
            Err(end) => break end,
        }
    };
    assert_eq!(end.code(), Code::ResourceExhausted, "{end}");
    let last = history.last().expect("what it had room for").1;
    let missing = 12 - history.len();
    assert!(missing > 0);
    let mut stream = watch(&cluster, &manager, Some(last)).await;
    history.extend(read(&mut stream, missing).await);
    for (number, (name, _)) in history.iter().enumerate() {
        assert_eq!(*name, format!("large-{number}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r42_a_manager_stops_while_watches_are_open_or_being_given_up() {
    let mut cluster = Cluster::start(1, 0).await;
    let manager = cluster.leader().await;
    let mut stream = watch(&cluster, &manager, None).await;
    let reading = tokio::spawn(async move {
        loop {
            if let Err(end) = next(&mut stream).await {
                return end;
            }
        }
    });
    let unread = watch(&cluster, &manager, None).await;
    for number in 0..8 {
        write_sized(&cluster, &format!("large-{number}"), 900_000).await;
    }
    let given_up = watch(&cluster, &manager, Some(1)).await;
    tokio::spawn(async move { drop(given_up) });
    timeout(PATIENCE, cluster.stop(&manager))
        .await
        .expect("it stops");
    drop(unread);
    let end = reading.await.unwrap();
    assert_eq!(end.code(), Code::Unavailable, "{end}");
    // The log was let go of.
    cluster.restart(&manager).await;
    watch(&cluster, &manager, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_that_make_no_sense_are_refused() {
    let cluster = Cluster::start(1, 0).await;
    let mut client = cluster.watch_of("manager-1").await;
    let mut request = configs(None);
    request.entries[0].action = 0;
    let refused = client.watch(request).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::InvalidArgument, "unrecognized action")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_serves_other_managers_and_refuses_workers() {
    let cluster = Cluster::start(3, 0).await;
    let follower = cluster.follower().await;
    let addr = cluster.node(&follower).advertise_addr().unwrap();
    let tokens = cluster.object().await.root_ca().join_tokens().clone();
    for (token, is_manager) in [(tokens.manager, true), (tokens.worker, false)] {
        let token: JoinToken = token.parse().unwrap();
        let joined = join::join(Arc::new(TcpDial), addr, &token, Availability::Active);
        let tls = Tls::new(Box::pin(joined).await.unwrap());
        let channel = tls.channel(addr, ServerName::Manager).unwrap();
        let opened = WatchClient::new(channel).watch(configs(None)).await;
        if is_manager {
            let mut stream = opened.unwrap().into_inner();
            assert_eq!(next(&mut stream).await.unwrap(), WatchMessage::default());
            write(&cluster, &["a"]).await;
            assert_eq!(read(&mut stream, 1).await[0].0, "a");
        } else {
            assert_eq!(opened.unwrap_err().code(), Code::PermissionDenied);
        }
    }
}
