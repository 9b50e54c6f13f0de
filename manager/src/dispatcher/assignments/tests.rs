//! An agent that believes every message ends up with what the store says.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use skep_proto::{
    Shared,
    v1::{
        Config, ConfigReference, ContainerSpec, ResourceReference, ResourceType, Secret,
        SecretReference, TaskSpec, VolumePublishStatus, VolumeSecret, task_spec::Runtime,
        volume_publish_status::State,
    },
};
use skep_store::{Error, Store, Tx, testing::leading};

use super::*;

const NODE: &str = "n1";

#[derive(Clone, Debug)]
enum Op {
    /// A new task that needs secret and config number `needs`.
    Create {
        id: u8,
        needs: u8,
        state: TaskState,
        ours: bool,
    },
    /// It comes further, if it is there.
    Advance {
        id: u8,
        state: TaskState,
    },
    /// Managers change their mind about it.
    Desire {
        id: u8,
        desired: TaskState,
    },
    Remove {
        id: u8,
    },
    /// A volume, new or changed, is so published to the node, or not at all.
    Publish {
        id: u8,
        state: Option<State>,
    },
    RemoveVolume {
        id: u8,
    },
    /// The session hears of all that was committed.
    Tell,
}

fn op() -> impl Strategy<Value = Op> {
    let id = 0..8_u8;
    let state = prop::sample::select(vec![
        TaskState::Pending,
        TaskState::Assigned,
        TaskState::Ready,
        TaskState::Running,
        TaskState::Failed,
    ]);
    prop_oneof![
        (
            id.clone(),
            0..3_u8,
            state.clone(),
            prop::bool::weighted(0.8)
        )
            .prop_map(|(id, needs, state, ours)| Op::Create {
                id,
                needs,
                state,
                ours
            }),
        (id.clone(), state.clone()).prop_map(|(id, state)| Op::Advance { id, state }),
        (id.clone(), state).prop_map(|(id, desired)| Op::Desire { id, desired }),
        id.prop_map(|id| Op::Remove { id }),
        (0..3_u8, prop::option::of(published())).prop_map(|(id, state)| Op::Publish { id, state }),
        (0..3_u8).prop_map(|id| Op::RemoveVolume { id }),
        Just(Op::Tell),
    ]
}

fn published() -> impl Strategy<Value = State> {
    prop::sample::select(vec![
        State::PendingPublish,
        State::Published,
        State::PendingNodeUnpublish,
        State::PendingUnpublish,
    ])
}

/// Number `id` needs the secret of that number, and is published to another node too.
fn volume(id: u8, state: Option<State>) -> Volume {
    let at = |node: &str, state: State| VolumePublishStatus {
        node_id: node.to_owned(),
        state: state.into(),
        ..Default::default()
    };
    let mut publish_status = vec![at("n2", State::Published)];
    publish_status.extend(state.map(|state| at(NODE, state)));
    let mut volume = Volume {
        id: format!("v{id}"),
        publish_status,
        ..Default::default()
    };
    let spec = volume.spec_mut();
    spec.annotations_mut().name = format!("v{id}");
    spec.secrets = vec![VolumeSecret {
        key: "key".to_owned(),
        secret: format!("s{id}"),
    }];
    volume
}

fn name(id: u8) -> String {
    format!("t{id}")
}

fn task(id: u8, needs: u8, state: TaskState, ours: bool) -> Task {
    let secret = SecretReference {
        secret_id: format!("s{needs}"),
        ..Default::default()
    };
    let config = ConfigReference {
        config_id: format!("c{needs}"),
        ..Default::default()
    };
    // Number 2 is referred to in another way too, and there is no such config.
    let reference = ResourceReference {
        resource_id: "s2".to_owned(),
        resource_type: ResourceType::Secret.into(),
    };
    let container = ContainerSpec {
        secrets: vec![secret],
        configs: vec![config],
        ..Default::default()
    };
    let mut task = Task {
        id: name(id),
        node_id: if ours { NODE } else { "n2" }.to_owned(),
        spec: Some(Shared::from(TaskSpec {
            runtime: Some(Runtime::Container(container)),
            resource_references: vec![reference],
            ..Default::default()
        })),
        ..Default::default()
    };
    task.status_mut().set_state(state);
    task
}

