//! Asks for a certificate and waits until it is issued.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use rustls::ClientConfig;
use skep_proto::v1::{
    IssueNodeCertificateRequest, NodeCertificateStatusRequest, NodeCertificateStatusResponse,
    issuance_status::State, node_ca_client::NodeCaClient, node_spec::Availability,
};
use tokio::time::sleep;
use tonic::Code;

use super::channel::Manager;
use crate::{
    Credentials, Error, JoinToken, RootCa, ServerName, credentials::CertificateRequest,
    crypto::certificates, tls::config,
};

/// While waiting, this many calls in a row may fail before all begins anew.
const MAX_LOST_CALLS: u32 = 5;

/// Bounds of the random pause between two polls.
const POLL_BASE: Duration = Duration::from_secs(1);
const MAX_POLL_PAUSE: Duration = Duration::from_secs(30);

/// One whole attempt: new key, request, wait, validation.
pub(super) async fn enroll(
    manager: &Manager,
    root: &RootCa,
    token: &JoinToken,
    availability: Availability,
) -> Result<Credentials, Error> {
    let request = CertificateRequest::generate()?;
    let csr = Bytes::copy_from_slice(request.csr_pem());
    let roots = config::roots(&certificates("root certificate", root.cert_pem())?)?;
    let config = config::client(roots, None)?;

    let mut client = NodeCaClient::new(manager.open(config.clone(), ServerName::Ca).await?);
    let node_id = issue(manager, &mut client, csr.clone(), token, availability).await?;
    let chain = wait(manager, client, config, node_id, &csr).await?;
    request.finish(root.cert_pem(), &chain)
}

type Client = NodeCaClient<tonic::transport::Channel>;

/// Presents the token. Returns the ID to ask for; what counts later is that in the certificate.
async fn issue(
    manager: &Manager,
    client: &mut Client,
    csr: Bytes,
    token: &JoinToken,
    availability: Availability,
) -> Result<String, Error> {
    let request = IssueNodeCertificateRequest {
        csr,
        token: token.to_string(),
        availability: availability.into(),
        ..Default::default()
    };
    let call = client.issue_node_certificate(request);
    match manager.call("requesting a certificate", call).await {
        Ok(reply) => Ok(reply.node_id),
        Err(Error::Rpc {
            addr,
            code: Code::InvalidArgument,
            message,
            ..
        }) => Err(Error::TokenRefused { addr, message }),
        Err(error) => Err(error),
    }
}

/// Polls until the certificate for `csr` is there; returns its chain.
async fn wait(
    manager: &Manager,
    mut client: Client,
    config: Arc<ClientConfig>,
    node_id: String,
    csr: &Bytes,
) -> Result<Bytes, Error> {
    let (mut failures, mut lost) = (0_u32, 0_u32);
    loop {
        let request = NodeCertificateStatusRequest {
            node_id: node_id.clone(),
        };
        let call = client.node_certificate_status(request);
        match manager.call("waiting for the certificate", call).await {
            Ok(reply) => match issued(reply, csr) {
                Ok(chain) => return Ok(chain),
                Err(state) => {
                    lost = 0;
                    tracing::debug!(node_id, state, "the certificate is not issued yet");
                }
            },
            Err(Error::Rpc {
                code: Code::DeadlineExceeded,
                ..
            }) => lost = 0,
            Err(error) => {
                lost += 1;
                if lost >= MAX_LOST_CALLS || !super::is_transient(&error) {
                    return Err(error);
                }
                tracing::warn!(%error, "waiting for the certificate failed, connecting again");
                match manager.open(config.clone(), ServerName::Ca).await {
                    Ok(channel) => client = NodeCaClient::new(channel),
                    Err(error) if !super::is_transient(&error) => return Err(error),
                    // The old connection fails the next call at once and brings us back here.
                    Err(error) => tracing::warn!(%error, "cannot connect again yet"),
                }
            }
        }
        failures = failures.saturating_add(1);
        sleep(poll_pause(failures, rand::random())).await;
    }
}

/// The chain, if the answer is the certificate for `csr`; else the state, for the log.
pub(crate) fn issued(reply: NodeCertificateStatusResponse, csr: &Bytes) -> Result<Bytes, String> {
    let status = reply.status.unwrap_or_default();
    let certificate = reply.certificate.unwrap_or_default();
    match status.state() {
        State::Issued | State::Rotate if certificate.csr == csr => Ok(certificate.certificate),
        State::Failed => Err(format!("FAILED: {}", status.err)),
        state => Err(state.as_str_name().to_owned()),
    }
}

/// A random time (`random` in 0..1) below 1 s + 1 s * 2^(failures - 1), at most 30 s.
pub(crate) fn poll_pause(failures: u32, random: f64) -> Duration {
    let doubled = 2_u32.saturating_pow(failures.saturating_sub(1));
    let limit = POLL_BASE
        .saturating_add(POLL_BASE.saturating_mul(doubled))
        .min(MAX_POLL_PAUSE);
    limit.mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn poll_pauses_grow_to_thirty_seconds() {
        let limits: Vec<_> = (1..=6)
            .map(|failures| poll_pause(failures, 1.0).as_secs())
            .collect();
        assert_eq!(limits, [2, 3, 5, 9, 17, 30]);
        assert_eq!(poll_pause(u32::MAX, 1.0), MAX_POLL_PAUSE);
        assert_eq!(poll_pause(3, 0.0), Duration::ZERO);
        assert_eq!(poll_pause(3, 0.5), Duration::from_millis(2500));
    }
}
