//! Snapshots as files of their own next to the log, so that writing one delays no append.
//!
//! A file comes into being whole: it is written under a temporary name, made durable, and renamed. It
//! counts once the log points to it. Head and checksum tell a file that was damaged afterwards.

use std::{
    fs::{self, File},
    io::{self, BufWriter, Read, Seek as _, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use crc32fast::Hasher;

use super::{OwnSnapshot, SnapshotWriter, WrittenSnapshot};
use crate::{
    Error,
    codec::{self, Snapshot},
};

/// What a snapshot file begins with; the last byte is the version of the layout.
const MAGIC: [u8; 8] = *b"skepsnp\x01";
/// Magic, size of the metadata (u32), size of the data (u64), CRC-32 of all but itself (u32); all in
/// little endian. Metadata and data follow.
const HEAD_BYTES: usize = 24;
/// Bytes between two syncs while a file is written. An fdatasync of the log has to wait for what the
/// kernel has not yet written of this file, so that must not become much.
const SYNC_BYTES: usize = 1024 * 1024;
/// Bytes that are written at once.
const WRITE_BYTES: usize = 64 * 1024;
const PREFIX: &str = "snapshot-";
const TEMPORARY: &str = ".tmp";

/// The snapshots in the directory of a log. Clones share it.
#[derive(Clone, Debug)]
pub(super) struct SnapshotDir {
    dir: PathBuf,
    /// Tells temporary names apart.
    number: Arc<AtomicU64>,
    /// The log's: nobody may open it while a snapshot is being written.
    _lock: Arc<File>,
}

impl SnapshotDir {
    pub(super) fn new(dir: PathBuf, lock: Arc<File>) -> Self {
        Self {
            dir,
            number: Arc::default(),
            _lock: lock,
        }
    }

    fn path(&self, index: u64) -> PathBuf {
        self.dir.join(format!("{PREFIX}{index}"))
    }

    /// Writes a snapshot, durably. It replaces one of the same index, which holds the same.
    pub(super) fn write(&self, snapshot: &OwnSnapshot) -> Result<(), Error> {
        let metadata = codec::encode(snapshot.metadata())?;
        let path = self.path(snapshot.index());
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let temporary = path.with_extension(format!("{number}{TEMPORARY}"));
        write_file(&temporary, &metadata, snapshot)
            .and_then(|()| fs::rename(&temporary, &path))
            .and_then(|()| File::open(&self.dir)?.sync_all())
            .map_err(Error::log("write snapshot"))
    }

    /// Reads the snapshot of this index.
    ///
    /// # Errors
    /// [`Error::Snapshot`] names a file that is missing or is not what was written.
    pub(super) fn read(&self, index: u64) -> Result<Snapshot, Error> {
        let path = self.path(index);
        read_file(&path, index).map_err(|error| Error::Snapshot {
            path,
            reason: error.to_string(),
        })
    }

    /// Whether a whole snapshot is there, be it pointed to or not.
    pub(super) fn has_any(&self) -> Result<bool, Error> {
        let files = fs::read_dir(&self.dir).map_err(Error::log("read"))?;
        let mut names = files.filter_map(|file| file.ok()?.file_name().into_string().ok());
        Ok(names.any(|name| index_of(&name).is_some()))
    }

    /// Removes the snapshots before `newest`, which must be durable and pointed to.
    pub(super) fn remove_before(&self, newest: u64) -> Result<(), Error> {
        self.remove(|name| index_of(name).is_some_and(|index| index < newest))
    }

    /// Removes all but `newest`: what interrupted attempts have left behind. Nothing may be being
    /// written.
    pub(super) fn remove_all_but(&self, newest: Option<u64>) -> Result<(), Error> {
        self.remove(|name| {
            name.starts_with(PREFIX)
                && match index_of(name) {
                    Some(index) => Some(index) != newest,
                    None => name.ends_with(TEMPORARY),
                }
        })
    }

    fn remove(&self, unwanted: impl Fn(&str) -> bool) -> Result<(), Error> {
        let remove = || -> io::Result<()> {
            for file in fs::read_dir(&self.dir)? {
                let file = file?;
                if file.file_name().to_str().is_some_and(&unwanted) {
                    fs::remove_file(file.path())?;
                }
            }
            Ok(())
        };
        remove().map_err(Error::log("drop old snapshot"))
    }
}

impl SnapshotWriter for SnapshotDir {
    fn write(&self, snapshot: &OwnSnapshot) -> Result<WrittenSnapshot, Error> {
        self.write(snapshot)?;
        Ok(WrittenSnapshot {
            index: snapshot.index(),
        })
    }
}

fn index_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

fn write_file(path: &Path, metadata: &[u8], snapshot: &OwnSnapshot) -> io::Result<()> {
    let (data_head, data_bytes) = snapshot.stored_bytes();
    let mut head = [0; HEAD_BYTES];
    head[..8].copy_from_slice(&MAGIC);
    let size = u32::try_from(metadata.len()).map_err(io::Error::other)?;
    head[8..12].copy_from_slice(&size.to_le_bytes());
    head[12..20].copy_from_slice(&data_bytes.to_le_bytes());
    let file = File::options()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    // What comes first is known last.
    let mut body = Body::new(file, HEAD_BYTES + metadata.len() + data_head)?;
    let data_head = snapshot.store_to(&mut body)?;
    let (mut file, rest) = body.finish()?;
    let mut hasher = begun_checksum(&head, metadata);
    hasher.update(&data_head);
    hasher.combine(&rest);
    head[20..].copy_from_slice(&hasher.finalize().to_le_bytes());
    file.rewind()?;
    file.write_all(&head)?;
    file.write_all(metadata)?;
    file.write_all(&data_head)?;
    file.sync_all()
}

/// The data in a file, while it is written, but for its head.
struct Body {
    file: BufWriter<File>,
    hasher: Hasher,
    /// Bytes since the last sync.
    unsynced: usize,
}

impl Body {
    fn new(mut file: File, start: usize) -> io::Result<Self> {
        file.seek(SeekFrom::Start(start as u64))?;
        Ok(Self {
            file: BufWriter::with_capacity(WRITE_BYTES, file),
            hasher: Hasher::new(),
            unsynced: 0,
        })
    }

    /// The file, and the checksum of what was written.
    fn finish(self) -> io::Result<(File, Hasher)> {
        let file = self.file.into_inner().map_err(|error| error.into_error())?;
        Ok((file, self.hasher))
    }
}

impl Write for Body {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let taken = self.file.write(&data[..data.len().min(WRITE_BYTES)])?;
        self.hasher.update(&data[..taken]);
        self.unsynced += taken;
        if self.unsynced >= SYNC_BYTES {
            self.unsynced = 0;
            self.file.flush()?;
            self.file.get_ref().sync_data()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn read_file(path: &Path, index: u64) -> io::Result<Snapshot> {
    let file = File::open(path)?;
    let size = file.metadata()?.len();
    let snapshot = read_from(file, size)?;
    if snapshot.get_metadata().index != index {
        let reason = "it is a snapshot of another index";
        return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
    }
    Ok(snapshot)
}

/// Reads a file of `size` bytes.
pub(crate) fn read_from(mut file: impl Read, size: u64) -> io::Result<Snapshot> {
    let damaged = |reason: &str| io::Error::new(io::ErrorKind::InvalidData, reason);
    let mut head = [0; HEAD_BYTES];
    file.read_exact(&mut head)
        .map_err(|_| damaged("it is cut off"))?;
    let [a, b, c, d, e, f, g, h, i, j, k, l] = head[8..20] else {
        return Err(damaged("it is cut off"));
    };
    if head[..8] != MAGIC {
        return Err(damaged("it is not a snapshot"));
    }
    let metadata_bytes = u64::from(u32::from_le_bytes([a, b, c, d]));
    let data_bytes = u64::from_le_bytes([e, f, g, h, i, j, k, l]);
    // Only what is really there is allocated.
    let expected = data_bytes.checked_add(metadata_bytes + HEAD_BYTES as u64);
    if expected != Some(size) {
        return Err(damaged("it does not have the size that it says"));
    }
    let mut metadata = vec![0; metadata_bytes as usize];
    let mut data = vec![0; data_bytes as usize];
    file.read_exact(&mut metadata)?;
    file.read_exact(&mut data)?;
    let mut hasher = begun_checksum(&head, &metadata);
    hasher.update(&data);
    if hasher.finalize().to_le_bytes() != head[20..] {
        return Err(damaged("its checksum is wrong"));
    }
    let mut snapshot = Snapshot {
        data: data.into(),
        ..Snapshot::default()
    };
    snapshot.set_metadata(codec::decode(&metadata.into()).map_err(io::Error::other)?);
    Ok(snapshot)
}

/// The checksum of what comes before the data.
fn begun_checksum(head: &[u8; HEAD_BYTES], metadata: &[u8]) -> Hasher {
    let mut hasher = Hasher::new();
    hasher.update(&head[..20]);
    hasher.update(metadata);
    hasher
}
