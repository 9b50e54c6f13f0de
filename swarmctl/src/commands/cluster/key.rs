//! The unlock key as people see it.

use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use skep_proto::v1::GetUnlockKeyRequest;

use crate::{Error, client::Client, commands::Context};

/// What an unlock key begins with.
const PREFIX: &str = "SWMKEY-1-";

/// The cluster's unlock key; `None` if its managers are not locked.
pub(super) async fn current(client: &Client) -> Result<Option<String>, Error> {
    let answer = client.ca().get_unlock_key(GetUnlockKeyRequest {}).await?;
    let key = answer.into_inner().unlock_key;
    Ok((!key.is_empty()).then(|| format!("{PREFIX}{}", STANDARD_NO_PAD.encode(key))))
}

/// Shows the key and what it is for.
pub(super) fn show(context: &mut Context<'_>, key: &str) -> Result<(), Error> {
    writeln!(
        context.io.out,
        "\nA manager that restarts stays locked until it gets the unlock key, by `swarmctl cluster \
         unlock`:\n\n    {key}\n\nKeep it in a safe place outside the cluster: without it no manager \
         can be restarted."
    )?;
    Ok(())
}
