//! How a node comes to be a member of its cluster: it founds it, joins it, or was in it before.

use std::{fs, io, path::Path, time::SystemTime};

use skep_manager::{
    leader::Founding,
    manager::{Ended, Entry, Manager},
};
use skep_proto::{id, v1::Cluster};
use skep_security::{
    Credentials, DEFAULT_NODE_CERT_EXPIRY, Identity, JoinToken, Kek, NodeKey, Role, RootCa, Tls,
    join,
};
use skep_store::{Kind, Route};
use tracing::info;

use super::{Config, Error, Join};
use crate::state_dir::{self, StateDir};

/// Whether a worker whose certificate has expired joins anew: nobody takes that certificate any more.
pub(super) fn enrols_again(config: &Config, credentials: &Credentials) -> Result<bool, Error> {
    let expired = credentials.expires_at() < SystemTime::now();
    let token = config.join.as_ref().and_then(|how| how.token.as_ref());
    let Some(token) = token.filter(|_| expired && credentials.identity().role == Role::Worker)
    else {
        return Ok(false);
    };
    // With a token of another cluster it is told so.
    Ok(token.parse::<JoinToken>()?.pins(credentials.root_pem()))
}

/// A member of a cluster, and how its manager gets into it, should it be one.
pub(super) struct Member {
    pub(super) tls: Tls,
    pub(super) key: NodeKey,
    pub(super) entry: Entry,
    pub(super) founding: bool,
}

/// Makes a new cluster. Nothing of it counts before [`finish_founding`].
pub(super) fn found(config: &Config, state_dir: &StateDir) -> Result<Member, Error> {
    discard_unfinished(state_dir)?;
    fs::write(state_dir.founding_mark(), "").map_err(|source| unusable(state_dir, source))?;
    let ca = RootCa::generate()?;
    let identity = Identity {
        node_id: id::random(),
        role: Role::Manager,
        cluster_id: id::random(),
    };
    info!(cluster = identity.cluster_id, "founding a new cluster");
    let credentials = Credentials::self_issue(&ca, &identity, DEFAULT_NODE_CERT_EXPIRY)?;
    let key = NodeKey::new(&state_dir.certificates(), &credentials, Kek::default())?;
    Ok(Member {
        tls: Tls::with_dialer(credentials, config.dialer.clone()),
        key,
        entry: Entry::Found(Founding {
            ca,
            availability: config.availability,
        }),
        founding: true,
    })
}

/// Waits until the cluster is in the log, then saves the certificate: from here on there is one.
pub(super) async fn finish_founding(
    state_dir: &StateDir,
    tls: &Tls,
    key: &NodeKey,
    manager: &Manager,
) -> Result<(), Error> {
    let (mut snapshot, mut subscription) = manager.store().watch([Route::Kind(Kind::Cluster)]);
    while snapshot.count::<Cluster>() == 0 {
        tokio::select! {
            _ = subscription.next() => snapshot = manager.store().snapshot(),
            ended = manager.stopped() => {
                let reason = match ended {
                    Ended::Failed(reason) => reason,
                    Ended::Removed => "it was removed".to_owned(),
                };
                return Err(Error::Address(reason));
            }
        }
    }
    key.save(&tls.current())?;
    remove_mark(state_dir, &state_dir.founding_mark())
}

/// Removes what is left of a founding that was broken off. A log that is something else, without
/// the certificate of its node, is not touched.
fn discard_unfinished(state_dir: &StateDir) -> Result<(), Error> {
    let raft = state_dir.raft();
    if raft.exists() {
        if !state_dir.founding_mark().exists() {
            return Err(state_dir::Error::NoCertificate {
                path: state_dir.path().to_owned(),
            }
            .into());
        }
        fs::remove_dir_all(&raft).map_err(|source| unusable(state_dir, source))?;
    }
    remove_mark(state_dir, &state_dir.joining_mark())?;
    remove_mark(state_dir, &state_dir.founding_mark())
}

pub(super) fn remove_mark(state_dir: &StateDir, mark: &Path) -> Result<(), Error> {
    match fs::remove_file(mark) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(unusable(state_dir, source).into())
        }
        _ => Ok(()),
    }
}

fn unusable(state_dir: &StateDir, source: io::Error) -> state_dir::Error {
    state_dir::Error::Unusable {
        path: state_dir.path().to_owned(),
        source,
    }
}

/// Joins a cluster: gets a certificate from one of its managers.
pub(super) async fn enter(
    config: &Config,
    state_dir: &StateDir,
    how: &Join,
) -> Result<Member, Error> {
    let token = how.token.as_ref().ok_or_else(|| Error::NoToken {
        addr: how.addr.clone(),
    })?;
    let token: JoinToken = token.parse()?;
    discard_unfinished(state_dir)?;
    let joined = join::join(
        config.dialer.clone(),
        &how.addr,
        &token,
        config.availability,
    );
    let credentials = Box::pin(joined).await?;
    // Only managers know the unlock key, so only they can be locked.
    let kek = match credentials.identity().role {
        Role::Manager => {
            let asked = join::unlock_key(config.dialer.clone(), &how.addr, &credentials);
            Box::pin(asked).await?
        }
        Role::Worker => Kek::default(),
    };
    if credentials.identity().role == Role::Manager {
        // Before the certificate: whoever has that one does not ask for another.
        fs::write(state_dir.joining_mark(), &how.addr)
            .map_err(|source| unusable(state_dir, source))?;
    }
    let key = NodeKey::new(&state_dir.certificates(), &credentials, kek)?;
    key.save(&credentials)?;
    info!(node = credentials.identity().node_id, role = ?credentials.identity().role, "joined");
    let entry = Entry::Join(vec![how.addr.clone()]);
    let tls = Tls::with_dialer(credentials, config.dialer.clone());
    Ok(Member {
        tls,
        key,
        entry,
        founding: false,
    })
}

/// Goes on without the other managers, if there is something to go on from.
fn alone(state_dir: &StateDir, credentials: &Credentials) -> Result<Entry, Error> {
    let path = state_dir.path().to_owned();
    if credentials.identity().role != Role::Manager {
        return Err(Error::ForcedWorker { path });
    }
    // Opening the log would make one.
    if !state_dir.raft().exists() {
        return Err(Error::NothingToForce { path });
    }
    Ok(Entry::Alone)
}

/// Comes back to the cluster that the certificate is of.
pub(super) fn resume(
    config: &Config,
    state_dir: &StateDir,
    credentials: Credentials,
    key: NodeKey,
) -> Result<Member, Error> {
    if let Some(token) = config.join.as_ref().and_then(|how| how.token.as_ref()) {
        let token: JoinToken = token.parse()?;
        if !token.pins(credentials.root_pem()) {
            return Err(Error::OtherCluster {
                path: state_dir.path().to_owned(),
            });
        }
        info!("already a member of this cluster; resuming");
    }
    remove_mark(state_dir, &state_dir.founding_mark())?;
    let entry = match &config.join {
        _ if config.force_new_cluster => alone(state_dir, &credentials)?,
        Some(how) => Entry::Join(vec![how.addr.clone()]),
        // It may have been broken off while it was being taken in.
        None => match fs::read_to_string(state_dir.joining_mark()) {
            Ok(addr) => Entry::Join(vec![addr]),
            Err(err) if err.kind() == io::ErrorKind::NotFound => Entry::Resume,
            Err(source) => return Err(unusable(state_dir, source).into()),
        },
    };
    let tls = Tls::with_dialer(credentials, config.dialer.clone());
    Ok(Member {
        tls,
        key,
        entry,
        founding: false,
    })
}
