//! `swarmctl service rollback`.

use clap::{Args, builder::NonEmptyStringValueParser};
use skep_proto::v1::update_service_request::Rollback as Which;

use super::{update::update, wait::WaitFlags};
use crate::{
    Error,
    commands::Context,
    lookup,
    output::{Format, write_pretty},
};

/// Returns a service to its previous spec. Its name goes to stdout, progress to stderr.
#[derive(Debug, Args)]
pub(crate) struct Rollback {
    #[command(flatten)]
    wait: WaitFlags,
    /// ID, name or unique ID prefix of the service
    #[arg(value_name = "SERVICE", value_parser = NonEmptyStringValueParser::new())]
    service: String,
}

impl Rollback {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let found = lookup::service(&client, &self.service).await?;
        let service = Box::pin(update(&client, found, Which::Previous, |_| Ok(()))).await?;
        match context.format {
            Format::Json => write_pretty(&mut context.io.out, &service)?,
            Format::Table => context.print_ids([&self.service])?,
        }
        self.wait.wait(context, &client, &service, true).await
    }
}
