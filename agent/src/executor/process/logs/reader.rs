//! Reads a log again, also while it is written and turned over.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::stream::{self, BoxStream, StreamExt as _};
use skep_proto::v1::{LogStream, LogSubscriptionOptions};
use tokio::time::sleep;

use super::{END, files, line};
use crate::executor::{Failure, LogLine};

/// Read at once.
const CHUNK: u64 = 64 << 10;
/// Longer than any line that is written here; what is longer is damage.
const MAX_LINE: usize = 64 << 10;
/// How often a log that is followed is looked at: often after something came, seldom after a while.
const LOOK: Duration = Duration::from_millis(50);
const SELDOM: Duration = Duration::from_secs(1);

/// The lines of the log in `dir` that `options` ask for.
pub(crate) fn read(
    dir: PathBuf,
    options: LogSubscriptionOptions,
) -> BoxStream<'static, Result<LogLine, Failure>> {
    let reader = Reader {
        dir,
        wanted: Wanted::new(&options),
        // -(n + 1), and nothing is everything.
        tail: (options.tail < 0).then(|| options.tail.unsigned_abs() - 1),
        follow: options.follow,
        files: None,
        rest: Vec::new(),
        lines: VecDeque::new(),
    };
    stream::unfold(Some(reader), |reader| async {
        let mut reader = reader?;
        match reader.next().await {
            Ok(Some(line)) => Some((Ok(line), Some(reader))),
            Ok(None) => None,
            Err(error) => {
                let failure = Failure::Fatal(format!("cannot read the log: {error}"));
                Some((Err(failure), None))
            }
        }
    })
    .boxed()
}

/// Which lines.
#[derive(Clone, Debug)]
struct Wanted {
    since: (i64, i32),
    stdout: bool,
    stderr: bool,
}

impl Wanted {
    fn new(options: &LogSubscriptionOptions) -> Self {
        let has = |stream| options.streams.is_empty() || options.streams.contains(&(stream as i32));
        let since = options.since.as_ref();
        Self {
            since: since.map_or((i64::MIN, 0), |since| (since.seconds, since.nanos)),
            stdout: has(LogStream::Stdout),
            stderr: has(LogStream::Stderr),
        }
    }

    fn has(&self, line: &LogLine) -> bool {
        let stream = match line.stream {
            LogStream::Stdout => self.stdout,
            _ => self.stderr,
        };
        stream && (line.timestamp.seconds, line.timestamp.nanos) >= self.since
    }
}

struct Reader {
    dir: PathBuf,
    wanted: Wanted,
    /// Still to be found: where the last so many lines begin.
    tail: Option<u64>,
    follow: bool,
    /// What is still to be read, oldest first; `None` before the start. The last one is the one
    /// that is written, or was.
    files: Option<VecDeque<(u64, File)>>,
    /// A line whose end was not there yet.
    rest: Vec<u8>,
    /// What was read and is wanted.
    lines: VecDeque<LogLine>,
}

