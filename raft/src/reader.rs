//! What the rest of a manager reads of replication: is the store current, and what led to it.

use std::sync::{Arc, Weak};

use skep_store::Entry;
use tokio::sync::oneshot;

use crate::{Error, handle::Inner, node::Command};

/// Reads through a [`crate::Raft`] without keeping it running: services that open connections hold
/// have one of these. Clones share it.
#[derive(Clone, Debug)]
pub struct Reader {
    inner: Weak<Inner>,
}

impl Reader {
    pub(crate) fn new(inner: &Arc<Inner>) -> Self {
        Self {
            inner: Arc::downgrade(inner),
        }
    }

    /// Waits until the store has everything that was acknowledged anywhere before the call, and
    /// returns the log index that it has then. Only the leader can: a quorum confirms to it that it
    /// still is one, so one that was deposed without knowing never gets to read. Calls that come
    /// together share the cost.
    ///
    /// Fails with [`Error::NotLeader`] if this member does not lead or ceases to, with
    /// [`Error::Timeout`] if it cannot be decided in time, and with [`Error::Stopped`].
    pub async fn barrier(&self) -> Result<u64, Error> {
        let (reads, patience) = {
            let inner = self.inner.upgrade().ok_or(Error::Stopped)?;
            (inner.reads.clone(), inner.request_timeout)
        };
        let read = async {
            let (done, answer) = oneshot::channel();
            reads.send(done).await.map_err(|_| Error::Stopped)?;
            answer.await.unwrap_or(Err(Error::Stopped))
        };
        match tokio::time::timeout(patience, read).await {
            Ok(answer) => answer,
            Err(_) => Err(Error::Timeout(patience)),
        }
    }

    /// Committed entries after log index `after` up to `through` that the store has, in order and
    /// without a gap, from memory. At most about 1 MiB of them, so one asks again from the last one;
    /// none if there is nothing to read. Any member can.
    ///
    /// Fails with [`Error::Compacted`] if the log does not reach back so far any more, and with
    /// [`Error::Stopped`].
    pub async fn entries_after(&self, after: u64, through: u64) -> Result<Vec<Entry>, Error> {
        let commands = {
            let inner = self.inner.upgrade().ok_or(Error::Stopped)?;
            inner.commands.clone()
        };
        let (done, answer) = oneshot::channel();
        let sent = commands.send(Command::Entries(after, through, done)).await;
        sent.map_err(|_| Error::Stopped)?;
        answer.await.unwrap_or(Err(Error::Stopped))
    }
}
