//! Keeps the certificate of this node good: asks for another one in time, when a manager wants that,
//! and when the node's role changes; and trusts the root that the cluster has.
//!
//! [`decide`] says when and why. This is the one place that changes the credentials in use and on
//! disk, in this order: on disk first.

mod decide;
mod standing;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use rand::seq::SliceRandom as _;
use skep_proto::v1::SessionMessage;
use skep_security::{
    Credentials, Dial, Error as SecurityError, Identity, Kek, NodeKey, Role, ServerName, Tls, join,
    renew,
};
use swarmctl::client::Client;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tracing::{debug, info, warn};

use decide::{Cause, Facts, Told, backoff, next};
pub(crate) use standing::Standing;

/// Managers that are asked before a renewal has failed (SwarmKit's number).
const TRIES: usize = 5;

/// How long a request may wait to be signed before it is made anew.
const PATIENCE: Duration = Duration::from_secs(60);

/// Longest sleep. The machine's clock may be set, or stand still while it sleeps.
const LOOK: Duration = Duration::from_secs(3600);

/// Least time between renewals for age. With a clock that is far off a new certificate can be an old
/// one already.
const REST: Duration = Duration::from_secs(60);

/// The owner of the node's credentials.
pub(crate) struct Renewal {
    pub(crate) tls: Tls,
    pub(crate) key: NodeKey,
    pub(crate) dialer: Arc<dyn Dial>,
    pub(crate) standing: Standing,
    /// The newest message of a session.
    pub(crate) session: watch::Receiver<Option<Arc<SessionMessage>>>,
    /// Of this node's manager, should it have one.
    pub(crate) control_socket: PathBuf,
    /// Where the agent keeps the managers it knows.
    pub(crate) state_dir: PathBuf,
}

/// What is remembered from one try to the next.
struct Course {
    told: Option<Told>,
    /// The version of the node object that the last certificate was asked for with.
    done: u64,
    point: f64,
    /// In a row, and for which cause.
    failures: u32,
    failed: Option<Cause>,
    /// Not before this.
    hold: Instant,
    /// Nor before this for age alone.
    rest: Instant,
    /// A root that was refused: it is told once.
    refused: Bytes,
}

