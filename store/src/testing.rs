//! A stand-in for replication, for tests of what sits on a store.

pub mod sample;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread,
};

use parking_lot::Mutex;

use crate::{Entry, Error, Proposal, Propose, Store};

/// A log without a disk or peers: what was proposed waits until the test commits or drops it.
#[derive(Clone, Debug, Default)]
pub struct ManualLog {
    proposals: Arc<Mutex<VecDeque<Proposal>>>,
}

impl Propose for ManualLog {
    fn propose(&self, proposal: Proposal) -> Result<(), Error> {
        self.proposals.lock().push_back(proposal);
        Ok(())
    }
}

impl ManualLog {
    /// Takes the next `count` proposals as entries that follow `index`.
    pub fn take(&self, index: u64, count: usize) -> Vec<Entry> {
        let mut proposals = self.proposals.lock();
        let count = count.min(proposals.len());
        (index + 1..)
            .zip(proposals.drain(..count))
            .map(|(index, p)| Entry {
                index,
                data: p.data,
            })
            .collect()
    }

    /// Proposals that wait.
    pub fn len(&self) -> usize {
        self.proposals.lock().len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Loses everything that waits, as a change of leader does.
    pub fn lose(&self) {
        self.proposals.lock().clear();
    }
}

/// A store that leads and commits everything at once, on a thread of its own. The thread ends with
/// the store's leadership.
pub fn leading(clock: impl Fn() -> skep_proto::Timestamp + Send + Sync + 'static) -> Store {
    let store = Store::new(clock);
    lead(&store);
    store
}

/// Makes a store lead as [`leading`] does.
pub fn lead(store: &Store) {
    struct Immediate(Sender<Proposal>);
    impl Propose for Immediate {
        fn propose(&self, proposal: Proposal) -> Result<(), Error> {
            self.0.send(proposal).map_err(|_| Error::LostLeadership)
        }
    }
    let (proposals, queue) = mpsc::channel();
    store.lead(1, Arc::new(Immediate(proposals)));
    let applying = store.clone();
    thread::spawn(move || {
        while let Ok(proposal) = queue.recv() {
            let index = applying.snapshot().index() + 1;
            if applying
                .apply(&[Entry {
                    index,
                    data: proposal.data,
                }])
                .is_err()
            {
                return;
            }
        }
    });
}
