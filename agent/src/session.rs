//! Sessions with managers, one after the other, for as long as the agent lives.
//!
//! A session is five loops beside each other: heartbeats, the session's own stream, assignments,
//! log subscriptions, status reports. The end of any of them ends the session, and the next one is
//! opened with another choice of manager. The session ID is kept, so that a manager that still
//! knows it resumes the session instead of registering the node anew. So is the connection to a
//! manager that says itself that it has lost the leader, or does not know the node: it will know the
//! next leader, and thousands of nodes need not shake hands again at once.

mod report;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use skep_proto::v1::{self, dispatcher_client::DispatcherClient};
use skep_security::{Credentials, ServerName, Tls};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::{
    assignments::{Chain, Changes},
    backoff::Backoff,
    description::describe,
    error::Error,
    executor::Executor,
    logs::{self, Source},
    remotes::{FAILED, Remote, Remotes},
    reporter::Reporter,
    worker,
};

/// How long a manager may take to answer a call, or to register the node, the handshake included: a
/// manager that a crowd has come back to gets through with it if nobody gives up and comes again. That it
/// is gone shows sooner, by pings.
const ANSWER: Duration = Duration::from_secs(20);
/// The time between heartbeats if the manager names none, and the shortest and longest it may
/// name: a period of nothing would make the loop spin.
const PERIOD: Duration = Duration::from_secs(5);
const MIN_PERIOD: Duration = Duration::from_millis(100);
const MAX_PERIOD: Duration = Duration::from_secs(3600);
/// How often the node looks whether it has changed.
const LOOK: Duration = Duration::from_secs(20);
/// The largest message from a manager: all secrets, configs and tasks of a node come in one.
const MAX_MESSAGE: usize = 64 << 20;

type Client = DispatcherClient<Channel>;

/// What a node tells about itself, and how it dials.
pub(crate) struct NodeInfo {
    pub(crate) hostname: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) generic_resources: Vec<v1::GenericResource>,
    pub(crate) tls: Tls,
    pub(crate) executor: Arc<dyn Executor>,
}

/// The owner of the session.
pub(crate) struct Sessions {
    pub(crate) node: NodeInfo,
    pub(crate) worker: worker::Handle,
    pub(crate) reporter: Arc<Reporter>,
    pub(crate) remotes: Remotes,
    pub(crate) backoff: Backoff,
    /// Of the last session, empty before the first.
    pub(crate) session_id: String,
    /// What the next session goes over.
    pub(crate) kept: Option<Connection>,
    /// The newest message of any session.
    pub(crate) latest: watch::Sender<Option<Arc<v1::SessionMessage>>>,
    /// Whether there was a session.
    pub(crate) ready: watch::Sender<bool>,
}

/// A connection to a manager.
#[derive(Clone)]
pub(crate) struct Connection {
    remote: Remote,
    channel: Channel,
    /// Who the node was when it was made: to be somebody else takes another one.
    identity: Arc<Credentials>,
}

/// Why a session ended.
enum End {
    /// The node is not what it told any more: it registers again, at once.
    Changed,
    /// The manager is there and holds no session, perhaps for want of a leader.
    NoSession(Error),
    Failed(Error),
}

impl Sessions {
    /// Holds sessions until told to stop.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.next() => {}
            }
        }
    }

    /// One session, from the choice of a manager to its end.
    async fn next(&mut self) {
        let kept = self.kept.take();
        let chosen = kept.as_ref().map(|kept| &kept.remote);
        let chosen = chosen.or_else(|| self.remotes.choose(rand::random()));
        let Some(remote) = chosen.cloned() else {
            tracing::error!("{}", Error::NoManager);
            self.backoff.grow();
            return sleep(self.backoff.wait(1.0)).await;
        };
        sleep(self.backoff.wait(rand::random())).await;
        let mut credentials = self.node.tls.subscribe();
        let identity = credentials.borrow_and_update().clone();
        let usable = kept.filter(|kept| Arc::ptr_eq(&kept.identity, &identity));
        let connection = match usable.map_or_else(|| self.dial(&remote, identity), Ok) {
            Ok(connection) => connection,
            Err(error) => return self.failed(&remote, &error),
        };
        match self.session(&connection, credentials).await {
            End::Changed => tracing::info!("the node changed and registers again"),
            End::NoSession(error) => {
                tracing::warn!(manager = remote.addr, %error, "session ended");
                self.backoff.grow();
                self.kept = Some(connection);
            }
            End::Failed(error) => self.failed(&remote, &error),
        }
    }

    fn failed(&mut self, remote: &Remote, error: &Error) {
        tracing::warn!(manager = remote.addr, %error, "session ended");
        self.remotes.observe(remote, FAILED);
        self.backoff.grow();
    }

    async fn session(
        &mut self,
        connection: &Connection,
        credentials: watch::Receiver<Arc<Credentials>>,
    ) -> End {
        let Connection {
            remote,
            channel,
            identity,
        } = connection;
        let description = self.describe(identity);
        let opened = self.open(remote, channel, description.clone()).await;
        let (client, mut stream) = match opened {
            Ok(opened) => opened,
            Err(error) => return End::Failed(error),
        };
        let id = self.session_id.clone();
        let changed = changed(&self.node, &description, credentials);
        let source = Source {
            node_id: identity.identity().node_id.clone(),
            executor: Arc::clone(&self.node.executor),
            worker: self.worker.clone(),
        };
        let (latest, remotes) = (&self.latest, &mut self.remotes);
        let receive = async {
            loop {
                match stream.message().await {
                    Ok(Some(message)) => take(latest, remotes, message),
                    Ok(None) => break Error::Ended { call: "session" },
                    Err(status) => break Error::call("session")(status),
                }
            }
        };
        let error = tokio::select! {
            error = receive => error,
            error = heartbeats(client.clone(), &id) => error,
            error = assignments(client.clone(), &id, &self.worker) => error,
            error = logs::serve(channel.clone(), &source) => error,
            error = report::report(client, &id, &self.reporter) => error,
            () = changed => return End::Changed,
        };
        if error.tells_of_no_session() {
            End::NoSession(error)
        } else {
            End::Failed(error)
        }
    }

    /// A connection that will be made when it is used.
    fn dial(&self, remote: &Remote, identity: Arc<Credentials>) -> Result<Connection, Error> {
        let channel = self.node.tls.channel(&remote.addr, ServerName::Manager);
        let channel = channel.map_err(|source| Error::Dial {
            addr: remote.addr.clone(),
            source,
        })?;
        Ok(Connection {
            remote: remote.clone(),
            channel,
            identity,
        })
    }

    /// Registers: until the manager's first message.
    async fn open(
        &mut self,
        remote: &Remote,
        channel: &Channel,
        description: v1::NodeDescription,
    ) -> Result<(Client, tonic::Streaming<v1::SessionMessage>), Error> {
        const CALL: &str = "session";
        let mut client =
            DispatcherClient::new(channel.clone()).max_decoding_message_size(MAX_MESSAGE);
        let request = v1::SessionRequest {
            description: Some(description),
            session_id: self.session_id.clone(),
        };
        let (stream, first) = answered(CALL, async {
            let mut stream = client.session(request).await?.into_inner();
            let first = stream.message().await?;
            Ok((stream, first))
        })
        .await?;
        let first = first.ok_or(Error::Ended { call: CALL })?;
        tracing::info!(manager = remote.addr, "session opened");
        self.session_id = first.session_id.clone();
        self.backoff.reset();
        // The manager may be a new one, or have lost what the last one was told.
        self.reporter.all_due();
        take(&self.latest, &mut self.remotes, first);
        self.ready.send_replace(true);
        Ok((client, stream))
    }

    fn describe(&self, identity: &Credentials) -> v1::NodeDescription {
        describe_node(&self.node, identity)
    }
}

