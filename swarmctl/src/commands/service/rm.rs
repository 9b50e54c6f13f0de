//! `swarmctl service rm`.

use clap::{Args, builder::NonEmptyStringValueParser};
use skep_proto::v1::RemoveServiceRequest;

use crate::{
    Error,
    client::Client,
    commands::{Context, many::Many},
    lookup,
};

/// Removes services. Their tasks stop by and by.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// IDs, names or unique ID prefixes of services
    #[arg(required = true, value_name = "SERVICE", value_parser = NonEmptyStringValueParser::new())]
    services: Vec<String>,
}

impl Rm {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let mut many = Many::default();
        for name in &self.services {
            match remove(&client, name).await {
                Ok(()) => many.done(context, name)?,
                Err(error) => many.failed(error),
            }
        }
        many.finish(context)
    }
}

async fn remove(client: &Client, name: &str) -> Result<(), Error> {
    let service_id = lookup::service(client, name).await?.id;
    client
        .control()
        .remove_service(RemoveServiceRequest { service_id })
        .await?;
    Ok(())
}
