//! Takes calls to the leader: one generic layer for all services.
//!
//! A call that only the leader can answer is passed on as the bytes it came in, so neither its
//! type nor its size matters, and streams work as they are.

mod call;

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures_util::future::{BoxFuture, Either};
use http::{Request, Response};
use parking_lot::Mutex;
use skep_raft::Status as RaftStatus;
use skep_security::{ServerName, Tls};
use tokio::{sync::watch, time::Instant};
use tonic::{Status, body::Body, transport::Channel};
use tower::{Layer, Service, ServiceExt as _};

use self::call::{answer, mark, read, rebuild, unreachable};

/// How long a call waits for a leader. Elections take one to two seconds; past this there most
/// likely is no quorum, and the caller should know.
const PATIENCE: Duration = Duration::from_secs(5);

/// Largest request that is kept for a second try: gRPC's usual limit for a message, and its frame.
const MAX_REQUEST_BYTES: usize = 4 * 1024 * 1024 + 5;

/// The same for callers that have not proved who they are: they only send signing requests.
const MAX_STRANGERS_REQUEST_BYTES: usize = crate::ca::MAX_REQUEST_BYTES + 5;

/// A manager asks to be taken into the group, or to be known at another address.
pub(super) const JOIN: &str = "/docker.swarmkit.v1.RaftMembership/Join";

const NO_LEADER: &str = "The swarm does not have a leader. It's possible that too few managers \
                         are online. Make sure more than half of the managers are online.";

/// Which door a call came through; they differ in what is answered here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// The TCP listener: the control API of this manager is meant, also when it follows.
    Remote,
    /// The control socket: the cluster is meant, whichever manager answers.
    Socket,
}

impl Door {
    /// Whether only the leader answers the RPC of this path.
    fn needs_leader(self, path: &str) -> bool {
        let Some(rpc) = path.strip_prefix("/docker.swarmkit.v1.") else {
            return false;
        };
        let (service, method) = rpc.split_once('/').unwrap_or((rpc, ""));
        match service {
            // Every manager knows the root certificate.
            "CA" => method != "GetRootCACertificate",
            "NodeCA" | "Dispatcher" | "LogBroker" | "ResourceAllocator" => true,
            "RaftMembership" => self == Self::Remote,
            "Control" | "Logs" => self == Self::Socket,
            _ => false,
        }
    }
}

/// Reaches the leader, whoever it is.
#[derive(Clone, Debug)]
pub struct LeaderProxy {
    door: Door,
    status: watch::Receiver<RaftStatus>,
    tls: Tls,
    /// Connection to the last leader.
    connection: Connection,
    /// Another one for logs: their readers may pause for long, and what waits for them then must not
    /// use up the window that all other calls of a connection share.
    logs: Connection,
}

/// A connection and its address, made when first used.
type Connection = Arc<Mutex<Option<(String, Channel)>>>;

/// Whether the RPC of this path carries logs.
fn carries_logs(path: &str) -> bool {
    path.ends_with(".Logs/SubscribeLogs") || path.ends_with(".LogBroker/PublishLogs")
}

impl LeaderProxy {
    /// A proxy for the calls that come through `door`.
    pub fn new(door: Door, status: watch::Receiver<RaftStatus>, tls: Tls) -> Self {
        Self {
            door,
            status,
            tls,
            connection: Arc::default(),
            logs: Arc::default(),
        }
    }

    fn channel(&self, addr: &str, path: &str) -> Result<Channel, Status> {
        let connection = match carries_logs(path) {
            true => &self.logs,
            false => &self.connection,
        };
        let mut connection = connection.lock();
        if let Some((known, channel)) = &*connection
            && known == addr
        {
            return Ok(channel.clone());
        }
        let channel = self
            .tls
            .channel(addr, ServerName::Manager)
            .map_err(|err| Status::unavailable(err.to_string()))?;
        *connection = Some((addr.to_owned(), channel.clone()));
        Ok(channel)
    }

    /// Waits for a leader: `None` if it is this manager, else its address.
    async fn leader(&self, deadline: Instant) -> Result<Option<String>, Status> {
        let mut status = self.status.clone();
        let found = status.wait_for(|status| leader_of(status).is_some());
        match tokio::time::timeout_at(deadline, found).await {
            Ok(Ok(status)) => Ok(leader_of(&status).and_then(Leader::addr)),
            Ok(Err(_)) => Err(Status::unavailable("the manager is stopping")),
            Err(_) => Err(Status::unknown(NO_LEADER)),
        }
    }

