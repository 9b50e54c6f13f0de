//! Every RPC of a manager's listener, called by every kind of caller.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use http::{Request, Response, Uri};
use hyper::{body::Incoming, client::conn::http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};
use skep_proto::v1::Cluster as ClusterObject;
use skep_security::{Identity, Role, RootCa};
use skep_tests::cluster::Cluster;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use tonic::{Code, Status, body::Body};

/// Who may call which RPC, as the wire says.
const SERVICES: &str = include_str!("../../../proto/tests/wire/services.tsv");

/// An empty message, in gRPC's frame.
const EMPTY: &str = "\0\0\0\0\0";

/// How long an answer may take. A stream that is open has answered.
const PATIENCE: Duration = Duration::from_secs(10);

const DENIED: &str = "Permission denied: ";
const DIRECT: &str = "unauthorized peer role: rpc error: code = PermissionDenied desc = ";
const FORWARDER: &str = "unauthorized forwarder role: rpc error: code = PermissionDenied desc = ";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Allowed {
    Anyone,
    Nodes,
    Managers,
}

impl Allowed {
    fn list(self) -> &'static str {
        match self {
            Self::Managers => "[swarm-manager]",
            _ => "[swarm-worker swarm-manager]",
        }
    }
}

/// All RPCs with those who may call them.
fn rpcs() -> Vec<(String, Allowed)> {
    let mut rpcs: Vec<_> = SERVICES
        .lines()
        .skip(1)
        .map(|line| {
            let columns: Vec<_> = line.split('\t').collect();
            let allowed = match columns[6].trim_end_matches(" (deprecated)") {
                "insecure" => Allowed::Anyone,
                "swarm-manager" => Allowed::Managers,
                "swarm-worker,swarm-manager" => Allowed::Nodes,
                other => panic!("unknown roles {other}"),
            };
            (format!("/{}/{}", columns[0], columns[1]), allowed)
        })
        .collect();
    assert!(rpcs.len() > 60);
    for own in ["RaftStatus/GetRaftStatus", "RaftStream/Messages"] {
        rpcs.push((format!("/skep.v1.{own}"), Allowed::Managers));
    }
    rpcs
}

/// A manager, and the means to make certificates of its cluster.
struct Swarm {
    cluster: Cluster,
    addr: String,
    id: String,
    root: RootCa,
}

/// A certificate with its key.
type Pair = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

impl Swarm {
    async fn start() -> Self {
        let cluster = Cluster::start(1, 0).await;
        let node = cluster.node("manager-1");
        let addr = node.advertise_addr().unwrap().to_owned();
        let id = node.identity().cluster_id.clone();
        let store = node.manager().unwrap().store();
        let object = store.snapshot().get::<ClusterObject>(&id).unwrap().clone();
        let wire = object.root_ca();
        let root = RootCa::from_pem(&wire.ca_cert, Some(&wire.ca_key)).unwrap();
        store
            .update(|tx| {
                let mut cluster = ClusterObject::clone(tx.get::<ClusterObject>(&id).unwrap());
                let blacklist = &mut cluster.blacklisted_certificates;
                blacklist.insert("gone".to_owned(), Default::default());
                tx.update(cluster).map(drop)
            })
            .await
            .unwrap();
        Self {
            cluster,
            addr,
            id,
            root,
        }
    }

    fn who(&self, node_id: &str, role: Role) -> Identity {
        Identity {
            node_id: node_id.to_owned(),
            role,
            cluster_id: self.id.clone(),
        }
    }

    async fn connect(&self, pair: Option<Pair>) -> Connection {
        Connection::open(&self.addr, &self.root, pair).await
    }
}

/// Has `root` certify somebody at a time that lies this many seconds ahead.
fn certified(root: &RootCa, who: &Identity, ahead: i64) -> Pair {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default()
        .serialize_request(&key)
        .unwrap();
    let distance = Duration::from_secs(ahead.unsigned_abs());
    let now = match ahead < 0 {
        true => SystemTime::now() - distance,
        false => SystemTime::now() + distance,
    };
    let hour = Duration::from_secs(3600);
    let chain = root.issue(csr.pem().unwrap().as_bytes(), who, hour, now);
    (
        vec![CertificateDer::from_pem_slice(&chain.unwrap()).unwrap()],
        PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
    )
}

/// A connection to a manager that trusts it, whatever that one thinks.
struct Connection(http2::SendRequest<Body>);

impl Connection {
    async fn open(addr: &str, trusted: &RootCa, pair: Option<Pair>) -> Self {
        Self::try_open(addr, trusted, pair).await.unwrap()
    }

