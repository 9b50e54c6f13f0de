//! Clients: each has one operation at a time, which it gives to whoever says that it leads.
//!
//! The checks here make histories linearizable. Every operation has a place in the one order that the
//! log is: a write the index of its entry, a read the index that the store had reached. What it
//! returned is compared with the history at that place, so operations take effect in the order of
//! their places. It remains that this order agrees with real time: an operation that begins when an
//! answer is known to someone must have a later place than that answered one. So it is enough to keep
//! the highest place that was ever answered, and to compare it with each operation that began after.

use std::{
    future::Future,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use rand::Rng;
use skep_store::{Error, Snapshot, Store};

use super::{
    Violation, broken,
    member::Member,
    mutation::Mutation,
    operation::{self, Operation, Seen},
    plan::{MILLISECOND, Micros, SECOND},
    queue::Event,
    scene::Scene,
    trace::Note,
};

/// Time for which a client waits for an answer.
const PATIENCE: Range<Micros> = 300 * MILLISECOND..6 * SECOND;
const LINEARIZABLE: &str = "acknowledged operations are linearizable";

type Answer = Pin<Box<dyn Future<Output = Result<(), Error>>>>;

pub(super) struct Client {
    number: usize,
    pub(super) busy: Option<InFlight>,
    /// Versions as it knows them, for conditional updates.
    known: std::collections::BTreeMap<String, u64>,
    pub(super) counts: Counts,
    /// It has written something after all faults were over, and is content.
    pub(super) content: bool,
}

/// What has become of operations.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Counts {
    pub(super) acknowledged: u64,
    pub(super) refused: u64,
    pub(super) unknown: u64,
}

pub(super) struct InFlight {
    number: u64,
    pub(super) member: u64,
    pub(super) life: u64,
    /// `None` for a read, which the member answers by itself.
    answer: Option<Answer>,
    seen: Arc<Mutex<Seen>>,
    /// Highest index that someone knew to be committed when it began.
    known: u64,
    /// Whether it began after all faults were over.
    last: bool,
    place: Place,
}

/// Where an operation stands in the log.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// It is the transaction with this request ID.
    Proposed(u64),
    /// It changes nothing, and has seen what this transaction has written.
    Behind(u64),
    /// It changes nothing, and has seen the store as of this index.
    At(u64),
}

impl Client {
    pub(super) fn new(number: usize) -> Self {
        Self {
            number,
            busy: None,
            known: std::collections::BTreeMap::new(),
            counts: Counts::default(),
            content: false,
        }
    }

    /// Begins an operation on a member whose store leads.
    pub(super) fn begin(
        &mut self,
        operation: Operation,
        number: u64,
        member: &mut Member,
        scene: &mut Scene,
    ) -> Result<(), Violation> {
        let (id, life) = (member.id, member.life);
        let Some(process) = &mut member.process else {
            return Ok(());
        };
        let what = operation.what();
        scene.note(
            id,
            Note::Asked {
                client: self.number,
                operation: number,
                what,
            },
        );
        let seen = Arc::<Mutex<Seen>>::default();
        let data = scene.plan.data.clone();
        let data = scene.rng.random_range(data);
        let store = process.store.clone();
        let mut answer = transact(store, operation, number, data, seen.clone());
        process.proposals.lock().latest = None;
        let before = process.store.snapshot().index();
        let polled = poll(&mut answer);
        let proposals = process.proposals.lock();
        let place = match (proposals.latest, proposals.tail) {
            (Some((request, true)), _) => Place::Proposed(request),
            // The last transaction may still be under way, then this one waits for it.
            (_, Some(tail)) if scene.oracle.index_of(tail).is_none_or(|at| at > before) => {
                Place::Behind(tail)
            }
            _ => Place::At(before),
        };
        drop(proposals);
        self.busy = Some(InFlight {
            number,
            member: id,
            life,
            answer: Some(answer),
            seen,
            known: scene.oracle.known,
            last: scene.healed,
            place,
        });
        let impatience = scene.between(&PATIENCE);
        let client = self.number;
        scene.after(
            impatience,
            Event::Impatience {
                client,
                operation: number,
            },
        );
        member.wake(scene);
        match polled {
            Poll::Ready(result) => self.end(Some(result), scene),
            Poll::Pending
                if scene.is(Mutation::AcknowledgeEarly)
                    && matches!(place, Place::Proposed(_))
                    && scene.chance(0.05) =>
            {
                self.end(Some(Ok(())), scene)
            }
            Poll::Pending => Ok(()),
        }
    }

