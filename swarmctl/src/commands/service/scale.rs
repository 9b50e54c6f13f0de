//! `swarmctl service scale`.

use clap::Args;
use skep_proto::v1::update_service_request::Rollback;

use super::{update::update, wait::WaitFlags};
use crate::{
    Error,
    commands::{Context, many::Many},
    lookup,
    spec::Settings,
};

/// Sets how many tasks services run.
#[derive(Debug, Args)]
pub(crate) struct Scale {
    #[command(flatten)]
    wait: WaitFlags,
    /// Services and how many tasks each is to have
    #[arg(required = true, value_name = "SERVICE=REPLICAS", value_parser = target)]
    targets: Vec<(String, u64)>,
}

/// `SERVICE=REPLICAS`.
fn target(text: &str) -> Result<(String, u64), String> {
    let expected = || "expected SERVICE=REPLICAS".to_owned();
    let (service, replicas) = text.rsplit_once('=').ok_or_else(expected)?;
    if service.is_empty() {
        return Err(expected());
    }
    Ok((
        service.to_owned(),
        replicas.parse().map_err(|_| expected())?,
    ))
}

impl Scale {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let mut many = Many::default();
        let mut changed = Vec::new();
        // All are set before any is waited for, so that they change beside each other.
        for (name, replicas) in &self.targets {
            let settings = Settings {
                replicas: Some(*replicas),
                ..Default::default()
            };
            let scaled = async {
                let found = lookup::service(&client, name).await?;
                Box::pin(update(&client, found, Rollback::None, |spec| {
                    settings.apply(spec)
                }))
                .await
            };
            match scaled.await {
                Ok(service) => {
                    many.done(context, &format!("{name} scaled to {replicas}"))?;
                    changed.push(service);
                }
                Err(error) => many.failed(error),
            }
        }
        for service in &changed {
            match self.wait.wait(context, &client, service, false).await {
                Ok(()) => {}
                Err(Error::Interrupted) => return Err(Error::Interrupted),
                Err(error) => many.failed(error),
            }
        }
        many.finish(context)
    }
}
