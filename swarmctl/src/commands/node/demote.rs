//! `swarmctl node demote`.

use clap::{Args, builder::NonEmptyStringValueParser};
use skep_proto::v1::NodeRole;

use super::update::write;
use crate::{
    Error,
    commands::{Context, many::Many},
    lookup,
};

/// Makes managers workers. They leave the Raft group as soon as the others are a quorum without them.
#[derive(Debug, Args)]
pub(crate) struct Demote {
    /// IDs, hostnames or unique ID prefixes of nodes
    #[arg(required = true, value_name = "NODE", value_parser = NonEmptyStringValueParser::new())]
    nodes: Vec<String>,
}

impl Demote {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let mut many = Many::default();
        for name in &self.nodes {
            let demoted = async {
                let node = lookup::node(&client, name).await?;
                write(&client, node, |spec| {
                    spec.set_desired_role(NodeRole::Worker)
                })
                .await
            };
            match demoted.await {
                Ok(_) => many.done(context, name)?,
                Err(error) => many.failed(error),
            }
        }
        many.finish(context)
    }
}
