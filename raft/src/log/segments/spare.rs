//! The file that a log's next segment is made of, made beforehand: writing its blocks takes longer than
//! any append should wait.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

/// Bytes that are written at once.
const WRITE_BYTES: usize = 64 * 1024;
/// Bytes between two syncs: the log's own syncs have to wait for what the kernel has not yet written.
const SYNC_BYTES: u64 = 1024 * 1024;

/// A file of no segment, or the lack of one. Dropping it waits until nothing is being written.
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
        let (path, stop) = (self.path.clone(), self.stop.clone());
        let thread = thread::Builder::new()
            .name("raft-spare".into())
            .spawn(move || fill(&path, size, &stop).map(drop));
        // Without a thread it is made when it is needed.
        self.made = thread.ok();
    }

    /// Makes a segment of it, and one of `size` bytes if there is none. That is not durable before the
    /// directory is synced.
    pub(super) fn take(&mut self, segment: &Path, size: u64) -> io::Result<File> {
        // Where it has failed there may be space by now.
        let made = self
            .made
            .take()
            .is_some_and(|thread| matches!(thread.join(), Ok(Ok(()))));
        if !made {
            fill(&self.path, size, &self.stop)?;
        }
        rename(&self.path, segment)
    }
}

/// Gives a file the name of a segment. That is not durable before the directory is synced.
pub(super) fn rename(file: &Path, segment: &Path) -> io::Result<File> {
    fs::rename(file, segment)?;
    File::options().read(true).write(true).open(segment)
}

impl Drop for Spare {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.made.take() {
            // Whether it was made does not matter any more.
            let _ = thread.join();
        }
    }
}

/// Makes a file of zeroes, durably but for its name.
pub(super) fn make(path: &Path, size: u64) -> io::Result<File> {
    fill(path, size, &AtomicBool::new(false))
}

fn fill(path: &Path, size: u64, stop: &AtomicBool) -> io::Result<File> {
    let mut file = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    let zeroes = [0; WRITE_BYTES];
    let mut written = 0;
    while written < size {
        if stop.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let count = zeroes.len().min((size - written) as usize);
        file.write_all(&zeroes[..count])?;
        written += count as u64;
        if written % SYNC_BYTES == 0 {
            file.sync_data()?;
        }
    }
    file.sync_all()?;
    Ok(file)
}
