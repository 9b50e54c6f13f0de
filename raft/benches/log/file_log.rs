//! The append path of a log that is one preallocated file: size, checksum and entries of each append
//! behind those of the one before, and an fdatasync.

use std::{fs::File, io::Write, sync::Arc};

use protobuf::Message;
use skep_raft::{
    Batch, Error, Loaded, LocalMember, LogStore, SnapshotWriter, WrittenSnapshot, testing,
};

pub struct FileLog(File);

impl FileLog {
    pub fn new(file: File) -> Self {
        Self(file)
    }
}

impl LogStore for FileLog {
    fn append(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut bytes = vec![0; 8];
        for entry in testing::entries(batch) {
            let start = bytes.len();
            bytes.extend([0; 4]);
            entry.write_to_vec(&mut bytes).unwrap();
            let size = (bytes.len() - start - 4) as u32;
            bytes[start..start + 4].copy_from_slice(&size.to_le_bytes());
        }
        let size = bytes.len() as u32 - 8;
        let checksum = crc32fast::hash(&bytes[8..]);
        bytes[..4].copy_from_slice(&size.to_le_bytes());
        bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        self.0.write_all(&bytes).unwrap();
        self.0.sync_data().unwrap();
        Ok(())
    }

    fn load(&mut self) -> Result<Loaded, Error> {
        unimplemented!("only appends are measured")
    }

    fn set_member(&mut self, _: &LocalMember) -> Result<(), Error> {
        unimplemented!("only appends are measured")
    }

    fn snapshot_writer(&self) -> Arc<dyn SnapshotWriter> {
        unimplemented!("only appends are measured")
    }

    fn save_snapshot(&mut self, _: &WrittenSnapshot) -> Result<(), Error> {
        unimplemented!("only appends are measured")
    }

    fn compact(&mut self, _: u64) -> Result<bool, Error> {
        unimplemented!("only appends are measured")
    }
}
