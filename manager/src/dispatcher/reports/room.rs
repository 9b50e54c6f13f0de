//! How much of what nodes report may wait to be stored, in bytes: one call may carry megabytes, so
//! counting calls bounds nothing.
//!
//! All nodes share the room, and who finds it full waits in its turn. One node has a share of it and
//! is refused what goes beyond, so that it cannot make the others wait for it alone.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;
use prost::Message as _;
use skep_proto::v1::TaskStatus;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;

use super::super::status;

/// Bytes of all reports that wait or are being stored, as [`weight`] counts them: several
/// transactions of the largest size, so that the log never waits for the next report.
const ALL: u32 = 64 * 1024 * 1024;

/// The share of one node: two calls of the largest size that a message has by default in gRPC (4 MiB).
const OF_A_NODE: u32 = 8 * 1024 * 1024;

/// What reports of a dispatcher's term take up.
pub(in super::super) struct Room {
    free: Arc<Semaphore>,
    /// By node, of those that have anything waiting.
    taken: Arc<Mutex<HashMap<String, u32>>>,
}

/// The place of one report. It is free again when this is dropped.
pub(super) struct Place {
    _shared: OwnedSemaphorePermit,
    _own: Share,
}

/// What a report takes of its node's share.
struct Share {
    taken: Arc<Mutex<HashMap<String, u32>>>,
    node_id: String,
    bytes: u32,
}

impl Room {
    pub fn new() -> Self {
        Self {
            free: Arc::new(Semaphore::new(ALL as usize)),
            taken: Arc::default(),
        }
    }

    /// A place for a report of so many bytes, in the node's turn.
    ///
    /// # Errors
    /// When the node has too much waiting.
    pub async fn take(&self, node_id: &str, bytes: usize) -> Result<Place, Status> {
        let own = self.share(node_id, bytes)?;
        let shared = Arc::clone(&self.free).acquire_many_owned(own.bytes).await;
        Ok(Place {
            _shared: shared.map_err(|_| status::stopped())?,
            _own: own,
        })
    }

    fn share(&self, node_id: &str, bytes: usize) -> Result<Share, Status> {
        let mut taken = self.taken.lock();
        let before = taken.get(node_id).copied().unwrap_or(0);
        let after = u32::try_from(bytes)
            .ok()
            .and_then(|bytes| before.checked_add(bytes))
            .filter(|after| *after <= OF_A_NODE)
            .ok_or_else(|| {
                Status::resource_exhausted(format!(
                    "{bytes} bytes of task statuses with {before} of the same node waiting to be \
                     stored are too much: report less at a time"
                ))
            })?;
        taken.insert(node_id.to_owned(), after);
        Ok(Share {
            taken: Arc::clone(&self.taken),
            node_id: node_id.to_owned(),
            bytes: after - before,
        })
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut taken = self.taken.lock();
        if let Entry::Occupied(mut entry) = taken.entry(std::mem::take(&mut self.node_id)) {
            let left = entry.get().saturating_sub(self.bytes);
            if left == 0 {
                entry.remove();
            } else {
                entry.insert(left);
            }
        }
    }
}

/// What reported statuses take up, near enough: an empty one is not for nothing.
pub(super) fn weight(updates: &[(String, TaskStatus)]) -> usize {
    let contents = updates
        .iter()
        .map(|(task_id, status)| task_id.len() + status.encoded_len())
        .sum::<usize>();
    size_of_val(updates).saturating_add(contents)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tonic::Code;

    use super::*;

    const SHARE: usize = OF_A_NODE as usize;

    #[tokio::test]
    async fn a_node_is_refused_what_goes_beyond_its_share() {
        let room = Room::new();
        let first = room.take("n1", SHARE - 10).await.unwrap();
        for bytes in [11, SHARE, usize::MAX] {
            let refusal = room.take("n1", bytes).await.err().unwrap();
            assert_eq!(refusal.code(), Code::ResourceExhausted);
        }
        let second = room.take("n1", 10).await.unwrap();
        let _other = room.take("n2", SHARE).await.unwrap();
        drop(first);
        assert!(room.take("n1", SHARE).await.is_err(), "10 are still there");
        drop(second);
        drop(room.take("n1", SHARE).await.unwrap());
        assert_eq!(room.taken.lock().len(), 1, "only n2 has anything waiting");
    }

    #[tokio::test]
    async fn nodes_wait_while_the_room_is_full() {
        let room = Room::new();
        let mut places = Vec::new();
        for number in 0..(ALL / OF_A_NODE) {
            places.push(room.take(&format!("n{number}"), SHARE).await.unwrap());
        }
        let mut late = Box::pin(room.take("late", SHARE));
        assert!(late.as_mut().now_or_never().is_none());
        places.pop();
        let _place = late.await.unwrap();
        let gone = Box::pin(room.take("gone", 1)).now_or_never();
        assert!(gone.is_none(), "full again");
        assert!(
            !room.taken.lock().contains_key("gone"),
            "who gives up waiting has nothing there"
        );
    }

    #[test]
    fn empty_statuses_are_not_for_nothing() {
        let updates = vec![(String::new(), TaskStatus::default()); 1000];
        assert!(weight(&updates) >= 1000 * size_of::<TaskStatus>());
        let large = TaskStatus {
            message: "x".repeat(100_000),
            ..Default::default()
        };
        assert!(weight(&[("t1".to_owned(), large)]) > 100_000);
    }
}
