//! A line of a log file: `2006-01-02T15:04:05.123456789Z stdout F text`.
//!
//! It is the form that container runtimes of Kubernetes write, which tools for logs can read. `F` is
//! a whole line, `P` a piece of one, whose next piece follows in the same stream.

use bytes::Bytes;
use jiff::Timestamp;
use skep_proto::v1::LogStream;

use crate::executor::LogLine;

/// Longer lines are kept in pieces of this size.
pub(super) const MAX_PIECE: usize = 16 << 10;

/// Appends a line to `out`; `data` has the line's end in it if there is one.
pub(super) fn encode(out: &mut Vec<u8>, time: Timestamp, stream: LogStream, data: &[u8]) {
    let (text, kind) = match data.strip_suffix(b"\n") {
        Some(text) => (text, 'F'),
        None => (data, 'P'),
    };
    let stream = match stream {
        LogStream::Stderr => "stderr",
        LogStream::Stdout | LogStream::Unknown => "stdout",
    };
    out.extend_from_slice(format!("{time:.9} {stream} {kind} ").as_bytes());
    out.extend_from_slice(text);
    out.push(b'\n');
}

/// The line in `text`, which is without its end; `None` for what is no such line.
pub(crate) fn decode(text: &[u8]) -> Option<LogLine> {
    let mut fields = text.splitn(4, |&byte| byte == b' ');
    let time: Timestamp = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let stream = match fields.next()? {
        b"stdout" => LogStream::Stdout,
        b"stderr" => LogStream::Stderr,
        _ => return None,
    };
    let kind = fields.next()?;
    let mut data = fields.next()?.to_vec();
    match kind {
        b"F" => data.push(b'\n'),
        b"P" => {}
        _ => return None,
    }
    let nanos = time.as_nanosecond();
    Some(LogLine {
        timestamp: skep_proto::Timestamp {
            // Both fit: the time has four digits of years.
            seconds: i64::try_from(nanos.div_euclid(1_000_000_000)).ok()?,
            nanos: i32::try_from(nanos.rem_euclid(1_000_000_000)).ok()?,
        },
        stream,
        data: Bytes::from(data),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_have_a_known_form() {
        let mut out = Vec::new();
        let time: Timestamp = "2026-01-02T03:04:05.6Z".parse().unwrap();
        encode(&mut out, time, LogStream::Stderr, b"a b  c\n");
        encode(&mut out, time, LogStream::Stdout, b"part");
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "2026-01-02T03:04:05.600000000Z stderr F a b  c\n\
             2026-01-02T03:04:05.600000000Z stdout P part\n"
        );
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(data in "[^\n]{0,40}\n?", nanos in 0_i64..i64::MAX, err: bool) {
            let stream = if err { LogStream::Stderr } else { LogStream::Stdout };
            let time = Timestamp::from_nanosecond(nanos.into()).unwrap();
            let mut out = Vec::new();
            encode(&mut out, time, stream, data.as_bytes());
            let line = decode(out.strip_suffix(b"\n").unwrap()).unwrap();
            prop_assert_eq!(line.stream, stream);
            prop_assert_eq!(line.data, data.as_bytes());
            let read = line.timestamp.seconds * 1_000_000_000 + i64::from(line.timestamp.nanos);
            prop_assert_eq!(read, nanos);
        }

        #[test]
        fn any_bytes_are_a_line_or_none(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            let _ = decode(&bytes);
        }
    }
}
