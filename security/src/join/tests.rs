//! Joins over in-memory connections on paused time: retries and long polls take no real time.

use std::{
    collections::VecDeque,
    io,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::SystemTime,
};

use futures_util::future::BoxFuture;
use skep_proto::v1::{
    Certificate, GetRootCaCertificateResponse, GetUnlockKeyRequest, GetUnlockKeyResponse,
    IssuanceStatus, IssueNodeCertificateRequest, IssueNodeCertificateResponse,
    NodeCertificateStatusRequest, NodeCertificateStatusResponse,
    ca_server::{Ca, CaServer},
    health_server::HealthServer,
    issuance_status::State,
    node_ca_server::{NodeCa, NodeCaServer},
    node_spec::Availability,
};
use tokio::{
    io::{AsyncWriteExt as _, DuplexStream, duplex},
    sync::mpsc,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, service::Routes, transport::Server};

use super::*;
use crate::{
    BoxedIo, Identity, Role,
    testing::{Serving, TestHealth, credentials, identity},
};

const ADDR: &str = "manager.test:2377";

/// What the CA answers next to a poll for the certificate.
#[derive(Clone, Copy)]
enum Poll {
    State(State),
    OtherCsr,
    Silence,
    Fail(Code),
    HangUp,
}

/// A manager's CA with a script for its misbehaviour; afterwards it behaves.
struct TestCa {
    ca: RootCa,
    token: JoinToken,
    role: Role,
    csr: Mutex<Vec<u8>>,
    availability: Mutex<Option<Availability>>,
    issue_failures: Mutex<VecDeque<Status>>,
    polls: Mutex<VecDeque<Poll>>,
    unlock_keys: Mutex<VecDeque<Result<GetUnlockKeyResponse, Status>>>,
}

impl TestCa {
    fn new(role: Role) -> Arc<Self> {
        let ca = RootCa::generate().unwrap();
        Arc::new(Self {
            token: JoinToken::generate(&ca),
            ca,
            role,
            csr: Mutex::default(),
            availability: Mutex::default(),
            issue_failures: Mutex::default(),
            polls: Mutex::default(),
            unlock_keys: Mutex::default(),
        })
    }

    fn who(&self) -> Identity {
        identity("joined", self.role)
    }
}

#[tonic::async_trait]
impl Ca for TestCa {
    async fn get_root_ca_certificate(
        &self,
        _: Request<GetRootCaCertificateRequest>,
    ) -> Result<Response<GetRootCaCertificateResponse>, Status> {
        let certificate = self.ca.cert_pem().clone();
        Ok(Response::new(GetRootCaCertificateResponse { certificate }))
    }

    async fn get_unlock_key(
        &self,
        _: Request<GetUnlockKeyRequest>,
    ) -> Result<Response<GetUnlockKeyResponse>, Status> {
        let next = self.unlock_keys.lock().unwrap().pop_front();
        let unknown = || Err(Status::unimplemented("not here"));
        next.unwrap_or_else(unknown).map(Response::new)
    }
}

#[tonic::async_trait]
impl NodeCa for TestCa {
    async fn issue_node_certificate(
        &self,
        request: Request<IssueNodeCertificateRequest>,
    ) -> Result<Response<IssueNodeCertificateResponse>, Status> {
        let request = request.into_inner();
        if let Some(status) = self.issue_failures.lock().unwrap().pop_front() {
            return Err(status);
        }
        if !self.token.matches(&request.token) {
            let text = "A valid join token is necessary to join this cluster";
            return Err(Status::invalid_argument(text));
        }
        *self.availability.lock().unwrap() = Some(request.availability());
        *self.csr.lock().unwrap() = request.csr.to_vec();
        // Not the ID in the certificate: only good for polling.
        let node_id = "pollme".to_owned();
        Ok(Response::new(IssueNodeCertificateResponse {
            node_id,
            ..Default::default()
        }))
    }

