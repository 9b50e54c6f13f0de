//! How entries lie in sled: each append as one record, cut into pieces.
//!
//! sled spends most of an append on its keys, so there are few: a record's pieces are numbered on and
//! on, and each says whether the next one belongs to the same record. A record whose first entry is
//! not the next one replaces all from there on, as the append did; what it replaces stays on disk
//! until it is the oldest. So records only come at the end and go at the front, and a missing piece
//! shows. Each record begins with a [`Head`] by which it is found even in a damaged file.

use std::collections::VecDeque;

use bytes::{Buf as _, BufMut as _, Bytes};

use super::writes::Writes;
use crate::{
    Error,
    codec::Entry,
    log::{entries, head::Head},
};

/// Most bytes in a piece. sled moves large values, and full pages of rather large ones, to files of
/// their own, which it does not sync: with pieces of 8 KiB it sometimes does, with 4 KiB never.
const PIECE_BYTES: usize = 4 * 1024;
/// Pieces that [`Records::drop_up_to`] drops at once.
const DROP_PIECES: u64 = 256;

const PREFIX: u8 = b'e';
/// Where the number of the next piece lies while there is no record to tell it.
const NEXT_PIECE: &[u8] = b"n";
/// First byte of a piece: the next piece goes on with the same record.
const MORE: u8 = 1;
const LAST: u8 = 0;

/// The records that are stored.
#[derive(Clone, Debug, Default)]
pub(super) struct Records {
    stored: VecDeque<Record>,
    /// Number of the next piece. It never goes back, or what a record has left behind in the file
    /// could be taken for a later one.
    next_piece: u64,
}

#[derive(Clone, Debug)]
struct Record {
    /// Number of the first piece.
    piece: u64,
    /// Index of the last entry that no later record has replaced.
    last: u64,
}

/// What is read at start.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) records: Records,
    pub(super) entries: Vec<Entry>,
    /// Highest commit index that came with a record.
    pub(super) commit: u64,
}

impl Records {
    /// Adds a record of consecutive entries to what is written, with the commit index as of now.
    /// `id` is the log's. A record without entries shows that something else was written.
    pub(super) fn append(
        &mut self,
        entries: &[Entry],
        commit: u64,
        id: u64,
        writes: &mut Writes,
    ) -> Result<(), Error> {
        let start = self.next_piece;
        let head = Head {
            id,
            number: start,
            commit,
        };
        let mut bytes = head.to_bytes().to_vec();
        entries::encode(entries, &mut bytes)?;
        let mut pieces = bytes.chunks(PIECE_BYTES).peekable();
        while let Some(piece) = pieces.next() {
            let mut value = Vec::with_capacity(1 + piece.len());
            value.put_u8(if pieces.peek().is_some() { MORE } else { LAST });
            value.put_slice(piece);
            writes.insert(&key(self.next_piece), value);
            self.next_piece += 1;
        }
        self.push(start, entries);
        Ok(())
    }

    fn push(&mut self, piece: u64, entries: &[Entry]) {
        let (Some(first), Some(last)) = (entries.first(), entries.last()) else {
            // It goes together with the one before it.
            let last = self.stored.back().map_or(0, |record| record.last);
            self.stored.push_back(Record { piece, last });
            return;
        };
        let (first, last) = (first.index, last.index);
        for record in self.stored.iter_mut().rev() {
            if record.last < first {
                break;
            }
            record.last = first.saturating_sub(1);
        }
        self.stored.push_back(Record { piece, last });
    }

    /// Removes everything in what is written.
    pub(super) fn clear(&mut self, writes: &mut Writes) {
        let first = self.first_piece();
        self.stored.clear();
        self.remove(first, self.next_piece, writes);
    }

    /// Removes, in what is written, the oldest records that hold nothing but entries up to `index`: a
    /// bounded number at a time. Returns whether there are no more of them.
    pub(super) fn drop_up_to(&mut self, index: u64, writes: &mut Writes) -> bool {
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
        self.remove(first, end, writes);
        self.stored.front().is_none_or(|oldest| oldest.last > index)
    }

    fn remove(&self, first: u64, end: u64, writes: &mut Writes) {
        for number in first..end {
            writes.remove(&key(number));
        }
        if self.stored.is_empty() {
            writes.insert(NEXT_PIECE, self.next_piece.to_be_bytes().to_vec());
        }
    }

    fn first_piece(&self) -> u64 {
        self.stored
            .front()
            .map_or(self.next_piece, |record| record.piece)
    }

    /// Number of the next piece.
    pub(super) fn next_piece(&self) -> u64 {
        self.next_piece
    }

    /// Reads all records and the entries in them.
    ///
    /// # Errors
    /// [`Error::Hole`] with the first entry that may be missing, if a piece is missing or cannot be
    /// read.
    pub(super) fn load(log: &sled::Tree, id: u64) -> Result<Found, Error> {
        let mut found = Found::default();
        let next = log.get(NEXT_PIECE).map_err(Error::log("read"))?;
        if let Some(number) = next.and_then(|value| value.as_ref().try_into().ok()) {
            found.records.next_piece = u64::from_be_bytes(number);
        }
        let mut bytes = Vec::new();
        let mut start = None;
        for item in log.scan_prefix([PREFIX]) {
            let (at, value) = match item {
                Ok(item) => item,
                Err(sled::Error::Corruption { .. }) => return Err(hole(&found.entries)),
                Err(error) => return Err(Error::log("read")(error)),
            };
            let number = at
                .get(1..)
                .and_then(|number| number.try_into().ok())
                .map(u64::from_be_bytes);
            let (Some(number), Some((more, piece))) = (number, value.split_first()) else {
                let reason = format!("a piece of an entry lies at {at:?}");
                return Err(Error::malformed("raft log", reason));
            };
            let begun = start.is_some() || !found.records.stored.is_empty();
            if begun && number != found.records.next_piece {
                return Err(hole(&found.entries));
            }
            let first_piece = *start.get_or_insert(number);
            found.records.next_piece = number.saturating_add(1);
            bytes.extend_from_slice(piece);
            if *more == MORE {
                continue;
            }
            let (head, added) = decode(std::mem::take(&mut bytes).into())?;
            start = None;
            if (head.id, head.number) != (id, first_piece) {
                return Err(hole(&found.entries));
            }
            found.commit = found.commit.max(head.commit);
            found.records.push(first_piece, &added);
            entries::extend(&mut found.entries, added);
        }
        if start.is_some() {
            return Err(hole(&found.entries));
        }
        Ok(found)
    }
}

fn hole(entries: &[Entry]) -> Error {
    Error::Hole(entries.last().map_or(1, |entry| entry.index + 1))
}

/// A whole record.
pub(super) fn decode(mut bytes: Bytes) -> Result<(Head, Vec<Entry>), Error> {
    let malformed = |reason: &str| Error::malformed("raft log", reason);
    let head = bytes
        .split_first_chunk()
        .and_then(|(head, _)| Head::from_bytes(head))
        .ok_or_else(|| malformed("a record without a head"))?;
    bytes.advance(Head::BYTES);
    Ok((head, entries::decode(bytes)?))
}

fn key(number: u64) -> [u8; 9] {
    let mut key = [PREFIX; 9];
    key[1..].copy_from_slice(&number.to_be_bytes());
    key
}
