//! `swarmctl node promote`.

use clap::{Args, builder::NonEmptyStringValueParser};
use skep_proto::v1::NodeRole;

use super::update::write;
use crate::{
    Error,
    commands::{Context, many::Many},
    lookup,
};

/// Makes workers managers. Each gets another certificate and joins the Raft group, where it votes once it
/// has caught up.
#[derive(Debug, Args)]
pub(crate) struct Promote {
    /// IDs, hostnames or unique ID prefixes of nodes
    #[arg(required = true, value_name = "NODE", value_parser = NonEmptyStringValueParser::new())]
    nodes: Vec<String>,
}

impl Promote {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let mut many = Many::default();
        for name in &self.nodes {
            let promoted = async {
                let node = lookup::node(&client, name).await?;
                write(&client, node, |spec| {
                    spec.set_desired_role(NodeRole::Manager)
                })
                .await
            };
            match promoted.await {
                Ok(_) => many.done(context, name)?,
                Err(error) => many.failed(error),
            }
        }
        many.finish(context)
    }
}