    async fn try_open(addr: &str, trusted: &RootCa, pair: Option<Pair>) -> Result<Self, String> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(trusted.cert_pem()).unwrap();
        roots.add(root).unwrap();
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots);
        let mut config = match pair {
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
            None => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![b"h2".to_vec()];
        let failed = |err: &dyn std::fmt::Display| err.to_string();
        let stream = TcpStream::connect(addr).await.map_err(|err| failed(&err))?;
        let stream = TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from("swarm-manager").unwrap(), stream)
            .await
            .map_err(|err| failed(&err))?;
        let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .map_err(|err| failed(&err))?;
        tokio::spawn(connection);
        Ok(Self(sender))
    }

    async fn send(
        &self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, hyper::Error> {
        Self(self.0.clone()).send_last(path, headers).await
    }

    /// Sends a call that is the connection's last. With a sender left, a call that is sent while its
    /// connection ends may have no answer at all: tokio's channel, which hyper queues calls in, can
    /// take in a message while its receiver is dropped and keeps it then until all senders are.
    async fn send_last(
        mut self,
        path: &str,
        headers: &[(&str, &str)],
    ) -> Result<Response<Incoming>, hyper::Error> {
        let uri: Uri = format!("https://swarm-manager{path}").parse().unwrap();
        let mut request = Request::post(uri)
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Body::new(EMPTY.to_owned())).unwrap();
        let answer = self.0.send_request(request);
        drop(self);
        answer.await
    }

    /// What a call is refused with before anybody has looked at it, if it is.
    async fn refusal(&self, path: &str, headers: &[(&str, &str)]) -> Option<(Code, String)> {
        // Refusals come at once; a call that waits for something was let in.
        let response = timeout(PATIENCE, self.send(path, headers))
            .await
            .ok()?
            .unwrap();
        let status = Status::from_header_map(response.headers())?;
        let (code, text) = (status.code(), status.message().to_owned());
        (code == Code::PermissionDenied || text == skep_raft::REMOVED).then_some((code, text))
    }
}

/// Calls all RPCs, and compares what is said to what `expected` says of who may call.
async fn check_all(
    connection: &Connection,
    headers: &[(&str, &str)],
    expected: impl Fn(Allowed) -> Option<String>,
) {
    let raft = ["/docker.swarmkit.v1.Raft/", "/skep.v1.RaftStream/"];
    for (path, allowed) in rpcs() {
        let refusal = connection.refusal(&path, headers).await;
        let mut expected = expected(allowed).map(|text| (Code::PermissionDenied, text));
        if let Some((code, text)) = &mut expected
            && text.contains("was removed from swarm")
            && raft.iter().any(|raft| path.starts_with(raft))
        {
            // Whose manager still runs learns from this that it is to end.
            (*code, *text) = (Code::NotFound, skep_raft::REMOVED.to_owned());
        }
        assert_eq!(refusal, expected, "{path} {headers:?}");
    }
}

fn forwarded<'a>(cn: &'a str, org: &'a str, ou: &'a str) -> Vec<(&'a str, &'a str)> {
    let mut headers = vec![
        ("forwarded_cert", "true"),
        ("forwarded_cert_cn", cn),
        ("forwarded_cert_org", org),
        ("remote_addr", "192.0.2.1:5"),
    ];
    if !ou.is_empty() {
        headers.push(("forwarded_cert_ou", ou));
    }
    headers
}

