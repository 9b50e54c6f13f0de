//! A small world for tests: a store, the reconcilers, agents that do as they are told, and a clock
//! that jumps to where something happens next.

mod objects;

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use skep_proto::v1::{
    Cluster, Node, ReplicatedService, Service, Task, TaskState, node_spec::Availability,
    node_status, service_spec::Mode, update_status::UpdateState,
};
use skep_store::{
    AnyObject, By, Change, Error, Event, Object, Route, Snapshot, Store, Subscription, Tx,
    testing::ManualLog,
};

use super::facts::{is_invalid, is_live, is_on_node, node_of, state};
use crate::{
    reconcile::{Plan, Reconciler, Trigger, View, Write},
    time::Time,
};

use self::objects::container;
pub(super) use self::objects::{image, node, service};

/// The service that most tests are about.
pub(super) const SERVICE: &str = "service";

/// Steps after which what is not still never will be.
const STEPS: usize = 2000;

/// One reconciler and what its driver would keep.
struct Seat {
    reconciler: Box<dyn Reconciler>,
    subscription: Subscription,
    wake: Option<Time>,
    /// It has not looked at anything yet.
    fresh: bool,
}

pub(super) struct World {
    store: Store,
    log: ManualLog,
    index: u64,
    clock: Arc<AtomicU64>,
    seats: Vec<Seat>,
    all: Subscription,
    /// Tasks whose image is broken end like this as soon as they are prepared.
    pub broken: BTreeMap<String, TaskState>,
    /// Whether agents report between a plan and its commit.
    pub hurried: bool,
}

impl World {
    /// `nodes` ready nodes named `n0`, `n1`, ..., and a cluster object.
    pub fn new(nodes: usize) -> Self {
        let clock = Arc::new(AtomicU64::new(1_000_000_000_000));
        let log = ManualLog::default();
        let read = clock.clone();
        let store = Store::new(move || time_at(&read).into());
        store.lead(1, Arc::new(log.clone()));
        let (_, all) = store.watch([Route::All]);
        let mut world = Self {
            store,
            log,
            index: 0,
            clock,
            seats: Vec::new(),
            all,
            broken: BTreeMap::new(),
            hurried: false,
        };
        world.change_leader();
        let mut cluster = Cluster {
            id: "cluster".to_owned(),
            ..Cluster::default()
        };
        cluster.spec_mut().annotations_mut().name = "default".to_owned();
        cluster
            .spec_mut()
            .orchestration_mut()
            .task_history_retention_limit = 5;
        world.create(cluster);
        for n in 0..nodes {
            world.create(node(&format!("n{n}")));
        }
        world
    }

    /// New reconcilers that remember nothing.
    pub fn change_leader(&mut self) {
        self.seats.clear();
        for reconciler in super::all() {
            let kinds = reconciler.watches().iter();
            let (_, subscription) = self.store.watch(kinds.map(|&kind| Route::Kind(kind)));
            let wake = Some(Time::default());
            self.seats.push(Seat {
                reconciler,
                subscription,
                wake,
                fresh: true,
            });
        }
    }

    /// Sets the clock back.
    pub fn set_back(&mut self, by: Duration) {
        self.clock
            .fetch_sub(by.as_nanos() as u64, Ordering::Relaxed);
    }

    pub fn now(&self) -> Time {
        time_at(&self.clock)
    }

    pub fn snapshot(&self) -> Snapshot {
        self.store.snapshot()
    }

    /// Runs a transaction to its commit, and checks what no transaction may do.
    pub fn update<R>(&mut self, transaction: impl FnOnce(&mut Tx) -> R) -> R {
        // No two transactions are at the same time.
        self.clock.fetch_add(1000, Ordering::Relaxed);
        let result = {
            let mut update = pin!(self.store.update(|tx| Ok::<_, Error>(transaction(tx))));
            let mut context = Context::from_waker(Waker::noop());
            loop {
                if let Poll::Ready(result) = update.as_mut().poll(&mut context) {
                    break result.unwrap();
                }
                let entries = self.log.take(self.index, 1);
                assert!(!entries.is_empty(), "it waits for nothing");
                self.index += 1;
                self.store.apply(&entries).unwrap();
            }
        };
        while let Some(Event::Commits(commits)) = self.all.try_next() {
            commits
                .iter()
                .flat_map(|commit| &commit.changes)
                .for_each(check);
        }
        result
    }

    pub fn create<T: Object>(&mut self, object: T) {
        self.update(|tx| tx.create(object).unwrap());
    }

    pub fn change<T: Object>(&mut self, id: &str, change: impl FnOnce(&mut T)) {
        self.update(|tx| {
            let mut object = T::clone(tx.get::<T>(id).unwrap());
            change(&mut object);
            tx.update(object).unwrap();
        });
    }

