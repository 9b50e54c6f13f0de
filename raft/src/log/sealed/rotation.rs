//! The change of a log's key, in steps of which each leaves a log that can be opened:
//!
//! 1. A pending key is on disk; from then on it seals everything new.
//! 2. A snapshot sealed with it covers the last entry that is not, and the log says that it counts.
//! 3. The log up to that entry is dropped, durably. Slow followers are served from memory.
//! 4. The pending key becomes the current one, and the old one is forgotten.
//!
//! After a crash in between both keys are known, and what is on disk tells how far it went.

use std::sync::Arc;

use parking_lot::Mutex;
use skep_security::DataKey;

use super::{Aged, Keyring, Keys};
use crate::{Error, log::Batch};

/// A handle on the change of a log's key. Clones share it. Whoever owns the log takes the snapshot that
/// ends a change, as it takes all others.
#[derive(Clone)]
pub struct Rotation {
    sealer: Arc<Sealer>,
}

impl Rotation {
    pub(super) fn new(sealer: Arc<Sealer>) -> Self {
        Self { sealer }
    }

    /// Begins if the keyring says that another key is needed. While one change is under way the next
    /// one waits for its end. This writes to disk: call it off the async threads.
    ///
    /// # Errors
    /// When the keyring cannot be written; then nothing has changed.
    pub fn begin_if_due(&self) -> Result<(), Error> {
        self.sealer.begin_if_due()
    }

    /// Whether a snapshot at this index would bring a change to its end, and there is none yet.
    pub fn wants_snapshot(&self, index: u64) -> bool {
        let state = self.sealer.state.lock();
        let turn = state.turn.as_ref();
        turn.is_some_and(|turn| turn.until <= index && !turn.covers(turn.written))
    }

    /// Up to where the log on disk must be dropped once a snapshot at this index counts.
    pub fn must_drop(&self, index: u64) -> Option<u64> {
        let state = self.sealer.state.lock();
        let until = state.turn.as_ref()?.until;
        (until <= index).then_some(until)
    }

    /// A snapshot that was written will not count after all.
    pub fn discarded(&self) {
        if let Some(turn) = &mut self.sealer.state.lock().turn {
            turn.written = turn.saved;
        }
    }
}

impl std::fmt::Debug for Rotation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.sealer.state.lock();
        f.debug_struct("Rotation")
            .field("under_way", &state.turn.is_some())
            .finish_non_exhaustive()
    }
}

/// What seals a log: shared by the log, its snapshots, and whoever changes the key.
pub(super) struct Sealer {
    keyring: Arc<dyn Keyring>,
    /// Held by whoever begins or ends a change; writing the keyring takes time.
    step: Mutex<()>,
    /// Held for moments only.
    state: Mutex<State>,
}

struct State {
    /// Seals everything new.
    key: DataKey,
    /// Index of the last entry that was given to the log, or of its snapshot.
    last: u64,
    turn: Option<Turn>,
}

/// A change that is under way.
struct Turn {
    old: DataKey,
    /// Nothing after this index is sealed with the old key.
    until: u64,
    /// Index of the newest snapshot that is sealed with the new key, on disk or already counting.
    written: Option<u64>,
    /// Index of the one that counts.
    saved: Option<u64>,
}

impl Turn {
    /// Whether a snapshot covers all that is sealed with the old key.
    fn covers(&self, snapshot: Option<u64>) -> bool {
        snapshot.is_some_and(|snapshot| snapshot >= self.until)
    }
}

impl Sealer {
    pub(super) fn new(keyring: Arc<dyn Keyring>) -> Result<Self, Error> {
        let keys = keyring.keys()?;
        let (key, turn) = match keys.pending {
            None => (keys.current, None),
            Some(pending) => {
                let turn = Turn {
                    old: keys.current,
                    until: 0,
                    written: None,
                    saved: None,
                };
                (pending, Some(turn))
            }
        };
        let state = State { key, last: 0, turn };
        Ok(Self {
            keyring,
            step: Mutex::new(()),
            state: Mutex::new(state),
        })
    }

