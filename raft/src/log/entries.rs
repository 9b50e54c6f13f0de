//! Entries as they lie in a record: one after the other, each after its size.

use bytes::{Buf as _, BufMut as _, Bytes};

use crate::{
    Error,
    codec::{self, Entry},
};

pub(super) fn encode(entries: &[Entry], bytes: &mut Vec<u8>) -> Result<(), Error> {
    for entry in entries {
        let entry = codec::encode(entry)?;
        let size = u32::try_from(entry.len()).map_err(Error::log("write"))?;
        bytes.put_u32_le(size);
        bytes.put_slice(&entry);
    }
    Ok(())
}

pub(super) fn decode(mut bytes: Bytes) -> Result<Vec<Entry>, Error> {
    let malformed = |reason: &str| Error::malformed("raft log", reason);
    let mut entries: Vec<Entry> = Vec::new();
    while bytes.has_remaining() {
        let size = bytes.try_get_u32_le().unwrap_or(u32::MAX) as usize;
        if size > bytes.len() {
            return Err(malformed("an entry is cut off"));
        }
        let entry: Entry = codec::decode(&bytes.split_to(size))?;
        let follows = entries
            .last()
            .is_none_or(|last| last.index.checked_add(1) == Some(entry.index));
        if entry.index == u64::MAX || !follows {
            return Err(malformed("the entries of a record are not consecutive"));
        }
        entries.push(entry);
    }
    Ok(entries)
}

/// Puts `added` behind `entries`, in place of all from its first index on.
pub(super) fn extend(entries: &mut Vec<Entry>, added: Vec<Entry>) {
    if let Some(first) = added.first() {
        let kept = entries.partition_point(|entry| entry.index < first.index);
        entries.truncate(kept);
        entries.extend(added);
    }
}