    pub fn remove<T: Object>(&mut self, id: &str) {
        self.update(|tx| tx.remove::<T>(id).unwrap());
    }

    /// As `UpdateService` does: a new spec, a new spec version, no update yet.
    pub fn update_service(&mut self, change: impl FnOnce(&mut Service)) {
        self.change::<Service>(SERVICE, |service| {
            service.previous_spec.clone_from(&service.spec);
            service.previous_spec_version = service.spec_version;
            service.spec_version = service.meta().version;
            service.update_status = None;
            change(service);
        });
    }

    pub fn scale(&mut self, replicas: u64) {
        self.update_service(|service| {
            service.spec_mut().mode = Some(Mode::Replicated(ReplicatedService { replicas }));
        });
    }

    pub fn set_image(&mut self, image: &str) {
        self.update_service(|service| {
            service.spec_mut().task_mut().runtime = Some(container(image));
        });
    }

    pub fn node_state(&mut self, id: &str, state: node_status::State) {
        self.change::<Node>(id, |node| node.status_mut().set_state(state));
    }

    pub fn availability(&mut self, id: &str, availability: Availability) {
        self.change::<Node>(id, |node| node.spec_mut().set_availability(availability));
    }

    /// As an agent reports and the dispatcher stores.
    pub fn report(&mut self, id: &str, state: TaskState) {
        let now = self.now();
        self.change::<Task>(id, |task| {
            let status = task.status_mut();
            status.set_state(state);
            status.applied_at = Some(now.into());
        });
    }

    pub fn service(&self) -> Arc<Service> {
        self.snapshot().get::<Service>(SERVICE).unwrap().clone()
    }

    pub fn update_state(&self) -> UpdateState {
        let service = self.service();
        service
            .update_status
            .as_ref()
            .map_or(UpdateState::Unknown, |status| status.state())
    }

    /// All tasks of the service, by slot and age.
    pub fn tasks(&self) -> Vec<Arc<Task>> {
        let snapshot = self.snapshot();
        let mut tasks: Vec<_> = snapshot
            .find::<Task>(By::service(SERVICE))
            .cloned()
            .collect();
        tasks.sort_by_key(|task| (task.slot, super::facts::created_at(task), task.id.clone()));
        tasks
    }

    /// Tasks of the service that are meant to run and do so where they should.
    pub fn running(&self) -> Vec<Arc<Task>> {
        let snapshot = self.snapshot();
        let mut tasks = self.tasks();
        tasks.retain(|task| {
            is_live(task)
                && state(task) == TaskState::Running
                && !is_invalid(node_of(&snapshot, task))
        });
        tasks
    }

    /// Desired and observed state of all tasks of the service.
    pub fn states(&self) -> Vec<(u64, TaskState, TaskState)> {
        let tasks = self.tasks();
        tasks
            .iter()
            .map(|task| (task.slot, task.desired_state(), state(task)))
            .collect()
    }

    /// Lets reconcilers and agents work until all is still, without letting time pass.
    pub fn settle(&mut self) {
        self.settle_with(|_| {});
    }

    /// As [`Self::settle`], with a look at the world after each step.
    pub fn settle_with(&mut self, mut look: impl FnMut(&Self)) {
        for _ in 0..STEPS {
            let decided = self.decide();
            let acted = self.act();
            look(self);
            if !decided && !acted {
                return;
            }
        }
        panic!("the world does not come to rest: {:?}", self.states());
    }

    /// Goes on step by step, without letting time pass, until something is so.
    pub fn until(&mut self, is_so: impl Fn(&Self) -> bool) {
        self.until_with(|_| {}, is_so);
    }

    /// As [`Self::until`], doing something between the steps.
    pub fn until_with(&mut self, between: impl Fn(&mut Self), is_so: impl Fn(&Self) -> bool) {
        for _ in 0..STEPS {
            if is_so(self) {
                return;
            }
            self.decide();
            self.act();
            between(self);
        }
        panic!("it never comes to that: {:?}", self.states());
    }

    /// Lets the reconcilers work while no agent does anything.
    pub fn plan_only(&mut self) {
        let still = (0..STEPS).any(|_| !self.decide());
        assert!(still, "no end of plans: {:?}", self.states());
    }

    /// Settles, then lets time pass up to `duration`, settling whenever a reconciler wakes.
    pub fn pass(&mut self, duration: Duration) {
        let end = self.now() + duration;
        loop {
            self.settle();
            let wake = self.next_wake().filter(|wake| *wake < end);
            let at = wake.unwrap_or(end);
            let nanos = at.saturating_since(Time::default()).as_nanos() as u64;
            self.clock.store(nanos, Ordering::Relaxed);
            if wake.is_none() {
                self.settle();
                return;
            }
        }
    }

