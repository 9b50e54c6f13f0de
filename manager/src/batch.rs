//! Many small writes in few transactions.

use futures_util::future::try_join_all;
use skep_store::{Error, MAX_CHANGES_PER_BATCH, MAX_PROPOSAL_BYTES, Store, Tx};

/// Estimated bytes in one transaction. The rest of the limit is for what objects may have grown by
/// since the estimate.
const MAX_BATCH_BYTES: usize = MAX_PROPOSAL_BYTES / 2;

/// Runs `write` for every item and waits until all of it is committed.
///
/// The transactions carry at most [`MAX_CHANGES_PER_BATCH`] items each; they are proposed one after
/// the other without waiting for each other's commit. `size` estimates the bytes of an item's
/// change; a write may also find that there is nothing to do. If one transaction fails, the others
/// may still be committed.
pub(crate) async fn write_all<T: Sync>(
    store: &Store,
    items: &[T],
    size: impl Fn(&T) -> usize,
    write: impl Fn(&mut Tx, &T) -> Result<(), Error>,
) -> Result<(), Error> {
    let write = &write;
    let transactions = split(items, size)
        .into_iter()
        .map(|items| store.update(move |tx| items.iter().try_for_each(|item| write(tx, item))));
    try_join_all(transactions).await.map(drop)
}

/// Parts of `items` that each fit in a transaction: at most [`MAX_CHANGES_PER_BATCH`] items, and as
/// many bytes as may safely be estimated. An item that is too large for that is a part of its own.
pub(crate) fn split<T>(items: &[T], size: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut parts = Vec::new();
    let mut start = 0;
    let mut bytes = 0_usize;
    for (at, item) in items.iter().enumerate() {
        let size = size(item);
        let full =
            at - start == MAX_CHANGES_PER_BATCH || bytes.saturating_add(size) > MAX_BATCH_BYTES;
        if full && at > start {
            parts.push(&items[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes = bytes.saturating_add(size);
    }
    if start < items.len() {
        parts.push(&items[start..]);
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lengths(items: &[usize]) -> Vec<usize> {
        split(items, |size| *size)
            .iter()
            .map(|part| part.len())
            .collect()
    }

    #[test]
    fn transactions_stay_below_both_limits() {
        assert_eq!(lengths(&[]), Vec::<usize>::new());
        assert_eq!(lengths(&[1; 450]), [200, 200, 50]);
        let third = MAX_BATCH_BYTES / 3;
        assert_eq!(lengths(&[third; 7]), [3, 3, 1]);
        assert_eq!(
            lengths(&[usize::MAX, 1, usize::MAX]),
            [1, 1, 1],
            "too large goes alone"
        );
    }
}
