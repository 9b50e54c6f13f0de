//! Credentials on disk, under the file names of SwarmKit.
//!
//! Three files change together but a rename moves one. So all three are first written and synced
//! under temporary names, then renamed. If the final files do not belong together, a crash came
//! between the renames, and what is still under temporary names completes the new set.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::Path,
};

use super::{Credentials, Expired};
use crate::{Error, UnlockKey, crypto::MAX_PEM_BYTES, node_key::KeyFile};

const ROOT: &str = "swarm-root-ca.crt";
const CERT: &str = "swarm-node.crt";
const KEY: &str = "swarm-node.key";

const PUBLIC: u32 = 0o644;
const SECRET: u32 = 0o600;

/// Saves all three; `key` is the whole key file.
pub(crate) fn save(credentials: &Credentials, key: &[u8], dir: &Path) -> Result<(), Error> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(failed("make", dir))?;
    let files = [
        (ROOT, PUBLIC, credentials.root_pem.as_ref()),
        (CERT, PUBLIC, credentials.cert_pem.as_ref()),
        (KEY, SECRET, key),
    ];
    for (name, mode, contents) in files {
        let path = dir.join(temporary(name));
        write(&path, mode, contents).map_err(failed("write", &path))?;
    }
    sync(dir)?;
    for (name, ..) in files {
        commit(dir, name)?;
    }
    sync(dir)
}

/// Saves another key file for the same private key.
pub(crate) fn save_key(key: &[u8], dir: &Path) -> Result<(), Error> {
    let path = dir.join(temporary(KEY));
    write(&path, SECRET, key).map_err(failed("write", &path))?;
    commit(dir, KEY)?;
    sync(dir)
}

pub(super) fn load(
    dir: &Path,
    unlock: Option<&UnlockKey>,
) -> Result<Option<(Credentials, KeyFile)>, Error> {
    let [root, cert, key] = [read(dir, ROOT)?, read(dir, CERT)?, read(dir, KEY)?];
    let saved = match build(dir, &root, &cert, &key, unlock) {
        Ok(loaded) => {
            discard_temporaries(dir);
            return Ok(Some(loaded));
        }
        Err(error) => error,
    };
    // Each file as it would be, had the last save come to its end.
    let newest = |name, current: &Option<Vec<u8>>| -> Result<_, Error> {
        Ok(read(dir, &temporary(name))?.or_else(|| current.clone()))
    };
    let [root, cert, key] = [
        newest(ROOT, &root)?,
        newest(CERT, &cert)?,
        newest(KEY, &key)?,
    ];
    if cert.is_none() && key.is_none() {
        return Ok(None);
    }
    let Ok(loaded) = build(dir, &root, &cert, &key, unlock) else {
        // A first save that never got as far as its first rename left no identity behind.
        let nothing_final = [ROOT, CERT, KEY]
            .iter()
            .all(|name| !dir.join(name).exists());
        return if nothing_final { Ok(None) } else { Err(saved) };
    };
    for name in [ROOT, CERT, KEY] {
        if dir.join(temporary(name)).exists() {
            commit(dir, name)?;
        }
    }
    sync(dir)?;
    Ok(Some(loaded))
}

fn build(
    dir: &Path,
    root: &Option<Vec<u8>>,
    cert: &Option<Vec<u8>>,
    key: &Option<Vec<u8>>,
    unlock: Option<&UnlockKey>,
) -> Result<(Credentials, KeyFile), Error> {
    let present = |file: &Option<Vec<u8>>, missing| {
        file.clone().ok_or_else(|| Error::Incomplete {
            dir: dir.to_owned(),
            missing,
        })
    };
    let (root, cert, key) = (
        present(root, ROOT)?,
        present(cert, CERT)?,
        present(key, KEY)?,
    );
    let key = KeyFile::parse(&key, unlock)?;
    let credentials = Credentials::build(&root, &cert, &key.key_pem(), Expired::Accept)?;
    Ok((credentials, key))
}

fn temporary(name: &str) -> String {
    format!(".{name}")
}

/// Removes what a save that was broken off has left: it may be a key in plain.
fn discard_temporaries(dir: &Path) {
    for path in [ROOT, CERT, KEY].map(|name| dir.join(temporary(name))) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "a left-over file cannot be removed");
            }
            _ => {}
        }
    }
}

fn write(path: &Path, mode: u32, contents: &[u8]) -> io::Result<()> {
    // Made anew, so that a left-over with wider permissions never holds the key.
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)?;
    file.write_all(contents)?;
    file.sync_all()
}

fn commit(dir: &Path, name: &str) -> Result<(), Error> {
    let path = dir.join(name);
    fs::rename(dir.join(temporary(name)), &path).map_err(failed("write", &path))
}

/// Makes the names in `dir` survive a power cut.
fn sync(dir: &Path) -> Result<(), Error> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(failed("sync", dir))
}

fn read(dir: &Path, name: &str) -> Result<Option<Vec<u8>>, Error> {
    let path = dir.join(name);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed("read", &path)(error)),
    };
    let mut contents = Vec::new();
    file.take(MAX_PEM_BYTES as u64 + 1)
        .read_to_end(&mut contents)
        .map_err(failed("read", &path))?;
    Ok(Some(contents))
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::File {
        action,
        path,
        source,
    }
}
