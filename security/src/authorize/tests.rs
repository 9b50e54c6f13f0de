use std::collections::BTreeSet;

use super::*;
use crate::{
    RootCa,
    testing::{CLUSTER, credentials, leaf},
};

const CONTROL: &str = "/docker.swarmkit.v1.Control/GetNode";
const SESSION: &str = "/docker.swarmkit.v1.Dispatcher/Session";
const ISSUE: &str = "/docker.swarmkit.v1.NodeCA/IssueNodeCertificate";
const ADDR: &str = "10.0.0.7:41234";

fn peer(node_id: &str, role: Role) -> Peer {
    let ca = RootCa::generate().unwrap();
    let cert = leaf(credentials(&ca, node_id, role).cert_pem());
    Peer {
        subject: Some(Subject::from_der(&cert).unwrap()),
        addr: ADDR.to_owned(),
    }
}

fn anonymous() -> Peer {
    Peer {
        subject: None,
        ..peer("nobody", Role::Worker)
    }
}

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(*name, HeaderValue::from_static(value));
    }
    headers
}

fn decide(path: &str, peer: &Peer, headers: &HeaderMap) -> Result<Caller, Status> {
    Cluster {
        id: CLUSTER,
        removed: &|id| id == "removed",
    }
    .decide(path, Some(peer), headers)
}

fn refusal(path: &str, peer: &Peer, headers: &HeaderMap) -> String {
    let status = decide(path, peer, headers).unwrap_err();
    assert_eq!(status.code(), tonic::Code::PermissionDenied);
    status.message().to_owned()
}

fn forwarded(cn: &'static str, org: &'static str, ou: &'static str) -> HeaderMap {
    let pairs = [
        (FORWARDED, "true"),
        (FORWARDED_CN, cn),
        (FORWARDED_ORG, org),
        (FORWARDED_OU, ou),
        (REMOTE_ADDR, "192.0.2.1:5"),
    ];
    headers(&pairs)
}

const DIRECT: &str =
    "Permission denied: unauthorized peer role: rpc error: code = PermissionDenied desc = ";

#[test]
fn direct_callers_need_the_role() {
    let none = HeaderMap::new();
    let worker = peer("w1", Role::Worker);
    let caller = decide(SESSION, &worker, &none).unwrap();
    assert_eq!(
        caller.identity,
        Some(crate::testing::identity("w1", Role::Worker))
    );
    assert_eq!(
        (caller.remote_addr.as_str(), caller.forwarded_by),
        (ADDR, None)
    );
    let manager = peer("m1", Role::Manager);
    assert!(decide(SESSION, &manager, &none).is_ok());
    assert!(decide(CONTROL, &manager, &none).is_ok());
    assert_eq!(
        refusal(CONTROL, &worker, &none),
        format!("{DIRECT}Permission denied: remote certificate not part of OUs: [swarm-manager]")
    );
}

#[test]
fn direct_callers_are_refused_with_the_known_texts() {
    let none = HeaderMap::new();
    let cases = [
        (anonymous(), "no client certificates in request".to_owned()),
        (
            Peer {
                subject: Some(Subject::default()),
                ..anonymous()
            },
            "Permission denied: remote certificate not part of OUs: [swarm-worker swarm-manager]"
                .to_owned(),
        ),
        (
            peer("removed", Role::Manager),
            "Permission denied: node removed was removed from swarm".to_owned(),
        ),
    ];
    for (peer, text) in cases {
        assert_eq!(refusal(SESSION, &peer, &none), format!("{DIRECT}{text}"));
    }
    let elsewhere = Cluster {
        id: "other",
        removed: &|_| false,
    };
    let status = elsewhere
        .decide(SESSION, Some(&peer("w1", Role::Worker)), &none)
        .unwrap_err();
    assert_eq!(
        status.message(),
        format!("{DIRECT}Permission denied: remote certificate not part of organization: other")
    );
}

#[test]
fn managers_speak_for_others() {
    let proxy = peer("m1", Role::Manager);
    let caller = decide(SESSION, &proxy, &forwarded("w1", CLUSTER, "swarm-worker")).unwrap();
    assert_eq!(
        caller.identity,
        Some(crate::testing::identity("w1", Role::Worker))
    );
    assert_eq!(caller.remote_addr, "192.0.2.1:5");
    assert_eq!(caller.forwarded_by.as_deref(), Some("m1"));
    assert_eq!(
        refusal(CONTROL, &proxy, &forwarded("w1", CLUSTER, "swarm-worker")),
        "Permission denied: unauthorized forwarded role, expecting: [swarm-manager]"
    );
    assert_eq!(
        refusal(SESSION, &proxy, &forwarded("w1", "other", "swarm-worker")),
        format!("Permission denied: organization mismatch, expecting: {CLUSTER}")
    );
    for incomplete in [
        forwarded("", CLUSTER, "swarm-worker"),
        forwarded("w1", "", "swarm-worker"),
        forwarded("w1", CLUSTER, ""),
        headers(&[(FORWARDED, "true")]),
    ] {
        assert_eq!(
            refusal(SESSION, &proxy, &incomplete),
            "Permission denied: missing information in forwarded request"
        );
    }
    // The removal of the caller is not looked at again, only that of the forwarder.
    assert!(
        decide(
            SESSION,
            &proxy,
            &forwarded("removed", CLUSTER, "swarm-worker")
        )
        .is_ok()
    );
}

