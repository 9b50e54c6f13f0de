//! What tasks write: collected while they run, kept on disk within bounds, read again.
//!
//! A task writes to two named pipes in its directory and holds them open for reading too, so they
//! outlive the daemon: when it is away, what is written waits in the pipe, and the next daemon reads
//! on. Only when a pipe is full does the task wait. What is read is stamped with the time and kept
//! in files that are rotated by size.

mod collector;
mod files;
pub(crate) mod line;
mod options;
pub(crate) mod pieces;
mod reader;

pub(crate) use self::reader::read;
pub(super) use self::{
    collector::{Collector, Pipes},
    options::Options,
};

use std::{fs, io, path::Path};

/// The file whose existence says that nothing more will be written.
pub(crate) const END: &str = "log.end";

/// Notes that the task has written all that it will.
pub(super) fn end(dir: &Path) -> io::Result<()> {
    match fs::write(dir.join(END), "") {
        // Of a task that is removed nobody reads.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        written => written,
    }
}

/// Notes that the task may write.
fn begin(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join(END)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