    /// Begins to read what is current.
    pub(super) fn begin_read(&mut self, number: u64, member: &mut Member, scene: &mut Scene) {
        let Some(process) = &mut member.process else {
            return;
        };
        process.reads.ask((self.number, number));
        let (client, what) = (self.number, "read");
        scene.note(
            member.id,
            Note::Asked {
                client,
                operation: number,
                what,
            },
        );
        self.busy = Some(InFlight {
            number,
            member: member.id,
            life: member.life,
            answer: None,
            seen: Arc::default(),
            known: scene.oracle.known,
            last: false,
            place: Place::At(0),
        });
        let impatience = scene.between(&PATIENCE);
        scene.after(
            impatience,
            Event::Impatience {
                client,
                operation: number,
            },
        );
        member.wake(scene);
    }

    /// May look at the store now, if it still waits for that, or is refused.
    pub(super) fn read_now(
        &mut self,
        number: u64,
        store: Option<&Snapshot>,
        scene: &mut Scene,
    ) -> Result<(), Violation> {
        let Some(busy) = self.busy.take_if(|busy| busy.number == number) else {
            return Ok(());
        };
        let mut index = 0;
        if let Some(store) = store {
            index = store.index();
            scene.counts.reads += 1;
            if index < busy.known {
                let what = format!("read {} saw index {index}", busy.number);
                return broken(
                    LINEARIZABLE,
                    format!("{what} when {} was known", busy.known),
                );
            }
            scene.oracle.known = scene.oracle.known.max(index);
            for (key, version) in operation::look(store, &mut scene.rng) {
                if scene.oracle.version_at(&key, index) != version {
                    return broken(LINEARIZABLE, format!("read {} saw {key:?}", busy.number));
                }
            }
        }
        let (client, operation, what) = (self.number, busy.number, "read");
        scene.note(
            busy.member,
            Note::Answered {
                client,
                operation,
                index,
                what,
            },
        );
        self.rest(index == 0, scene);
        Ok(())
    }

    /// Looks whether there is an answer.
    pub(super) fn poll(&mut self, scene: &mut Scene) -> Result<(), Violation> {
        if let Some(busy) = &mut self.busy
            && let Some(answer) = &mut busy.answer
            && let Poll::Ready(result) = poll(answer)
        {
            return self.end(Some(result), scene);
        }
        Ok(())
    }

    /// Goes away without the answer to this operation.
    pub(super) fn give_up(&mut self, operation: u64, scene: &mut Scene) -> Result<(), Violation> {
        match &self.busy {
            Some(busy) if busy.number == operation => self.end(None, scene),
            _ => Ok(()),
        }
    }

    /// Takes the answer, or that there will be none.
    pub(super) fn end(
        &mut self,
        result: Option<Result<(), Error>>,
        scene: &mut Scene,
    ) -> Result<(), Violation> {
        let Some(busy) = self.busy.take() else {
            return Ok(());
        };
        let (client, member, operation) = (self.number, busy.member, busy.number);
        let (index, what) = match result {
            None | Some(Err(Error::LostLeadership)) => {
                self.counts.unknown += 1;
                (0, "perhaps")
            }
            Some(Ok(())) => {
                self.counts.acknowledged += 1;
                self.content = busy.last;
                (self.acknowledged(&busy, scene)?, "done")
            }
            Some(Err(Error::TooLarge | Error::Busy)) => {
                self.counts.refused += 1;
                scene.oracle.refuses(operation)?;
                (0, "refused")
            }
            Some(Err(_)) => {
                self.counts.refused += 1;
                (self.refused(&busy, scene)?, "refused for what it saw")
            }
        };
        scene.note(
            member,
            Note::Answered {
                client,
                operation,
                index,
                what,
            },
        );
        self.rest(index == 0, scene);
        Ok(())
    }

