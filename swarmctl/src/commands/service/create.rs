//! `swarmctl service create`.

use clap::Args;
use skep_proto::v1::CreateServiceRequest;

use super::wait::WaitFlags;
use crate::{
    Error,
    commands::Context,
    output::{Format, write_pretty},
    spec::{self, NewService, RegistryFlags},
};

/// Creates a service. Its ID goes to stdout, progress to stderr.
#[derive(Debug, Args)]
pub(crate) struct Create {
    #[command(flatten)]
    wait: WaitFlags,
    #[command(flatten)]
    registry: RegistryFlags,
    #[command(flatten)]
    service: NewService,
}

impl Create {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let mut spec = self.service.to_spec()?;
        self.registry.apply(&mut spec)?;
        let client = context.connect().await?;
        spec::resolve(&client, &mut spec).await?;
        let request = CreateServiceRequest { spec: Some(spec) };
        let reply = client.control().create_service(request).await?.into_inner();
        let service = reply
            .service
            .ok_or_else(|| Error::Answer("no service".to_owned()))?;
        match context.format {
            Format::Json => write_pretty(&mut context.io.out, &service)?,
            Format::Table => context.print_ids([&service.id])?,
        }
        self.wait.wait(context, &client, &service, false).await
    }
}
