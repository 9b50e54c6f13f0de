//! `swarmctl node rm`.

use clap::{Args, builder::NonEmptyStringValueParser};
use skep_proto::v1::RemoveNodeRequest;

use crate::{
    Error,
    client::Client,
    commands::{Context, many::Many},
    lookup,
};

/// Removes nodes. Their certificates are not accepted any more.
#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Remove nodes even if they are not down
    #[arg(short, long)]
    force: bool,
    /// IDs, hostnames or unique ID prefixes of nodes
    #[arg(required = true, value_name = "NODE", value_parser = NonEmptyStringValueParser::new())]
    nodes: Vec<String>,
}

impl Rm {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let mut many = Many::default();
        for name in &self.nodes {
            match remove(&client, name, self.force).await {
                Ok(()) => many.done(context, name)?,
                Err(error) => many.failed(error),
            }
        }
        many.finish(context)
    }
}

async fn remove(client: &Client, name: &str, force: bool) -> Result<(), Error> {
    let node_id = lookup::node(client, name).await?.id;
    client
        .control()
        .remove_node(RemoveNodeRequest { node_id, force })
        .await?;
    Ok(())
}
