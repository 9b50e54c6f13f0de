//! What a task wrote, from the engine's log driver.

use std::{path::Path, time::Duration};

use bollard::{container::LogOutput, query_parameters::LogsOptionsBuilder};
use bytes::Bytes;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use skep_proto::{
    Timestamp,
    v1::{self, LogStream},
};
use tokio::time::sleep;

use super::{
    LABEL_TASK,
    engine::{Engine, failure},
};
use crate::executor::{Failure, LogLine, TaskContext};

/// How often it is looked whether a task that is followed has started. The engine follows only
/// what runs.
const LOOK: Duration = Duration::from_millis(500);

pub(super) fn logs(
    engine: &Engine,
    context: &TaskContext,
    options: v1::LogSubscriptionOptions,
) -> BoxStream<'static, Result<LogLine, Failure>> {
    let (engine, id, dir) = (engine.clone(), context.task.id.clone(), context.dir.clone());
    let opening = async move {
        match started(&engine, &id, &dir, options.follow).await {
            Ok(Some(container)) => read(&engine, &container, options),
            Ok(None) => stream::empty().boxed(),
            Err(failure) => stream::iter([Err(failure)]).boxed(),
        }
    };
    stream::once(opening).flatten().boxed()
}

/// The task's container once it has started, or if nobody waits for that as it is. `None` if there
/// is none and will be none.
async fn started(
    engine: &Engine,
    task_id: &str,
    dir: &Path,
    follow: bool,
) -> Result<Option<String>, Failure> {
    loop {
        let found = engine.labelled(LABEL_TASK, task_id).await?;
        if let Some(id) = found.into_iter().find_map(|it| it.id) {
            let seen = engine.look(&id).await?;
            if !follow || seen.is_some_and(|seen| !seen.fresh) {
                return Ok(Some(id));
            }
        }
        // The directory goes when the task goes.
        if !follow || !dir.exists() {
            return Ok(None);
        }
        sleep(LOOK).await;
    }
}

fn read(
    engine: &Engine,
    container: &str,
    options: v1::LogSubscriptionOptions,
) -> BoxStream<'static, Result<LogLine, Failure>> {
    let wanted = |stream| options.streams.is_empty() || options.streams.contains(&(stream as i32));
    // The engine takes whole seconds.
    let since = options.since.unwrap_or_default();
    let seconds = i32::try_from(since.seconds.max(0)).unwrap_or(i32::MAX);
    let tail = match options.tail {
        tail if tail < 0 => (-1_i64).saturating_sub(tail).to_string(),
        _ => "all".to_owned(),
    };
    let query = LogsOptionsBuilder::new()
        .follow(options.follow)
        .stdout(wanted(LogStream::Stdout))
        .stderr(wanted(LogStream::Stderr))
        .since(seconds)
        .timestamps(true)
        .tail(&tail)
        .build();
    let written = engine.docker().logs(container, Some(query));
    written
        .filter_map(move |output| {
            let line = match output {
                Ok(output) => line(output).filter(|line| !is_before(&line.timestamp, &since)),
                Err(error) => {
                    return std::future::ready(Some(Err(failure("cannot read the log")(error))));
                }
            };
            std::future::ready(line.map(Ok))
        })
        .boxed()
}

fn is_before(time: &Timestamp, since: &Timestamp) -> bool {
    (time.seconds, time.nanos) < (since.seconds, since.nanos)
}

/// A message of the engine: the time it was written, a space, and what was written.
fn line(output: LogOutput) -> Option<LogLine> {
    let (stream, message) = match output {
        LogOutput::StdErr { message } => (LogStream::Stderr, message),
        // A terminal has one stream.
        LogOutput::StdOut { message } | LogOutput::Console { message } => {
            (LogStream::Stdout, message)
        }
        LogOutput::StdIn { .. } => return None,
    };
    let (timestamp, data) = split(&message);
    Some(LogLine {
        timestamp,
        stream,
        data,
    })
}

fn split(message: &Bytes) -> (Timestamp, Bytes) {
    let space = message.iter().position(|byte| *byte == b' ');
    let parsed = space.and_then(|space| {
        let time = std::str::from_utf8(&message[..space]).ok()?;
        Some((time.parse().ok()?, message.slice(space + 1..)))
    });
    // The middle of what a terminal showed has no time; it is better shown than lost.
    parsed.unwrap_or_else(|| {
        let now = Timestamp::from(std::time::SystemTime::now());
        (now, message.clone())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_taken_off() {
        let message = Bytes::from_static(b"2026-11-21T10:04:13.160797820Z hello world\n");
        let (time, data) = split(&message);
        assert_eq!(time.nanos, 160_797_820);
        assert_eq!(data, "hello world\n");
        let (_, data) = split(&Bytes::from_static(b"no time"));
        assert_eq!(data, "no time");
        let (_, data) = split(&Bytes::from_static(b"2026-11-21T10:04:13Z \n"));
        assert_eq!(data, "\n");
    }

    #[test]
    fn times_are_compared_to_the_nanosecond() {
        let at = |seconds, nanos| Timestamp { seconds, nanos };
        assert!(is_before(&at(1, 5), &at(1, 6)));
        assert!(!is_before(&at(1, 6), &at(1, 6)));
        assert!(!is_before(&at(2, 0), &at(1, 6)));
    }
}
