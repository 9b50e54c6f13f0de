//! What each record begins with, and how to find it in a damaged file.
//!
//! Damage in the middle looks like the torn end that a power cut leaves. The file itself tells them
//! apart: a record is only written when the one before it is durable, so behind the first that is lost
//! nothing may ever have been. sled takes damage for the end of its file, too, and wipes what follows;
//! but it writes values as they are, and a head is too long and too random to come about by chance.

use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    path::Path,
};

/// Bytes read at once.
const READ_BYTES: usize = 1024 * 1024;

/// In little endian, with a CRC-32 of the rest at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    /// The log's own random number.
    pub(super) id: u64,
    /// Number of the record; in sled, of its first piece.
    pub(super) number: u64,
    /// Commit index as of the append.
    pub(super) commit: u64,
}

impl Head {
    pub(super) const BYTES: usize = 28;

    pub(super) fn to_bytes(self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        bytes[..8].copy_from_slice(&self.id.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.number.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.commit.to_le_bytes());
        let checksum = crc32fast::hash(&bytes[..24]);
        bytes[24..].copy_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// `None` if the checksum is wrong.
    pub(super) fn from_bytes(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let number = |at: usize| bytes[at..].first_chunk().copied().map(u64::from_le_bytes);
        let head = Self {
            id: number(0)?,
            number: number(8)?,
            commit: number(16)?,
        };
        (head.to_bytes() == *bytes).then_some(head)
    }

    /// The highest number in a head of this log in a file, wherever it lies from `start` on. `None` if
    /// there is no head, or no file.
    pub(super) fn highest(path: &Path, start: u64, id: u64) -> io::Result<Option<u64>> {
        let mut file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        file.seek(SeekFrom::Start(start))?;
        let id = id.to_le_bytes();
        let mut highest = None;
        // What could be the beginning of a head is kept for the next round.
        let mut bytes = Vec::with_capacity(READ_BYTES + Self::BYTES);
        loop {
            let read = (&mut file)
                .take(READ_BYTES as u64)
                .read_to_end(&mut bytes)?;
            for at in memchr::memmem::find_iter(&bytes, &id) {
                let head = bytes[at..].first_chunk().and_then(Self::from_bytes);
                highest = highest.max(head.map(|head| head.number));
            }
            if read == 0 {
                return Ok(highest);
            }
            bytes.drain(..bytes.len().saturating_sub(Self::BYTES - 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_head_is_found_wherever_it_lies() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let head = |id, number| {
            Head {
                id,
                number,
                commit: 3,
            }
            .to_bytes()
        };
        for at in [0, 1, READ_BYTES - 27, READ_BYTES - 1, READ_BYTES, 2_000_000] {
            let mut bytes = vec![7; at];
            bytes.extend(head(5, 8));
            bytes.extend(head(5, 4));
            bytes.extend(head(6, 9));
            // One that is damaged.
            bytes.extend(head(5, 11));
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            std::fs::write(file.path(), bytes).unwrap();
            assert_eq!(Head::highest(file.path(), 0, 5).unwrap(), Some(8), "{at}");
            let behind = Head::highest(file.path(), at as u64 + 1, 5);
            assert_eq!(behind.unwrap(), Some(4), "{at}");
            assert_eq!(Head::highest(file.path(), 0, 7).unwrap(), None);
        }
        assert_eq!(Head::highest(Path::new("/none"), 0, 7).unwrap(), None);
    }
}
