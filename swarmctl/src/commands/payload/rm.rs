//! The verb `rm` of secrets and configs.

use clap::{Args, builder::NonEmptyStringValueParser};

use super::Payload;
use crate::{
    Error,
    client::Client,
    commands::{Context, many::Many},
};

/// Removes some that no service uses.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// IDs, names or unique ID prefixes
    #[arg(required = true, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    names: Vec<String>,
}

impl Rm {
    pub(crate) async fn run<P: Payload>(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let mut many = Many::default();
        for name in &self.names {
            match remove::<P>(&client, name).await {
                Ok(()) => many.done(context, name)?,
                Err(error) => many.failed(error),
            }
        }
        many.finish(context)
    }
}

async fn remove<P: Payload>(client: &Client, name: &str) -> Result<(), Error> {
    let id = P::find(client, name).await?.id().to_owned();
    P::remove(client, id).await
}
