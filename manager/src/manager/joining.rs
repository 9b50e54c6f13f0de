//! Asks to be taken in by a cluster.

use std::time::Duration;

use skep_proto::v1::{JoinResponse, health_server::HealthServer};
use skep_security::{Tls, tls_incoming};
use tokio::{net::TcpListener, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::{service::Routes, transport::Server};
use tracing::info;

use super::{Error, GRACE};
use crate::server::Health;

/// How long a manager that was not taken in for lack of a leader asks again, and how often.
const JOIN_PATIENCE: Duration = Duration::from_secs(30);
const JOIN_PAUSE: Duration = Duration::from_millis(500);

/// Asks managers to take this one in. It is called back meanwhile, so the listener answers health
/// checks and nothing else; it is given back afterwards.
pub(super) async fn ask(
    tls: &Tls,
    remote_addrs: &[String],
    advertise_addr: &str,
    listener: TcpListener,
) -> Result<(JoinResponse, TcpListener), Error> {
    let listener = listener.into_std()?;
    let health = Health::new(&[Health::RAFT]);
    health.set(Health::RAFT, true);
    let incoming = tls_incoming(TcpListener::from_std(listener.try_clone()?)?, tls.clone());
    let routes = Routes::new(HealthServer::new(health));
    let done = CancellationToken::new();
    let mut serving = Box::pin(
        Server::builder()
            .add_routes(routes)
            .serve_with_incoming_shutdown(incoming, done.cancelled()),
    );
    let response = tokio::select! {
        response = with_patience(tls, remote_addrs, advertise_addr) => response?,
        ended = &mut serving => {
            let reason = ended.err().map_or_else(String::new, |err| err.to_string());
            return Err(std::io::Error::other(format!("it closed while joining {reason}")).into());
        }
    };
    // The leader must not go on to use a connection on which there is nothing but health.
    done.cancel();
    if tokio::time::timeout(GRACE, serving).await.is_err() {
        info!("a connection did not end in time");
    }
    Ok((response, TcpListener::from_std(listener)?))
}

/// Asks one after the other, and again while there is nobody who could answer: after a power cut the
/// managers start together.
async fn with_patience(
    tls: &Tls,
    remote_addrs: &[String],
    advertise_addr: &str,
) -> Result<JoinResponse, Error> {
    let deadline = Instant::now() + JOIN_PATIENCE;
    for remote_addr in remote_addrs.iter().cycle() {
        let asked = skep_raft::request_join(tls, remote_addr, advertise_addr);
        match Box::pin(asked).await {
            Err(err) if err.may_pass() && Instant::now() + JOIN_PAUSE < deadline => {
                info!(%err, manager = remote_addr, "not taken in yet");
                tokio::time::sleep(JOIN_PAUSE).await;
            }
            done => return Ok(done?),
        }
    }
    Err(Error::NotTakenIn)
}

#[cfg(test)]
mod tests {
    use std::{io, sync::Arc};

    use futures_util::future::BoxFuture;
    use skep_proto::v1::{
        JoinRequest, LeaveRequest, LeaveResponse,
        raft_membership_server::{RaftMembership, RaftMembershipServer},
    };
    use skep_security::{
        BoxedIo, Credentials, DEFAULT_NODE_CERT_EXPIRY, Dial, Identity, Role, RootCa, TcpDial,
    };
    use tonic::{Request, Response, Status};

    use super::*;

    struct TakesIn;

    #[tonic::async_trait]
    impl RaftMembership for TakesIn {
        async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
            Ok(Response::new(JoinResponse {
                raft_id: 7,
                ..Default::default()
            }))
        }

        async fn leave(&self, _: Request<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
            Err(Status::unimplemented("not here"))
        }
    }

    /// A network on which nobody but this address answers.
    struct Only(String);

    impl Dial for Only {
        fn dial(&self, addr: String) -> BoxFuture<'static, io::Result<BoxedIo>> {
            match addr == self.0 {
                true => TcpDial.dial(addr),
                false => Box::pin(async { Err(io::ErrorKind::ConnectionRefused.into()) }),
            }
        }
    }

    #[tokio::test]
    async fn a_manager_that_is_gone_does_not_keep_another_one_from_taking_this_one_in() {
        let ca = RootCa::generate().unwrap();
        let credentials = |node_id: &str| {
            let who = Identity {
                node_id: node_id.to_owned(),
                role: Role::Manager,
                cluster_id: "c1".to_owned(),
            };
            Credentials::self_issue(&ca, &who, DEFAULT_NODE_CERT_EXPIRY).unwrap()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let there = listener.local_addr().unwrap().to_string();
        let incoming = tls_incoming(listener, Tls::new(credentials("m1")));
        let serving = Server::builder()
            .add_service(RaftMembershipServer::new(TakesIn))
            .serve_with_incoming(incoming);
        let serving = tokio::spawn(serving);
        let tls = Tls::with_dialer(credentials("m2"), Arc::new(Only(there.clone())));
        let known = ["10.0.0.1:2377".to_owned(), there];
        let joined = with_patience(&tls, &known, "10.0.0.2:2377").await.unwrap();
        assert_eq!(joined.raft_id, 7);
        serving.abort();
    }
}
