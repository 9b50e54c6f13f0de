//! What this machine takes for a replicated write at the least: making a small record durable, and a round
//! trip over loopback. Measured beside the writes, so that both meet the same neighbours.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::FileExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

/// Size of a record: about that of one entry of the log.
const RECORD: usize = 512;
/// The file is written in advance, so that no record makes it grow.
const RECORDS: u64 = 1024;

/// Medians.
#[derive(Clone, Copy, Debug)]
pub struct Floor {
    /// Of writing a record into a file of its full size and `fdatasync`.
    pub durable: Duration,
    /// Of sending a record to a thread over TCP and getting it back.
    pub round_trip: Duration,
}

/// Measures both `rounds` times, with a file in `dir`.
pub fn measure(dir: &Path, rounds: usize) -> io::Result<Floor> {
    let file = tempfile::tempfile_in(dir)?;
    Ok(Floor {
        durable: durable(&file, rounds)?,
        round_trip: round_trip(rounds)?,
    })
}

fn durable(file: &File, rounds: usize) -> io::Result<Duration> {
    file.write_all_at(&vec![0; RECORD * RECORDS as usize], 0)?;
    file.sync_all()?;
    let mut number = 0;
    median(rounds, || {
        number += 1;
        let at = number % RECORDS * RECORD as u64;
        file.write_all_at(&[number as u8; RECORD], at)?;
        file.sync_data()
    })
}

fn round_trip(rounds: usize) -> io::Result<Duration> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let mut near = TcpStream::connect(listener.local_addr()?)?;
    let (mut far, _) = listener.accept()?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    thread::scope(|scope| {
        scope.spawn(move || {
            let mut record = [0; RECORD];
            // Until the near end is closed.
            while far.read_exact(&mut record).is_ok() && far.write_all(&record).is_ok() {}
        });
        let mut record = [0; RECORD];
        let median = median(rounds, || {
            near.write_all(&record)?;
            near.read_exact(&mut record)
        });
        drop(near);
        median
    })
}

fn median(rounds: usize, mut once: impl FnMut() -> io::Result<()>) -> io::Result<Duration> {
    let mut times = Vec::with_capacity(rounds);
    for _ in 0..rounds.max(1) {
        let start = Instant::now();
        once()?;
        times.push(start.elapsed());
    }
    times.sort_unstable();
    Ok(times[times.len() / 2])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_is_free() {
        let dir = tempfile::tempdir().unwrap();
        let floor = measure(dir.path(), 20).unwrap();
        assert!(floor.durable > Duration::ZERO && floor.round_trip > Duration::ZERO);
    }
}
