//! The append path of a log on raft-engine, the log of TiKV, for comparison.

use std::{path::Path, sync::Arc};

use raft::eraftpb::Entry;
use raft_engine::{Config, Engine, LogBatch, MessageExt};
use skep_raft::{
    Batch, Error, Loaded, LocalMember, LogStore, SnapshotWriter, WrittenSnapshot, testing,
};

pub struct EngineLog(Engine);

struct Codec;

impl MessageExt for Codec {
    type Entry = Entry;

    fn index(entry: &Entry) -> u64 {
        entry.index
    }
}

impl EngineLog {
    pub fn open(dir: &Path) -> Self {
        let config = Config {
            dir: dir.to_str().unwrap().to_owned(),
            ..Config::default()
        };
        Self(Engine::open(config).unwrap())
    }
}

impl LogStore for EngineLog {
    fn member(&self) -> Result<Option<LocalMember>, Error> {
        unimplemented!("only appends are measured")
    }

    fn append(&mut self, batch: &Batch) -> Result<(), Error> {
        let mut writes = LogBatch::default();
        writes
            .add_entries::<Codec>(1, testing::entries(batch))
            .unwrap();
        self.0.write(&mut writes, true).unwrap();
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