    async fn node_certificate_status(
        &self,
        request: Request<NodeCertificateStatusRequest>,
    ) -> Result<Response<NodeCertificateStatusResponse>, Status> {
        assert_eq!(request.into_inner().node_id, "pollme");
        let poll = self
            .polls
            .lock()
            .unwrap()
            .pop_front()
            .unwrap_or(Poll::State(State::Issued));
        let mut csr = self.csr.lock().unwrap().clone();
        let chain = self
            .ca
            .issue(&csr, &self.who(), Duration::ZERO, SystemTime::now())
            .unwrap();
        let state = match poll {
            Poll::State(state) => state,
            Poll::OtherCsr => {
                csr.push(b'\n');
                State::Issued
            }
            Poll::Silence => std::future::pending().await,
            Poll::Fail(code) => return Err(Status::new(code, "as the script says")),
            Poll::HangUp => panic!("the server breaks down, as the script says"),
        };
        let final_state = matches!(state, State::Issued | State::Rotate);
        let certificate = if final_state {
            chain
        } else {
            Default::default()
        };
        Ok(Response::new(NodeCertificateStatusResponse {
            status: Some(IssuanceStatus {
                state: state.into(),
                err: "script".to_owned(),
            }),
            certificate: Some(Certificate {
                csr: csr.into(),
                certificate,
                ..Default::default()
            }),
        }))
    }
}

/// Dials in-memory connections, each answered by `answer`.
struct MemoryDialer<F> {
    answer: F,
    dials: AtomicUsize,
}

impl<F> MemoryDialer<F>
where
    F: Fn(DuplexStream) -> io::Result<()> + Send + Sync + 'static,
{
    fn new(answer: F) -> Arc<Self> {
        Arc::new(Self {
            answer,
            dials: AtomicUsize::new(0),
        })
    }

    fn dials(&self) -> usize {
        self.dials.load(Ordering::SeqCst)
    }
}

impl<F> Dial for MemoryDialer<F>
where
    F: Fn(DuplexStream) -> io::Result<()> + Send + Sync + 'static,
{
    fn dial(&self, addr: String) -> BoxFuture<'static, io::Result<BoxedIo>> {
        assert_eq!(addr, ADDR);
        self.dials.fetch_add(1, Ordering::SeqCst);
        let (near, far) = duplex(64 << 10);
        let result = (self.answer)(far);
        Box::pin(async move { result.map(|()| Box::new(near) as BoxedIo) })
    }
}

/// Runs `routes` under the credentials; returns how to connect to it.
fn serve(
    credentials: &Credentials,
    routes: Routes,
) -> (Serving, impl Fn(DuplexStream) -> io::Result<()> + use<>) {
    let acceptor = TlsAcceptor::from(credentials.server_config().clone());
    let (raw, mut accepted) = mpsc::channel::<DuplexStream>(16);
    let task = tokio::spawn(async move {
        let (done, incoming) = mpsc::channel(16);
        let mut handshakes = JoinSet::new();
        let server =
            Server::builder().serve_with_incoming(routes.prepare(), ReceiverStream::new(incoming));
        let accept = async {
            while let Some(stream) = accepted.recv().await {
                let (acceptor, done) = (acceptor.clone(), done.clone());
                handshakes.spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let _ = done.send(Ok::<_, io::Error>(stream)).await;
                    }
                });
            }
        };
        let _ = tokio::join!(server, accept);
    });
    let answer = move |stream| raw.try_send(stream).map_err(io::Error::other);
    (Serving(task), answer)
}

fn ca_routes(ca: &Arc<TestCa>) -> Routes {
    Routes::new(CaServer::from_arc(ca.clone())).add_service(NodeCaServer::from_arc(ca.clone()))
}

fn manager_of(ca: &RootCa) -> Credentials {
    credentials(ca, "m1", Role::Manager)
}

async fn try_join(dialer: Arc<dyn Dial>, token: &JoinToken) -> Result<Credentials, Error> {
    join(dialer, ADDR, token, Availability::Drain).await
}

