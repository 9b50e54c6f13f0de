//! One append as it lies in a segment: a [`Head`], the size of the body, the CRC-32 of all this and the
//! body (both u32, in little endian), and the body: a [`Meta`] after its size, and the entries.

use std::io::{self, Read};

use bytes::Bytes;
use prost::Message as _;

use crate::{
    Error, LocalMember,
    codec::Entry,
    log::{entries, head::Head},
};

/// Bytes before the body.
const START_BYTES: usize = Head::BYTES + 8;

/// All that a log remembers besides entries, and the commit index, which is in the head.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Meta {
    #[prost(uint64, tag = "1")]
    pub(super) term: u64,
    #[prost(uint64, tag = "2")]
    pub(super) vote: u64,
    /// Index of the newest snapshot, 0 without one.
    #[prost(uint64, tag = "3")]
    pub(super) snapshot: u64,
    /// Entries before this index were dropped.
    #[prost(uint64, tag = "4")]
    pub(super) first: u64,
    /// Index of the last entry or of the snapshot, this record included.
    #[prost(uint64, tag = "5")]
    pub(super) last: u64,
    /// No entry in a record before this one counts.
    #[prost(bool, tag = "6")]
    pub(super) cleared: bool,
    /// Whose log it is. Without it, it is whose it was.
    #[prost(message, optional, tag = "7")]
    pub(super) member: Option<LocalMember>,
}

/// What is read of a record.
#[derive(Debug)]
pub(super) struct Record {
    /// Its size in bytes.
    pub(super) size: u64,
    pub(super) commit: u64,
    pub(super) meta: Meta,
    pub(super) entries: Vec<Entry>,
}

pub(super) fn encode(head: Head, meta: &Meta, entries: &[Entry]) -> Result<Vec<u8>, Error> {
    let mut record = vec![0; START_BYTES];
    meta.encode_length_delimited(&mut record)
        .map_err(Error::log("write"))?;
    entries::encode(entries, &mut record)?;
    let (start, body) = record.split_at_mut(START_BYTES);
    let size = u32::try_from(body.len()).map_err(Error::log("write"))?;
    start[..Head::BYTES].copy_from_slice(&head.to_bytes());
    start[Head::BYTES..][..4].copy_from_slice(&size.to_le_bytes());
    let checksum = checksum(start, body);
    start[Head::BYTES + 4..].copy_from_slice(&checksum.to_le_bytes());
    Ok(record)
}

/// Of what comes before the checksum, and of the body.
fn checksum(start: &[u8], body: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&start[..Head::BYTES + 4]);
    hasher.update(body);
    hasher.finalize()
}

/// Reads the record of this number from the rest of a file, which has `left` bytes. `None` if it is not
/// there, or not whole.
///
/// # Errors
/// Of the file, and of records that are whole and make no sense.
pub(super) fn read(
    file: &mut impl Read,
    left: u64,
    id: u64,
    number: u64,
) -> Result<Option<Record>, Error> {
    let Some(body_left) = left.checked_sub(START_BYTES as u64) else {
        return Ok(None);
    };
    let mut start = [0; START_BYTES];
    if !fill(file, &mut start)? {
        return Ok(None);
    }
    let head = start.first_chunk().and_then(Head::from_bytes);
    let Some(head) = head.filter(|head| (head.id, head.number) == (id, number)) else {
        return Ok(None);
    };
    let [.., a, b, c, d, e, f, g, h] = start;
    let size = u32::from_le_bytes([a, b, c, d]);
    // Only what is really there is allocated.
    if u64::from(size) > body_left {
        return Ok(None);
    }
    let mut body = vec![0; size as usize];
    let wanted = u32::from_le_bytes([e, f, g, h]);
    if !fill(file, &mut body)? || checksum(&start, &body) != wanted {
        return Ok(None);
    }
    let (meta, entries) = decode_body(body.into())?;
    Ok(Some(Record {
        size: START_BYTES as u64 + u64::from(size),
        commit: head.commit,
        meta,
        entries,
    }))
}

/// `false` if the file ends before.
fn fill(file: &mut impl Read, bytes: &mut [u8]) -> Result<bool, Error> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(Error::log("read")(error)),
    }
}

/// What is in the body of a record.
pub(super) fn decode_body(mut body: Bytes) -> Result<(Meta, Vec<Entry>), Error> {
    let meta = Meta::decode_length_delimited(&mut body)
        .map_err(|error| Error::malformed("raft log", error))?;
    Ok((meta, entries::decode(body)?))
}
