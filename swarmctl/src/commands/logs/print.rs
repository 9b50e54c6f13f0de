//! Reads logs and prints them as the docker command line does.

use std::{collections::BTreeMap, io::Write as _};

use skep_proto::{
    Timestamp,
    v1::{
        LogMessage, LogSelector, LogStream, LogSubscriptionOptions, Node, SubscribeLogsRequest,
        Task,
    },
};
use tonic::{Code, Status};

use super::Options;
use crate::{
    Error,
    client::Client,
    commands::Context,
    lookup,
    output::{Format, node_name, one_line, short_id},
};

/// How the broker's final word begins if something was missing. What could be had was sent.
const INCOMPLETE: &str = "warning: incomplete log stream";

/// Between what says where a line comes from and the line.
const SEPARATOR: &str = "    | ";

/// Prints the logs that `selector` means, until they end.
pub(super) async fn print(
    context: &mut Context<'_>,
    client: &Client,
    selector: LogSelector,
    options: &Options,
) -> Result<(), Error> {
    let request = SubscribeLogsRequest {
        selector: Some(selector),
        options: Some(LogSubscriptionOptions {
            streams: Vec::new(),
            follow: options.follow,
            tail: options.tail.on_wire(),
            since: options.since,
        }),
    };
    let mut stream = client.logs().subscribe_logs(request).await?.into_inner();
    let mut origins = Origins {
        client,
        options,
        tasks: BTreeMap::new(),
        nodes: BTreeMap::new(),
        width: 0,
    };
    loop {
        let messages = match stream.message().await {
            Ok(Some(message)) => message.messages,
            Ok(None) => return Ok(()),
            Err(status) if is_incomplete(&status) => {
                // All that could be had is there: nothing to fail for.
                writeln!(context.io.err, "{}", one_line(status.message()))?;
                return Ok(());
            }
            Err(status) => return Err(status.into()),
        };
        if context.format == Format::Json {
            context.print_lines(&messages)?;
        } else {
            for message in &messages {
                let prefix = origins.prefix(message).await?;
                write(context, &prefix, message, options.raw)?;
            }
        }
        // Somebody may be waiting for each line.
        context.io.out.flush()?;
    }
}

fn is_incomplete(status: &Status) -> bool {
    status.code() == Code::Unknown && status.message().starts_with(INCOMPLETE)
}

/// Writes a message to where its task wrote it.
fn write(
    context: &mut Context<'_>,
    prefix: &str,
    message: &LogMessage,
    raw: bool,
) -> Result<(), Error> {
    let out = match message.stream() {
        LogStream::Stderr => &mut context.io.err,
        _ => &mut context.io.out,
    };
    out.write_all(prefix.as_bytes())?;
    out.write_all(&message.data)?;
    if !raw && !message.data.ends_with(b"\n") {
        // A part of a line: the next one begins with where it comes from.
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// Where lines come from, in words.
struct Origins<'a> {
    client: &'a Client,
    options: &'a Options,
    /// By task and node.
    tasks: BTreeMap<(String, String), String>,
    nodes: BTreeMap<String, String>,
    /// Of the longest so far: all others are filled up.
    width: usize,
}

impl Origins<'_> {
    async fn prefix(&mut self, message: &LogMessage) -> Result<String, Error> {
        let mut prefix = String::new();
        if self.options.timestamps {
            prefix = timestamp(message.timestamp.as_ref());
            prefix.push(' ');
        }
        if !self.options.raw {
            let origin = self.origin(message).await?;
            self.width = self.width.max(origin.chars().count());
            prefix.push_str(&format!("{origin:width$}{SEPARATOR}", width = self.width));
        }
        Ok(prefix)
    }

    /// `service.slot.task@node`.
    async fn origin(&mut self, message: &LogMessage) -> Result<String, Error> {
        let from = message.context();
        let key = (from.task_id.clone(), from.node_id.clone());
        if let Some(known) = self.tasks.get(&key) {
            return Ok(known.clone());
        }
        let task = match lookup::task(self.client, &from.task_id).await {
            Ok(task) => Some(task),
            // It is gone, and its log is not.
            Err(Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let mut origin = self.task(&from.task_id, &from.service_id, task.as_ref());
        origin.push('@');
        origin.push_str(&self.node(&from.node_id).await?);
        self.tasks.insert(key, origin.clone());
        Ok(origin)
    }

    fn task(&self, task_id: &str, service_id: &str, task: Option<&Task>) -> String {
        let name = task.map_or("", |task| &task.service_annotations().name);
        let service = match name {
            "" => service_id,
            _ if self.options.no_resolve => service_id,
            name => name,
        };
        let mut text = one_line(service);
        if let Some(task) = task {
            text.push_str(&format!(".{}", task.slot));
        }
        if !self.options.no_task_ids {
            let id = match self.options.no_trunc {
                true => task_id,
                false => short_id(task_id),
            };
            text.push_str(&format!(".{}", one_line(id)));
        }
        text
    }

    async fn node(&mut self, id: &str) -> Result<String, Error> {
        if self.options.no_resolve {
            return Ok(one_line(id));
        }
        if let Some(known) = self.nodes.get(id) {
            return Ok(known.clone());
        }
        let name = match lookup::node(self.client, id).await {
            Ok(node) => name(&node),
            Err(Error::NotFound { .. }) => one_line(id),
            Err(error) => return Err(error),
        };
        self.nodes.insert(id.to_owned(), name.clone());
        Ok(name)
    }
}

fn name(node: &Node) -> String {
    one_line(&node_name(node))
}

/// RFC 3339 with all nine digits, so that lines are level.
fn timestamp(at: Option<&Timestamp>) -> String {
    let at = at.and_then(|at| jiff::Timestamp::new(at.seconds, at.nanos).ok());
    format!("{:.9}", at.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_with_nine_digits() {
        let at = Timestamp {
            seconds: 1_767_323_045,
            nanos: 7,
        };
        assert_eq!(timestamp(Some(&at)), "2026-01-02T03:04:05.000000007Z");
        assert_eq!(timestamp(None), "1970-01-01T00:00:00.000000000Z");
    }
}