fn apply(tx: &mut Tx, op: &Op) {
    let change = |tx: &mut Tx, id: u8, change: &dyn Fn(&mut Task)| {
        if let Some(task) = tx.get::<Task>(&name(id)) {
            let mut task = Task::clone(task);
            change(&mut task);
            tx.update(task).unwrap();
        }
    };
    match *op {
        Op::Create {
            id,
            needs,
            state,
            ours,
        } => {
            tx.create(task(id, needs, state, ours)).unwrap();
        }
        Op::Advance { id, state } => change(tx, id, &|task| {
            let state = state.max(task.status().state());
            task.status_mut().set_state(state);
        }),
        Op::Desire { id, desired } => change(tx, id, &|task| task.set_desired_state(desired)),
        Op::Remove { id } => drop(tx.remove::<Task>(&name(id))),
        Op::Publish { id, state } => {
            let volume = volume(id, state);
            match tx.get::<Volume>(&volume.id) {
                Some(stored) => {
                    let meta = stored.meta;
                    tx.update(Volume { meta, ..volume }).unwrap();
                }
                None => drop(tx.create(volume).unwrap()),
            }
        }
        Op::RemoveVolume { id } => drop(tx.remove::<Volume>(&format!("v{id}"))),
        Op::Tell => {}
    }
}

async fn commit(store: &Store, write: impl FnOnce(&mut Tx)) {
    store
        .update(|tx| {
            write(tx);
            Ok::<_, Error>(())
        })
        .await
        .unwrap();
}

/// What an agent makes of the messages.
#[derive(Default)]
struct Agent {
    tasks: BTreeMap<String, Task>,
    others: BTreeSet<String>,
    /// Which it was given, and which it was told to let go of.
    volumes: BTreeSet<String>,
    let_go: BTreeSet<String>,
    last: String,
}

impl Agent {
    fn take(&mut self, message: AssignmentsMessage) {
        assert_eq!(message.applies_to, self.last, "the chain holds");
        let first = message.applies_to.is_empty();
        assert_eq!(
            message.r#type() == Type::Complete,
            first,
            "one complete message"
        );
        self.last = message.results_in.clone();
        for change in message.changes {
            let update = change.action() == AssignmentAction::Update;
            let (id, full) = match change.assignment.unwrap().item.unwrap() {
                Item::Task(task) if update => {
                    self.tasks.insert(task.id.clone(), task);
                    continue;
                }
                Item::Task(task) => {
                    assert!(
                        self.tasks.remove(&task.id).is_some(),
                        "no unknown task is removed"
                    );
                    continue;
                }
                Item::Secret(secret) => (secret.id.clone(), secret.meta.is_some()),
                Item::Config(config) => (config.id.clone(), config.meta.is_some()),
                Item::Volume(volume) => {
                    assert!(!volume.secrets.is_empty(), "always all of it");
                    if update {
                        self.let_go.remove(&volume.id);
                        assert!(self.volumes.insert(volume.id), "none is given twice");
                    } else {
                        self.volumes.remove(&volume.id);
                        self.let_go.insert(volume.id);
                    }
                    continue;
                }
            };
            assert_eq!(update, full, "removals carry the ID only");
            let news = if update {
                self.others.insert(id)
            } else {
                self.others.remove(&id)
            };
            assert!(news, "given once, taken once");
        }
    }

    fn check(&self, snapshot: &Snapshot) {
        let ours: BTreeMap<_, _> = snapshot
            .find::<Task>(By::node(NODE))
            .filter(|task| task.status().state() >= TaskState::Assigned)
            .map(|task| (&task.id, task))
            .collect();
        assert!(self.tasks.keys().eq(ours.keys().copied()));
        for (told, task) in self.tasks.values().zip(ours.values()) {
            assert!(same_but_for_status(told, task));
        }
        let needed: BTreeSet<_> = ours
            .values()
            .filter(|task| task.status().state() <= TaskState::Running)
            .flat_map(|task| {
                let Some(Runtime::Container(container)) = &task.spec().runtime else {
                    panic!("a container")
                };
                let secret = container.secrets[0].secret_id.clone();
                let config = container.configs[0].config_id.clone();
                [secret, config, "s2".to_owned()]
            })
            .filter(|id| id != "c2")
            .chain(volumes(snapshot, State::Published).map(|volume| volume.replace('v', "s")))
            .collect();
        assert_eq!(self.others, needed);
        assert!(volumes(snapshot, State::Published).eq(self.volumes.iter().cloned()));
        assert!(
            volumes(snapshot, State::PendingNodeUnpublish)
                .all(|volume| self.let_go.contains(&volume))
        );
    }
}