impl Reader {
    async fn next(&mut self) -> io::Result<Option<LogLine>> {
        let mut pause = LOOK;
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Ok(Some(line));
            }
            // The reader is small, and moves to the thread that may block.
            let mut away = std::mem::replace(self, Self::empty());
            let (back, more) = tokio::task::spawn_blocking(move || {
                let more = away.fill();
                (away, more)
            })
            .await
            .map_err(io::Error::other)?;
            *self = back;
            match more? {
                More::Read => pause = LOOK,
                More::Nothing => {
                    sleep(pause).await;
                    pause = (pause * 2).min(SELDOM);
                }
                More::End if self.lines.is_empty() => return Ok(None),
                More::End => {}
            }
        }
    }

    fn empty() -> Self {
        Self {
            dir: PathBuf::new(),
            wanted: Wanted::new(&LogSubscriptionOptions::default()),
            tail: None,
            follow: false,
            files: None,
            rest: Vec::new(),
            lines: VecDeque::new(),
        }
    }

    /// Reads a piece.
    fn fill(&mut self) -> io::Result<More> {
        // Before looking for more: what comes before the end is read in any case.
        let over = !self.follow || is_over(&self.dir);
        if self.files.is_none() {
            let mut files: VecDeque<_> = files::open_all(&self.dir)?.into();
            if files.is_empty() {
                return Ok(if over { More::End } else { More::Nothing });
            }
            if let Some(tail) = self.tail.take() {
                let all = count(&files, &self.wanted)?;
                skip(&mut files, &self.wanted, all.saturating_sub(tail))?;
            }
            self.files = Some(files);
        }
        let Some(files) = &mut self.files else {
            return Ok(More::End);
        };
        while let Some(&mut (number, ref mut file)) = files.front_mut() {
            // Before reading: if it was turned over, what is read now is all that it will have.
            let newer = files_behind(number, &self.dir)?;
            if more(file, &mut self.rest)? {
                let wanted = &self.wanted;
                let lines = &mut self.lines;
                split(&mut self.rest, |line| {
                    if wanted.has(&line) {
                        lines.push_back(line);
                    }
                });
                return Ok(More::Read);
            }
            if files.len() > 1 {
                files.pop_front();
                self.rest.clear();
                continue;
            }
            if !newer {
                return Ok(if over { More::End } else { More::Nothing });
            }
            // The log was turned over: what is newer than this file comes next, or, if this one is
            // gone already, all there is.
            let all = files::open_all(&self.dir)?;
            let at = all.iter().position(|(other, _)| *other == number);
            let next = at.map_or(0, |at| at + 1);
            if next >= all.len() {
                return Ok(if over { More::End } else { More::Nothing });
            }
            *files = all.into_iter().skip(next).collect();
            self.rest.clear();
        }
        Ok(More::End)
    }
}

enum More {
    Read,
    /// Not now.
    Nothing,
    End,
}

/// Whether nothing more will be written.
fn is_over(dir: &Path) -> bool {
    dir.join(END).exists() || !dir.exists()
}

/// Whether a file is not the one that is written any more.
fn files_behind(number: u64, dir: &Path) -> io::Result<bool> {
    Ok(files::current(dir)?.is_some_and(|current| current != number))
}

/// Reads a piece behind `rest`; whether there was any.
fn more(file: &File, rest: &mut Vec<u8>) -> io::Result<bool> {
    Ok(file.take(CHUNK).read_to_end(rest)? > 0)
}

/// Takes the whole lines out of `rest`.
fn split(rest: &mut Vec<u8>, mut each: impl FnMut(LogLine)) {
    let mut start = 0;
    while let Some(length) = memchr::memchr(b'\n', &rest[start..]) {
        if let Some(line) = line::decode(&rest[start..start + length]) {
            each(line);
        }
        start += length + 1;
    }
    rest.drain(..start);
    if rest.len() > MAX_LINE {
        rest.clear();
    }
}

/// How many wanted lines there are. The files stay at their starts.
fn count(files: &VecDeque<(u64, File)>, wanted: &Wanted) -> io::Result<u64> {
    let mut count = 0;
    for (_, file) in files {
        let mut file = file;
        let mut rest = Vec::new();
        while more(file, &mut rest)? {
            split(&mut rest, |line| count += u64::from(wanted.has(&line)));
        }
        file.seek(SeekFrom::Start(0))?;
    }
    Ok(count)
}

/// Moves the files behind so many wanted lines.
fn skip(files: &mut VecDeque<(u64, File)>, wanted: &Wanted, mut lines: u64) -> io::Result<()> {
    while lines > 0 {
        let Some((_, file)) = files.front_mut() else {
            return Ok(());
        };
        let mut at = 0_u64;
        let mut rest = Vec::new();
        while more(file, &mut rest)? {
            let mut start = 0;
            while lines > 0
                && let Some(length) = memchr::memchr(b'\n', &rest[start..])
            {
                let line = line::decode(&rest[start..start + length]);
                lines -= u64::from(line.is_some_and(|line| wanted.has(&line)));
                start += length + 1;
            }
            if rest.len() - start > MAX_LINE {
                start = rest.len();
            }
            rest.drain(..start);
            at += start as u64;
            if lines == 0 {
                file.seek(SeekFrom::Start(at))?;
                return Ok(());
            }
        }
        if files.len() == 1 {
            return Ok(());
        }
        files.pop_front();
    }
    Ok(())
}