    /// Waits before it does the next thing.
    fn rest(&self, failed: bool, scene: &mut Scene) {
        let think = scene.plan.think.clone();
        let mut pause = scene.between(&think);
        if failed {
            pause += 20 * MILLISECOND;
        }
        if scene.chance(0.1) && !scene.healed {
            let rest = scene.plan.rest.clone();
            pause += scene.between(&rest);
        }
        let client = self.number;
        scene.after(pause, Event::Client { client });
    }

    fn acknowledged(&mut self, busy: &InFlight, scene: &mut Scene) -> Result<u64, Violation> {
        let seen = busy.seen.lock();
        let index = match busy.place {
            Place::Proposed(request) => {
                let index = scene.oracle.acknowledges(request)?;
                if index <= busy.known {
                    return broken(
                        LINEARIZABLE,
                        format!(
                            "operation {} is entry {index} and began when {} was known",
                            busy.number, busy.known
                        ),
                    );
                }
                check_seen(busy, &seen, index - 1, scene)?;
                for (key, version) in &seen.writes {
                    if scene.oracle.version_at(key, index) != *version {
                        return broken(
                            "a transaction is committed as it was made",
                            format!("operation {}: {key:?} at {index}", busy.number),
                        );
                    }
                }
                // Whoever begins from now on must come later.
                scene.oracle.known = scene.oracle.known.max(index);
                index
            }
            _ => self.read(busy, &seen, scene)?,
        };
        for ((_, id), version) in seen.reads.iter().chain(&seen.writes) {
            match version {
                Some(version) => self.known.insert(id.clone(), *version),
                None => self.known.remove(id),
            };
        }
        Ok(index)
    }

    /// An answer that changes nothing must be true of what is committed. It may be outdated: whoever
    /// needs the present asks for it, see [`super::member`].
    fn read(&self, busy: &InFlight, seen: &Seen, scene: &Scene) -> Result<u64, Violation> {
        let index = match busy.place {
            Place::At(index) => Some(index),
            Place::Behind(request) | Place::Proposed(request) => scene.oracle.index_of(request),
        };
        let Some(index) = index else {
            return broken(
                "nobody learns of what is not committed",
                format!(
                    "operation {} was answered before what it saw was committed",
                    busy.number
                ),
            );
        };
        check_seen(busy, seen, index, scene)?;
        Ok(index)
    }

    fn refused(&mut self, busy: &InFlight, scene: &mut Scene) -> Result<u64, Violation> {
        let seen = busy.seen.lock();
        scene.oracle.refuses(busy.number)?;
        // A client that has been told of a conflict looks again.
        self.known.clear();
        self.read(busy, &seen, scene)
    }

    /// A version that this client believes an object to have.
    pub(super) fn knows(&self, id: &str) -> Option<u64> {
        self.known.get(id).copied()
    }
}

/// What a transaction has read must be what the history says.
fn check_seen(busy: &InFlight, seen: &Seen, index: u64, scene: &Scene) -> Result<(), Violation> {
    if let Some(wrong) = &seen.wrong {
        return broken(
            "the store keeps its rules",
            format!("operation {}: {wrong}", busy.number),
        );
    }
    let rule = "transactions see exactly what is before them";
    for (key, version) in &seen.reads {
        let expected = scene.oracle.version_at(key, index);
        if expected != *version {
            let what = format!("operation {} saw {key:?} {version:?}", busy.number);
            return broken(rule, format!("{what}, not {expected:?} of index {index}"));
        }
    }
    for (name, owner) in &seen.names {
        let expected = scene.oracle.named_at(name, index);
        if expected != owner.as_deref() {
            let what = format!("operation {} saw that {owner:?} is {name}", busy.number);
            return broken(rule, format!("{what}, not {expected:?} of index {index}"));
        }
    }
    Ok(())
}

fn transact(
    store: Store,
    operation: Operation,
    number: u64,
    data: usize,
    seen: Arc<Mutex<Seen>>,
) -> Answer {
    Box::pin(async move {
        store
            .update(|tx| operation.run(number, data, tx, &mut seen.lock()))
            .await
    })
}

fn poll(answer: &mut Answer) -> Poll<Result<(), Error>> {
    answer
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()))
}
