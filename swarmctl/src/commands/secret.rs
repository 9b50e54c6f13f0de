//! `swarmctl secret`.

use clap::Args;
use skep_proto::v1::{
    CreateSecretRequest, GetSecretRequest, ListSecretsRequest, RemoveSecretRequest, Secret,
    SecretSpec, UpdateSecretRequest,
};

use super::{
    Context,
    payload::{self, Data, NewPayload, payload, verbs},
};
use crate::{Error, client::Client};

verbs!(SecretCommand of Secret {
    "Create a secret from a file or standard input": Create,
    "Show a secret, but not its data",
    "List secrets",
    "Remove secrets that no service uses",
    "Change the labels of a secret"
});

/// Creates a secret.
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// Plugin that yields the data for each task
    #[arg(short, long, value_name = "NAME")]
    driver: Option<String>,
    #[command(flatten)]
    payload: NewPayload,
}

async fn create(new: Create, context: &mut Context<'_>) -> Result<(), Error> {
    let data = match new.driver {
        Some(_) => Data::Elsewhere,
        None => Data::Needed,
    };
    let spec = SecretSpec {
        annotations: Some(new.payload.annotations()),
        data: new.payload.data(context.io, data)?.into(),
        templating: new.payload.templating(),
        driver: new.driver.map(payload::named),
    };
    let request = CreateSecretRequest { spec: Some(spec) };
    let client = context.connect().await?;
    let reply = client.control().create_secret(request).await?.into_inner();
    payload::print(context, &payload::present("secret", reply.secret)?)
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