#[tokio::test(start_paused = true)]
async fn a_node_joins_in_either_role() {
    for role in [Role::Worker, Role::Manager] {
        let ca = TestCa::new(role);
        let (_serving, answer) = serve(&manager_of(&ca.ca), ca_routes(&ca));
        let dialer = MemoryDialer::new(answer);
        let joined = try_join(dialer.clone(), &ca.token).await.unwrap();
        assert_eq!(joined.identity(), &ca.who());
        assert_eq!(joined.root_pem(), ca.ca.cert_pem());
        assert_eq!(*ca.availability.lock().unwrap(), Some(Availability::Drain));
        assert_eq!(
            dialer.dials(),
            2,
            "one connection for the root, one for the certificate"
        );
        let csr = ca.csr.lock().unwrap().clone();
        assert!(csr.starts_with(b"-----BEGIN CERTIFICATE REQUEST-----"));
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_survives_all_that_is_not_final() {
    let ca = TestCa::new(Role::Worker);
    *ca.polls.lock().unwrap() = [
        Poll::State(State::Pending),
        Poll::State(State::Failed),
        Poll::State(State::Unknown),
        Poll::OtherCsr,
        Poll::Silence,
        Poll::Fail(Code::DeadlineExceeded),
        Poll::Fail(Code::Unavailable),
        Poll::HangUp,
        Poll::State(State::Rotate),
    ]
    .into();
    let (_serving, answer) = serve(&manager_of(&ca.ca), ca_routes(&ca));
    let dialer = MemoryDialer::new(answer);
    let joined = try_join(dialer.clone(), &ca.token).await.unwrap();
    assert_eq!(joined.identity(), &ca.who());
    assert!(ca.polls.lock().unwrap().is_empty());
    assert_eq!(
        dialer.dials(),
        4,
        "two broken calls, each followed by a new connection"
    );
}

#[tokio::test(start_paused = true)]
async fn a_manager_in_trouble_is_asked_five_times() {
    for (failures, succeeds) in [(4, true), (5, false)] {
        let ca = TestCa::new(Role::Worker);
        *ca.issue_failures.lock().unwrap() =
            vec![Status::aborted("CA signer is still starting"); failures].into();
        let (_serving, answer) = serve(&manager_of(&ca.ca), ca_routes(&ca));
        let result = try_join(MemoryDialer::new(answer), &ca.token).await;
        if succeeds {
            result.unwrap();
        } else {
            let text = result.unwrap_err().to_string();
            assert!(text.contains("CA signer is still starting"), "{text}");
            assert!(text.contains("check that the manager is healthy"), "{text}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn another_clusters_token_is_told_apart_from_a_wrong_secret() {
    let ca = TestCa::new(Role::Worker);
    let (_serving, answer) = serve(&manager_of(&ca.ca), ca_routes(&ca));
    let dialer = MemoryDialer::new(answer);

    let foreign = JoinToken::generate(&RootCa::generate().unwrap());
    let error = try_join(dialer.clone(), &foreign).await.unwrap_err();
    assert!(matches!(error, Error::WrongFingerprint { .. }));
    let text = error.to_string();
    let expected = hex(foreign.digest());
    assert!(
        text.starts_with(&format!(
            "remote CA does not match fingerprint. Expected: {expected}"
        )),
        "{text}"
    );
    assert_eq!(dialer.dials(), 1, "it does not get better by trying again");

    let mistyped = JoinToken::generate(&ca.ca);
    let error = try_join(dialer.clone(), &mistyped).await.unwrap_err();
    assert!(matches!(error, Error::TokenRefused { .. }), "{error}");
    assert!(
        error
            .to_string()
            .contains("A valid join token is necessary"),
        "{error}"
    );
    assert_eq!(dialer.dials(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_impostor_with_the_right_root_gets_no_token() {
    // Anyone can serve the root, it is public. Only a manager has a certificate from it.
    let (ca, impostor) = (TestCa::new(Role::Worker), RootCa::generate().unwrap());
    let (_serving, answer) = serve(&manager_of(&impostor), ca_routes(&ca));
    let error = try_join(MemoryDialer::new(answer), &ca.token)
        .await
        .unwrap_err();
    assert!(matches!(error, Error::NotAManager { .. }));
    assert!(
        error
            .to_string()
            .contains("not signed by the root CA of this cluster"),
        "{error}"
    );
    assert!(ca.csr.lock().unwrap().is_empty(), "it was never asked");

    // A worker of the very cluster does not pass for a manager either.
    let worker = credentials(&ca.ca, "w1", Role::Worker);
    let (_serving, answer) = serve(&worker, ca_routes(&ca));
    let error = try_join(MemoryDialer::new(answer), &ca.token)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("does not name swarm-ca"),
        "{error}"
    );
    assert!(ca.csr.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_address_is_tried_five_times() {
    let token = JoinToken::generate(&RootCa::generate().unwrap());
    let dialer = MemoryDialer::new(|_| Err(io::ErrorKind::ConnectionRefused.into()));
    let error = try_join(dialer.clone(), &token).await.unwrap_err();
    assert_eq!(dialer.dials(), 5);
    assert_eq!(
        error.to_string(),
        "cannot reach a manager at manager.test:2377 (connection refused): check the address and \
         port, that the manager runs, and that no firewall is in between"
    );

    // Accepted, and then nothing.
    let held = Mutex::new(Vec::new());
    let dialer = MemoryDialer::new(move |stream| {
        held.lock().unwrap().push(stream);
        Ok(())
    });
    let error = try_join(dialer.clone(), &token).await.unwrap_err();
    assert_eq!(dialer.dials(), 5);
    assert!(
        error
            .to_string()
            .contains("no answer to the TLS handshake within 5 s"),
        "{error}"
    );

    // Accepted and closed.
    let dialer = MemoryDialer::new(|_| Ok(()));
    let error = try_join(dialer, &token).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_manager_is_called_so() {
    let token = JoinToken::generate(&RootCa::generate().unwrap());
    let http = MemoryDialer::new(|mut stream| {
        tokio::spawn(async move {
            stream
                .write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                .await
                .unwrap();
        });
        Ok(())
    });
    let error = try_join(http.clone(), &token).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "the server at manager.test:2377 is not a manager of this cluster (it does not speak \
         TLS): check the address and port"
    );
    assert_eq!(http.dials(), 1);

    let other = manager_of(&RootCa::generate().unwrap());
    let (_serving, answer) = serve(&other, Routes::new(HealthServer::new(TestHealth)));
    let error = try_join(MemoryDialer::new(answer), &token)
        .await
        .unwrap_err();
    assert!(
        error.to_string().contains("it does not issue certificates"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn what_cannot_work_is_not_tried() {
    let ca = RootCa::generate().unwrap();
    let token = JoinToken::generate(&ca);
    let dialer = MemoryDialer::new(|_| Ok(()));
    let result = join(dialer.clone(), "manager.test", &token, Availability::Active).await;
    assert!(matches!(result, Err(Error::InvalidAddress(_))));
    let fips = token
        .to_string()
        .replace("SWMTKN-1", "SWMTKN-2-1")
        .parse()
        .unwrap();
    assert!(matches!(
        try_join(dialer.clone(), &fips).await,
        Err(Error::FipsToken)
    ));
    assert_eq!(dialer.dials(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_new_manager_learns_the_unlock_key() {
    let ca = TestCa::new(Role::Manager);
    let (_serving, answer) = serve(&manager_of(&ca.ca), ca_routes(&ca));
    let dialer = MemoryDialer::new(answer);
    let own = credentials(&ca.ca, "m2", Role::Manager);
    let ask = || unlock_key(dialer.clone(), ADDR, &own);
    let answer = |bytes: usize, index| {
        let version = Some(v1::Version { index });
        let unlock_key = vec![7; bytes].into();
        Ok(GetUnlockKeyResponse {
            unlock_key,
            version,
        })
    };
    assert_eq!(
        ask().await.unwrap(),
        Kek::default(),
        "locks are unknown there"
    );
    *ca.unlock_keys.lock().unwrap() = VecDeque::from([
        answer(0, 4),
        Err(Status::unavailable("not yet")),
        answer(32, 5),
        answer(31, 6),
    ]);
    let (key, version) = (None, 4);
    assert_eq!(ask().await.unwrap(), Kek { key, version });
    let (key, version) = (UnlockKey::from_bytes(&[7; 32]), 5);
    assert_eq!(
        ask().await.unwrap(),
        Kek { key, version },
        "at the second try"
    );
    let error = ask().await.unwrap_err().to_string();
    assert!(error.contains("32 bytes"), "{error}");
}
