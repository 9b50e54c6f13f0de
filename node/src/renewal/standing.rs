//! How this node stands in its cluster besides what its certificate says.

use std::{fs, io, path::PathBuf, sync::Arc};

use tokio::sync::watch;
use tracing::warn;

/// Shared by who runs the manager and who renews the certificate.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// On disk for as long as `removed`.
    mark: PathBuf,
    state: watch::Sender<State>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Its manager runs, and answers on the control socket.
    pub(crate) manages: bool,
    /// Its manager was removed from the cluster. The certificate may still call it one, but only the
    /// next one says what it is.
    pub(crate) removed: bool,
}

impl Standing {
    /// As the `mark` on disk says. No manager runs yet.
    pub(crate) fn new(mark: PathBuf) -> Self {
        let state = State {
            manages: false,
            removed: mark.exists(),
        };
        let state = watch::Sender::new(state);
        Self {
            inner: Arc::new(Inner { mark, state }),
        }
    }

    pub(crate) fn subscribe(&self) -> watch::Receiver<State> {
        self.inner.state.subscribe()
    }

    pub(crate) fn manages(&self) -> bool {
        self.inner.state.borrow().manages
    }

    pub(crate) fn removed(&self) -> bool {
        self.inner.state.borrow().removed
    }

    /// The manager runs, or does not any more.
    pub(crate) fn set_manages(&self, manages: bool) {
        self.inner.state.send_if_modified(|state| {
            let before = std::mem::replace(&mut state.manages, manages);
            before != manages
        });
    }

    /// The manager was removed: on disk when this returns.
    pub(crate) fn set_removed(&self) -> io::Result<()> {
        fs::write(&self.inner.mark, "")?;
        self.inner.state.send_modify(|state| state.removed = true);
        Ok(())
    }

    /// A certificate has come that says what the node is.
    pub(crate) fn renewed(&self) {
        match fs::remove_file(&self.inner.mark) {
            // Another certificate will be asked for after the next start; that does no harm.
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                warn!(%error, "the mark of a removed manager cannot be deleted");
            }
            _ => {}
        }
        self.inner
            .state
            .send_if_modified(|state| std::mem::replace(&mut state.removed, false));
    }
}