#[tokio::test(flavor = "multi_thread")]
async fn every_rpc_is_open_to_its_roles_and_to_nobody_else() {
    let swarm = Swarm::start().await;
    let foreign_ou =
        |role: &str| format!("Permission denied: remote certificate not part of OUs: {role}");
    let removed = "Permission denied: node gone was removed from swarm";
    let unless_open = |text: String| {
        move |allowed: Allowed| (allowed != Allowed::Anyone).then(|| format!("{DENIED}{text}"))
    };

    // Nobody.
    let nobody = swarm.connect(None).await;
    let no_cert = format!("{DIRECT}no client certificates in request");
    check_all(&nobody, &[], unless_open(no_cert)).await;
    let pretends = format!("{FORWARDER}no client certificates in request");
    let as_manager = forwarded("m1", &swarm.id, "swarm-manager");
    check_all(&nobody, &as_manager, unless_open(pretends)).await;

    // A worker, also one that says it forwards for a manager.
    let pair = certified(&swarm.root, &swarm.who("w1", Role::Worker), 0);
    let worker = swarm.connect(Some(pair)).await;
    check_all(&worker, &[], |allowed| {
        let refused = allowed == Allowed::Managers;
        refused.then(|| format!("{DENIED}{DIRECT}{}", foreign_ou(allowed.list())))
    })
    .await;
    let pretends = format!("{FORWARDER}{}", foreign_ou("[swarm-manager]"));
    check_all(&worker, &as_manager, unless_open(pretends)).await;

    // A manager, for itself and for others.
    let pair = certified(&swarm.root, &swarm.who("m9", Role::Manager), 0);
    let manager = swarm.connect(Some(pair)).await;
    check_all(&manager, &[], |_| None).await;
    check_all(&manager, &as_manager, |_| None).await;
    let for_worker = forwarded("w1", &swarm.id, "swarm-worker");
    check_all(&manager, &for_worker, |allowed| {
        let text = "unauthorized forwarded role, expecting: [swarm-manager]";
        (allowed == Allowed::Managers).then(|| format!("{DENIED}{text}"))
    })
    .await;
    // The blacklist is asked about who forwards only.
    check_all(
        &manager,
        &forwarded("gone", &swarm.id, "swarm-manager"),
        |_| None,
    )
    .await;
    let missing = || unless_open("missing information in forwarded request".to_owned());
    check_all(&manager, &forwarded("", "", ""), missing()).await;
    check_all(
        &manager,
        &forwarded("", &swarm.id, "swarm-manager"),
        missing(),
    )
    .await;
    let other_org = format!("organization mismatch, expecting: {}", swarm.id);
    let stranger = forwarded("m1", "elsewhere", "swarm-manager");
    check_all(&manager, &stranger, unless_open(other_org)).await;

    // A removed node.
    for (role, may) in [(Role::Manager, true), (Role::Worker, false)] {
        let pair = certified(&swarm.root, &swarm.who("gone", role), 0);
        let gone = swarm.connect(Some(pair)).await;
        check_all(&gone, &[], |allowed| match allowed {
            Allowed::Anyone => None,
            Allowed::Managers if !may => {
                Some(format!("{DENIED}{DIRECT}{}", foreign_ou("[swarm-manager]")))
            }
            _ => Some(format!("{DENIED}{DIRECT}{removed}")),
        })
        .await;
        if may {
            let refused = format!("{FORWARDER}{removed}");
            check_all(&gone, &as_manager, unless_open(refused)).await;
        }
    }

    // Another cluster, should it have the same root.
    let mut who = swarm.who("m1", Role::Manager);
    who.cluster_id = "elsewhere".to_owned();
    let other = swarm.connect(Some(certified(&swarm.root, &who, 0))).await;
    let refused = format!(
        "{DIRECT}Permission denied: remote certificate not part of organization: {}",
        swarm.id
    );
    check_all(&other, &[], unless_open(refused)).await;
    let nodes = swarm.cluster.node_objects().await.unwrap();
    assert_eq!(nodes.len(), 1, "nobody came in");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_that_do_not_hold_end_in_the_handshake() {
    let swarm = Swarm::start().await;
    let who = swarm.who("m1", Role::Manager);
    let other = RootCa::generate().unwrap();
    let day = 24 * 3600;
    for (what, pair) in [
        ("another root's", certified(&other, &who, 0)),
        ("expired", certified(&swarm.root, &who, -10 * day)),
        ("not yet valid", certified(&swarm.root, &who, 10 * day)),
    ] {
        // Not even what is open to anyone: who shows a certificate has to have a good one.
        for (path, _) in rpcs() {
            let opened = Connection::try_open(&swarm.addr, &swarm.root, Some(pair_of(&pair))).await;
            let Ok(connection) = opened else {
                continue;
            };
            let answer = timeout(PATIENCE, connection.send_last(&path, &[])).await;
            let answer = answer.unwrap_or_else(|_| panic!("{what}, {path}: neither yes nor no"));
            assert!(answer.is_err(), "{what}, {path}: {answer:?}");
        }
    }
    let nobody = swarm.connect(None).await;
    let open = "/docker.swarmkit.v1.CA/GetRootCACertificate";
    assert!(
        nobody.send(open, &[]).await.is_ok(),
        "all others are served"
    );
}

fn pair_of((chain, key): &Pair) -> Pair {
    (chain.clone(), key.clone_key())
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_hung_up_on() {
    let swarm = Swarm::start().await;
    let answers = async || {
        let pair = certified(&swarm.root, &swarm.who("m9", Role::Manager), 0);
        let manager = swarm.connect(Some(pair)).await;
        let path = "/skep.v1.RaftStatus/GetRaftStatus";
        manager.send(path, &[]).await.unwrap().status().is_success()
    };
    // No TLS at all.
    let noise = [
        vec![0xff; 100_000],
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        // The longest record that there can be, of a handshake message that never ends.
        [
            &[0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff][..],
            &[0; 0x3ffc],
        ]
        .concat(),
    ];
    for bytes in noise {
        let mut stream = TcpStream::connect(&swarm.addr).await.unwrap();
        // It may hang up before it was told all.
        let _ = stream.write_all(&bytes).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let ended = timeout(PATIENCE, stream.read_to_end(&mut answer)).await;
        assert!(ended.is_ok(), "it does not hang up");
        assert!(answer.len() < 100, "{answer:?}");
    }
    assert!(answers().await);

    // Headers beyond all measure.
    let giant = "x".repeat(1 << 20);
    let nobody = swarm.connect(None).await;
    let open = "/docker.swarmkit.v1.CA/GetRootCACertificate";
    let headers = [("remote_addr", giant.as_str())];
    let answer = timeout(PATIENCE, nobody.send_last(open, &headers))
        .await
        .unwrap();
    assert!(
        answer.is_err() || !answer.as_ref().unwrap().status().is_success(),
        "{answer:?}"
    );
    assert!(answers().await, "and others are served");
}
