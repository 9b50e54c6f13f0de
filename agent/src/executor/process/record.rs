//! What a task's directory tells the next daemon about its process.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use super::procfs;
use crate::disk;

/// A record is some hundred bytes.
const MAX_FILE: u64 = 64 << 10;

/// A process, identified beyond the reuse of its number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The kernel's ID of this boot: a number says nothing in another one.
    pub(super) boot_id: String,
    /// The process, absent between the decision to start it and the knowledge of its number.
    pub(super) process: Option<Process>,
}

/// The number of a process and when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Process {
    pub(super) pid: i32,
    /// Field 22 of `/proc/<pid>/stat`: clock ticks since the boot.
    pub(super) start_time: u64,
}

impl Process {
    /// The process `pid` as it is now, `None` if there is none.
    pub(super) fn of(pid: Pid) -> Option<Self> {
        let stat = procfs::stat(pid)?;
        Some(Self {
            pid: pid.as_raw_nonzero().get(),
            start_time: stat.start_time,
        })
    }

    pub(super) fn pid(self) -> Option<Pid> {
        if self.pid > 0 {
            Pid::from_raw(self.pid)
        } else {
            None
        }
    }
}

impl Record {
    /// Of a start that is about to happen.
    pub(super) fn starting() -> io::Result<Self> {
        Ok(Self {
            boot_id: procfs::boot_id()?,
            process: None,
        })
    }

    /// The record in a task's directory.
    pub(crate) fn load(dir: &Path) -> io::Result<Option<Self>> {
        match disk::read(&path(dir), MAX_FILE)? {
            Some(bytes) => Ok(Some(serde_json::from_slice(&bytes)?)),
            None => Ok(None),
        }
    }

    /// Writes the record into a task's directory.
    pub(super) fn save(&self, dir: &Path) -> io::Result<()> {
        disk::write(&path(dir), &serde_json::to_vec(self)?)
    }
}

fn path(dir: &Path) -> PathBuf {
    dir.join("process.json")
}
