//! The log on sled.
//!
//! One tree holds everything that must change together (entries, hard state, identity, which
//! snapshot is the newest), so one atomic batch is enough. Snapshots lie in pieces in a second tree
//! and count only once the first tree points to them.
//!
//! sled's own `flush` does not survive a power cut: it leaves the data in the disk's cache. So every
//! flush here is followed by an fdatasync of sled's file, and creation by an fsync of the directories.

use std::{
    fs::{DirBuilder, File, TryLockError},
    os::unix::fs::DirBuilderExt,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use bytes::Bytes;
use prost::Message as _;

use super::{Batch, Loaded, LogStore, OwnSnapshot};
use crate::{
    Error, LocalMember,
    codec::{self, Entry, Snapshot},
};

/// Memory for sled's pages in bytes. The log is only read at start.
const CACHE_BYTES: u64 = 32 * 1024 * 1024;
/// Size of a piece of a snapshot in bytes: far below what sled would move to a file of its own,
/// which it does not sync.
const PIECE_BYTES: usize = 64 * 1024;
/// Pieces written as one batch.
const PIECES_PER_BATCH: usize = 16;
/// How long a database that was just dropped in this process may take to let go of its file.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

const MEMBER: &[u8] = b"m";
const HARD_STATE: &[u8] = b"h";
const SNAPSHOT: &[u8] = b"s";
const ENTRY: u8 = b'e';

/// A log in a directory of its own.
#[derive(Debug)]
pub struct SledLog {
    db: sled::Db,
    log: sled::Tree,
    pieces: sled::Tree,
    /// sled's file, to sync it.
    file: File,
    /// Indexes of the stored entries, `first..end`.
    first: u64,
    end: u64,
    /// Of the newest snapshot.
    generation: u64,
    snapshot_index: u64,
    /// Held last: whoever gets it finds the rest closed.
    _lock: File,
}

/// Where the newest snapshot is.
#[derive(Clone, PartialEq, prost::Message)]
struct Pointer {
    /// First half of the pieces' keys.
    #[prost(uint64, tag = "1")]
    generation: u64,
    /// Serialised metadata of the snapshot.
    #[prost(bytes = "bytes", tag = "2")]
    metadata: Bytes,
    /// How many pieces there are.
    #[prost(uint32, tag = "3")]
    pieces: u32,
    /// Size of the data in bytes.
    #[prost(uint64, tag = "4")]
    size: u64,
}

impl SledLog {
    /// Opens the log in `dir`, which is created with mode 0700 if there is none.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process, or another `SledLog` of this one, has it open.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let open = "open";
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(Error::log("create directory"))?;
        let lock = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("lock"))
            .map_err(Error::log(open))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(Error::Locked(dir.to_owned())),
            Err(TryLockError::Error(error)) => return Err(Error::log(open)(error)),
        }
        let db = open_db(dir)?;
        let log = db.open_tree("log").map_err(Error::log(open))?;
        let pieces = db.open_tree("snapshot").map_err(Error::log(open))?;
        let file = File::open(dir.join("db")).map_err(Error::log(open))?;
        let mut opened = Self {
            db,
            log,
            pieces,
            file,
            first: 0,
            end: 0,
            generation: 0,
            snapshot_index: 0,
            _lock: lock,
        };
        opened.sync()?;
        for dir in [Some(dir), dir.parent()].into_iter().flatten() {
            // A relative path of one part has the empty path as parent.
            if !dir.as_os_str().is_empty() {
                File::open(dir)
                    .and_then(|dir| dir.sync_all())
                    .map_err(Error::log("sync directory"))?;
            }
        }
        opened.load()?;
        Ok(opened)
    }

    /// Whose log this is, `None` if nothing was ever stored. Unlike [`LogStore::load`] this reads
    /// nothing else.
    pub fn member(&self) -> Result<Option<LocalMember>, Error> {
        let member = self.read(MEMBER)?.map(LocalMember::decode).transpose();
        member.map_err(|error| Error::malformed("identity", error))
    }

    /// Makes everything written so far durable.
    fn sync(&self) -> Result<(), Error> {
        self.db.flush().map_err(Error::log("flush"))?;
        self.file.sync_data().map_err(Error::log("sync"))
    }

    fn write(&self, batch: sled::Batch) -> Result<(), Error> {
        self.log.apply_batch(batch).map_err(Error::log("write"))?;
        self.sync()
    }

    fn read(&self, key: &[u8]) -> Result<Option<Bytes>, Error> {
        let value = self.log.get(key).map_err(Error::log("read"))?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn load_snapshot(&self) -> Result<Option<(u64, Snapshot)>, Error> {
        let Some(pointer) = self.read(SNAPSHOT)? else {
            return Ok(None);
        };
        let pointer =
            Pointer::decode(pointer).map_err(|error| Error::malformed("snapshot", error))?;
        let mut data = Vec::new();
        for piece in self.pieces.scan_prefix(pointer.generation.to_be_bytes()) {
            let (_, piece) = piece.map_err(Error::log("read snapshot"))?;
            data.extend_from_slice(&piece);
        }
        if data.len() as u64 != pointer.size {
            return Err(Error::malformed(
                "snapshot",
                format!("{} of {} bytes are there", data.len(), pointer.size),
            ));
        }
        let mut snapshot = Snapshot {
            data: data.into(),
            ..Snapshot::default()
        };
        snapshot.set_metadata(codec::decode(&pointer.metadata)?);
        Ok(Some((pointer.generation, snapshot)))
    }

    /// Writes the pieces of a snapshot and returns the pointer that makes it count.
    fn write_pieces(&self, snapshot: &Snapshot) -> Result<Pointer, Error> {
        let generation = self.generation + 1;
        // What an interrupted attempt may have left behind.
        self.remove_pieces(|found| found == generation)?;
        let mut count = 0_u32;
        let pieces: Vec<_> = snapshot.data.chunks(PIECE_BYTES).collect();
        for group in pieces.chunks(PIECES_PER_BATCH) {
            let mut batch = sled::Batch::default();
            for piece in group {
                batch.insert(piece_key(generation, count).as_slice(), *piece);
                count += 1;
            }
            self.pieces
                .apply_batch(batch)
                .map_err(Error::log("write snapshot"))?;
        }
        self.sync()?;
        Ok(Pointer {
            generation,
            metadata: codec::encode(snapshot.get_metadata())?.into(),
            pieces: count,
            size: snapshot.data.len() as u64,
        })
    }

    fn remove_pieces(&self, unwanted: impl Fn(u64) -> bool) -> Result<(), Error> {
        for key in self.pieces.iter().keys() {
            let key = key.map_err(Error::log("read snapshot"))?;
            let generation = key.first_chunk().map(|start| u64::from_be_bytes(*start));
            if generation.is_none_or(&unwanted) {
                self.pieces
                    .remove(&key)
                    .map_err(Error::log("drop old snapshot"))?;
            }
        }
        Ok(())
    }

    /// Notes that `pointer` is stored and drops what it replaces.
    fn settle(&mut self, pointer: &Pointer, index: u64) -> Result<(), Error> {
        self.generation = pointer.generation;
        self.snapshot_index = index;
        let newest = self.generation;
        self.remove_pieces(|generation| generation != newest)
    }

    /// Removes the entries in `first..end`.
    fn drop_entries(batch: &mut sled::Batch, first: u64, end: u64) {
        for index in first..end {
            batch.remove(entry_key(index).as_slice());
        }
    }
}

