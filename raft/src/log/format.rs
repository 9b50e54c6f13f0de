//! The file that says how a log is laid out, so that one of a newer version is left alone.
//!
//! It is the first file of a log and replaced as a whole. It also keeps what was seen of a log before
//! sled opened it: sled may wipe what shows that the log is damaged.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::LogKind;
use crate::Error;

const TITLE: &str = "skep raft log, format";
/// Bytes that are read of it. It has less than a hundred.
const MAX_BYTES: u64 = 1024;

/// What the file says.
#[derive(Debug)]
pub(crate) struct Format {
    dir: PathBuf,
    pub(super) kind: LogKind,
    /// The log's own random number.
    pub(super) id: u64,
    /// Highest number of a record's first piece that a start has found in sled's file.
    seen: Option<u64>,
}

impl Format {
    /// Reads the file in a log's directory, or makes it if the log is new.
    pub(super) fn open(dir: &Path, new: LogKind) -> Result<Self, Error> {
        match read(&path(dir)) {
            Ok(text) => Self::parse(dir, &text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if LogKind::ALL.into_iter().any(|kind| kind.is_in(dir)) {
                    let reason = "its file `format` is missing";
                    return Err(Error::damaged(dir, 1, reason));
                }
                let format = Self {
                    dir: dir.to_owned(),
                    kind: new,
                    id: rand::random(),
                    seen: None,
                };
                format.write()?;
                Ok(format)
            }
            Err(error) => Err(Error::log("read format")(error)),
        }
    }

    /// Notes the highest number of a piece that was found in sled's file. Returns the highest ever.
    pub(super) fn note(&mut self, seen: Option<u64>) -> Result<Option<u64>, Error> {
        if seen > self.seen {
            self.seen = seen;
            self.write()?;
        }
        Ok(self.seen)
    }

    pub(crate) fn parse(dir: &Path, text: &str) -> Result<Self, Error> {
        let damaged = || Error::damaged(dir, 1, "its file `format` makes no sense");
        let mut lines = text.lines();
        let version = lines.next().and_then(|line| line.strip_prefix(TITLE));
        let version: u64 = version
            .and_then(|version| version.trim().parse().ok())
            .ok_or_else(damaged)?;
        let kind = match version {
            1 => LogKind::Sled,
            2 => LogKind::Segments,
            _ => {
                return Err(Error::Newer {
                    dir: dir.to_owned(),
                    found: version,
                    known: 2,
                });
            }
        };
        let mut value = |name: &str| lines.next()?.strip_prefix(name)?.strip_prefix(' ');
        let id = value("id").and_then(|id| u64::from_str_radix(id, 16).ok());
        let seen = value("seen").and_then(|seen| match seen {
            "nothing" => Some(None),
            number => number.parse().ok().map(Some),
        });
        Ok(Self {
            dir: dir.to_owned(),
            kind,
            id: id.ok_or_else(damaged)?,
            seen: seen.ok_or_else(damaged)?,
        })
    }

    fn write(&self) -> Result<(), Error> {
        let seen = match self.seen {
            Some(number) => number.to_string(),
            None => "nothing".into(),
        };
        let version = match self.kind {
            LogKind::Sled => 1,
            LogKind::Segments => 2,
        };
        let text = format!("{TITLE} {version}\nid {:016x}\nseen {seen}\n", self.id);
        replace(&path(&self.dir), &self.dir, &text).map_err(Error::log("write format"))
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("format")
}

fn read(path: &Path) -> io::Result<String> {
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn replace(path: &Path, dir: &Path, text: &str) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(dir)?.sync_all()
}