/// Why there is no new certificate.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error(transparent)]
    Security(#[from] SecurityError),
    #[error("this node's own manager cannot be asked: {0}")]
    Local(#[from] swarmctl::Error),
    #[error("no manager is known")]
    NoManager,
    #[error("no certificate was issued within {} s", PATIENCE.as_secs())]
    Late,
    #[error("the certificate is a {issued}'s, and this node is to be a {expected}")]
    OtherRole { issued: Role, expected: Role },
    #[error("saving it has panicked")]
    Panicked,
}

/// Whom to ask.
#[derive(Debug)]
enum Ask {
    Own,
    Other(String),
}

impl Renewal {
    /// Runs for as long as the agent does.
    pub(crate) async fn run(mut self) {
        let mut standing = self.standing.subscribe();
        let mut exposed = self.key.exposed();
        let mut course = Course {
            told: None,
            done: 0,
            point: rand::random(),
            failures: 0,
            failed: None,
            hold: Instant::now(),
            rest: Instant::now(),
            refused: Bytes::new(),
        };
        loop {
            let message = self.session.borrow_and_update().clone();
            if let Some(message) = message {
                self.listen(&mut course, &message).await;
            }
            let facts = self.facts(
                &course,
                standing.borrow_and_update().removed,
                *exposed.borrow_and_update(),
            );
            let (cause, after) = next(&facts, course.done);
            if course.failed.is_some_and(|failed| failed != cause) {
                // Another cause: what failed before says nothing about it.
                (course.failed, course.failures) = (None, 0);
                course.hold = Instant::now();
            }
            let mut at = (Instant::now() + after.min(LOOK)).max(course.hold);
            if cause == Cause::Age {
                at = at.max(course.rest);
            }
            tokio::select! {
                changed = self.session.changed() => if changed.is_err() { return },
                _ = standing.changed() => {}
                _ = exposed.changed() => {}
                () = tokio::time::sleep_until(at) => if after <= LOOK {
                    self.attempt(&mut course, cause).await;
                },
            }
        }
    }

    fn facts(&self, course: &Course, removed: bool, exposed: bool) -> Facts {
        let current = self.tls.current();
        Facts {
            now: SystemTime::now(),
            valid_from: current.valid_from(),
            expires_at: current.expires_at(),
            role: current.identity().role,
            told: course.told,
            removed,
            exposed,
            point: course.point,
        }
    }

    /// Takes what a manager says of this node, and the root of the cluster.
    async fn listen(&self, course: &mut Course, message: &SessionMessage) {
        let current = self.tls.current();
        let own = &current.identity().node_id;
        let node = message.node.as_ref().filter(|node| node.id == *own);
        if let Some(told) = node.and_then(Told::of) {
            // A manager that lags may know less than the one before it.
            let newer = course
                .told
                .is_none_or(|known| told.version >= known.version);
            if newer {
                course.told = Some(told);
            }
        }
        let root = &message.root_ca;
        if root.is_empty() || root == current.root_pem() || *root == course.refused {
            return;
        }
        let adopted = match current.with_root(root) {
            Ok(credentials) => self.put(credentials, None).await,
            Err(error) => Err(error.into()),
        };
        match adopted {
            Ok(()) => {
                info!("the cluster has another root certificate, which is trusted from now on")
            }
            Err(error) => {
                course.refused = root.clone();
                warn!(%error, "a manager has sent a root certificate that this node's does not lead to");
            }
        }
    }

    async fn attempt(&self, course: &mut Course, cause: Cause) {
        let version = course.told.map_or(0, |told| told.version);
        match self.renewed(cause).await {
            Ok(identity) => {
                info!(role = %identity.role, ?cause, "the certificate of this node is renewed");
                course.done = version;
                course.point = rand::random();
                (course.failed, course.failures) = (None, 0);
                course.rest = Instant::now() + REST;
            }
            Err(error) => {
                course.failures = course.failures.saturating_add(1);
                course.failed = Some(cause);
                let pause = backoff(course.failures, rand::random());
                course.hold = Instant::now() + pause;
                warn!(%error, ?cause, ?pause, "the certificate of this node is not renewed yet");
            }
        }
    }

    /// Asks, checks the answer and puts it in use.
    async fn renewed(&self, cause: Cause) -> Result<Identity, Error> {
        let current = self.tls.current();
        let (asked, removed, credentials) = self.ask(&current).await?;
        let identity = credentials.identity().clone();
        if let Some(expected) = cause.expects()
            && identity.role != expected
        {
            let issued = identity.role;
            return Err(Error::OtherRole { issued, expected });
        }
        let promoted = (current.identity().role, identity.role) == (Role::Worker, Role::Manager);
        let kek = match asked {
            Ask::Other(addr) if promoted => {
                let key = join::unlock_key(self.dialer.clone(), &addr, &credentials);
                Some(Box::pin(key).await?)
            }
            _ => None,
        };
        self.put(credentials, kek).await?;
        // A removal that came meanwhile is not what was asked about.
        if removed {
            self.standing.renewed();
        }
        Ok(identity)
    }

    /// Saves credentials and puts them in use.
    async fn put(&self, credentials: Credentials, kek: Option<Kek>) -> Result<(), Error> {
        let key = self.key.clone();
        let saved = tokio::task::spawn_blocking(move || {
            match kek {
                Some(kek) => key.save_promoted(&credentials, kek)?,
                None => key.save(&credentials)?,
            }
            Ok::<_, SecurityError>(credentials)
        });
        let credentials = saved.await.map_err(|_| Error::Panicked)??;
        self.tls.replace(credentials);
        Ok(())
    }

    /// Asks one manager after the other: that one is gone or knows no leader says nothing of the next.
    /// Says who has answered, too, and whether this node's manager was removed when that one was asked.
    async fn ask(&self, current: &Credentials) -> Result<(Ask, bool, Credentials), Error> {
        let mut failed = Error::NoManager;
        for ask in self.managers(&current.identity().node_id) {
            let removed = self.standing.removed();
            match timeout(PATIENCE, Box::pin(self.ask_one(&ask, current))).await {
                Ok(Ok(credentials)) => return Ok((ask, removed, credentials)),
                Ok(Err(error)) => {
                    debug!(%error, ?ask, "no certificate from this manager");
                    failed = error;
                }
                // It is the leader who does not sign: all others would ask the same one.
                Err(_) => return Err(Error::Late),
            }
        }
        Err(failed)
    }

    async fn ask_one(&self, ask: &Ask, current: &Credentials) -> Result<Credentials, Error> {
        let channel = match ask {
            Ask::Own => Client::connect(&self.control_socket).await?.channel(),
            Ask::Other(addr) => self.tls.channel(addr, ServerName::Manager)?,
        };
        Ok(renew(channel, current).await?)
    }

    /// This node's own manager, which needs no certificate to be asked, then others.
    fn managers(&self, own_id: &str) -> impl Iterator<Item = Ask> {
        let own = self.standing.manages().then_some(Ask::Own);
        let others = others(&self.state_dir, own_id);
        let all = own.into_iter().chain(others.into_iter().map(Ask::Other));
        all.take(TRIES)
    }
}

/// Addresses of the managers that the agent knows, but for this node's, in an order of chance: nodes
/// that ask at the same time spread over them.
pub(crate) fn others(state_dir: &Path, own_id: &str) -> Vec<String> {
    let known = skep_agent::known_managers(state_dir).into_iter();
    let others = known.filter(|peer| peer.node_id != own_id);
    let mut others: Vec<_> = others.map(|peer| peer.addr).collect();
    others.shuffle(&mut rand::rng());
    others
}

#[cfg(test)]
mod tests;