    /// Settles until nothing wants to be woken any more, at most for an hour.
    pub fn rest(&mut self) {
        let start = self.now();
        self.settle();
        while let Some(wake) = self.next_wake() {
            assert!(
                wake < start + Duration::from_secs(3600),
                "no rest: {:?}",
                self.states()
            );
            let nanos = wake.saturating_since(Time::default()).as_nanos() as u64;
            self.clock.store(nanos, Ordering::Relaxed);
            self.settle();
        }
    }

    pub fn next_wake(&self) -> Option<Time> {
        self.seats.iter().filter_map(|seat| seat.wake).min()
    }

    /// What reconcilers that know nothing would want written now.
    pub fn fresh_writes(&self) -> Vec<Write> {
        let snapshot = self.snapshot();
        let view = View {
            snapshot: &snapshot,
            trigger: &Trigger::Resync,
            now: self.now(),
        };
        super::all()
            .iter_mut()
            .flat_map(|reconciler| reconciler.plan(&view).writes)
            .collect()
    }

    /// Each reconciler has its turn, if it has something to look at.
    pub fn decide(&mut self) -> bool {
        let mut any = false;
        for n in 0..self.seats.len() {
            let now = self.now();
            let seat = &mut self.seats[n];
            let due = seat.wake.is_some_and(|wake| wake <= now);
            let trigger = match seat.subscription.try_next() {
                _ if seat.fresh => Trigger::Resync,
                Some(event) => event.into(),
                None if due => Trigger::Timer,
                None => continue,
            };
            seat.fresh = false;
            let snapshot = self.store.snapshot();
            let view = View {
                snapshot: &snapshot,
                trigger: &trigger,
                now,
            };
            let Plan { writes, wake_at } = seat.reconciler.plan(&view);
            seat.wake = wake_at;
            assert!(wake_at.is_none_or(|at| at > now), "wakes are ahead");
            any |= !writes.is_empty();
            if self.hurried {
                any |= self.act();
            }
            self.update(|tx| {
                for write in &writes {
                    // Who comes too late decides again.
                    let _ = apply(tx, write);
                }
            });
        }
        any
    }

    /// Each task on a node that is there goes one step.
    pub fn act(&mut self) -> bool {
        let snapshot = self.snapshot();
        let mut any = false;
        for task in snapshot.all::<Task>().filter(|task| is_on_node(task)) {
            let node = node_of(&snapshot, task);
            if node.is_none_or(|node| node.status().state() != node_status::State::Ready) {
                continue;
            }
            if let Some(next) = self.step(task) {
                self.report(&task.id, next);
                any = true;
            }
        }
        any
    }

    fn step(&self, task: &Task) -> Option<TaskState> {
        let image = image(task);
        let next = match (state(task), task.desired_state()) {
            (_, desired) if desired > TaskState::Running => TaskState::Shutdown,
            (TaskState::Ready, TaskState::Ready) => return None,
            (TaskState::Running, _) => return None,
            (TaskState::Assigned, _) => TaskState::Preparing,
            (TaskState::Preparing, _) => match self.broken.get(&image) {
                Some(&end) => end,
                None => TaskState::Ready,
            },
            (TaskState::Ready, _) => TaskState::Starting,
            _ => TaskState::Running,
        };
        Some(next)
    }
}

fn time_at(clock: &AtomicU64) -> Time {
    Time::default() + Duration::from_nanos(clock.load(Ordering::Relaxed))
}

/// States of a task never go back.
fn check(change: &Change) {
    if let Change::Update { old, new } = change
        && let (Some(old), Some(new)) = (old.get::<Task>(), new.get::<Task>())
    {
        assert!(
            old.desired_state() <= new.desired_state(),
            "desired state went back: {new:?}"
        );
        assert!(state(old) <= state(new), "state went back: {new:?}");
        assert!(
            old.node_id.is_empty() || old.node_id == new.node_id,
            "task moved: {new:?}"
        );
    }
}

fn apply(tx: &mut Tx, write: &Write) -> Result<(), Error> {
    fn put<T: Object>(tx: &mut Tx, object: &Arc<T>, new: bool) -> Result<(), Error> {
        if new {
            tx.create(T::clone(object)).map(drop)
        } else {
            tx.update(T::clone(object)).map(drop)
        }
    }
    match write {
        Write::Create(AnyObject::Task(task)) => put(tx, task, true),
        Write::Update(AnyObject::Task(task)) => put(tx, task, false),
        Write::Update(AnyObject::Service(service)) => put(tx, service, false),
        Write::Remove(AnyObject::Task(task)) => {
            match tx.get::<Task>(&task.id) {
                Some(stored) if stored.version() == task.version() => {}
                _ => return Err(Error::OutOfSequence),
            }
            tx.remove::<Task>(&task.id).map(drop)
        }
        other => panic!("no reconciler should write this: {other:?}"),
    }
}
