//! Writes down what the registry finds out about nodes from which nothing is heard.
//!
//! A node may register while its fall is on its way into the store. Whoever registers first changes
//! the registry and then writes, and the transactions here look at the registry while they run: so
//! either they find the node back and leave it alone, or the registration is written after them.

use std::{sync::Arc, time::Duration};

use prost::Message as _;
use skep_proto::v1::{Node, node_status::State};
use skep_store::{Error, Tx};
use tokio::time::sleep;
use tracing::{info, warn};

use super::{registry::Lapse, term::Term};
use crate::batch::write_all;

const UNKNOWN: &str = r#"Node moved to "unknown" state due to leadership change in cluster"#;
const DOWN: &str = "heartbeat failure";
const DOWN_FROM_UNKNOWN: &str = r#"heartbeat failure for node in "unknown" state"#;

/// Pause before a write that failed is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Longest sleep: the clock takes no arbitrarily far wake-ups.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// The nodes of earlier terms that are believed to be there.
pub(super) fn expected(term: &Term) -> Vec<Arc<Node>> {
    let snapshot = term.store.snapshot();
    snapshot
        .all::<Node>()
        .filter(|node| node.status().state() != State::Down)
        .cloned()
        .collect()
}

/// Marks the nodes of earlier terms that have not registered yet.
pub(super) async fn mark_unknown(term: &Term, nodes: &[Arc<Node>]) {
    let write = |tx: &mut Tx, node: &Arc<Node>| {
        if term.is_unknown(&node.id) {
            set(tx, &node.id, State::Unknown, UNKNOWN)
        } else {
            Ok(())
        }
    };
    loop {
        let result = write_all(&term.store, nodes, |node| node.encoded_len(), write).await;
        if settled("marking nodes as unknown", result).await.is_some() {
            return;
        }
    }
}

/// Marks nodes as down when their time has run out. Ends when leadership is lost.
pub(super) async fn mark_down(term: &Term) {
    loop {
        let lapses = term.expire();
        if lapses.is_empty() {
            tokio::select! {
                () = term.earlier.notified() => {}
                () = sleep(term.next_expiry().unwrap_or(LONGEST_SLEEP).min(LONGEST_SLEEP)) => {}
            }
            continue;
        }
        for lapse in &lapses {
            info!(node = %lapse.node_id, unknown = lapse.unknown, "no heartbeat, node is down");
        }
        let snapshot = term.store.snapshot();
        let size = |lapse: &Lapse| {
            snapshot
                .get::<Node>(&lapse.node_id)
                .map_or(0, |node| node.encoded_len())
        };
        let write = |tx: &mut Tx, lapse: &Lapse| {
            if !term.is_lapsed(&lapse.node_id) {
                return Ok(());
            }
            let message = if lapse.unknown {
                DOWN_FROM_UNKNOWN
            } else {
                DOWN
            };
            set(tx, &lapse.node_id, State::Down, message)
        };
        loop {
            let result = write_all(&term.store, &lapses, size, write).await;
            match settled("marking nodes as down", result).await {
                Some(true) => break,
                Some(false) => return,
                None => {}
            }
        }
        term.forget_lapsed(&lapses);
    }
}

/// Sets state and message of a node. One that is gone, or that is so already, is left alone.
fn set(tx: &mut Tx, node_id: &str, state: State, message: &str) -> Result<(), Error> {
    let Some(node) = tx.get::<Node>(node_id) else {
        return Ok(());
    };
    let status = node.status();
    let done = match state {
        State::Down => status.state() == state,
        _ => status.state() == state && status.message == message,
    };
    if done {
        return Ok(());
    }
    let mut node = Node::clone(node);
    node.status_mut().set_state(state);
    node.status_mut().message = message.to_owned();
    tx.update(node).map(drop)
}

/// Whether a write is over and done, `None` if it has to be tried again, which is after a pause.
/// `Some(false)`: leadership is lost.
async fn settled(what: &str, result: Result<(), Error>) -> Option<bool> {
    match result {
        Ok(()) => Some(true),
        Err(Error::LostLeadership) => Some(false),
        Err(error) => {
            warn!(%error, "{what} failed, will be tried again");
            sleep(RETRY).await;
            None
        }
    }
}