    pub(super) fn keys(&self) -> Keys {
        let state = self.state.lock();
        Keys {
            new: state.key.clone(),
            old: state.turn.as_ref().map(|turn| turn.old.clone()),
        }
    }

    /// The key for a new snapshot.
    pub(super) fn key(&self) -> DataKey {
        self.state.lock().key.clone()
    }

    /// The key for a batch that is about to be appended.
    pub(super) fn key_for(&self, batch: &Batch) -> DataKey {
        let mut state = self.state.lock();
        if let Some(snapshot) = &batch.snapshot {
            state.last = snapshot.get_metadata().index;
        }
        if let (Some(first), Some(last)) = (batch.entries.first(), batch.entries.last()) {
            state.last = last.index;
            if let Some(turn) = &mut state.turn {
                // What it replaces does not count any more.
                turn.until = turn.until.min(first.index.saturating_sub(1));
            }
        }
        state.key.clone()
    }

    /// What the log holds, as it was loaded.
    pub(super) fn loaded(&self, last: u64, aged: Aged) {
        let mut state = self.state.lock();
        state.last = last;
        if let Some(turn) = &mut state.turn {
            turn.until = aged.until;
            turn.saved = aged.covered;
            turn.written = turn.saved;
        }
    }

    /// A snapshot of the leader that was sealed with `key` has replaced the log. Whether that ends a
    /// change.
    pub(super) fn replaced(&self, key: &DataKey) -> bool {
        let mut state = self.state.lock();
        if state.key != *key {
            return false;
        }
        let last = state.last;
        let Some(turn) = &mut state.turn else {
            return false;
        };
        turn.until = 0;
        turn.saved = Some(last);
        turn.written = turn.saved;
        true
    }

    /// A snapshot that was sealed with `key` is on disk.
    pub(super) fn wrote(&self, index: u64, key: &DataKey) {
        let mut state = self.state.lock();
        if state.key == *key
            && let Some(turn) = &mut state.turn
        {
            turn.written = turn.written.max(Some(index));
        }
    }

    /// The snapshot of this index counts.
    pub(super) fn saved(&self, index: u64) {
        if let Some(turn) = &mut self.state.lock().turn
            && turn.written == Some(index)
        {
            turn.saved = turn.written;
        }
    }

    /// Up to where the log must be dropped to end the change, if a snapshot that counts covers that.
    pub(super) fn covered(&self) -> Option<u64> {
        let state = self.state.lock();
        let turn = state.turn.as_ref()?;
        turn.covers(turn.saved).then_some(turn.until)
    }

    /// The same for a log that was just opened: one in which nothing is old needs no snapshot.
    pub(super) fn covered_at_start(&self) -> Option<u64> {
        let state = self.state.lock();
        let turn = state.turn.as_ref()?;
        (turn.until == 0 || turn.covers(turn.saved)).then_some(turn.until)
    }

    pub(super) fn begin_if_due(&self) -> Result<(), Error> {
        let _step = self.step.lock();
        self.begin()
    }

    fn begin(&self) -> Result<(), Error> {
        if !self.keyring.needs_rotation() || self.state.lock().turn.is_some() {
            return Ok(());
        }
        let keys = self.keyring.begin_rotation()?;
        let Some(pending) = keys.pending else {
            let reason = "the keyring has made no pending key";
            return Err(Error::malformed("keys of the raft log", reason));
        };
        let mut state = self.state.lock();
        let old = std::mem::replace(&mut state.key, pending);
        state.turn = Some(Turn {
            old,
            until: state.last,
            written: None,
            saved: None,
        });
        tracing::info!("the raft log gets another key");
        Ok(())
    }

    /// Ends the change: nothing that counts is sealed with the old key. Its bytes stay on disk until
    /// they are written over.
    pub(super) fn finish(&self) -> Result<(), Error> {
        let _step = self.step.lock();
        self.keyring.finish_rotation()?;
        self.state.lock().turn = None;
        tracing::info!("the raft log has another key");
        // Another one may have been asked for meanwhile.
        self.begin()
    }
}
