//! Reads what a task writes and keeps it, from the start of the task to its end.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use jiff::Timestamp;
use rustix::{
    fs::{CWD, Mode, OFlags, mkfifoat},
    pipe::fcntl_setpipe_size,
};
use skep_proto::v1::LogStream;
use tokio::{
    net::unix::pipe::Receiver,
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::{Options, files::Writer, pieces::Pieces};

/// What waits for a daemon that is away: four times the kernel's default.
const PIPE_SIZE: usize = 256 << 10;
/// Read at once from one stream.
const CHUNK: usize = 64 << 10;
/// How long a line without an end waits for the rest of it.
const PATIENCE: Duration = Duration::from_secs(1);
/// How much is still read of a task that has ended, whose leftovers may go on writing.
const LAST_WORDS: usize = 4 * PIPE_SIZE;
/// How long nothing is read after the disk refused a line: it may be full.
const DISK_RETRY: Duration = Duration::from_secs(1);

/// Our ends of a task's pipes.
#[derive(Debug)]
pub(in super::super) struct Pipes {
    stdout: File,
    stderr: File,
}

/// The task's ends.
#[derive(Debug)]
pub(in super::super) struct Ends {
    pub(in super::super) stdout: File,
    pub(in super::super) stderr: File,
}

impl Pipes {
    /// Makes the pipes of a task that is about to start, which may run as `owner` (uid, gid).
    pub(in super::super) fn make(
        dir: &Path,
        owner: Option<(u32, u32)>,
    ) -> io::Result<(Self, Ends)> {
        super::begin(dir)?;
        let make = |name: &str| {
            let path = dir.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
            mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR)?;
            if let Some((uid, gid)) = owner {
                // Programs open `/dev/stdout` anew.
                std::os::unix::fs::chown(&path, Some(uid), Some(gid))?;
            }
            let ours = open(&path, OFlags::NONBLOCK)?;
            // A smaller one does too: the user's share may be used up.
            let _ = fcntl_setpipe_size(&ours, PIPE_SIZE);
            Ok((ours, open(&path, OFlags::empty())?))
        };
        let (stdout, their_stdout) = make("stdout")?;
        let (stderr, their_stderr) = make("stderr")?;
        let ends = Ends {
            stdout: their_stdout,
            stderr: their_stderr,
        };
        Ok((Self { stdout, stderr }, ends))
    }

    /// The pipes of a task that an earlier daemon started, `None` if it made none.
    pub(in super::super) fn find(dir: &Path) -> io::Result<Option<Self>> {
        let find = |name: &str| match open(&dir.join(name), OFlags::NONBLOCK) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        };
        Ok(find("stdout")?
            .zip(find("stderr")?)
            .map(|(stdout, stderr)| Self { stdout, stderr }))
    }
}

/// Opens a pipe in both directions: so it neither waits for nor depends on the other side.
fn open(path: &Path, flags: OFlags) -> io::Result<File> {
    let flags = i32::try_from(flags.bits()).expect("the flags of the kernel are small numbers");
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path)
}

/// Collects the output of one task; dropping it ends that, and the task writes into the pipes.
#[derive(Debug)]
pub(in super::super) struct Collector {
    ended: Option<oneshot::Sender<()>>,
    work: JoinHandle<()>,
}

impl Collector {
    /// Starts to collect into the log in `dir`.
    pub(in super::super) fn start(dir: &Path, options: Options, pipes: Pipes) -> io::Result<Self> {
        let (ended, told) = oneshot::channel();
        let work = Work {
            writer: Some(Writer::open(dir, options)?),
            dir: dir.to_owned(),
            stdout: Stream::new(pipes.stdout, LogStream::Stdout)?,
            stderr: Stream::new(pipes.stderr, LogStream::Stderr)?,
        };
        Ok(Self {
            ended: Some(ended),
            work: tokio::spawn(work.run(told)),
        })
    }

    /// After the end of the task: keeps what is left in the pipes, and notes that it was all.
    pub(in super::super) async fn finish(&mut self) {
        drop(self.ended.take());
        // Of a panic the log of the daemon tells.
        let _ = (&mut self.work).await;
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.work.abort();
    }
}

