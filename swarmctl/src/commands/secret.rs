//! `swarmctl secret`.

use clap::{Args, Subcommand};
use skep_proto::v1::{
    CreateSecretRequest, GetSecretRequest, ListSecretsRequest, RemoveSecretRequest, Secret,
    SecretSpec, UpdateSecretRequest,
};

use super::{
    Context,
    payload::{self, Data, Inspect, Ls, NewPayload, Rm, Update, payload},
};
use crate::{Error, client::Client};

/// The verbs of secrets.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretCommand {
    /// Create a secret from a file or standard input
    Create(Create),
    /// Show a secret, but not its data
    Inspect(Inspect),
    /// List secrets
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Remove secrets that no service uses
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// Change the labels of a secret
    Update(Update),
}

impl SecretCommand {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        match self {
            Self::Create(command) => command.run(context).await,
            Self::Inspect(command) => command.run::<Secret>(context).await,
            Self::Ls(command) => command.run::<Secret>(context).await,
            Self::Rm(command) => command.run::<Secret>(context).await,
            Self::Update(command) => command.run::<Secret>(context).await,
        }
    }
}

/// Creates a secret.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Plugin that yields the data for each task
    #[arg(short, long, value_name = "NAME")]
    driver: Option<String>,
    #[command(flatten)]
    payload: NewPayload,
}

impl Create {
    async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let data = match self.driver {
            Some(_) => Data::Elsewhere,
            None => Data::Needed,
        };
        let spec = SecretSpec {
            annotations: Some(self.payload.annotations()),
            data: self.payload.data(context.io, data)?.into(),
            templating: self.payload.templating(),
            driver: self.driver.map(payload::named),
        };
        let request = CreateSecretRequest { spec: Some(spec) };
        let client = context.connect().await?;
        let reply = client.control().create_secret(request).await?.into_inner();
        payload::print(context, &payload::present("secret", reply.secret)?)
    }
}

payload!(
    Secret,
    secret,
    secret_version,
    secret_id,
    |secret| secret.spec().driver.as_ref(),
    secrets,
    get_secret(GetSecretRequest),
    list_secrets(ListSecretsRequest),
    update_secret(UpdateSecretRequest),
    remove_secret(RemoveSecretRequest)
);
