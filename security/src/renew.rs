//! Asks for another certificate for a node that has one.
//!
//! The CA knows from the connection who asks, and decides which role the certificate names. When to
//! ask, and what to make of the answer, is whoever calls this to say.

use std::time::Duration;

use bytes::Bytes;
use skep_proto::v1::{
    GetRootCaCertificateRequest, IssueNodeCertificateRequest, NodeCertificateStatusRequest,
    ca_client::CaClient, node_ca_client::NodeCaClient,
};
use tokio::time::{sleep, timeout};
use tonic::{Code, Response, Status, transport::Channel};

use crate::{
    Credentials, Error,
    credentials::CertificateRequest,
    join::enroll::{issued, poll_pause},
};

/// How long one call may take (SwarmKit's number).
const CALL_TIMEOUT: Duration = Duration::from_secs(5);

/// Polls in a row that may fail before all begins anew.
const MAX_LOST_POLLS: u32 = 5;

/// Makes a new key, has the manager behind `channel` certify it, and returns the new credentials of
/// the same node. They are neither saved nor in use yet.
///
/// If the new certificate does not lead to the node's root, the manager is asked for the root; that
/// one counts only if the certificate leads to it.
///
/// Waits as long as it takes for the request to be signed; drop the future to give up.
///
/// # Errors
/// [`Error::Renewal`] if the manager refuses, cannot be reached or answers for another node;
/// [`Error::Unusable`] if the certificate is not valid here.
pub async fn renew(channel: Channel, current: &Credentials) -> Result<Credentials, Error> {
    let request = CertificateRequest::generate()?;
    let csr = Bytes::copy_from_slice(request.csr_pem());
    let own = current.identity();
    let mut client = NodeCaClient::new(channel.clone());
    let asked = client.issue_node_certificate(IssueNodeCertificateRequest {
        csr: csr.clone(),
        ..Default::default()
    });
    let reply = answered(asked).await.map_err(|status| refused(&status))?;
    if reply.node_id != own.node_id {
        return Err(other_node(&reply.node_id));
    }
    let chain = wait(client, &own.node_id, &csr).await?;
    let renewed = match request.finish(current.root_pem(), &chain) {
        Ok(renewed) => renewed,
        Err(error) => {
            let asked = CaClient::new(channel);
            let root = fetch_root(asked).await?;
            if root == current.root_pem() {
                return Err(error);
            }
            let renewed = request.finish(&root, &chain)?;
            tracing::info!(
                "the cluster has another root certificate, which is trusted from now on"
            );
            renewed
        }
    };
    let new = renewed.identity();
    if (&new.node_id, &new.cluster_id) != (&own.node_id, &own.cluster_id) {
        return Err(other_node(&new.node_id));
    }
    Ok(renewed)
}

/// Polls until the certificate for `csr` is there; returns its chain.
async fn wait(
    mut client: NodeCaClient<Channel>,
    node_id: &str,
    csr: &Bytes,
) -> Result<Bytes, Error> {
    let (mut failures, mut lost) = (0_u32, 0_u32);
    loop {
        let asked = client.node_certificate_status(NodeCertificateStatusRequest {
            node_id: node_id.to_owned(),
        });
        match answered(asked).await {
            Ok(reply) => match issued(reply, csr) {
                Ok(chain) => return Ok(chain),
                Err(state) => {
                    lost = 0;
                    tracing::debug!(state, "the certificate is not issued yet");
                }
            },
            Err(status) if status.code() == Code::DeadlineExceeded => lost = 0,
            Err(status) => {
                lost += 1;
                if lost >= MAX_LOST_POLLS || status.code() == Code::NotFound {
                    return Err(refused(&status));
                }
            }
        }
        failures = failures.saturating_add(1);
        sleep(poll_pause(failures, rand::random())).await;
    }
}

async fn fetch_root(mut client: CaClient<Channel>) -> Result<Bytes, Error> {
    let asked = client.get_root_ca_certificate(GetRootCaCertificateRequest {});
    let reply = answered(asked).await.map_err(|status| refused(&status))?;
    Ok(reply.certificate)
}

async fn answered<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    timeout(CALL_TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer within 5 s")))
        .map(Response::into_inner)
}

fn refused(status: &Status) -> Error {
    Error::Renewal(format!("{} ({:?})", status.message(), status.code()))
}

fn other_node(node_id: &str) -> Error {
    Error::Renewal(format!("the manager takes this node for {node_id}"))
}

#[cfg(test)]
mod tests;
