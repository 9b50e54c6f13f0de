//! `swarmctl service inspect`.

use clap::{Args, builder::NonEmptyStringValueParser};
use skep_proto::v1::GetServiceRequest;

use super::show::fields;
use crate::{Error, commands::Context, lookup};

/// Shows a service.
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    /// ID, name or unique ID prefix of the service
    #[arg(value_name = "SERVICE", value_parser = NonEmptyStringValueParser::new())]
    service: String,
    /// Fill in the defaults of what the spec does not say
    #[arg(long)]
    defaults: bool,
}

impl Inspect {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let mut service = lookup::service(&client, &self.service).await?;
        if self.defaults {
            let request = GetServiceRequest {
                service_id: service.id.clone(),
                insert_defaults: true,
            };
            let reply = client.control().get_service(request).await?.into_inner();
            service = reply
                .service
                .ok_or_else(|| Error::Answer("no service".to_owned()))?;
        }
        context.print_object(&service, fields)
    }
}