impl LogStore for SledLog {
    fn load(&mut self) -> Result<Loaded, Error> {
        let mut loaded = Loaded {
            member: self.member()?,
            ..Loaded::default()
        };
        if let Some(hard_state) = self.read(HARD_STATE)? {
            loaded.hard_state = codec::decode(&hard_state)?;
        }
        for item in self.log.scan_prefix([ENTRY]) {
            let (key, value) = item.map_err(Error::log("read"))?;
            let entry: Entry = codec::decode(&Bytes::copy_from_slice(&value))?;
            if key != entry_key(entry.index) {
                return Err(Error::malformed(
                    "entry",
                    format!("entry {} lies at {key:?}", entry.index),
                ));
            }
            loaded.entries.push(entry);
        }
        if let Some((generation, snapshot)) = self.load_snapshot()? {
            self.generation = generation;
            self.snapshot_index = snapshot.get_metadata().index;
            loaded.snapshot = Some(snapshot);
        }
        loaded.check()?;
        self.end = loaded.last_index() + 1;
        self.first = loaded.entries.first().map_or(self.end, |e| e.index);
        Ok(loaded)
    }

    fn set_member(&mut self, member: &LocalMember) -> Result<(), Error> {
        let mut batch = sled::Batch::default();
        batch.insert(MEMBER, member.encode_to_vec());
        self.write(batch)
    }

