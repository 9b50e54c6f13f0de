//! Makes lines of a log out of what comes from a pipe, however it is cut up.

use jiff::Timestamp;
use skep_proto::v1::LogStream;

use super::line::{self, MAX_PIECE};

/// A stream, and its line that has no end yet.
#[derive(Debug)]
pub(crate) struct Pieces {
    stream: LogStream,
    /// At most [`MAX_PIECE`] bytes.
    piece: Vec<u8>,
}

impl Pieces {
    pub(crate) fn new(stream: LogStream) -> Self {
        Self {
            stream,
            piece: Vec::new(),
        }
    }

    /// Whether a line waits for its end.
    pub(crate) fn waits(&self) -> bool {
        !self.piece.is_empty()
    }

    /// Appends to `lines` the lines that end in `bytes`, and long ones in pieces.
    pub(crate) fn take(&mut self, bytes: &[u8], now: Timestamp, lines: &mut Vec<u8>) {
        for mut line in bytes.split_inclusive(|&byte| byte == b'\n') {
            let end = usize::from(line.ends_with(b"\n"));
            while self.piece.len() + line.len() - end > MAX_PIECE {
                let (head, tail) = line.split_at(MAX_PIECE - self.piece.len());
                self.piece.extend_from_slice(head);
                line::encode(lines, now, self.stream, &self.piece);
                self.piece.clear();
                line = tail;
            }
            if end == 1 && self.piece.is_empty() {
                line::encode(lines, now, self.stream, line);
                continue;
            }
            self.piece.extend_from_slice(line);
            if end == 1 {
                line::encode(lines, now, self.stream, &self.piece);
                self.piece.clear();
            }
        }
        if self.piece.is_empty() {
            self.piece.shrink_to(0);
        }
    }

    /// Appends the piece that waits, as it is.
    pub(crate) fn flush(&mut self, now: Timestamp, lines: &mut Vec<u8>) {
        if self.waits() {
            line::encode(lines, now, self.stream, &self.piece);
        }
        self.piece = Vec::new();
    }
}

/// What comes out of it is what went in: each line says a piece of it.
///
/// # Panics
/// If it is not so.
pub(crate) fn check<'a>(chunks: impl Iterator<Item = &'a [u8]>) {
    let (mut pieces, now) = (Pieces::new(LogStream::Stdout), Timestamp::UNIX_EPOCH);
    let (mut lines, mut taken) = (Vec::new(), Vec::new());
    for chunk in chunks {
        pieces.take(chunk, now, &mut lines);
        taken.extend_from_slice(chunk);
        assert!(pieces.piece.len() <= MAX_PIECE, "memory is bounded");
    }
    pieces.flush(now, &mut lines);
    let mut told = Vec::new();
    for line in lines.split_inclusive(|&byte| byte == b'\n') {
        let line = line.strip_suffix(b"\n").expect("all lines have ends");
        let line = line::decode(line).expect("what is written can be read");
        assert!(line.data.len() <= MAX_PIECE + 1);
        told.extend_from_slice(&line.data);
    }
    assert!(told == taken, "something is lost or added");
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_may_be_cut_anywhere_around_the_longest_piece() {
        for first in [MAX_PIECE - 1, MAX_PIECE, MAX_PIECE + 1, 2 * MAX_PIECE + 1] {
            for rest in ["\n", "x", "x\n", "xx\ny"] {
                let first = vec![b'x'; first];
                check([&first[..], rest.as_bytes()].into_iter());
            }
        }
    }

    proptest! {
        #[test]
        fn nothing_is_lost(sizes in prop::collection::vec((0..3 * MAX_PIECE, any::<bool>()), 0..6)) {
            let chunks: Vec<_> = sizes.iter().map(|&(size, ends)| {
                let mut chunk = vec![b'x'; size];
                if ends {
                    chunk.push(b'\n');
                }
                chunk
            }).collect();
            check(chunks.iter().map(Vec::as_slice));
        }
    }
}
