//! The files of a log: `log` is written, `log.1` is the one before it, and so on.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use super::Options;

/// The `age`-th file before the one that is written.
fn path(dir: &Path, age: usize) -> PathBuf {
    match age {
        0 => dir.join("log"),
        age => dir.join(format!("log.{age}")),
    }
}

/// The end of a log. One at a time; methods block.
#[derive(Debug)]
pub(super) struct Writer {
    dir: PathBuf,
    options: Options,
    file: File,
    size: u64,
}

impl Writer {
    /// Goes on with the log in `dir`, or begins it.
    pub(super) fn open(dir: &Path, options: Options) -> io::Result<Self> {
        let mut file = open_append(&path(dir, 0))?;
        let mut size = file.metadata()?.len();
        if size > 0 {
            // A daemon that was killed may have left half a line.
            let mut last = [0];
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
            if last != *b"\n" {
                file.write_all(b"\n")?;
                size += 1;
            }
        }
        Ok(Self {
            dir: dir.to_owned(),
            options,
            file,
            size,
        })
    }

    /// Appends whole lines.
    pub(super) fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let mut start = 0;
        let mut end = 0;
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            let length = (end - start) as u64;
            if self.size + length > 0
                && self.size + length + line.len() as u64 > self.options.max_size
            {
                self.file.write_all(&lines[start..end])?;
                self.rotate()?;
                start = end;
            }
            end += line.len();
        }
        self.file.write_all(&lines[start..end])?;
        self.size += (end - start) as u64;
        Ok(())
    }

    fn rotate(&mut self) -> io::Result<()> {
        // The last one goes, and so do those of an earlier daemon that kept more.
        let mut age = self.options.max_files - 1;
        while fs::exists(path(&self.dir, age))? {
            fs::remove_file(path(&self.dir, age))?;
            age += 1;
        }
        for age in (0..self.options.max_files - 1).rev() {
            match fs::rename(path(&self.dir, age), path(&self.dir, age + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = open_append(&path(&self.dir, 0))?;
        self.size = 0;
        Ok(())
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .mode(0o600)
        .open(path)
}

/// All files of the log in `dir` as they are now, oldest first, each with its number.
pub(super) fn open_all(dir: &Path) -> io::Result<Vec<(u64, File)>> {
    loop {
        let mut files: Vec<(u64, File)> = Vec::new();
        let newest = number(&path(dir, 0))?;
        for age in 0.. {
            match File::open(path(dir, age)) {
                Ok(file) => files.push((file.metadata()?.ino(), file)),
                // Between two of them, when they are being turned over, there may be no newest one.
                Err(error) if error.kind() == io::ErrorKind::NotFound && age == 0 => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(error),
            }
        }
        // Were they turned over meanwhile, one may be missing or here twice.
        if number(&path(dir, 0))? == newest {
            files.reverse();
            return Ok(files);
        }
    }
}

/// The number of the file that is written now, `None` if there is none.
pub(super) fn current(dir: &Path) -> io::Result<Option<u64>> {
    number(&path(dir, 0))
}

fn number(path: &Path) -> io::Result<Option<u64>> {
    match fs::metadata(path) {
        Ok(metadata) => Ok(Some(metadata.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}
