//! `cluster ca`.

use std::process::Stdio;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use skep_proto::v1::{Cluster, Node, NodeTlsInfo, RootCa, RootRotation, external_ca::CaProtocol};
use swarmctl::Exit;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Command,
};

use crate::{
    fake::{Fake, World, node},
    run::swarmctl,
};

/// As much of a certificate as is looked at; its key is `key`.
fn pem(key: u8) -> String {
    let fields = [
        &[0xa0, 1, 2][..],
        &[2, 1, 1],
        &[0x30, 0],
        &[0x30, 0],
        &[0x30, 0],
        &[0x30, 1, 7],
        &[0x30, 1, key],
    ]
    .concat();
    let tbs = [&[0x30, fields.len() as u8][..], &fields].concat();
    let der = [&[0x30, tbs.len() as u8][..], &tbs].concat();
    let body = BASE64_STANDARD.encode(der);
    format!("-----BEGIN CERTIFICATE-----\n{body}\n-----END CERTIFICATE-----\n")
}

fn cluster(root: u8, next: Option<u8>) -> Cluster {
    let mut cluster = Cluster {
        id: "c1".to_owned(),
        root_ca: Some(RootCa {
            ca_cert: pem(root).into(),
            ca_cert_hash: "sha256:00".to_owned(),
            root_rotation: next.map(|next| RootRotation {
                ca_cert: pem(next).into(),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    };
    cluster.meta_mut().version_mut().index = 10;
    cluster.spec_mut().annotations_mut().name = "default".to_owned();
    cluster.spec_mut().ca_config_mut().force_rotate = 4;
    cluster
}

/// A node with a certificate of the root with the key `issuer`.
fn moved(id: &str, issuer: u8) -> Node {
    let mut node = node(id, id);
    node.description.as_mut().unwrap().tls_info = Some(NodeTlsInfo {
        trust_root: pem(issuer).into(),
        cert_issuer_subject: vec![0x30, 1, 7].into(),
        cert_issuer_public_key: vec![0x30, 1, issuer].into(),
    });
    node
}

fn world(root: u8, next: Option<u8>, issuers: &[u8]) -> World {
    let nodes = issuers.iter().enumerate();
    World {
        clusters: vec![cluster(root, next)],
        nodes: nodes
            .map(|(at, issuer)| moved(&format!("n{at}"), *issuer))
            .collect(),
        ..Default::default()
    }
}

#[tokio::test]
async fn alone_it_prints_the_root() {
    let fake = Fake::new(world(1, None, &[]));
    assert_eq!(swarmctl(&fake, "cluster ca").await.ok(), pem(1));
    let json = swarmctl(&fake, "cluster ca --format json").await.ok();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["caCert"], pem(1));
    assert_eq!(json["rotating"], false);
    assert_eq!(fake.count("update_cluster"), 0);
}

#[tokio::test]
async fn what_is_asked_for_is_written_into_the_spec() {
    let directory = tempfile::tempdir().unwrap();
    let (cert, key) = (directory.path().join("cert"), directory.path().join("key"));
    std::fs::write(&cert, pem(9)).unwrap();
    std::fs::write(&key, "KEY").unwrap();
    let config = async |line: &str| {
        let fake = Fake::new(world(1, None, &[]));
        swarmctl(&fake, &format!("cluster ca {line}")).await.ok();
        let cluster = fake.world().clusters[0].clone();
        cluster.spec().ca_config().clone()
    };
    let rotated = config("--rotate -d").await;
    assert_eq!(rotated.force_rotate, 5);
    assert!(rotated.signing_ca_cert.is_empty());

    let (cert, key) = (cert.display(), key.display());
    let own = config(&format!("--rotate -d --ca-cert {cert} --ca-key {key}")).await;
    assert_eq!(
        (own.force_rotate, &own.signing_ca_cert[..]),
        (4, pem(9).as_bytes())
    );
    assert_eq!(own.signing_ca_key, "KEY");

    let external = format!("protocol=cfssl,url=https://ca/sign,cacert={cert}");
    let line = format!("--rotate -d --ca-cert {cert} --external-ca {external}");
    let config_of_external = config(&line).await;
    assert!(config_of_external.signing_ca_key.is_empty());
    let ca = &config_of_external.external_cas[0];
    assert_eq!(
        (ca.protocol(), ca.url.as_str()),
        (CaProtocol::Cfssl, "https://ca/sign")
    );
    assert_eq!(ca.ca_cert, pem(9));

    let expiry = config("--cert-expiry 720h").await;
    assert_eq!(expiry.node_cert_expiry.unwrap().seconds, 720 * 3600);
    assert_eq!(expiry.force_rotate, 4);
}

#[tokio::test]
async fn wrong_command_lines_are_named() {
    let fake = Fake::new(world(1, None, &[]));
    for (line, text) in [
        ("--ca-cert x", "--rotate"),
        ("-d", "--rotate"),
        ("--rotate --ca-key x", "--ca-cert"),
        ("--rotate --ca-cert /nowhere/at/all", "/nowhere/at/all"),
        ("--external-ca nonsense", "protocol=cfssl"),
    ] {
        let run = swarmctl(&fake, &format!("cluster ca {line}")).await;
        let error = run.failed(Exit::Usage);
        assert!(error.contains(text), "{line}: {error}");
    }
    assert_eq!(fake.count("update_cluster"), 0);
}

#[tokio::test]
async fn a_rotation_that_somebody_replaces_is_a_failure() {
    let fake = Fake::new(world(1, None, &[1]));
    // The fake rotates nothing by itself: by the next look the cluster moves elsewhere.
    let line = "cluster ca --rotate";
    let meddling = async {
        loop {
            if fake.count("list_nodes") > 0 {
                fake.world().clusters[0] = cluster(1, Some(3));
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    fake.world().clusters[0] = cluster(1, Some(2));
    let (run, ()) = tokio::join!(swarmctl(&fake, line), meddling);
    let error = run.failed(Exit::NotConverged);
    assert!(error.contains("by somebody else"), "{error}");
}

#[tokio::test]
async fn progress_is_shown_to_the_end_and_then_the_new_root() {
    let fake = Fake::new(world(1, Some(2), &[1, 1]));
    let going_on = async {
        let looks = async |count: usize| {
            while fake.count("list_nodes") < count {
                tokio::task::yield_now().await;
            }
        };
        looks(1).await;
        fake.world().nodes[0] = moved("n0", 2);
        looks(2).await;
        let mut world = fake.world();
        world.nodes[1] = moved("n1", 2);
        world.clusters[0] = cluster(2, None);
    };
    let (run, ()) = tokio::join!(swarmctl(&fake, "cluster ca --rotate"), going_on);
    assert_eq!(run.exit, Exit::Ok, "{run:?}");
    assert_eq!(run.out, pem(2));
    assert_eq!(
        run.err,
        "new certificates: 0 of 2 nodes, new root: 0 of 2 nodes\n\
         new certificates: 1 of 2 nodes, new root: 1 of 2 nodes\n\
         new certificates: 2 of 2 nodes, new root: 2 of 2 nodes\n"
    );
}

#[tokio::test]
async fn ctrl_c_says_whom_it_waits_for() {
    let fake = Fake::new(world(1, Some(2), &[2, 1]));
    let mut child = Command::new(env!("CARGO_BIN_EXE_swarmctl"))
        .args(["cluster", "ca", "--rotate"])
        .env("SWARM_SOCKET", &fake.socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    err.read_line(&mut line).await.unwrap();
    assert_eq!(
        line,
        "new certificates: 1 of 2 nodes, new root: 1 of 2 nodes\n"
    );
    let kill = format!("kill -INT {}", child.id().unwrap());
    let killed = Command::new("sh").args(["-c", &kill]).status().await;
    assert!(killed.unwrap().success());
    let mut rest = String::new();
    err.read_to_string(&mut rest).await.unwrap();
    let expected = "\
Nodes without a certificate of the new root CA: n1
Operation continuing in background.
Use `swarmctl cluster ca` to see when the root CA has changed.
";
    assert_eq!(rest, expected);
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
}
