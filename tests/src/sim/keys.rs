//! The keys of a member's log, on its disk. The power of the machine may go at the moment when they
//! are written, so that a change of the key stops between two of its steps.

use std::sync::Arc;

use parking_lot::Mutex;
use skep_raft::{Error, Keyring};
use skep_security::{DataKey, DataKeys};

/// Clones share the keys.
#[derive(Clone)]
pub(super) struct Keys(Arc<Mutex<State>>);

struct State {
    keys: DataKeys,
    cut: Option<Cut>,
    power_lost: bool,
    /// Changes that came to their end.
    changed: u64,
}

/// When the power goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Cut {
    /// With the pending key that becomes the current one, not with the one that is made.
    pub(super) at_end: bool,
    /// Right after the keys were written, not before.
    pub(super) after: bool,
}

impl Default for Keys {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State {
            keys: DataKeys {
                current: DataKey::generate(),
                pending: None,
                needs_rotation: false,
            },
            cut: None,
            power_lost: false,
            changed: 0,
        })))
    }
}

impl Keys {
    /// Asks for another key, and perhaps lets the power go during the change.
    pub(super) fn ask(&self, cut: Option<Cut>) {
        let mut state = self.0.lock();
        state.keys.needs_rotation = true;
        state.cut = cut;
    }

    pub(super) fn mend(&self) {
        self.0.lock().cut = None;
    }

    pub(super) fn power_lost(&self) -> bool {
        self.0.lock().power_lost
    }

    pub(super) fn power_on(&self) {
        self.0.lock().power_lost = false;
    }

    /// Whether a change is under way.
    pub(super) fn change(&self) -> bool {
        self.0.lock().keys.pending.is_some()
    }

    /// Changes that came to their end.
    pub(super) fn changed(&self) -> u64 {
        self.0.lock().changed
    }
}

impl State {
    /// Writes the keys, as far as the power lasts.
    fn write(&mut self, at_end: bool, keys: DataKeys) -> Result<(), Error> {
        let cut = self.cut.take_if(|cut| cut.at_end == at_end);
        self.power_lost |= cut.is_some();
        if cut.is_none_or(|cut| cut.after) {
            self.changed += u64::from(at_end && self.keys.pending.is_some());
            self.keys = keys;
        }
        match self.power_lost {
            true => Err(Error::Log {
                action: "change the key of",
                reason: "the power is gone".to_owned(),
            }),
            false => Ok(()),
        }
    }
}

impl Keyring for Keys {
    fn keys(&self) -> Result<DataKeys, Error> {
        Ok(self.0.lock().keys.clone())
    }

    fn needs_rotation(&self) -> bool {
        self.0.lock().keys.needs_rotation
    }

    fn begin_rotation(&self) -> Result<DataKeys, Error> {
        let mut state = self.0.lock();
        let mut keys = state.keys.clone();
        if keys.pending.is_none() {
            keys.pending = Some(DataKey::generate());
            keys.needs_rotation = false;
        }
        state.write(false, keys.clone())?;
        Ok(keys)
    }

    fn finish_rotation(&self) -> Result<(), Error> {
        let mut state = self.0.lock();
        let mut keys = state.keys.clone();
        if let Some(pending) = keys.pending.take() {
            keys.current = pending;
        }
        state.write(true, keys)
    }
}
