//! The log as files of its own: segments of the file system, written from front to back.
//!
//! Each append is one record ([`record`]), made durable with one fdatasync. A segment has its full size
//! before it is used, and its blocks were written before as far as there was time, so that a sync has
//! nothing to write but the record; segments that are not needed any more are used again. Every record
//! says all that a log remembers besides entries, and the first one of a segment also who the member
//! is: whatever lies before a segment can go.

mod read;
mod record;
mod spare;

use std::{
    collections::VecDeque,
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use self::{read::Found, record::Meta, spare::Spare};
use super::{
    Batch, Loaded, LogStore, SnapshotWriter, WrittenSnapshot, dir::LogDir, head::Head,
    snapshot_dir::SnapshotDir,
};
use crate::{
    Error, LocalMember,
    codec::{Entry, HardState},
};

/// Size of a log's first segment in bytes.
const FIRST_BYTES: u64 = 512 * 1024;
/// A segment that is made because no old one is free has twice the size of the last one, but at most
/// this.
const MAX_BYTES: u64 = 16 * 1024 * 1024;
/// Old segments that are kept to be used again; more are removed.
const MAX_FREE: usize = 4;

/// A log in a directory of its own.
#[derive(Debug)]
pub(super) struct SegmentLog {
    /// Oldest first. The last one is written; those that nothing is needed of are used again.
    segments: VecDeque<Segment>,
    file: File,
    /// Size of the file.
    size: u64,
    /// Where the next record begins in it.
    at: u64,
    /// Number of the next record. It never goes back, or what an old segment still holds could be
    /// taken for a later record.
    number: u64,
    /// What the next segment is made of.
    spare: Spare,
    member: Option<LocalMember>,
    hard_state: HardState,
    /// Index of the last entry or of the snapshot.
    last: u64,
    /// Entries before this index were dropped.
    first: u64,
    snapshots: SnapshotDir,
    /// Of the newest snapshot, 0 without one.
    snapshot_index: u64,
    /// Dropped last: whoever gets the lock finds the rest closed.
    dir: LogDir,
}

/// Reads the body of a record.
pub(crate) fn decode_record(body: Bytes) -> Result<Vec<Entry>, Error> {
    record::decode_body(body).map(|(_, entries)| entries)
}

/// A file of records.
#[derive(Clone, Debug)]
struct Segment {
    /// Number of the first record.
    number: u64,
    /// No entry in it that counts has a higher index.
    last: u64,
}

const PREFIX: &str = "segment-";

/// The file of the segment that begins with record `number`.
fn path(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{PREFIX}{number:020}"))
}

/// Writes the last record once more before it syncs: it was read and counts from now on, but a process
/// that was killed may not have synced it, and a sync that has failed leaves it in memory as if it were
/// written.
fn make_durable(file: &File, at: u64, size: u64) -> std::io::Result<()> {
    let mut record = vec![0; size as usize];
    file.read_exact_at(&mut record, at)?;
    file.write_all_at(&record, at)?;
    file.sync_data()
}

/// The numbers of all segments in a directory, in order.
pub(super) fn numbers(dir: &Path) -> std::io::Result<Vec<u64>> {
    let mut numbers = Vec::new();
    for file in fs::read_dir(dir)? {
        let name = file?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        numbers.extend(number.and_then(|number| number.parse::<u64>().ok()));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

impl SegmentLog {
    /// Opens the log in a directory of this kind.
    ///
    /// # Errors
    /// [`Error::Damaged`] if it lacks what was durable.
    pub(super) fn open(dir: LogDir) -> Result<Self, Error> {
        let found = Found::read(&dir)?;
        let snapshots = SnapshotDir::new(dir.path.clone(), dir.lock.clone());
        if found.number == 0 && snapshots.has_any()? {
            // The log was there before its first snapshot.
            return Err(dir.damaged(1));
        }
        let open = Error::log("open");
        let (file, segments) = if found.segments.is_empty() {
            let file = spare::make(&path(&dir.path, 0), FIRST_BYTES).map_err(open)?;
            let first = Segment { number: 0, last: 0 };
            (file, VecDeque::from([first]))
        } else {
            let last = found.segments.back().map_or(0, |last| last.number);
            let mut options = File::options();
            let file = options.read(true).write(true).open(path(&dir.path, last));
            (file.map_err(open)?, found.segments)
        };
        make_durable(&file, found.at - found.last_size, found.last_size)
            .map_err(Error::log("sync"))?;
        dir.sync()?;
        let mut opened = Self {
            segments,
            size: file.metadata().map_err(Error::log("open"))?.len(),
            file,
            at: found.at,
            number: found.number,
            spare: Spare::new(&dir.path),
            member: found.meta.member,
            hard_state: HardState::default(),
            last: 0,
            first: found.meta.first,
            snapshots,
            snapshot_index: found.meta.snapshot,
            dir,
        };
        let newest = opened.load()?.snapshot.is_some();
        let newest = newest.then_some(opened.snapshot_index);
        // Only now that nothing is missing.
        opened.snapshots.remove_all_but(newest)?;
        opened.remove_leftovers()?;
        if opened.at == 0 && opened.segments.len() > 1 {
            // It was begun when a crash came. Those before it must not go while it is empty.
            opened.write(Meta::default(), &[])?;
        }
        Ok(opened)
    }

    /// Removes the spare file, and segments that were dropped and are back after a crash.
    fn remove_leftovers(&self) -> Result<(), Error> {
        self.spare.remove_leftover().map_err(Error::log("drop"))?;
        for number in numbers(&self.dir.path).map_err(Error::log("read"))? {
            let is_used = |segment: &Segment| segment.number == number;
            if !self.segments.iter().any(is_used) {
                fs::remove_file(path(&self.dir.path, number)).map_err(Error::log("drop"))?;
            }
        }
        Ok(())
    }

    /// Writes a record. Of `meta` only what is not known here counts: whether the log is cleared, and a
    /// new member.
    fn write(&mut self, meta: Meta, entries: &[Entry]) -> Result<(), Error> {
        let mut record = self.record(&meta, entries)?;
        if self.at > 0 && self.at + record.len() as u64 > self.size {
            self.begin_segment()?;
            record = self.record(&meta, entries)?;
        }
        self.file
            .write_all_at(&record, self.at)
            .map_err(Error::log("write"))?;
        self.file.sync_data().map_err(Error::log("sync"))?;
        self.number += 1;
        self.at += record.len() as u64;
        // A record that is larger than a segment makes that longer.
        self.size = self.size.max(self.at);
        if let (Some(segment), Some(last)) = (self.segments.back_mut(), entries.last()) {
            segment.last = segment.last.max(last.index);
        }
        if self.at > self.size / 2 && self.free() == 0 {
            self.spare.begin(self.next_size());
        }
        Ok(())
    }

    fn record(&self, meta: &Meta, entries: &[Entry]) -> Result<Vec<u8>, Error> {
        let begins = (self.at == 0).then(|| self.member.clone()).flatten();
        let meta = Meta {
            term: self.hard_state.term,
            vote: self.hard_state.vote,
            snapshot: self.snapshot_index,
            first: self.first,
            last: self.last,
            cleared: meta.cleared,
            member: meta.member.clone().or(begins),
        };
        let head = Head {
            id: self.dir.format.id,
            number: self.number,
            commit: self.hard_state.commit,
        };
        record::encode(head, &meta, entries)
    }

    fn next_size(&self) -> u64 {
        (self.size * 2).clamp(FIRST_BYTES, MAX_BYTES)
    }

    /// Number of the oldest segments that nothing is needed of.
    fn free(&self) -> usize {
        let is_free = |segment: &&Segment| segment.last < self.first;
        let free = self.segments.iter().take_while(is_free).count();
        // The last one is written.
        free.min(self.segments.len() - 1)
    }

    /// Goes on in a new segment.
    fn begin_segment(&mut self) -> Result<(), Error> {
        let begin = "begin segment";
        let number = self.number;
        let new = path(&self.dir.path, number);
        let old = (self.free() > 0).then(|| self.segments.pop_front());
        let file = match old.flatten() {
            Some(old) => spare::rename(&path(&self.dir.path, old.number), &new),
            None => self.spare.take(&new, self.next_size()),
        };
        self.file = file.map_err(Error::log(begin))?;
        self.dir.sync()?;
        self.size = self.file.metadata().map_err(Error::log(begin))?.len();
        self.at = 0;
        self.segments.push_back(Segment { number, last: 0 });
        Ok(())
    }
}

impl LogStore for SegmentLog {
    fn member(&self) -> Result<Option<LocalMember>, Error> {
        Ok(self.member.clone())
    }

    fn load(&mut self) -> Result<Loaded, Error> {
        let found = Found::read(&self.dir)?;
        let mut loaded = Loaded {
            member: found.meta.member,
            hard_state: HardState {
                term: found.meta.term,
                vote: found.meta.vote,
                commit: found.commit,
                ..HardState::default()
            },
            entries: found.entries,
            snapshot: None,
        };
        if found.meta.snapshot > 0 {
            loaded.snapshot = Some(self.snapshots.read(found.meta.snapshot)?);
        }
        let first = self.first.max(found.meta.first);
        let dropped = loaded.entries.partition_point(|entry| entry.index < first);
        loaded.entries.drain(..dropped);
        let check = match loaded.last_index() {
            last if last < found.meta.last => Err(Error::Hole(last + 1)),
            _ => loaded.check(),
        };
        check.map_err(|error| match error {
            // Where a whole part is missing, what was found before it says more.
            Error::Hole(index) => self.dir.damaged(index.max(found.lost.unwrap_or(0))),
            error => error,
        })?;
        self.last = loaded.last_index();
        self.hard_state = loaded.hard_state.clone();
        Ok(loaded)
    }

    fn set_member(&mut self, member: &LocalMember) -> Result<(), Error> {
        self.member = Some(member.clone());
        let meta = Meta {
            member: self.member.clone(),
            ..Meta::default()
        };
        self.write(meta, &[])
    }

    fn append(&mut self, batch: &Batch) -> Result<(), Error> {
        batch.check(self.last)?;
        let snapshot = batch.stored_snapshot();
        if let Some(snapshot) = &snapshot {
            self.snapshots.write(snapshot)?;
            self.snapshot_index = snapshot.index();
            self.last = snapshot.index();
        }
        if let Some(hard_state) = &batch.hard_state {
            self.hard_state = hard_state.clone();
        }
        if let Some(last) = batch.entries.last() {
            self.last = last.index;
        }
        let meta = Meta {
            cleared: snapshot.is_some(),
            ..Meta::default()
        };
        self.write(meta, &batch.entries)?;
        let Some(snapshot) = snapshot else {
            return Ok(());
        };
        // Only now that it is durable may segments be used again.
        self.first = snapshot.index() + 1;
        for segment in &mut self.segments {
            segment.last = 0;
        }
        if let Some(segment) = self.segments.back_mut() {
            segment.last = self.last;
        }
        self.snapshots.remove_before(snapshot.index())
    }

    fn snapshot_writer(&self) -> Arc<dyn SnapshotWriter> {
        Arc::new(self.snapshots.clone())
    }

    fn save_snapshot(&mut self, snapshot: &WrittenSnapshot) -> Result<(), Error> {
        self.snapshot_index = snapshot.index();
        self.write(Meta::default(), &[])?;
        self.snapshots.remove_before(snapshot.index())
    }

    /// All entries up to `index` are dropped at once, as the next record says; of the segments that are
    /// too many then, one.
    fn compact(&mut self, index: u64) -> Result<bool, Error> {
        self.first = self.first.max(index.min(self.snapshot_index) + 1);
        if self.free() > MAX_FREE
            && let Some(old) = self.segments.pop_front()
        {
            let old = path(&self.dir.path, old.number);
            fs::remove_file(old).map_err(Error::log("drop"))?;
        }
        Ok(self.free() <= MAX_FREE)
    }
}

#[cfg(test)]
mod tests;
