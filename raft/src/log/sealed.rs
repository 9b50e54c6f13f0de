//! A log whose contents are encrypted before another log stores them.
//!
//! The data of each entry and of each snapshot becomes a sealed record, SwarmKit's form; indexes,
//! terms, votes and who the member is stay readable. What leaves for peers is never sealed: their
//! connections are.
//!
//! Logs of before are plain. They are read once more and written sealed when they are opened; from
//! then on nothing plain is taken for theirs.

mod keyring;
mod rotation;

use std::sync::Arc;

use bytes::Bytes;
use prost::Message as _;
use skep_proto::v1::{MaybeEncryptedRecord, maybe_encrypted_record::Algorithm};
use skep_security::{DataKey, SealError};

use self::rotation::Sealer;
pub use self::{keyring::Keyring, rotation::Rotation};
use super::{Batch, Loaded, LogStore, OwnSnapshot, SnapshotWriter, WrittenSnapshot};
use crate::{Error, LocalMember, codec::Entry};

/// A log that seals what it gives to `L`.
pub struct SealedLog<L> {
    log: L,
    sealer: Arc<Sealer>,
}

impl<L: LogStore> SealedLog<L> {
    /// Opens what `log` holds with the keys in `keyring`. A log that is still plain is sealed, and a
    /// change of the key that a crash has interrupted goes on.
    ///
    /// # Errors
    /// [`Error::Sealed`] names what cannot be decrypted.
    pub fn open(log: L, keyring: Arc<dyn Keyring>) -> Result<Self, Error> {
        let sealer = Arc::new(Sealer::new(keyring)?);
        let mut opened = Self { log, sealer };
        opened.seal_plain()?;
        opened.load()?;
        opened.resume()?;
        Ok(opened)
    }

    /// Writes a log of before anew, sealed. All of it is replaced at once.
    fn seal_plain(&mut self) -> Result<(), Error> {
        let loaded = self.log.load()?;
        let Some(member) = loaded.member.clone().filter(|member| !member.sealed) else {
            return Ok(());
        };
        let (opened, _) = self.open_all(loaded)?;
        if !opened.is_empty() {
            tracing::info!("the raft log was not encrypted; encrypting it");
            let batch = Batch {
                hard_state: Some(opened.hard_state),
                snapshot: opened.snapshot,
                entries: opened.entries,
                ..Batch::default()
            };
            self.append(&batch)?;
        }
        self.set_member(&member)
    }

    /// Goes on with a change of the key, or begins one that is due.
    fn resume(&mut self) -> Result<(), Error> {
        self.sealer.begin_if_due()?;
        if let Some(until) = self.sealer.covered_at_start() {
            while !self.log.compact(until)? {}
            self.finish()?;
        }
        Ok(())
    }

    /// Ends a change of the key after the last of what the old one had sealed was dropped.
    fn finish(&mut self) -> Result<(), Error> {
        // What was dropped could come back after a power cut until something is written.
        self.log.append(&Batch::default())?;
        self.sealer.finish()
    }

    /// Opens what the inner log has loaded. Also tells what is sealed with the old key.
    fn open_all(&self, mut loaded: Loaded) -> Result<(Loaded, Aged), Error> {
        let keys = self.sealer.keys();
        let mut aged = Aged::default();
        let plain = !loaded.member.as_ref().is_some_and(|member| member.sealed);
        let mut open = |what, index, data: &mut Bytes| {
            let (opened, old) = if plain && !is_sealed(data) {
                (data.clone(), false)
            } else {
                keys.open(data).map_err(|reason| Error::Sealed {
                    what,
                    index,
                    reason,
                })?
            };
            *data = opened;
            if old {
                aged.until = aged.until.max(index);
            }
            Ok::<_, Error>(old)
        };
        for entry in &mut loaded.entries {
            open("entry", entry.index, &mut entry.data)?;
        }
        let mut covered = None;
        if let Some(snapshot) = &mut loaded.snapshot {
            let index = snapshot.get_metadata().index;
            if !open("snapshot", index, &mut snapshot.data)? {
                covered = Some(index);
            }
        }
        aged.covered = covered;
        if let Some(member) = &mut loaded.member {
            // Known to nobody above.
            member.sealed = false;
        }
        Ok((loaded, aged))
    }
}

