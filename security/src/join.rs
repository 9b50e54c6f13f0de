//! Gets an identity from a running cluster, with nothing but an address and a join token.
//!
//! First the root is fetched over a connection that verifies nobody; its digest must be the
//! token's. Everything after that goes to a server that proves it belongs to this root.

mod channel;
pub(crate) mod enroll;

use std::{sync::Arc, time::Duration};

use backon::{ConstantBuilder, Retryable as _};
use skep_proto::v1::{
    self, GetRootCaCertificateRequest, GetUnlockKeyRequest, GetUnlockKeyResponse,
    ca_client::CaClient,
};
use tonic::{Code, Response};

use crate::{
    Credentials, Dial, Error, JoinToken, Kek, RootCa, ServerName, UnlockKey,
    crypto::{hex, sha256},
    tls::{check_address, config},
};

/// Each step is tried this often,
const TRIES: usize = 5;

/// with this long in between (SwarmKit's numbers, as are the next two).
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// How long one call may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Joins the cluster that `token` belongs to through the manager at `addr` (`host:port`) and
/// returns the credentials it issued. They are not saved yet.
///
/// Waits as long as it takes for the manager to sign once it has accepted the token; drop the
/// future to give up.
///
/// # Errors
/// One line that says what to do: the token is wrong or of another cluster, the address cannot be
/// reached or is no manager, or the manager kept failing.
pub async fn join(
    dialer: Arc<dyn Dial>,
    addr: &str,
    token: &JoinToken,
    availability: v1::node_spec::Availability,
) -> Result<Credentials, Error> {
    check_address(addr)?;
    if token.mandates_fips() {
        return Err(Error::FipsToken);
    }
    let manager = channel::Manager {
        dialer,
        addr: addr.to_owned(),
    };
    let root = retrying("fetching the root certificate", || {
        fetch_root(&manager, token)
    })
    .await?;
    retrying("requesting a certificate", || {
        enroll::enroll(&manager, &root, token, availability)
    })
    .await
}

/// The unlock key of the cluster that the new manager with these credentials belongs to, through
/// the manager at `addr`. What is saved must be locked with it from the start.
///
/// # Errors
/// As [`join`].
pub async fn unlock_key(
    dialer: Arc<dyn Dial>,
    addr: &str,
    credentials: &Credentials,
) -> Result<Kek, Error> {
    let manager = channel::Manager {
        dialer,
        addr: addr.to_owned(),
    };
    retrying("asking for the unlock key", || {
        fetch_unlock_key(&manager, credentials)
    })
    .await
}

async fn fetch_unlock_key(
    manager: &channel::Manager,
    credentials: &Credentials,
) -> Result<Kek, Error> {
    let config = credentials.client_config().clone();
    let mut client = CaClient::new(manager.open(config, ServerName::Ca).await?);
    let call = async {
        match client.get_unlock_key(GetUnlockKeyRequest {}).await {
            // It knows of no locks.
            Err(status) if status.code() == Code::Unimplemented => {
                Ok(Response::new(GetUnlockKeyResponse::default()))
            }
            answer => answer,
        }
    };
    let reply = manager.call("asking for the unlock key", call).await?;
    let key = match reply.unlock_key.len() {
        0 => None,
        _ => Some(UnlockKey::from_bytes(&reply.unlock_key).ok_or_else(|| {
            Error::unusable(
                "unlock key",
                "the manager sent one that does not have 32 bytes",
            )
        })?),
    };
    Ok(Kek {
        key,
        version: reply.version().index,
    })
}

/// Runs a step until it succeeds, fails for good or was tried [`TRIES`] times.
async fn retrying<T, F>(what: &str, step: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    step.retry(
        ConstantBuilder::new()
            .with_delay(RETRY_PAUSE)
            .with_max_times(TRIES - 1),
    )
    .when(is_transient)
    .notify(|error, _| tracing::warn!(%error, "{what} failed, trying again"))
    .await
}

/// Whether the same might work later.
fn is_transient(error: &Error) -> bool {
    match error {
        Error::Unreachable { source, .. } => source.kind() != std::io::ErrorKind::InvalidInput,
        Error::Rpc { code, .. } => !matches!(
            code,
            Code::InvalidArgument | Code::NotFound | Code::PermissionDenied | Code::Unauthenticated
        ),
        _ => false,
    }
}

/// The root bundle of the cluster, proven by the token's digest.
async fn fetch_root(manager: &channel::Manager, token: &JoinToken) -> Result<RootCa, Error> {
    let channel = manager
        .open(config::unverified_client()?, ServerName::Ca)
        .await?;
    let mut client = CaClient::new(channel);
    let call = client.get_root_ca_certificate(GetRootCaCertificateRequest {});
    let reply = manager.call("fetching the root certificate", call).await?;
    let found = sha256(&reply.certificate);
    if found != *token.digest() {
        return Err(Error::WrongFingerprint {
            addr: manager.addr.clone(),
            expected: hex(token.digest()),
            found: hex(&found),
        });
    }
    RootCa::from_pem(&reply.certificate, None)
}

#[cfg(test)]
mod tests;
