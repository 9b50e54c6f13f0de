//! Reading all segments of a log at start, and telling a torn end from damage.

use std::{collections::VecDeque, fs::File, io::BufReader};

use super::{
    Segment, numbers, path,
    record::{self, Meta},
};
use crate::{
    Error,
    codec::Entry,
    log::{dir::LogDir, entries, head::Head},
};

/// What the segments hold.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) segments: VecDeque<Segment>,
    /// Number of the next record.
    pub(super) number: u64,
    /// Where that begins in the last segment.
    pub(super) at: u64,
    /// Size of the record before it, 0 if there is none in the same segment.
    pub(super) last_size: u64,
    /// As of the last record, with the member.
    pub(super) meta: Meta,
    pub(super) commit: u64,
    /// Those that no later record has replaced.
    pub(super) entries: Vec<Entry>,
    /// The first entry that may be missing before what was found, if something is missing at all.
    pub(super) lost: Option<u64>,
}

impl Found {
    /// Reads what is in a log's directory.
    ///
    /// A record is only written when the one before it is durable. So the record behind the last one
    /// that is whole may be the torn rest of an append that nobody was told of, but not if there is a
    /// later one.
    ///
    /// # Errors
    /// [`Error::Damaged`] if something is missing behind the last record that was found.
    pub(super) fn read(dir: &LogDir) -> Result<Self, Error> {
        let mut found = Self::default();
        for number in numbers(&dir.path).map_err(Error::log("read"))? {
            if number != found.number {
                // What lies before was dropped and is back after a crash; or, if it is needed, there
                // is a hole.
                let covered = found.meta.snapshot;
                let before = found.lost.filter(|lost| *lost > covered);
                let here = (!found.segments.is_empty()).then(|| found.next_entry());
                found = Self {
                    number,
                    lost: before.or(here),
                    ..Self::default()
                };
            }
            found.read_segment(dir, number)?;
        }
        let Some(last) = found.segments.back() else {
            return Ok(found);
        };
        let later = Head::highest(&path(&dir.path, last.number), found.at, dir.format.id)
            .map_err(Error::log("read"))?;
        // Only the first of all is begun when there is none before it.
        let is_empty = found.at == 0 && found.segments.len() == 1 && found.number > 0;
        if is_empty || later > Some(found.number) {
            return Err(dir.damaged(found.lost.unwrap_or_else(|| found.next_entry())));
        }
        Ok(found)
    }

    fn read_segment(&mut self, dir: &LogDir, number: u64) -> Result<(), Error> {
        let read = "read";
        let file = File::open(path(&dir.path, number)).map_err(Error::log(read))?;
        let size = file.metadata().map_err(Error::log(read))?.len();
        let mut file = BufReader::with_capacity(64 * 1024, file);
        (self.at, self.last_size) = (0, 0);
        self.segments.push_back(Segment { number, last: 0 });
        while let Some(record) =
            record::read(&mut file, size - self.at, dir.format.id, self.number)?
        {
            self.at += record.size;
            self.last_size = record.size;
            self.number += 1;
            self.commit = record.commit;
            let member = record.meta.member.clone().or(self.meta.member.take());
            self.meta = Meta {
                member,
                ..record.meta
            };
            if self.meta.cleared {
                self.entries.clear();
                for segment in &mut self.segments {
                    segment.last = 0;
                }
            }
            if let (Some(segment), Some(last)) = (self.segments.back_mut(), record.entries.last()) {
                segment.last = segment.last.max(last.index);
            }
            entries::extend(&mut self.entries, record.entries);
        }
        Ok(())
    }

    /// Index of the entry after the last one that was found.
    fn next_entry(&self) -> u64 {
        let last = self.entries.last().map_or(0, |entry| entry.index);
        last.max(self.meta.snapshot) + 1
    }
}