struct Work {
    /// Away while a thread writes.
    writer: Option<Writer>,
    dir: std::path::PathBuf,
    stdout: Stream,
    stderr: Stream,
}

impl Work {
    async fn run(mut self, mut ended: oneshot::Receiver<()>) {
        let mut lines = Vec::new();
        loop {
            let due = [&self.stdout, &self.stderr]
                .iter()
                .filter_map(|stream| stream.due())
                .min();
            tokio::select! {
                () = self.stdout.readable() => { self.stdout.try_read(&mut lines); },
                () = self.stderr.readable() => { self.stderr.try_read(&mut lines); },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    self.stdout.flush(&mut lines);
                    self.stderr.flush(&mut lines);
                }
                _ = &mut ended => break,
            }
            self.write(&mut lines).await;
        }
        for stream in [&mut self.stdout, &mut self.stderr] {
            stream.rest(&mut lines);
        }
        self.write(&mut lines).await;
        if let Err(error) = super::end(&self.dir) {
            tracing::error!(dir = %self.dir.display(), %error, "cannot end a task's log");
        }
    }

    /// Writes all of `lines`, however long that takes: the task waits meanwhile. What the disk
    /// refuses is lost, and told.
    async fn write(&mut self, lines: &mut Vec<u8>) {
        if lines.is_empty() {
            return;
        }
        let Some(mut writer) = self.writer.take() else {
            return lines.clear();
        };
        let taken = std::mem::take(lines);
        let written = tokio::task::spawn_blocking(move || {
            let done = writer.write(&taken);
            (writer, taken, done)
        });
        let Ok((writer, mut taken, done)) = written.await else {
            return;
        };
        self.writer = Some(writer);
        taken.clear();
        *lines = taken;
        if let Err(error) = done {
            tracing::error!(dir = %self.dir.display(), %error, "cannot keep what a task wrote");
            tokio::time::sleep(DISK_RETRY).await;
        }
    }
}

/// One of the two streams.
struct Stream {
    pipe: Receiver,
    pieces: Pieces,
    /// When a line without an end began to wait.
    since: Option<Instant>,
}

impl Stream {
    fn new(pipe: File, name: LogStream) -> io::Result<Self> {
        Ok(Self {
            pipe: Receiver::from_file(pipe)?,
            pieces: Pieces::new(name),
            since: None,
        })
    }

    /// When the piece of a line has waited long enough.
    fn due(&self) -> Option<Instant> {
        self.since.map(|since| since + PATIENCE)
    }

    async fn readable(&self) {
        if self.pipe.readable().await.is_err() {
            // The runtime goes away.
            std::future::pending::<()>().await;
        }
    }

    /// Appends the whole lines among what is there to `lines`.
    fn try_read(&mut self, lines: &mut Vec<u8>) {
        let mut chunk = vec![0; CHUNK];
        let read = self.pipe.try_read(&mut chunk).unwrap_or_default();
        self.take(&chunk[..read], lines);
    }

    /// What is left of a task that has ended, and the line it never ended.
    fn rest(&mut self, lines: &mut Vec<u8>) {
        let mut total = 0;
        let mut chunk = vec![0; CHUNK];
        // Past the runtime, which may not know yet that there is something.
        while let Ok(read @ 1..) = rustix::io::read(&self.pipe, &mut chunk) {
            self.take(&chunk[..read], lines);
            total += read;
            if total >= LAST_WORDS {
                break;
            }
        }
        self.piece_to(lines);
    }

    fn take(&mut self, bytes: &[u8], lines: &mut Vec<u8>) {
        self.pieces.take(bytes, Timestamp::now(), lines);
        match self.pieces.waits() {
            true => self.since = self.since.or_else(|| Some(Instant::now())),
            false => self.since = None,
        }
    }

    /// Gives up waiting for the end of the line if it has waited long enough.
    fn flush(&mut self, lines: &mut Vec<u8>) {
        if self.due().is_some_and(|due| due <= Instant::now()) {
            self.piece_to(lines);
        }
    }

    fn piece_to(&mut self, lines: &mut Vec<u8>) {
        self.pieces.flush(Timestamp::now(), lines);
        self.since = None;
    }
}