fn describe_node(node: &NodeInfo, identity: &Credentials) -> v1::NodeDescription {
    describe(
        &node.hostname,
        &node.labels,
        &node.generic_resources,
        identity.tls_info(),
        node.executor.as_ref(),
    )
}

/// Takes a message of the session's own stream.
fn take(
    latest: &watch::Sender<Option<Arc<v1::SessionMessage>>>,
    remotes: &mut Remotes,
    message: v1::SessionMessage,
) {
    // A short file, and rarely another one: not worth a thread.
    if remotes.listed(&message.managers)
        && let Err(error) = remotes.save()
    {
        tracing::error!(%error, "cannot store the list of managers");
    }
    latest.send_replace(Some(Arc::new(message)));
}

/// Ends when the node is another one than it told, or at once when it has another certificate.
async fn changed(
    node: &NodeInfo,
    told: &v1::NodeDescription,
    mut credentials: watch::Receiver<Arc<Credentials>>,
) {
    while timeout(LOOK, credentials.changed()).await.is_err() {
        if describe_node(node, &node.tls.current()) != *told {
            return;
        }
    }
}

async fn heartbeats(mut client: Client, session_id: &str) -> Error {
    loop {
        let request = v1::HeartbeatRequest {
            session_id: session_id.to_owned(),
        };
        match answered("heartbeat", client.heartbeat(request)).await {
            Ok(response) => sleep(period(response.into_inner().period)).await,
            Err(error) => return error,
        }
    }
}

/// The wait before the next heartbeat.
fn period(named: Option<skep_proto::Duration>) -> Duration {
    match named.and_then(|period| Duration::try_from(period).ok()) {
        None | Some(Duration::ZERO) => PERIOD,
        Some(period) => period.clamp(MIN_PERIOD, MAX_PERIOD),
    }
}

async fn assignments(mut client: Client, session_id: &str, worker: &worker::Handle) -> Error {
    const CALL: &str = "assignments";
    let request = v1::AssignmentsRequest {
        session_id: session_id.to_owned(),
    };
    // No time limit: a manager may say nothing, not even the response's head, for long.
    let mut stream = match client.assignments(request).await {
        Ok(response) => response.into_inner(),
        Err(status) => return Error::call(CALL)(status),
    };
    let mut chain = Chain::default();
    loop {
        match stream.message().await {
            Ok(Some(message)) => {
                if let Err(error) = chain.follow(&message) {
                    return error;
                }
                worker.apply(Changes::from(message)).await;
            }
            Ok(None) => return Error::Ended { call: CALL },
            Err(status) => return Error::call(CALL)(status),
        }
    }
}

/// The answer to a call, if it comes in time.
async fn answered<T>(
    call: &'static str,
    answer: impl Future<Output = Result<T, tonic::Status>>,
) -> Result<T, Error> {
    match timeout(ANSWER, answer).await {
        Ok(answer) => answer.map_err(Error::call(call)),
        Err(_) => Err(Error::Timeout {
            call,
            seconds: ANSWER.as_secs(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_period_makes_heartbeats_spin() {
        let named = |seconds, nanos| period(Some(skep_proto::Duration { seconds, nanos }));
        assert_eq!(period(None), PERIOD);
        assert_eq!(named(0, 0), PERIOD);
        assert_eq!(named(-5, 0), PERIOD);
        assert_eq!(named(0, 1), MIN_PERIOD);
        assert_eq!(named(4, 500_000_000), Duration::from_millis(4500));
        assert_eq!(named(i64::MAX, 0), MAX_PERIOD);
    }
}
