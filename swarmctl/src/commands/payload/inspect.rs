//! The verb `inspect` of secrets and configs.

use clap::{Args, builder::NonEmptyStringValueParser};

use super::Payload;
use crate::{
    Error,
    commands::Context,
    output::{Fields, Format, moment, one_line},
};

/// Shows one.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// ID, name or unique ID prefix
    #[arg(value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    name: String,
}

impl Inspect {
    pub(crate) async fn run<P: Payload>(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let found = P::find(&client, &self.name).await?;
        context.print_object(&found, fields)?;
        if context.format == Format::Table && !found.data().is_empty() {
            writeln!(context.io.out, "Data:")?;
            for line in String::from_utf8_lossy(found.data()).lines() {
                // Whoever wrote it must not command the terminal; blanks at the start matter.
                let indent = line.len() - line.trim_start_matches([' ', '\t']).len();
                writeln!(
                    context.io.out,
                    "{}",
                    format!("{}{}", &line[..indent], one_line(line)).trim_end()
                )?;
            }
        }
        Ok(())
    }
}

fn fields<P: Payload>(payload: &P) -> Fields {
    let (meta, annotations) = (payload.meta(), payload.annotations());
    let mut fields = Fields::default();
    fields
        .add("ID", payload.id())
        .add("Name", &annotations.name)
        .maybe("Created at", meta.created_at.as_ref().and_then(moment))
        .maybe("Updated at", meta.updated_at.as_ref().and_then(moment))
        .add("Version", meta.version().index)
        .section("Labels", |section| {
            section.entries(&annotations.labels);
        })
        .maybe("Driver", payload.driver().map(|driver| &driver.name))
        .maybe(
            "Template driver",
            payload.templating().map(|driver| &driver.name),
        );
    fields
}