#[test]
fn nobody_but_managers_speaks_for_others() {
    let claims = forwarded("m1", CLUSTER, "swarm-manager");
    assert_eq!(
        refusal(CONTROL, &peer("w1", Role::Worker), &claims),
        "Permission denied: unauthorized forwarder role: rpc error: code = PermissionDenied \
         desc = Permission denied: remote certificate not part of OUs: [swarm-manager]"
    );
    let prefix = "Permission denied: unauthorized forwarder role: rpc error: ";
    assert!(refusal(CONTROL, &anonymous(), &claims).starts_with(prefix));
    assert!(refusal(CONTROL, &peer("removed", Role::Manager), &claims).starts_with(prefix));
    // What is not said exactly so is not said: the call counts as the worker's own.
    for unclear in [
        headers(&[(FORWARDED, "yes"), (FORWARDED_CN, "m1")]),
        headers(&[
            (FORWARDED, "true"),
            (FORWARDED, "true"),
            (FORWARDED_CN, "m1"),
        ]),
    ] {
        let caller = decide(SESSION, &peer("w1", Role::Worker), &unclear).unwrap();
        assert_eq!(caller.identity.unwrap().node_id, "w1");
    }
}

#[test]
fn open_calls_identify_members_and_let_in_the_rest_as_nobody() {
    let none = HeaderMap::new();
    let nobody = Caller {
        identity: None,
        remote_addr: ADDR.to_owned(),
        forwarded_by: None,
    };
    let member = decide(ISSUE, &peer("w1", Role::Worker), &none).unwrap();
    assert_eq!(member.identity.unwrap().node_id, "w1");
    for peer in [anonymous(), peer("removed", Role::Worker)] {
        assert_eq!(decide(ISSUE, &peer, &none).unwrap(), nobody);
    }
    let elsewhere = Cluster {
        id: "other",
        removed: &|_| false,
    };
    assert_eq!(
        elsewhere
            .decide(ISSUE, Some(&peer("w1", Role::Worker)), &none)
            .unwrap(),
        nobody
    );

    let manager = peer("m1", Role::Manager);
    let renewal = decide(ISSUE, &manager, &forwarded("w1", CLUSTER, "swarm-worker")).unwrap();
    assert_eq!(renewal.identity.unwrap().node_id, "w1");
    let join = decide(ISSUE, &manager, &forwarded("", "", "")).unwrap();
    assert_eq!(
        join.identity, None,
        "a forwarded join is not the manager's own renewal"
    );
    assert_eq!(join.remote_addr, "192.0.2.1:5");
    assert_eq!(join.forwarded_by.as_deref(), Some("m1"));
    // A stranger's claims are not believed.
    assert_eq!(
        decide(
            ISSUE,
            &anonymous(),
            &forwarded("m1", CLUSTER, "swarm-manager")
        )
        .unwrap(),
        nobody
    );
}

#[test]
fn unknown_methods_are_refused_to_everyone() {
    let status = decide("/a.B/C", &peer("m1", Role::Manager), &HeaderMap::new()).unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented);
}

#[test]
fn forwarded_headers_are_read_back_and_replace_the_clients_own() {
    let proxy = peer("m1", Role::Manager);
    for identity in [None, Some(crate::testing::identity("w1", Role::Worker))] {
        let caller = Caller {
            identity,
            remote_addr: ADDR.to_owned(),
            forwarded_by: None,
        };
        let mut headers = forwarded("liar", "liars", "swarm-manager");
        headers.append(FORWARDED, HeaderValue::from_static("true"));
        headers.append("other", HeaderValue::from_static("kept"));
        forward_headers(&caller, &mut headers);
        let names: BTreeSet<_> = headers.keys().map(|name| name.as_str()).collect();
        assert!(names.contains("other"));
        assert_eq!(names.contains(FORWARDED_OU), caller.identity.is_some());
        assert!(headers.get(FORWARDED_CN).is_some());
        let seen = decide(ISSUE, &proxy, &headers).unwrap();
        assert_eq!(
            seen,
            Caller {
                forwarded_by: Some("m1".to_owned()),
                ..caller
            }
        );
    }
}
