//! Any interleaving of transactions, commits, changes of leader and restored snapshots: three stores
//! against plain maps.
#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

#[path = "model/plain.rs"]
mod plain;
#[path = "model/reader.rs"]
mod reader;

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    task::{Context, Poll, Waker},
};

use plain::{Plain, Step, task_id};
use proptest::prelude::*;
use reader::Reader;
use skep_proto::Timestamp;
use skep_store::{Entry, Error, Image, Store, testing::ManualLog};

#[derive(Clone, Debug)]
enum Op {
    /// Start a transaction.
    Start(Vec<Step>),
    /// Commit this many of the proposals that wait.
    Commit { count: usize },
    /// The other manager leads. This many of the old leader's proposals are still committed; the
    /// others are lost. The old leader is told, or learns of it by an entry that is not its own.
    Takeover { kept: usize, told: bool },
    /// The manager that is behind gets the entries that it lacks, so many at a time.
    CatchUp { batch: usize },
    /// The manager that is behind gets a snapshot.
    Restore { serialised: bool },
    /// More commits than a subscription holds.
    Flood,
    /// The reader that does so now and then reads.
    Read,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        120 => prop::collection::vec(Step::any(), 1..4).prop_map(Op::Start),
        50 => (1..5_usize).prop_map(|count| Op::Commit { count }),
        10 => (0..4_usize, any::<bool>()).prop_map(|(kept, told)| Op::Takeover { kept, told }),
        10 => (1..5_usize).prop_map(|batch| Op::CatchUp { batch }),
        10 => any::<bool>().prop_map(|serialised| Op::Restore { serialised }),
        1 => Just(Op::Flood),
        10 => Just(Op::Read),
    ]
}

type Write = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

/// A transaction without an answer yet.
struct Waiting {
    write: Write,
    /// What the answer must be.
    answer: Result<(), Error>,
    /// How many transactions must be committed before it may be given.
    after: u64,
}

struct World {
    /// The first two lead in turn and have everything that is committed. The third is behind.
    stores: [Store; 3],
    readers: [Reader; 3],
    /// Reads the first store only now and then.
    slow: Reader,
    leader: usize,
    log: ManualLog,
    entries: Vec<Entry>,
    waiting: Vec<Waiting>,
    committed: Plain,
    /// The state after each transaction that is not committed yet.
    pending: VecDeque<Plain>,
    /// Transactions that were committed.
    transactions: u64,
    next_version: u64,
}

impl World {
    fn new() -> Self {
        let ticks = Arc::new(AtomicI64::new(0));
        let stores = [(); 3].map(|()| {
            let ticks = ticks.clone();
            Store::new(move || Timestamp {
                seconds: ticks.fetch_add(1, Ordering::Relaxed),
                nanos: 0,
            })
        });
        let mut world = Self {
            readers: [0, 1, 2].map(|at| Reader::new(&stores[at])),
            slow: Reader::new(&stores[0]),
            stores,
            leader: 0,
            log: ManualLog::default(),
            entries: Vec::new(),
            waiting: Vec::new(),
            committed: Plain::default(),
            pending: VecDeque::new(),
            transactions: 0,
            next_version: 0,
        };
        world.lead();
        world
    }

    fn index(&self) -> u64 {
        self.entries.len() as u64
    }