    fn append(&mut self, batch: &Batch) -> Result<(), Error> {
        batch.check(self.end - 1)?;
        let mut writes = sled::Batch::default();
        let mut pointer = None;
        let (mut first, mut end) = (self.first, self.end);
        if let Some(snapshot) = &batch.snapshot {
            let written = self.write_pieces(snapshot)?;
            writes.insert(SNAPSHOT, written.encode_to_vec());
            let index = snapshot.get_metadata().index;
            pointer = Some((written, index));
            Self::drop_entries(&mut writes, first, end);
            (first, end) = (index + 1, index + 1);
        }
        if let (Some(head), Some(tail)) = (batch.entries.first(), batch.entries.last()) {
            Self::drop_entries(&mut writes, tail.index + 1, end);
            for entry in &batch.entries {
                writes.insert(entry_key(entry.index).as_slice(), codec::encode(entry)?);
            }
            first = first.min(head.index);
            end = tail.index + 1;
        }
        if let Some(hard_state) = &batch.hard_state {
            writes.insert(HARD_STATE, codec::encode(hard_state)?);
        }
        self.write(writes)?;
        (self.first, self.end) = (first, end);
        match pointer {
            Some((pointer, index)) => self.settle(&pointer, index),
            None => Ok(()),
        }
    }

    fn save_snapshot(&mut self, snapshot: &OwnSnapshot) -> Result<(), Error> {
        let pointer = self.write_pieces(&snapshot.0)?;
        let mut batch = sled::Batch::default();
        batch.insert(SNAPSHOT, pointer.encode_to_vec());
        self.write(batch)?;
        self.settle(&pointer, snapshot.0.get_metadata().index)
    }

    fn compact(&mut self, index: u64) -> Result<(), Error> {
        let first = index.min(self.snapshot_index).min(self.end - 1) + 1;
        if first <= self.first {
            return Ok(());
        }
        let mut batch = sled::Batch::default();
        Self::drop_entries(&mut batch, self.first, first);
        self.write(batch)?;
        self.first = first;
        Ok(())
    }
}

fn open_db(dir: &Path) -> Result<sled::Db, Error> {
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(CACHE_BYTES)
        .flush_every_ms(None);
    let started = Instant::now();
    loop {
        match config.open() {
            Ok(db) => return Ok(db),
            // We hold our own lock, so this is a database of this process that is being closed in
            // the background.
            Err(sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                if started.elapsed() > RELEASE_TIMEOUT {
                    return Err(Error::Locked(dir.to_owned()));
                }
                thread::sleep(Duration::from_millis(10));
            }
            Err(error) => return Err(Error::log("open")(error)),
        }
    }
}

fn entry_key(index: u64) -> [u8; 9] {
    let mut key = [ENTRY; 9];
    key[1..].copy_from_slice(&index.to_be_bytes());
    key
}

fn piece_key(generation: u64, piece: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&generation.to_be_bytes());
    key[8..].copy_from_slice(&piece.to_be_bytes());
    key
}
