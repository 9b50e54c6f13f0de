//! Takes the messages of a node for one subscription and hands them to its client.

use std::sync::Arc;

use futures_util::{Stream, StreamExt as _};
use skep_proto::v1::{LogMessage, PublishLogsMessage};
use tonic::Status;

use super::{
    Term,
    board::Refusal,
    queue::{self, Closed},
    stopped,
};

/// A node's stream for a subscription.
struct Publishing {
    term: Arc<Term>,
    node_id: String,
    id: String,
    sender: queue::Sender,
    /// Whether the node has said that it has no more.
    willing: bool,
}

impl Drop for Publishing {
    fn drop(&mut self) {
        let mut board = self.term.board.lock();
        board.unpublish(&self.id, &self.node_id, self.willing);
    }
}

/// Takes messages until the node has no more or nobody wants them. If this is dropped, the node was
/// cut off.
pub(super) async fn publish(
    term: Arc<Term>,
    node_id: String,
    messages: impl Stream<Item = Result<PublishLogsMessage, Status>>,
) -> Result<(), Status> {
    tokio::pin!(messages);
    let mut publishing: Option<Publishing> = None;
    loop {
        let sender = publishing.as_ref().map(|publishing| &publishing.sender);
        let message = tokio::select! {
            biased;
            () = term.ending.cancelled() => return Err(stopped()),
            () = closed(sender) => return Ok(()),
            message = messages.next() => message.transpose()?,
        };
        let Some(message) = message else {
            if let Some(publishing) = &mut publishing {
                publishing.willing = true;
            }
            return Ok(());
        };
        let PublishLogsMessage {
            subscription_id,
            messages,
            close,
        } = message;
        if subscription_id.is_empty() {
            return Err(Status::invalid_argument("missing subscription ID"));
        }
        let publishing = match &mut publishing {
            Some(publishing) if publishing.id != subscription_id => {
                return Err(Status::invalid_argument(
                    "different subscription IDs in the same session",
                ));
            }
            Some(publishing) => publishing,
            None => publishing.insert(begin(&term, &node_id, subscription_id)?),
        };
        check(&messages, &node_id)?;
        if !messages.is_empty() {
            let sent = tokio::select! {
                biased;
                () = term.ending.cancelled() => return Err(stopped()),
                sent = publishing.sender.send(messages) => sent,
            };
            if sent == Err(Closed) {
                return Ok(());
            }
        }
        if close {
            publishing.willing = true;
            return Ok(());
        }
    }
}

fn begin(term: &Arc<Term>, node_id: &str, id: String) -> Result<Publishing, Status> {
    let sender = term.board.lock().publish(&id, node_id);
    let sender = sender.map_err(|refusal| match refusal {
        Refusal::Unknown => Status::not_found("unknown subscription ID"),
        Refusal::Twice => Status::resource_exhausted(format!(
            "node {node_id} publishes for subscription {id} already"
        )),
    })?;
    Ok(Publishing {
        term: term.clone(),
        node_id: node_id.to_owned(),
        id,
        sender,
        willing: false,
    })
}

/// A node speaks for itself only.
fn check(messages: &[LogMessage], node_id: &str) -> Result<(), Status> {
    let mut others = messages
        .iter()
        .map(|message| &message.context().node_id)
        .filter(|other| *other != node_id);
    match others.next() {
        Some(other) => Err(Status::permission_denied(format!(
            "invalid NodeID: expected={node_id};received={other}"
        ))),
        None => Ok(()),
    }
}

/// Waits until nobody reads what is sent; before a stream has said for whom it is, for ever.
async fn closed(sender: Option<&queue::Sender>) {
    match sender {
        Some(sender) => sender.closed().await,
        None => std::future::pending().await,
    }
}
