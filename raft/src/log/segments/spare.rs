//! The file that a log's next segment is made of, made beforehand. Syncs are faster where blocks have been
//! written before, so as many as there is time for are: slowly, as no append should wait for it.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};

/// Bytes that are written and synced at once: the log's own syncs may have to wait for them.
const WRITE_BYTES: u64 = 128 * 1024;
/// How much longer the thread pauses than it writes.
const PAUSES: u32 = 4;

/// A file of no segment, or the lack of one. Dropping it waits until nothing is being written to it.
#[derive(Debug)]
pub(super) struct Spare {
    path: PathBuf,
    /// The thread that makes it.
    made: Option<JoinHandle<io::Result<()>>>,
    /// Ends the thread.
    stop: Arc<AtomicBool>,
}

impl Spare {
    /// None yet.
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            path: dir.join("spare"),
            made: None,
            stop: Arc::default(),
        }
    }

    /// Removes what an earlier process has left: it may not be whole.
    pub(super) fn remove_leftover(&self) -> io::Result<()> {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Begins to make a file of `size` bytes on a thread of its own, unless there is one.
    pub(super) fn begin(&mut self, size: u64) {
        if self.made.is_some() {
            return;
        }
        self.stop.store(false, Ordering::Relaxed);
        let (path, stop) = (self.path.clone(), self.stop.clone());
        let thread = thread::Builder::new()
            .name("raft-spare".into())
            .spawn(move || write_zeroes(&reserve(&path, size)?, size, &stop, PAUSES));
        // Without a thread it is made when it is needed.
        self.made = thread.ok();
    }

    /// Makes a segment of it, as far as it is written, and one of `size` bytes if there is none. That is
    /// not durable before the directory is synced.
    pub(super) fn take(&mut self, segment: &Path, size: u64) -> io::Result<File> {
        // Where it has failed there may be space by now.
        if !self.end() {
            reserve(&self.path, size)?;
        }
        rename(&self.path, segment)
    }

    /// Ends the thread. Whether there is a file.
    fn end(&mut self) -> bool {
        self.stop.store(true, Ordering::Relaxed);
        self.made.take().is_some_and(|thread| {
            thread.thread().unpark();
            matches!(thread.join(), Ok(Ok(())))
        })
    }
}

/// Gives a file the name of a segment. That is not durable before the directory is synced.
pub(super) fn rename(file: &Path, segment: &Path) -> io::Result<File> {
    fs::rename(file, segment)?;
    File::options().read(true).write(true).open(segment)
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.end();
    }
}

/// Makes a file of zeroes, durably but for its name.
pub(super) fn make(path: &Path, size: u64) -> io::Result<File> {
    let file = reserve(path, size)?;
    write_zeroes(&file, size, &AtomicBool::new(false), 0)?;
    Ok(file)
}

/// Makes a file of this size.
fn reserve(path: &Path, size: u64) -> io::Result<File> {
    let file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    match fallocate(&file, FallocateFlags::empty(), 0, size) {
        // Not all file systems can; then writing may find no space.
        Err(Errno::OPNOTSUPP) => {}
        reserved => reserved?,
    }
    file.sync_all()?;
    Ok(file)
}

/// Writes the blocks of a file, until it is told to stop. Pauses are `pauses` times as long as writes.
fn write_zeroes(file: &File, size: u64, stop: &AtomicBool, pauses: u32) -> io::Result<()> {
    let zeroes = [0; WRITE_BYTES as usize];
    for at in (0..size).step_by(WRITE_BYTES as usize) {
        let started = Instant::now();
        let count = WRITE_BYTES.min(size - at) as usize;
        file.write_all_at(&zeroes[..count], at)?;
        file.sync_data()?;
        thread::park_timeout(started.elapsed() * pauses);
        if stop.load(Ordering::Relaxed) {
            break;
        }
    }
    Ok(())
}
