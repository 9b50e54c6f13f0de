//! `swarmctl service update`, and the cycle of reading, editing and writing it shares with `scale`.

use clap::{Args, builder::NonEmptyStringValueParser};
use skep_proto::v1::{
    GetServiceRequest, Service, ServiceSpec, UpdateServiceRequest, update_service_request::Rollback,
};

use super::wait::WaitFlags;
use crate::{
    Error,
    client::Client,
    commands::{
        Context,
        versions::{ATTEMPTS, is_out_of_sequence},
    },
    lookup,
    output::{Format, write_pretty},
    spec::{self, Edits, RegistryFlags},
};

/// Changes a service. Its name goes to stdout, progress to stderr.
#[derive(Debug, Args)]
pub(crate) struct Update {
    #[command(flatten)]
    wait: WaitFlags,
    #[command(flatten)]
    registry: RegistryFlags,
    /// ID, name or unique ID prefix of the service
    #[arg(value_name = "SERVICE", value_parser = NonEmptyStringValueParser::new())]
    // Before the edits: their command comes last.
    service: String,
    #[command(flatten)]
    edits: Edits,
    /// Return to the previous spec
    #[arg(long)]
    rollback: bool,
}

impl Update {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let found = lookup::service(&client, &self.service).await?;
        let rollback = if self.rollback {
            Rollback::Previous
        } else {
            Rollback::None
        };
        let edit = |spec: &mut ServiceSpec| {
            self.edits.apply(spec)?;
            self.registry.apply(spec)
        };
        let service = Box::pin(update(&client, found, rollback, edit)).await?;
        match context.format {
            Format::Json => write_pretty(&mut context.io.out, &service)?,
            Format::Table => context.print_ids([&self.service])?,
        }
        self.wait
            .wait(context, &client, &service, self.rollback)
            .await
    }
}

/// Writes `service` with its spec edited by `edit`. If somebody else changed the service in
/// between, edits what they made of it instead, a bounded number of times.
pub(crate) async fn update(
    client: &Client,
    mut service: Service,
    rollback: Rollback,
    edit: impl Fn(&mut ServiceSpec) -> Result<(), Error>,
) -> Result<Service, Error> {
    let mut control = client.control();
    let id = service.id.clone();
    let missing = || Error::Answer("no service".to_owned());
    let mut attempt = 1;
    loop {
        edit(service.spec_mut())?;
        spec::resolve(client, service.spec_mut()).await?;
        let request = UpdateServiceRequest {
            service_id: id.clone(),
            service_version: Some(*service.meta().version()),
            spec: service.spec.take(),
            rollback: rollback.into(),
        };
        match control.update_service(request).await {
            Ok(reply) => return reply.into_inner().service.ok_or_else(missing),
            Err(status) if attempt < ATTEMPTS && is_out_of_sequence(&status) => attempt += 1,
            Err(status) => return Err(status.into()),
        }
        let request = GetServiceRequest {
            service_id: id.clone(),
            insert_defaults: false,
        };
        service = control
            .get_service(request)
            .await?
            .into_inner()
            .service
            .ok_or_else(missing)?;
    }
}
