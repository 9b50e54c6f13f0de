//! Collecting and reading: what is written comes back, in order and within bounds.

use std::io::Write as _;

use futures_util::StreamExt as _;
use skep_proto::v1::{LogStream, LogSubscriptionOptions};
use tempfile::TempDir;

use super::{files::Writer, *};
use crate::executor::{Failure, LogLine};

/// A log of numbered lines, one a second from `start`.
fn log(dir: &TempDir, options: Options, start: i64, count: i64) {
    let mut writer = Writer::open(dir.path(), options).unwrap();
    for number in start..start + count {
        let mut text = Vec::new();
        let time = jiff::Timestamp::from_second(number).unwrap();
        let stream = match number % 2 {
            0 => LogStream::Stdout,
            _ => LogStream::Stderr,
        };
        line::encode(&mut text, time, stream, format!("{number}\n").as_bytes());
        writer.write(&text).unwrap();
    }
}

fn number(line: Result<LogLine, Failure>) -> i64 {
    let data = line.unwrap().data;
    std::str::from_utf8(&data).unwrap().trim().parse().unwrap()
}

async fn numbers(dir: &TempDir, options: LogSubscriptionOptions) -> Vec<i64> {
    read(dir.path().to_owned(), options)
        .map(number)
        .collect()
        .await
}

const SMALL: Options = Options {
    max_size: 400,
    max_files: 3,
};

#[tokio::test]
async fn r48_rotated_files_and_an_old_since_give_what_is_left() {
    let dir = tempfile::tempdir().unwrap();
    log(&dir, SMALL, 0, 100);
    let sizes = fs::read_dir(dir.path()).unwrap().map(|entry| {
        let size = entry.unwrap().metadata().unwrap().len();
        assert!(size <= 400);
        size
    });
    assert_eq!(sizes.count(), 3, "bounded");
    let three_days_before = LogSubscriptionOptions {
        since: Some(skep_proto::Timestamp {
            seconds: -3 * 86400,
            nanos: 0,
        }),
        ..Default::default()
    };
    let left = numbers(&dir, three_days_before).await;
    assert!(left.len() > 10 && left[0] > 0, "{left:?}");
    assert_eq!(left, (left[0]..100).collect::<Vec<_>>(), "no gap, in order");
    let since = LogSubscriptionOptions {
        since: Some(skep_proto::Timestamp {
            seconds: 98,
            nanos: 0,
        }),
        ..Default::default()
    };
    assert_eq!(numbers(&dir, since).await, [98, 99]);
}

#[tokio::test]
async fn the_last_lines_are_counted_over_files_and_streams() {
    let dir = tempfile::tempdir().unwrap();
    log(&dir, SMALL, 0, 100);
    for (tail, streams, expected) in [
        (-1, vec![], vec![]),
        (-3, vec![], vec![98, 99]),
        (-4, vec![LogStream::Stdout as i32], vec![94, 96, 98]),
        (-11, vec![], (90..100).collect()),
    ] {
        let options = LogSubscriptionOptions {
            tail,
            streams,
            ..Default::default()
        };
        assert_eq!(numbers(&dir, options).await, expected, "{tail}");
    }
    let all = LogSubscriptionOptions {
        tail: i64::MIN,
        ..Default::default()
    };
    assert!(numbers(&dir, all).await.len() > 10);
}

#[tokio::test]
async fn a_log_is_followed_through_rotation_to_its_end() {
    let dir = tempfile::tempdir().unwrap();
    let options = LogSubscriptionOptions {
        follow: true,
        ..Default::default()
    };
    let mut lines = read(dir.path().to_owned(), options).map(number);
    for round in 0..20 {
        // Less than is kept, so nothing may be missed.
        log(&dir, SMALL, round * 10, 10);
        for number in round * 10..round * 10 + 10 {
            assert_eq!(lines.next().await, Some(number));
        }
    }
    log(&dir, SMALL, 200, 1);
    end(dir.path()).unwrap();
    assert_eq!(lines.next().await, Some(200));
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn following_what_is_removed_ends() {
    let dir = tempfile::tempdir().unwrap();
    log(&dir, SMALL, 0, 1);
    let options = LogSubscriptionOptions {
        follow: true,
        ..Default::default()
    };
    let mut lines = read(dir.path().to_owned(), options).map(number);
    assert_eq!(lines.next().await, Some(0));
    drop(dir);
    assert_eq!(lines.next().await, None);
}

#[tokio::test]
async fn half_a_line_and_damage_cost_only_themselves() {
    let dir = tempfile::tempdir().unwrap();
    log(&dir, Options::default(), 0, 2);
    let path = dir.path().join("log");
    let mut file = fs::OpenOptions::new().append(true).open(path).unwrap();
    file.write_all(b"1970-01-01T00:0").unwrap();
    log(&dir, Options::default(), 2, 2);
    assert_eq!(numbers(&dir, Default::default()).await, [0, 1, 2, 3]);
}

#[tokio::test]
async fn what_is_written_while_nobody_collects_waits_in_the_pipe() {
    let dir = tempfile::tempdir().unwrap();
    let (pipes, mut ends) = Pipes::make(dir.path(), None).unwrap();
    ends.stdout.write_all(b"1\n2").unwrap();
    drop(Collector::start(dir.path(), Options::default(), pipes).unwrap());
    ends.stdout.write_all(b"3\n").unwrap();
    ends.stderr.write_all(b"4").unwrap();
    let pipes = Pipes::find(dir.path()).unwrap().unwrap();
    let mut collector = Collector::start(dir.path(), Options::default(), pipes).unwrap();
    collector.finish().await;
    let mut lines = numbers(&dir, Default::default()).await;
    lines.sort_unstable();
    assert_eq!(lines, [1, 4, 23]);
}

#[tokio::test]
async fn long_lines_come_in_pieces_that_make_the_line() {
    let dir = tempfile::tempdir().unwrap();
    let (pipes, mut ends) = Pipes::make(dir.path(), None).unwrap();
    let mut collector = Collector::start(dir.path(), Options::default(), pipes).unwrap();
    let long: Vec<u8> = (0..50_000_u32).map(|at| b'a' + (at % 26) as u8).collect();
    let text = [long.as_slice(), b"\nshort\n"].concat();
    let sent = text.clone();
    let write = tokio::task::spawn_blocking(move || ends.stdout.write_all(&sent));
    write.await.unwrap().unwrap();
    collector.finish().await;
    let lines: Vec<_> = read(dir.path().to_owned(), Default::default())
        .collect()
        .await;
    let lines: Vec<_> = lines.into_iter().map(Result::unwrap).collect();
    assert!(
        lines
            .iter()
            .all(|line| line.data.len() <= line::MAX_PIECE + 1)
    );
    assert_eq!(
        lines
            .iter()
            .flat_map(|it| it.data.clone())
            .collect::<Vec<_>>(),
        text
    );
    assert_eq!(lines.len(), 5);
}