    /// Sends the request to the leader at `addr`, and to the next one if that cannot be reached.
    async fn forward<S>(
        &self,
        mut addr: String,
        mut request: Request<Body>,
        local: S,
        deadline: Instant,
    ) -> Result<Response<Body>, S::Error>
    where
        S: Service<Request<Body>, Response = Response<Body>>,
    {
        let own_id = self.tls.current().identity().node_id.clone();
        let caller = match mark(self.door, &own_id, &mut request) {
            Ok(caller) => caller,
            Err(refusal) => return Ok(refusal.into_http()),
        };
        // Client streams cannot be sent twice.
        if request.uri().path().ends_with("/PublishLogs") {
            return Ok(match self.channel(&addr, request.uri().path()) {
                Ok(channel) => answer(channel.oneshot(request).await),
                Err(status) => status.into_http(),
            });
        }
        let (parts, body) = request.into_parts();
        let limit = match &caller {
            Some(caller) if caller.identity.is_none() => MAX_STRANGERS_REQUEST_BYTES,
            _ => MAX_REQUEST_BYTES,
        };
        let body = match read(body, limit).await {
            Ok(body) => body,
            Err(status) => return Ok(status.into_http()),
        };
        loop {
            let channel = match self.channel(&addr, parts.uri.path()) {
                Ok(channel) => channel,
                Err(status) => return Ok(status.into_http()),
            };
            let request = rebuild(&parts, body.clone());
            match channel.oneshot(request).await {
                // It never left this manager, so sending it again cannot do it twice.
                Err(err) if unreachable(&err) && Instant::now() < deadline => {}
                done => return Ok(answer(done)),
            }
            // The same leader may be back, or another one be elected: look again shortly.
            let mut status = self.status.clone();
            let pause = Instant::now() + RECONNECT;
            // Either outcome means: look.
            let _ = tokio::time::timeout_at(pause.min(deadline), status.changed()).await;
            match self.leader(deadline).await {
                Ok(Some(next)) => addr = next,
                Ok(None) => {
                    let mut request = rebuild(&parts, body);
                    // Admission is behind us.
                    if let Some(caller) = caller {
                        request.extensions_mut().insert(caller);
                    }
                    return local.oneshot(request).await;
                }
                Err(status) => return Ok(status.into_http()),
            }
        }
    }
}

/// How soon a leader that could not be reached is tried again.
const RECONNECT: Duration = Duration::from_millis(100);

enum Leader {
    Here,
    At(String),
}

impl Leader {
    fn addr(self) -> Option<String> {
        match self {
            Self::Here => None,
            Self::At(addr) => Some(addr),
        }
    }
}

fn leader_of(status: &RaftStatus) -> Option<Leader> {
    if status.leading {
        return Some(Leader::Here);
    }
    let leader = status.leader.as_ref()?;
    // Elected, but not yet level with the log: soon it is `leading`.
    if leader.raft_id == status.raft_id {
        None
    } else {
        Some(Leader::At(leader.addr.clone()))
    }
}

impl<S> Layer<S> for LeaderProxy {
    type Service = Proxied<S>;
    fn layer(&self, inner: S) -> Proxied<S> {
        Proxied {
            proxy: Arc::new(self.clone()),
            inner,
        }
    }
}

/// The services of this manager behind a [`LeaderProxy`].
#[derive(Clone, Debug)]
pub struct Proxied<S> {
    /// Cloned for every call.
    proxy: Arc<LeaderProxy>,
    inner: S,
}

