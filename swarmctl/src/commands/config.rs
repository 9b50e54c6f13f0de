//! `swarmctl config`.

use skep_proto::v1::{
    Config, ConfigSpec, CreateConfigRequest, GetConfigRequest, ListConfigsRequest,
    RemoveConfigRequest, UpdateConfigRequest,
};

use super::{
    Context,
    payload::{self, Data, NewPayload, payload, verbs},
};
use crate::{Error, client::Client};

verbs!(ConfigCommand of Config {
    "Create a config from a file or standard input": NewPayload,
    "Show a config",
    "List configs",
    "Remove configs that no service uses",
    "Change the labels of a config"
});

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
