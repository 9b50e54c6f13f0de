//! The log on sled.
//!
//! One tree holds everything that must change together (entries, hard state, identity, which
//! snapshot is the newest), so one atomic batch is enough. Snapshots are files beside it and count
//! only once the tree points to them.
//!
//! sled's own `flush` does not survive a power cut: it leaves the data in the disk's cache. So every
//! flush here is followed by an fdatasync of sled's file, and creation by an fsync of the directories.
//!
//! An append is one key if it can: the commit index travels with the entries, and term and vote are
//! only written when they change.

mod records;
mod writes;

use std::{
    fs::File,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use prost::Message as _;

use self::{
    records::{Found, Records},
    writes::Writes,
};
use super::{
    Batch, Loaded, LogStore, SnapshotWriter, WrittenSnapshot, dir::LogDir, head::Head,
    snapshot_dir::SnapshotDir,
};
use crate::{
    Error, LocalMember,
    codec::{self, Entry, HardState},
};

/// Memory for sled's pages in bytes. The log is only read at start.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// How long a database that was just dropped in this process may take to let go of its file.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

const MEMBER: &[u8] = b"m";
const HARD_STATE: &[u8] = b"h";
const SNAPSHOT: &[u8] = b"s";

/// Reads a record.
pub(crate) fn decode_record(bytes: Bytes) -> Result<Vec<Entry>, Error> {
    records::decode(bytes).map(|(_, entries)| entries)
}

/// A log in a directory of its own.
#[derive(Debug)]
pub(super) struct SledLog {
    db: sled::Db,
    log: sled::Tree,
    /// sled's file, to sync it.
    file: File,
    /// Highest number of a record's first piece that was found in sled's file, before it was opened.
    seen: Option<u64>,
    records: Records,
    /// Index of the last entry or of the snapshot.
    last: u64,
    /// Term and vote as stored, and the newest commit index.
    hard_state: HardState,
    snapshots: SnapshotDir,
    /// Of the newest snapshot, 0 without one.
    snapshot_index: u64,
    /// Dropped last: whoever gets the lock finds the rest closed.
    dir: LogDir,
}

impl SledLog {
    /// Opens the log in a directory of this kind.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it lacks what was durable.
    pub(super) fn open(mut dir: LogDir) -> Result<Self, Error> {
        let path = dir.path.join("db");
        let seen = Head::highest(&path, 0, dir.format.id).map_err(Error::log("read"))?;
        let seen = dir.format.note(seen)?;
        let (db, log) = open_db(&dir.path)?;
        let file = File::open(path).map_err(Error::log("open"))?;
        let mut opened = Self {
            db,
            log,
            file,
            seen,
            records: Records::default(),
            last: 0,
            hard_state: HardState::default(),
            snapshots: SnapshotDir::new(dir.path.clone(), dir.lock.clone()),
            snapshot_index: 0,
            dir,
        };
        opened.sync()?;
        opened.dir.sync()?;
        let newest = opened.load()?.snapshot.is_some();
        let newest = newest.then_some(opened.snapshot_index);
        opened.snapshots.remove_all_but(newest)?;
        Ok(opened)
    }

    /// Makes everything written so far durable.
    fn sync(&self) -> Result<(), Error> {
        self.db.flush().map_err(Error::log("flush"))?;
        self.file.sync_data().map_err(Error::log("sync"))
    }

    /// Writes a batch and, as everything that must last, a record with it: without one it would not
    /// show when it is lost.
    fn write(&mut self, entries: &[Entry], mut writes: Writes) -> Result<(), Error> {
        let (commit, id) = (self.hard_state.commit, self.dir.format.id);
        self.records.append(entries, commit, id, &mut writes)?;
        writes.apply(&self.log)?;
        self.sync()
    }

    fn read(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let value = self.log.get(key).map_err(Error::log("read"))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// Reads all but the snapshot, and looks for what is missing.
    fn load_records(&mut self) -> Result<Loaded, Error> {
        let mut loaded = Loaded {
            member: self.member()?,
            ..Loaded::default()
        };
        if let Some(hard_state) = self.read(HARD_STATE)? {
            loaded.hard_state = codec::decode(&hard_state)?;
        }
        let Found {
            records,
            entries,
            commit,
        } = Records::load(&self.log, self.dir.format.id)?;
        loaded.entries = entries;
        loaded.hard_state.commit = loaded.hard_state.commit.max(commit);
        if let Some(pointer) = self.read(SNAPSHOT)? {
            let Some(index) = pointer
                .first_chunk()
                .filter(|index| index.len() == pointer.len())
            else {
                return Err(Error::malformed("pointer to a snapshot", "it is cut off"));
            };
            self.snapshot_index = u64::from_be_bytes(*index);
        }
        // The record at `next_piece` may be the torn rest of an append that nobody was told of. One
        // after it cannot: it was begun when that one was durable.
        if self.seen > Some(records.next_piece()) {
            let last = loaded.entries.last().map_or(0, |entry| entry.index);
            return Err(Error::Hole(last.max(self.snapshot_index) + 1));
        }
        self.records = records;
        Ok(loaded)
    }

    /// Notes that a snapshot counts and drops what it replaces.
    fn settle(&mut self, index: u64) -> Result<(), Error> {
        self.snapshot_index = index;
        self.snapshots.remove_before(index)
    }
}

impl LogStore for SledLog {
    fn member(&self) -> Result<Option<LocalMember>, Error> {
        let member = self.read(MEMBER)?.map(LocalMember::decode).transpose();
        member.map_err(|error| Error::malformed("identity", error))
    }

    fn load(&mut self) -> Result<Loaded, Error> {
        let load = AssertUnwindSafe(|| {
            let mut loaded = self.load_records()?;
            if self.snapshot_index > 0 {
                loaded.snapshot = Some(self.snapshots.read(self.snapshot_index)?);
            }
            loaded.check()?;
            Ok(loaded)
        });
        // sled panics on some damage.
        let loaded = match catch_unwind(load) {
            Ok(Err(Error::Hole(index))) => Err(self.dir.damaged(index)),
            Ok(loaded) => loaded,
            Err(_) => Err(Error::damaged(
                &self.dir.path,
                1,
                "sled cannot read its file",
            )),
        }?;
        self.last = loaded.last_index();
        self.hard_state = loaded.hard_state.clone();
        Ok(loaded)
    }

    fn set_member(&mut self, member: &LocalMember) -> Result<(), Error> {
        let mut writes = Writes::default();
        writes.insert(MEMBER, member.encode_to_vec());
        self.write(&[], writes)
    }

    fn append(&mut self, batch: &Batch) -> Result<(), Error> {
        batch.check(self.last)?;
        let mut writes = Writes::default();
        if let Some(snapshot) = batch.stored_snapshot() {
            self.snapshots.write(&snapshot)?;
            let index = snapshot.index();
            writes.insert(SNAPSHOT, index.to_be_bytes().to_vec());
            self.records.clear(&mut writes);
            self.last = index;
        }
        if let Some(new) = &batch.hard_state {
            let old = &self.hard_state;
            let same = (new.term, new.vote) == (old.term, old.vote);
            // With entries the commit index need not be written by itself.
            if !same || batch.snapshot.is_some() || batch.entries.is_empty() {
                writes.insert(HARD_STATE, codec::encode(new)?);
            }
            self.hard_state = new.clone();
        }
        if let Some(last) = batch.entries.last() {
            self.last = last.index;
        }
        self.write(&batch.entries, writes)?;
        match &batch.snapshot {
            Some(snapshot) => self.settle(snapshot.get_metadata().index),
            None => Ok(()),
        }
    }

    fn snapshot_writer(&self) -> Arc<dyn SnapshotWriter> {
        Arc::new(self.snapshots.clone())
    }

    fn save_snapshot(&mut self, snapshot: &WrittenSnapshot) -> Result<(), Error> {
        let mut writes = Writes::default();
        writes.insert(SNAPSHOT, snapshot.index.to_be_bytes().to_vec());
        self.write(&[], writes)?;
        self.settle(snapshot.index)
    }

    fn compact(&mut self, index: u64) -> Result<bool, Error> {
        let mut writes = Writes::default();
        let index = index.min(self.snapshot_index);
        let done = self.records.drop_up_to(index, &mut writes);
        // The next append syncs it.
        writes.apply(&self.log)?;
        Ok(done)
    }
}

pub(super) fn open_db(dir: &Path) -> Result<(sled::Db, sled::Tree), Error> {
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None);
    let open = || {
        let db = config.open()?;
        let log = db.open_tree("log")?;
        Ok((db, log))
    };
    let started = Instant::now();
    loop {
        // sled panics on some damage.
        match catch_unwind(AssertUnwindSafe(open)) {
            Ok(Ok(opened)) => return Ok(opened),
            // We hold our own lock, so this is a database of this process that is being closed in
            // the background.
            Ok(Err(sled::Error::Io(error)))
                if error.to_string().contains("could not acquire lock") =>
            {
                if started.elapsed() > RELEASE_TIMEOUT {
                    return Err(Error::Locked(dir.to_owned()));
                }
                thread::sleep(Duration::from_millis(10));
            }
            Ok(Err(sled::Error::Corruption { .. })) | Err(_) => {
                return Err(Error::damaged(dir, 1, "sled cannot read its file"));
            }
            Ok(Err(error)) => return Err(Error::log("open")(error)),
        }
    }
}