impl<S> Service<Request<Body>> for Proxied<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let proxy = &self.proxy;
        if !proxy.door.needs_leader(request.uri().path()) || proxy.status.borrow().leading {
            return Either::Left(self.inner.call(request));
        }
        // The clone takes its turn; the one that was polled ready stays with us.
        let clone = self.inner.clone();
        let mut local = std::mem::replace(&mut self.inner, clone);
        let proxy = self.proxy.clone();
        Either::Right(Box::pin(async move {
            let deadline = Instant::now() + PATIENCE;
            let mut request = request;
            if request.uri().path() == JOIN && leader_of(&proxy.status.borrow()).is_none() {
                // One that is a member and is elsewhere now may be whom the quorum lacks.
                let (parts, body) = request.into_parts();
                let body = match read(body, MAX_REQUEST_BYTES).await {
                    Ok(body) => body,
                    Err(status) => return Ok(status.into_http()),
                };
                let answer = local.clone().oneshot(rebuild(&parts, body.clone())).await?;
                if Status::from_header_map(answer.headers()).is_none() {
                    return Ok(answer);
                }
                request = rebuild(&parts, body);
            }
            match proxy.leader(deadline).await {
                Ok(None) => local.call(request).await,
                Ok(Some(addr)) => proxy.forward(addr, request, local, deadline).await,
                Err(status) => Ok(status.into_http()),
            }
        }))
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::{HeaderValue, Uri};
    use http_body_util::{BodyExt as _, Full};
    use skep_proto::v1::RaftMember;
    use skep_security::{Caller, Credentials, Identity, Role, RootCa};

    use super::{
        call::{MAX_REDIRECTS, REDIRECT},
        *,
    };

    #[test]
    fn what_goes_to_the_leader_depends_on_the_door() {
        let rpc = |name: &str| format!("/docker.swarmkit.v1.{name}");
        for (name, remote, socket) in [
            ("Control/CreateService", false, true),
            ("Dispatcher/Session", true, true),
            ("NodeCA/IssueNodeCertificate", true, true),
            ("CA/GetUnlockKey", true, true),
            ("CA/GetRootCACertificate", false, false),
            ("RaftMembership/Join", true, false),
            ("Raft/StreamRaftMessage", false, false),
            ("Health/Check", false, false),
            ("Watch/Watch", false, false),
            ("Logs/SubscribeLogs", false, true),
            ("LogBroker/ListenSubscriptions", true, true),
            ("LogBroker/PublishLogs", true, true),
        ] {
            assert_eq!(
                Door::Remote.needs_leader(&rpc(name)),
                remote,
                "{name} remote"
            );
            assert_eq!(
                Door::Socket.needs_leader(&rpc(name)),
                socket,
                "{name} socket"
            );
        }
        assert!(!Door::Remote.needs_leader("/other.Service/Method"));
    }
    fn remote(status: RaftStatus) -> (watch::Sender<RaftStatus>, LeaderProxy) {
        let who = Identity {
            node_id: "m1".to_owned(),
            role: Role::Manager,
            cluster_id: "c1".to_owned(),
        };
        let ca = RootCa::generate().unwrap();
        let credentials = Credentials::self_issue(&ca, &who, Duration::from_secs(3600)).unwrap();
        let (sender, status) = watch::channel(status);
        let proxy = LeaderProxy::new(Door::Remote, status, Tls::new(credentials));
        (sender, proxy)
    }

    fn led_from(addr: &str) -> RaftStatus {
        RaftStatus {
            raft_id: 1,
            leader: Some(RaftMember {
                raft_id: 2,
                addr: addr.to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    pub(super) fn heartbeat(forwarded_by: Option<&str>) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = Uri::from_static("/docker.swarmkit.v1.Dispatcher/Heartbeat");
        request.extensions_mut().insert(Caller {
            identity: Some(Identity {
                node_id: "w1".to_owned(),
                role: Role::Worker,
                cluster_id: "c1".to_owned(),
            }),
            remote_addr: "10.0.0.9:1".to_owned(),
            forwarded_by: forwarded_by.map(str::to_owned),
        });
        request
    }

    /// Answers with the node ID of the caller.
    async fn whoami(request: Request<Body>) -> Result<Response<Body>, std::convert::Infallible> {
        let caller = request.extensions().get::<Caller>();
        let caller = caller.and_then(|caller| caller.identity.as_ref());
        let name = caller.map_or("nobody".to_owned(), |who| who.node_id.clone());
        Ok(Response::new(Body::new(Full::new(Bytes::from(name)))))
    }

    #[tokio::test]
    async fn a_caller_stays_who_it_is_when_this_manager_becomes_the_leader() {
        // A port that nobody listens on.
        let dead = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = dead.local_addr().unwrap().to_string();
        drop(dead);
        let (status, proxy) = remote(led_from(&addr));
        let connection = proxy.connection.clone();
        let service = proxy.layer(tower::service_fn(whoami));
        let answer = tokio::spawn(service.oneshot(heartbeat(None)));
        while connection.lock().is_none() {
            tokio::task::yield_now().await;
        }
        status.send_modify(|status| status.leading = true);
        let answer = answer.await.unwrap().unwrap();
        let answer = answer.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(answer, "w1");
    }

    #[tokio::test]
    async fn a_call_that_goes_in_circles_comes_to_an_end() {
        let (_status, proxy) = remote(led_from("127.0.0.1:1"));
        let mut request = heartbeat(Some("m2"));
        for _ in 0..MAX_REDIRECTS {
            let headers = request.headers_mut();
            headers.append(REDIRECT, HeaderValue::from_static("m2"));
        }
        let service = proxy.layer(tower::service_fn(whoami));
        let answer = service.oneshot(request).await.unwrap();
        let status = Status::from_header_map(answer.headers()).unwrap();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted, "{status}");
    }
}
