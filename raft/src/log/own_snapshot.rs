//! A snapshot that is not bytes yet: they are made piece by piece when they are written or sent.
//!
//! A snapshot of the store costs nothing to hold, and its bytes as much as the store. So there is never
//! more of them in memory than is under way, however large the state and however slow a peer.

use std::io::{self, Write};

use bytes::Bytes;
use skep_security::{DataKey, Sealing};

use crate::codec::{Snapshot, SnapshotMetadata};

/// A snapshot that this member has taken of itself. Clones share it.
#[derive(Clone, Debug)]
pub struct OwnSnapshot {
    /// Its data is what comes before that of the store.
    front: Snapshot,
    store: skep_store::Snapshot,
    /// Size of the data.
    bytes: u64,
    /// Seals the data where it is stored.
    key: Option<DataKey>,
}

impl OwnSnapshot {
    pub(crate) fn new(front: Snapshot, store: skep_store::Snapshot) -> Self {
        let bytes = (front.data.len() + store.encoded_len()) as u64;
        Self {
            front,
            store,
            bytes,
            key: None,
        }
    }

    /// Index of the last entry in it.
    pub fn index(&self) -> u64 {
        self.metadata().index
    }

    pub(crate) fn metadata(&self) -> &SnapshotMetadata {
        self.front.get_metadata()
    }

    /// Size of the data.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The snapshot without its data.
    pub(crate) fn without_data(&self) -> Snapshot {
        let mut snapshot = Snapshot::default();
        snapshot.set_metadata(self.metadata().clone());
        snapshot
    }

    /// Writes the data, each time the same.
    pub(crate) fn write_to(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.front.data)?;
        self.store.write_to(out)
    }

    /// The same, which is sealed where it is stored.
    pub(crate) fn sealed(mut self, key: Option<DataKey>) -> Self {
        self.key = key;
        self
    }

    /// Size of the data as it is stored: of its head, and of all of it.
    pub(crate) fn stored_bytes(&self) -> (usize, u64) {
        match self.key {
            Some(_) => {
                let head = Sealing::head_bytes(self.bytes);
                (head, Sealing::record_bytes(self.bytes))
            }
            None => (0, self.bytes),
        }
    }

    /// Writes what comes behind the head of the data as it is stored, and returns that head.
    pub(crate) fn store_to(&self, out: &mut impl Write) -> io::Result<Vec<u8>> {
        match &self.key {
            Some(key) => {
                let mut sealing = key.sealing(self.bytes, out);
                self.write_to(&mut sealing)?;
                sealing.finish()
            }
            None => self.write_to(out).map(|()| Vec::new()),
        }
    }

    /// The snapshot as it is stored, in memory: for small ones.
    pub(crate) fn stored(&self) -> io::Result<Snapshot> {
        let (head, bytes) = self.stored_bytes();
        let mut data = Vec::with_capacity(bytes as usize);
        data.resize(head, 0);
        let head = self.store_to(&mut data)?;
        data[..head.len()].copy_from_slice(&head);
        let mut snapshot = self.without_data();
        snapshot.data = Bytes::from(data);
        Ok(snapshot)
    }
}

/// One of the leader, which is stored as one's own is.
impl From<Snapshot> for OwnSnapshot {
    fn from(snapshot: Snapshot) -> Self {
        Self::new(snapshot, skep_store::Snapshot::default())
    }
}

#[cfg(test)]
mod tests {
    use skep_proto::{Timestamp, v1};
    use skep_store::Store;

    use super::*;

    /// Keeps what is written to it, and how long the longest piece was.
    #[derive(Default)]
    struct Paper {
        bytes: Vec<u8>,
        longest: usize,
    }

    impl Write for Paper {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            self.longest = self.longest.max(data.len());
            self.bytes.write(data)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_large_one_is_never_in_one_piece() {
        let config = |number| v1::Config {
            id: format!("config-{number:04}"),
            spec: Some(v1::ConfigSpec {
                data: vec![b'x'; 10_000].into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let store = Store::new(Timestamp::default);
        let image = v1::StoreSnapshot {
            configs: (0..500).map(config).collect(),
            ..Default::default()
        };
        store.restore(1, image.clone());
        let mut front = Snapshot {
            data: Bytes::from_static(b"front"),
            ..Snapshot::default()
        };
        front.mut_metadata().index = 9;
        let own = OwnSnapshot::new(front, store.snapshot());
        let whole = [&b"front"[..], &prost::Message::encode_to_vec(&image)].concat();

        let mut plain = Paper::default();
        own.write_to(&mut plain).unwrap();
        assert!(plain.bytes == whole);
        assert_eq!(own.bytes(), whole.len() as u64);
        assert!(plain.longest < 100_000, "{} bytes", plain.longest);
        assert!(own.stored().unwrap().data == whole);

        let key = DataKey::generate();
        let own = own.sealed(Some(key.clone()));
        let mut sealed = Paper::default();
        own.store_to(&mut sealed).unwrap();
        assert!(sealed.longest < 100_000, "{} bytes", sealed.longest);
        let stored = own.stored().unwrap();
        assert_eq!(stored.data.len() as u64, own.stored_bytes().1);
        assert_eq!(stored.get_metadata().index, 9);
        assert!(key.open(stored.data).unwrap() == whole);
    }
}
