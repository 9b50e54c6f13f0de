//! `swarmctl cluster unlock`.

use clap::Args;
use skep_proto::skep::UnlockRequest;

use crate::{Error, commands::Context};

/// Unlocks this manager, so that it can start. The key is asked for, or read from standard input.
#[derive(Debug, Args)]
pub(crate) struct Unlock {}

impl Unlock {
    pub(crate) async fn run(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let key = context.io.read_secret("Unlock key: ")?;
        if key.is_empty() {
            return Err(Error::Usage(
                "there is no unlock key on standard input".to_owned(),
            ));
        }
        let request = UnlockRequest { unlock_key: key };
        client.node().unlock(request).await?;
        Ok(())
    }
}
