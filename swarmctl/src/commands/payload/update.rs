//! The verb `update` of secrets and configs, which have nothing to change but labels.

use clap::{ArgGroup, Args, builder::NonEmptyStringValueParser};

use super::Payload;
use crate::{
    Error,
    commands::{
        Context,
        versions::{ATTEMPTS, is_out_of_sequence},
    },
    output::{Format, write_pretty},
    spec::values,
};

/// Changes the labels of one. Its data never changes.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("change").required(true).multiple(true)
    .args(["label_add", "label_rm"])))]
pub(crate) struct Update {
    /// Set a label
    #[arg(long, value_name = "KEY=VALUE", value_parser = values::label)]
    label_add: Vec<(String, String)>,
    /// Remove a label
    #[arg(long, value_name = "KEY")]
    label_rm: Vec<String>,
    /// ID, name or unique ID prefix
    #[arg(value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    name: String,
}

impl Update {
    pub(crate) async fn run<P: Payload>(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let mut found = P::find(&client, &self.name).await?;
        let id = found.id().to_owned();
        let mut attempt = 1;
        let updated = loop {
            let mut annotations = found.annotations();
            annotations
                .labels
                .retain(|key, _| !self.label_rm.contains(key));
            annotations.labels.extend(self.label_add.iter().cloned());
            match found.update(&client, annotations).await {
                Err(Error::Refused(status))
                    if attempt < ATTEMPTS && is_out_of_sequence(&status) =>
                {
                    attempt += 1;
                }
                result => break result?,
            }
            found = P::get(&client, id.clone()).await?;
        };
        match context.format {
            Format::Json => write_pretty(&mut context.io.out, &updated),
            Format::Table => context.print_ids([&self.name]),
        }
    }
}
