//! The Unix socket of the control API.

use std::{
    fs, io,
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixSocket};

/// Bytes that the path of a Unix socket may have (`sun_path` less its closing zero).
pub const MAX_PATH_BYTES: usize = 107;

/// Connections that may wait to be accepted.
const BACKLOG: u32 = 1024;

/// Why the socket cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system allows no such long paths.
    #[error(
        "control socket path {} has {} bytes, more than the {MAX_PATH_BYTES} that a Unix socket may \
         have; choose a shorter one with --listen-control-api", path.display(), path.as_os_str().len()
    )]
    TooLong {
        /// The path.
        path: PathBuf,
    },
    /// Another process answers on it.
    #[error(
        "control socket {} is in use by another process; stop that one or choose another with \
         --listen-control-api", path.display()
    )]
    InUse {
        /// The path.
        path: PathBuf,
    },
    /// Anything else.
    #[error(
        "control socket {} cannot be made: {source}; choose another place with \
         --listen-control-api", path.display()
    )]
    Unusable {
        /// The path.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// Listens on `path`, for the owner only. A socket that a dead process left there is replaced.
pub fn bind(path: &Path) -> Result<UnixListener, Error> {
    let path = path.to_owned();
    if path.as_os_str().len() > MAX_PATH_BYTES {
        return Err(Error::TooLong { path });
    }
    if let Err(source) = remove_dead(&path) {
        return Err(match source.kind() {
            io::ErrorKind::AddrInUse => Error::InUse { path },
            _ => Error::Unusable { path, source },
        });
    }
    let bound = path
        .parent()
        .map_or(Ok(()), fs::create_dir_all)
        .and_then(|()| reserve(&path))
        .and_then(|socket| socket.listen(BACKLOG));
    bound.map_err(|source| Error::Unusable { path, source })
}

/// A socket at `path` that takes no connections yet: nobody gets in before the permissions are
/// right.
fn reserve(path: &Path) -> io::Result<UnixSocket> {
    let socket = UnixSocket::new_stream()?;
    socket.bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(socket)
}

/// Removes the socket at `path` after its listener was closed; one that another process answers on is
/// left alone.
pub fn remove(path: &Path) {
    // What stays is replaced by the next start.
    let _ = remove_dead(path);
}

/// Removes a socket that nobody answers on. Anything else at the path is left alone.
fn remove_dead(path: &Path) -> io::Result<()> {
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::other("something that is not a socket is there"));
    }
    match std::os::unix::net::UnixStream::connect(path) {
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
        Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(err) => Err(err),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_owner_gets_in_and_dead_sockets_are_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let first = bind(&path).unwrap();
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert!(matches!(bind(&path), Err(Error::InUse { .. })));
        drop(first);
        bind(&path).unwrap();
    }

    #[tokio::test]
    async fn nobody_connects_before_the_permissions_are_right() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s.sock");
        let socket = reserve(&path).unwrap();
        let early = std::os::unix::net::UnixStream::connect(&path).unwrap_err();
        assert_eq!(early.kind(), io::ErrorKind::ConnectionRefused);
        let _listener = socket.listen(BACKLOG).unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
    }

    #[tokio::test]
    async fn long_paths_and_other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(120));
        assert!(matches!(bind(&long), Err(Error::TooLong { .. })));
        let file = dir.path().join("file");
        fs::write(&file, "precious").unwrap();
        assert!(matches!(bind(&file), Err(Error::Unusable { .. })));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    }
}
