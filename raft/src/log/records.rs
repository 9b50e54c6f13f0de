//! How entries lie in sled: each append as one record, cut into pieces.
//!
//! sled spends most of an append on its keys, so there are few: a record's pieces are numbered on and
//! on, and each says whether the next one belongs to the same record. A record whose first entry is
//! not the next one replaces all from there on, as the append did; what it replaces stays on disk
//! until it is the oldest. So records only come at the end and go at the front, and a missing piece
//! shows.

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes};

use crate::{
    Error,
    codec::{self, Entry},
};

/// Most bytes in a piece. sled moves large values, and full pages of rather large ones, to files of
/// their own, which it does not sync: with pieces of 8 KiB it sometimes does, with 4 KiB never.
const PIECE_BYTES: usize = 4 * 1024;
/// Pieces that [`Records::drop_up_to`] drops at once.
const DROP_PIECES: u64 = 256;

const PREFIX: u8 = b'e';
/// First byte of a piece: the next piece goes on with the same record.
const MORE: u8 = 1;
const LAST: u8 = 0;

/// The records that are stored.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    stored: VecDeque<Record>,
    /// Number of the next piece.
    next_piece: u64,
}

#[derive(Clone, Debug)]
struct Record {
    /// Number of the first piece.
    piece: u64,
    /// Index of the last entry that no later record has replaced.
    last: u64,
}

impl Records {
    /// Adds consecutive entries to a batch for sled.
    pub(super) fn append(
        &mut self,
        entries: &[Entry],
        batch: &mut sled::Batch,
    ) -> Result<(), Error> {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            return Ok(());
        };
        let mut bytes = Vec::new();
        for entry in entries {
            let entry = codec::encode(entry)?;
            let size = u32::try_from(entry.len()).map_err(Error::log("write"))?;
            bytes.put_u32_le(size);
            bytes.put_slice(&entry);
        }
        let start = self.next_piece;
        let mut pieces = bytes.chunks(PIECE_BYTES).peekable();
        while let Some(piece) = pieces.next() {
            let mut value = Vec::with_capacity(1 + piece.len());
            value.put_u8(if pieces.peek().is_some() { MORE } else { LAST });
            value.put_slice(piece);
            batch.insert(key(self.next_piece).as_slice(), value);
            self.next_piece += 1;
        }
        self.push(start, first.index, last.index);
        Ok(())
    }

    fn push(&mut self, piece: u64, first: u64, last: u64) {
        for record in self.stored.iter_mut().rev() {
            if record.last < first {
                break;
            }
            record.last = first - 1;
        }
        self.stored.push_back(Record { piece, last });
    }

    /// Removes everything in a batch for sled.
    pub(super) fn clear(&mut self, batch: &mut sled::Batch) {
        let first = self.first_piece();
        remove(batch, first, self.next_piece);
        self.stored.clear();
    }

    /// Removes, in a batch for sled, the oldest records that hold nothing but entries up to `index`: a
    /// bounded number at a time. Returns whether there are no more of them.
    pub(super) fn drop_up_to(&mut self, index: u64, batch: &mut sled::Batch) -> bool {
        let first = self.first_piece();
        let mut end = first;
        // One that was begun is removed as a whole.
        while end < first + DROP_PIECES {
            match self.stored.front() {
                Some(oldest) if oldest.last <= index => {
                    self.stored.pop_front();
                    end = self.first_piece();
                }
                _ => break,
            }
        }
        remove(batch, first, end);
        self.stored.front().is_none_or(|oldest| oldest.last > index)
    }

    fn first_piece(&self) -> u64 {
        self.stored
            .front()
            .map_or(self.next_piece, |record| record.piece)
    }

    /// Reads all records and the entries in them.
    ///
    /// # Errors
    /// [`Error::Hole`] with the first entry that may be missing, if a piece is.
    pub(super) fn load(log: &sled::Tree) -> Result<(Self, Vec<Entry>), Error> {
        let mut records = Self::default();
        let mut entries: Vec<Entry> = Vec::new();
        let mut bytes = Vec::new();
        let mut start = None;
        for item in log.scan_prefix([PREFIX]) {
            let (found, value) = item.map_err(Error::log("read"))?;
            let number = found
                .get(1..)
                .and_then(|number| number.try_into().ok())
                .map(u64::from_be_bytes);
            let (Some(number), Some((more, piece))) = (number, value.split_first()) else {
                let reason = format!("a piece of an entry lies at {found:?}");
                return Err(Error::malformed("raft log", reason));
            };
            let begun = start.is_some() || !records.stored.is_empty();
            if begun && number != records.next_piece {
                return Err(hole(&entries));
            }
            let first_piece = *start.get_or_insert(number);
            records.next_piece = number + 1;
            bytes.extend_from_slice(piece);
            if *more == MORE {
                continue;
            }
            let added = decode(std::mem::take(&mut bytes).into())?;
            start = None;
            if let (Some(first), Some(last)) = (added.first(), added.last()) {
                records.push(first_piece, first.index, last.index);
                let kept = entries.partition_point(|entry| entry.index < first.index);
                entries.truncate(kept);
                entries.extend(added);
            }
        }
        if start.is_some() {
            return Err(hole(&entries));
        }
        Ok((records, entries))
    }
}

fn hole(entries: &[Entry]) -> Error {
    Error::Hole(entries.last().map_or(1, |entry| entry.index + 1))
}

fn decode(mut bytes: Bytes) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    while bytes.has_remaining() {
        let size = bytes.try_get_u32_le().unwrap_or(u32::MAX) as usize;
        if size > bytes.len() {
            return Err(Error::malformed("raft log", "an entry is cut off"));
        }
        entries.push(codec::decode(&bytes.split_to(size))?);
    }
    Ok(entries)
}

fn remove(batch: &mut sled::Batch, first: u64, end: u64) {
    for number in first..end {
        batch.remove(key(number).as_slice());
    }
}

fn key(number: u64) -> [u8; 9] {
    let mut key = [PREFIX; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}
