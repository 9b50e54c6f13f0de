//! `swarmctl service logs` and `swarmctl task logs`, which differ in what can be named.

mod print;

use clap::{Args, builder::NonEmptyStringValueParser};
use skep_proto::{Timestamp, v1::LogSelector};

use super::Context;
use crate::{Error, client::Client, lookup};

/// Shows what tasks wrote.
#[derive(Debug, Args)]
pub(crate) struct Logs {
    #[command(flatten)]
    options: Options,
    /// ID, name or unique ID prefix of the task
    #[arg(value_name = "TASK", value_parser = NonEmptyStringValueParser::new())]
    name: String,
}

impl Logs {
    /// What the tasks of a service wrote, or a task.
    pub(crate) async fn of_service(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let selector = match service(&client, &self.name).await {
            Err(not_found @ Error::NotFound { .. }) => match task(&client, &self.name).await {
                Err(Error::NotFound { .. }) => return Err(not_found),
                found => found?,
            },
            found => found?,
        };
        print::print(context, &client, selector, &self.options).await
    }

    /// What a task wrote.
    pub(crate) async fn of_task(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let selector = task(&client, &self.name).await?;
        print::print(context, &client, selector, &self.options).await
    }
}

async fn service(client: &Client, wanted: &str) -> Result<LogSelector, Error> {
    let service = lookup::service(client, wanted).await?;
    Ok(LogSelector {
        service_ids: vec![service.id],
        ..Default::default()
    })
}

async fn task(client: &Client, wanted: &str) -> Result<LogSelector, Error> {
    let task = lookup::task(client, wanted).await?;
    Ok(LogSelector {
        task_ids: vec![task.id],
        ..Default::default()
    })
}

/// What is shown, and how.
#[derive(Debug, Args)]
struct Options {
    /// Go on with what is written from now on
    #[arg(short, long)]
    follow: bool,
    /// Only what was written since a time (2026-01-02T03:04:05Z) or for a while (42m)
    #[arg(long, value_name = "TIME", value_parser = since)]
    since: Option<Timestamp>,
    /// How many lines of each task to show, from the end
    #[arg(short = 'n', long, default_value = "all", value_name = "LINES", value_parser = Tail::parse)]
    tail: Tail,
    /// Show when lines were written
    #[arg(short, long)]
    timestamps: bool,
    /// Print whole IDs
    #[arg(long)]
    no_trunc: bool,
    /// Leave out the IDs of tasks
    #[arg(long)]
    no_task_ids: bool,
    /// Print IDs in place of names
    #[arg(long)]
    no_resolve: bool,
    /// Print what was written and nothing else
    #[arg(long)]
    raw: bool,
}

/// How much of a log is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tail {
    All,
    Last(i64),
}

impl Tail {
    fn parse(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        let lines = text.parse::<u32>();
        lines
            .map(|lines| Self::Last(lines.into()))
            .map_err(|_| "neither a number of lines nor \"all\"".to_owned())
    }

    fn on_wire(self) -> i64 {
        match self {
            Self::All => 0,
            Self::Last(lines) => -(lines + 1),
        }
    }
}

fn since(text: &str) -> Result<Timestamp, String> {
    let at = match humantime::parse_duration(text) {
        Ok(ago) => jiff::Timestamp::now().checked_sub(ago).ok(),
        Err(_) => text.parse().ok(),
    };
    let at = at.ok_or("neither a time in RFC 3339 nor a duration")?;
    Ok(Timestamp {
        seconds: at.as_second(),
        nanos: at.subsec_nanosecond(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_is_a_number_or_all() {
        assert_eq!(Tail::parse("all").unwrap().on_wire(), 0);
        assert_eq!(Tail::parse("0").unwrap().on_wire(), -1);
        assert_eq!(Tail::parse("10").unwrap().on_wire(), -11);
        for wrong in ["", "-1", "ten", "99999999999"] {
            assert!(Tail::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn since_is_a_time_or_a_while() {
        let at = since("2026-01-02T03:04:05.5Z").unwrap();
        assert_eq!((at.seconds, at.nanos), (1_767_323_045, 500_000_000));
        let hour = since("1h").unwrap().seconds;
        let now = jiff::Timestamp::now().as_second();
        assert!((now - 3700..=now - 3500).contains(&hour), "{hour}");
        for wrong in ["", "yesterday", "9999999999999999h"] {
            assert!(since(wrong).is_err(), "{wrong}");
        }
    }
}
