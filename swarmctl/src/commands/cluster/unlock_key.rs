//! `swarmctl cluster unlock-key`.

use clap::{Args, builder::NonEmptyStringValueParser};
use skep_proto::v1::KeyRotation;

use super::{change, key};
use crate::{Error, commands::Context, lookup, output::Format};

/// Shows the key that unlocks managers.
#[derive(Debug, Args)]
pub(crate) struct UnlockKey {
    /// Make a new key first. The old one unlocks no manager that has heard of the new one
    #[arg(long)]
    rotate: bool,
    /// Show nothing but the key
    #[arg(short, long)]
    quiet: bool,
    /// ID, name or unique ID prefix of the cluster
    #[arg(
        value_name = "CLUSTER",
        default_value = "default",
        value_parser = NonEmptyStringValueParser::new()
    )]
    cluster: String,
}

impl UnlockKey {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let cluster = lookup::cluster(&client, &self.cluster).await?;
        if !cluster.spec().encryption_config().auto_lock_managers {
            let text =
                "this cluster has no unlock key; `swarmctl cluster update --autolock` makes one";
            return Err(Error::Usage(text.to_owned()));
        }
        if self.rotate {
            let rotation = KeyRotation {
                manager_unlock_key: true,
                ..Default::default()
            };
            change(&client, cluster, rotation, |_| {}).await?;
        }
        let key = key::current(&client)
            .await?
            .ok_or_else(|| Error::Answer("no unlock key".to_owned()))?;
        match context.format {
            Format::Json => {
                let object = serde_json::json!({ "unlockKey": key });
                Ok(writeln!(context.io.out, "{object:#}")?)
            }
            Format::Table if self.quiet => Ok(writeln!(context.io.out, "{key}")?),
            Format::Table => {
                if self.rotate {
                    writeln!(context.io.out, "The unlock key was replaced.")?;
                }
                key::show(context, &key)
            }
        }
    }
}
