//! `swarmctl cluster update`.

use clap::{ArgGroup, Args, builder::NonEmptyStringValueParser};
use skep_proto::v1::KeyRotation;

use super::{change, key};
use crate::{
    Error,
    commands::Context,
    lookup,
    output::{Format, write_pretty},
};

/// Changes the cluster. Everything not named stays as it is.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("change").required(true).multiple(true).args(["autolock"])))]
pub(crate) struct Update {
    /// Whether managers need the unlock key after a restart. Turning it on makes a key and shows it
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    autolock: Option<bool>,
    /// ID, name or unique ID prefix of the cluster
    #[arg(
        value_name = "CLUSTER",
        default_value = "default",
        value_parser = NonEmptyStringValueParser::new()
    )]
    cluster: String,
}

impl Update {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let found = lookup::cluster(&client, &self.cluster).await?;
        let was_locked = found.spec().encryption_config().auto_lock_managers;
        let cluster = change(&client, found, KeyRotation::default(), |spec| {
            if let Some(autolock) = self.autolock {
                spec.encryption_config_mut().auto_lock_managers = autolock;
            }
        })
        .await?;
        if context.format == Format::Json {
            return write_pretty(&mut context.io.out, &cluster);
        }
        context.print_ids([&self.cluster])?;
        let is_locked = cluster.spec().encryption_config().auto_lock_managers;
        match key::current(&client).await? {
            Some(key) if is_locked && !was_locked => key::show(context, &key),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        update: Update,
    }

    fn autolock(words: &[&str]) -> Result<(Option<bool>, String), clap::Error> {
        let words = ["update"].iter().chain(words);
        let Update { autolock, cluster } = Line::try_parse_from(words)?.update;
        Ok((autolock, cluster))
    }

    #[test]
    fn the_lock_is_turned_on_and_off() {
        for (words, expected) in [
            (&["--autolock"][..], (true, "default")),
            (&["--autolock=true"], (true, "default")),
            (&["--autolock=false", "c1"], (false, "c1")),
            // Not a value: the name of a cluster.
            (&["--autolock", "c1"], (true, "c1")),
        ] {
            let (lock, cluster) = autolock(words).unwrap();
            assert_eq!((lock, cluster.as_str()), (Some(expected.0), expected.1));
        }
        assert!(autolock(&[]).is_err(), "there is something to change");
        assert!(autolock(&["--autolock=maybe"]).is_err());
    }
}