    fn lead(&mut self) {
        self.next_version = self.index() + 1;
        // As a random number would be: far from those of the leaders before.
        let first_request = (self.index() + 1) << 32;
        self.stores[self.leader].lead(first_request, Arc::new(self.log.clone()));
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Start(steps) => self.start(steps),
            Op::Commit { count } => self.commit(count),
            Op::Takeover { kept, told } => self.takeover(kept, told),
            Op::CatchUp { batch } => self.catch_up(batch),
            Op::Restore { serialised } => self.restore(serialised),
            Op::Flood => self.flood(),
            Op::Read => self.slow.read(&self.stores[0]),
        }
        self.check();
    }

    fn start(&mut self, mut steps: Vec<Step>) {
        for step in &mut steps {
            if let Step::Write { id, version } = step {
                let known = self.committed.tasks.get(&task_id(*id));
                *version = known.map_or(0, |(_, version)| *version);
            }
        }
        let head = self.pending.back().unwrap_or(&self.committed);
        let next = head.after(&steps, self.next_version);
        let answer = next.as_ref().map(drop).map_err(Clone::clone);
        if let Ok(Some(next)) = next {
            self.pending.push_back(next);
            self.next_version += 1;
        }
        let store = self.stores[self.leader].clone();
        let run = move |tx: &mut skep_store::Tx| steps.iter().try_for_each(|step| step.run(tx));
        self.waiting.push(Waiting {
            write: Box::pin(async move { store.update(run).await }),
            answer,
            after: self.transactions + self.pending.len() as u64,
        });
        self.answers();
        assert_eq!(
            self.log.len(),
            self.pending.len(),
            "proposed at once, or refused"
        );
    }

    /// Those whose transaction, and all that it has seen, is committed have the right answer, and
    /// nobody else has any.
    fn answers(&mut self) {
        let committed = self.transactions;
        self.waiting.retain_mut(|waiting| {
            let answer = poll(&mut waiting.write);
            if waiting.after > committed {
                assert_eq!(answer, Poll::Pending, "it has seen what is not committed");
                return true;
            }
            assert_eq!(answer, Poll::Ready(waiting.answer.clone()));
            false
        });
    }

    fn commit(&mut self, count: usize) {
        let entries = self.proposed(count);
        let other = 1 - self.leader;
        self.stores[self.leader].apply(&entries).unwrap();
        // One by one: how entries come must not matter.
        for entry in &entries {
            self.stores[other]
                .apply(std::slice::from_ref(entry))
                .unwrap();
        }
        self.answers();
    }

    /// The next proposals as entries of the log, which they get into.
    fn proposed(&mut self, count: usize) -> Vec<Entry> {
        let entries = self.log.take(self.index(), count);
        for _ in &entries {
            self.committed = self.pending.pop_front().unwrap();
            self.transactions += 1;
        }
        self.entries.extend(entries.iter().cloned());
        entries
    }

    fn takeover(&mut self, kept: usize, told: bool) {
        let (old, new) = (self.leader, 1 - self.leader);
        let kept = self.proposed(kept);
        self.log.lose();
        self.pending.clear();
        if told {
            self.stores[old].follow();
            self.all_lost();
        }
        self.stores[old].apply(&kept).unwrap();
        self.stores[new].apply(&kept).unwrap();
        if !told {
            self.answers();
        }
        // The first entry of a term carries nothing.
        self.entries.push(Entry {
            index: self.index() + 1,
            data: Default::default(),
        });
        for at in [old, new] {
            self.stores[at]
                .apply(&self.entries[self.entries.len() - 1..])
                .unwrap();
        }
        self.leader = new;
        self.lead();
        if !told {
            // Those who wait at the old leader have no answer until it learns that it is not.
            let lost = std::mem::take(&mut self.waiting);
            self.start(vec![
                Step::Create { id: 200, node: 0 },
                Step::Remove { id: 200 },
            ]);
            self.commit(1);
            assert!(self.waiting.is_empty());
            self.waiting = lost;
            self.all_lost();
        }
    }

    fn all_lost(&mut self) {
        for mut waiting in self.waiting.drain(..) {
            assert_eq!(
                poll(&mut waiting.write),
                Poll::Ready(Err(Error::LostLeadership))
            );
        }
    }

    fn catch_up(&mut self, batch: usize) {
        let has = self.stores[2].snapshot().index() as usize;
        for entries in self.entries[has..].chunks(batch) {
            self.stores[2].apply(entries).unwrap();
        }
        self.readers[2].read(&self.stores[2]);
    }

    fn restore(&mut self, serialised: bool) {
        let snapshot = self.stores[self.leader].snapshot();
        if snapshot.index() == self.stores[2].snapshot().index() {
            return;
        }
        if serialised {
            let image = Image::decode(&snapshot.to_bytes()).unwrap();
            self.stores[2].restore(snapshot.index(), image);
        } else {
            self.stores[2].restore(snapshot.index(), snapshot.to_wire());
        }
        self.readers[2].read(&self.stores[2]);
        assert_eq!(self.stores[2].snapshot().to_wire(), snapshot.to_wire());
    }

    fn flood(&mut self) {
        self.commit(usize::MAX);
        let lagged = self.slow.lagged;
        for _ in 0..513 {
            self.start(vec![Step::Create { id: 201, node: 0 }]);
            self.start(vec![Step::Remove { id: 201 }]);
            self.commit(1);
            self.commit(1);
            (0..2).for_each(|at| self.readers[at].read(&self.stores[at]));
        }
        self.slow.read(&self.stores[0]);
        assert_eq!(self.slow.lagged, lagged + 1, "told once");
    }

    fn check(&mut self) {
        for at in [0, 1] {
            let snapshot = self.stores[at].snapshot();
            assert_eq!(snapshot.index(), self.index());
            assert_eq!(Plain::of(&snapshot), self.committed);
            self.readers[at].read(&self.stores[at]);
            assert_eq!(self.readers[at].lagged, 0, "it keeps up");
        }
        let [one, other] = [0, 1].map(|at| self.stores[at].snapshot().to_wire());
        assert_eq!(one, other, "same index, same store");
    }
}

fn poll(write: &mut Write) -> Poll<Result<(), Error>> {
    write.as_mut().poll(&mut Context::from_waker(Waker::noop()))
}

proptest! {
    #[test]
    fn any_interleaving(ops in prop::collection::vec(op(), 1..80)) {
        let mut world = World::new();
        for op in ops {
            world.run(op);
        }
        world.commit(usize::MAX);
        world.check();
        assert!(world.waiting.is_empty(), "everything is committed, so everyone has an answer");
        world.catch_up(usize::MAX);
        world.slow.read(&world.stores[0]);
    }
}