/// What a log has under an old key.
#[derive(Clone, Copy, Debug, Default)]
struct Aged {
    /// Nothing after this index.
    until: u64,
    /// Index of the snapshot, if that is sealed with the new key.
    covered: Option<u64>,
}

/// The keys with which a log may be sealed.
struct Keys {
    new: DataKey,
    old: Option<DataKey>,
}

impl Keys {
    /// Opens a record, and tells whether the old key did.
    fn open(&self, record: &Bytes) -> Result<(Bytes, bool), SealError> {
        match (self.new.open(record.clone()), &self.old) {
            (Err(SealError::WrongKey), Some(old)) => Ok((old.open(record.clone())?, true)),
            (opened, _) => Ok((opened?, false)),
        }
    }
}

/// Whether this has the form of a sealed record. Nothing that was ever stored plain has: requests
/// have no third field, membership changes have a number there, and snapshots no first.
fn is_sealed(data: &Bytes) -> bool {
    MaybeEncryptedRecord::decode(data.clone()).is_ok_and(|record| {
        record.algorithm() == Algorithm::SecretboxSalsa20Poly1305 && record.nonce.len() == 24
    })
}

fn sealed_entry(entry: &Entry, key: &DataKey) -> Entry {
    Entry {
        data: key.seal(&entry.data),
        ..entry.clone()
    }
}

impl<L: LogStore> LogStore for SealedLog<L> {
    fn member(&self) -> Result<Option<LocalMember>, Error> {
        let member = self.log.member()?;
        Ok(member.map(|member| LocalMember {
            // Known to nobody above.
            sealed: false,
            ..member
        }))
    }

    fn load(&mut self) -> Result<Loaded, Error> {
        let loaded = self.log.load()?;
        let (loaded, aged) = self.open_all(loaded)?;
        self.sealer.loaded(loaded.last_index(), aged);
        Ok(loaded)
    }

    fn set_member(&mut self, member: &LocalMember) -> Result<(), Error> {
        self.log.set_member(&LocalMember {
            sealed: true,
            ..member.clone()
        })
    }

    fn append(&mut self, batch: &Batch) -> Result<(), Error> {
        let key = self.sealer.key_for(batch);
        self.log.append(&Batch {
            snapshot: batch.snapshot.clone(),
            key: Some(key.clone()),
            entries: batch
                .entries
                .iter()
                .map(|entry| sealed_entry(entry, &key))
                .collect(),
            hard_state: batch.hard_state.clone(),
        })?;
        // It may have replaced everything that was sealed with an old key.
        match batch.snapshot {
            Some(_) if self.sealer.replaced(&key) => self.finish(),
            _ => Ok(()),
        }
    }

    fn snapshot_writer(&self) -> Arc<dyn SnapshotWriter> {
        Arc::new(SealedWriter {
            writer: self.log.snapshot_writer(),
            sealer: self.sealer.clone(),
        })
    }

    fn save_snapshot(&mut self, snapshot: &WrittenSnapshot) -> Result<(), Error> {
        self.log.save_snapshot(snapshot)?;
        self.sealer.saved(snapshot.index());
        Ok(())
    }

    fn compact(&mut self, index: u64) -> Result<bool, Error> {
        let done = self.log.compact(index)?;
        if done && self.sealer.covered().is_some_and(|until| until <= index) {
            self.finish()?;
        }
        Ok(done)
    }

    fn rotation(&self) -> Option<Rotation> {
        Some(Rotation::new(self.sealer.clone()))
    }
}

/// Seals snapshots, on the thread that writes them.
struct SealedWriter {
    writer: Arc<dyn SnapshotWriter>,
    sealer: Arc<Sealer>,
}

impl SnapshotWriter for SealedWriter {
    fn write(&self, snapshot: &OwnSnapshot) -> Result<WrittenSnapshot, Error> {
        let key = self.sealer.key();
        let sealed = snapshot.clone().sealed(Some(key.clone()));
        let written = self.writer.write(&sealed)?;
        self.sealer.wrote(snapshot.index(), &key);
        Ok(written)
    }
}

#[cfg(test)]
pub(super) mod tests;