/// IDs of the volumes that are so published to the node.
fn volumes(snapshot: &Snapshot, state: State) -> impl Iterator<Item = String> {
    snapshot
        .all::<Volume>()
        .filter(move |volume| {
            let published = &volume.publish_status;
            published
                .iter()
                .any(|at| at.node_id == NODE && at.state() == state)
        })
        .map(|volume| volume.id.clone())
}

async fn run(ops: Vec<Op>) {
    let store = leading(Default::default);
    commit(&store, |tx| {
        for id in ["s0", "s1", "s2"] {
            let mut secret = Secret {
                id: id.to_owned(),
                ..Default::default()
            };
            secret.spec_mut().annotations_mut().name = id.to_owned();
            tx.create(secret).unwrap();
        }
        for id in ["c0", "c1"] {
            let mut config = Config {
                id: id.to_owned(),
                ..Default::default()
            };
            config.spec_mut().annotations_mut().name = id.to_owned();
            tx.create(config).unwrap();
        }
    })
    .await;
    // One is told which tasks to look at, the other is not: they must say the same.
    let (mut precise, mut thorough) = (Assignments::new(NODE), Assignments::new(NODE));
    let mut agent = Agent::default();
    let mut touched = (BTreeSet::new(), BTreeSet::new());
    agent.take(precise.complete(&store.snapshot()));
    thorough.complete(&store.snapshot());
    let mut used = BTreeSet::new();
    for op in ops.into_iter().chain([Op::Tell]) {
        // An ID is never used again.
        if let Op::Create { id, .. } = op
            && !used.insert(id)
        {
            continue;
        }
        commit(&store, |tx| apply(tx, &op)).await;
        match op {
            Op::Create { id, .. }
            | Op::Advance { id, .. }
            | Op::Desire { id, .. }
            | Op::Remove { id } => {
                touched.0.insert(name(id));
            }
            Op::Publish { id, .. } | Op::RemoveVolume { id } => {
                touched.1.insert(format!("v{id}"));
            }
            Op::Tell => {
                let snapshot = store.snapshot();
                let ids = Touched {
                    tasks: touched.0.iter().map(|id| &**id).collect(),
                    volumes: touched.1.iter().map(|id| &**id).collect(),
                };
                let message = precise.incremental(&snapshot, Some(&ids));
                let mut same = thorough.incremental(&snapshot, None);
                // Removals come first if one has to look for them.
                let by_text = |change: &AssignmentChange| format!("{change:?}");
                if let (Some(a), Some(b)) = (&message, &mut same) {
                    let mut a = a.clone();
                    a.changes.sort_by_key(by_text);
                    b.changes.sort_by_key(by_text);
                    assert_eq!(&a, b);
                } else {
                    assert_eq!(message, same);
                }
                if let Some(message) = message {
                    agent.take(message);
                }
                agent.check(&snapshot);
                touched = Default::default();
            }
        }
    }
    store.follow();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn an_agent_has_what_the_store_says(ops in proptest::collection::vec(op(), 0..60)) {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run(ops));
    }
}

/// Whether a change of the task makes a message.
async fn tells(state: TaskState, change: impl FnOnce(&mut Task)) -> bool {
    let store = leading(Default::default);
    commit(&store, |tx| drop(tx.create(task(1, 0, state, true)))).await;
    let mut assignments = Assignments::new(NODE);
    let complete = assignments.complete(&store.snapshot());
    assert_eq!(
        complete.changes.len(),
        1,
        "what the task needs is not there and left out"
    );
    assert_eq!(
        assignments.incremental(&store.snapshot(), None),
        None,
        "nothing new"
    );
    commit(&store, |tx| {
        let mut task = Task::clone(tx.get::<Task>("t1").unwrap());
        change(&mut task);
        tx.update(task).unwrap();
    })
    .await;
    store.follow();
    let touched = Touched {
        tasks: ["t1"].into(),
        ..Default::default()
    };
    assignments
        .incremental(&store.snapshot(), Some(&touched))
        .is_some()
}

#[tokio::test]
async fn statuses_above_assigned_are_not_echoed() {
    let message = |task: &mut Task| task.status_mut().message = "new".to_owned();
    assert!(tells(TaskState::Assigned, message).await);
    assert!(!tells(TaskState::Accepted, message).await);
    assert!(
        !tells(TaskState::Running, |task| task
            .status_mut()
            .set_state(TaskState::Failed))
        .await
    );
    assert!(
        tells(TaskState::Running, |task| task
            .set_desired_state(TaskState::Shutdown))
        .await
    );
    assert!(tells(TaskState::Running, |task| task.node_id = "n2".to_owned()).await);
}
