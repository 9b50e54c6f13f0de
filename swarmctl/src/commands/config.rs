//! `swarmctl config`.

use clap::Subcommand;
use skep_proto::v1::{
    Config, ConfigSpec, CreateConfigRequest, GetConfigRequest, ListConfigsRequest,
    RemoveConfigRequest, UpdateConfigRequest,
};

use super::{
    Context,
    payload::{self, Data, Inspect, Ls, NewPayload, Rm, Update, payload},
};
use crate::{Error, client::Client};

/// The verbs of configs.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Create a config from a file or standard input
    Create(NewPayload),
    /// Show a config
    Inspect(Inspect),
    /// List configs
    #[command(visible_alias = "list")]
    Ls(Ls),
    /// Remove configs that no service uses
    #[command(visible_alias = "remove")]
    Rm(Rm),
    /// Change the labels of a config
    Update(Update),
}

impl ConfigCommand {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        match self {
            Self::Create(command) => create(command, context).await,
            Self::Inspect(command) => command.run::<Config>(context).await,
            Self::Ls(command) => command.run::<Config>(context).await,
            Self::Rm(command) => command.run::<Config>(context).await,
            Self::Update(command) => command.run::<Config>(context).await,
        }
    }
}

async fn create(new: NewPayload, context: &mut Context<'_>) -> Result<(), Error> {
    let spec = ConfigSpec {
        annotations: Some(new.annotations()),
        data: new.data(context.io, Data::Needed)?.into(),
        templating: new.templating(),
    };
    let request = CreateConfigRequest { spec: Some(spec) };
    let client = context.connect().await?;
    let reply = client.control().create_config(request).await?.into_inner();
    payload::print(context, &payload::present("config", reply.config)?)
}

payload!(
    Config,
    config,
    config_version,
    config_id,
    |_config| None,
    configs,
    get_config(GetConfigRequest),
    list_configs(ListConfigsRequest),
    update_config(UpdateConfigRequest),
    remove_config(RemoveConfigRequest)
);
