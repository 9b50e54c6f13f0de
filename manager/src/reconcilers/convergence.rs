//! Whatever happens, in the end exactly the wanted tasks run.

use std::time::Duration;

use proptest::prelude::*;
use skep_proto::v1::{
    Node, TaskState, UpdateConfig, node_spec::Availability, node_status,
    update_config::UpdateOrder, update_status::UpdateState,
};

use super::world::{World, image, node, service};

const NODES: usize = 4;

#[derive(Clone, Debug)]
enum Op {
    Scale(u64),
    Image(u8),
    Config(UpdateConfig),
    Down(usize),
    Up(usize),
    Drain(usize),
    Activate(usize),
    Delete(usize),
    End(usize, TaskState),
    /// Some steps without time.
    Steps(usize),
    Pass(u64),
    /// Another leader, whose clock is this many milliseconds behind.
    NewLeader(u64),
}

fn op() -> impl Strategy<Value = Op> {
    // The first node is always there, or nothing could run.
    let node = 1..NODES;
    let ended = prop_oneof![
        Just(TaskState::Failed),
        Just(TaskState::Complete),
        Just(TaskState::Rejected),
    ];
    let config = (0..3_u64, 0..3_i64, any::<bool>(), 0..3_i32).prop_map(
        |(parallelism, delay, start_first, failure_action)| UpdateConfig {
            parallelism,
            delay: Some(skep_proto::Duration {
                seconds: delay,
                nanos: 0,
            }),
            order: if start_first {
                UpdateOrder::StartFirst.into()
            } else {
                UpdateOrder::StopFirst.into()
            },
            failure_action,
            ..UpdateConfig::default()
        },
    );
    prop_oneof![
        2 => (0..6_u64).prop_map(Op::Scale),
        3 => (0..3_u8).prop_map(Op::Image),
        1 => config.prop_map(Op::Config),
        1 => node.clone().prop_map(Op::Down),
        1 => node.clone().prop_map(Op::Up),
        1 => node.clone().prop_map(Op::Drain),
        1 => node.clone().prop_map(Op::Activate),
        1 => node.prop_map(Op::Delete),
        3 => (0..8_usize, ended).prop_map(|(n, how)| Op::End(n, how)),
        6 => (0..8_usize).prop_map(Op::Steps),
        2 => (0..8000_u64).prop_map(Op::Pass),
        1 => prop_oneof![Just(0), 0..3000_u64].prop_map(Op::NewLeader),
    ]
}

fn exists(world: &World, id: &str) -> bool {
    world.snapshot().get::<Node>(id).is_some()
}

fn execute(world: &mut World, op: &Op) {
    match op {
        Op::Scale(replicas) => world.scale(*replicas),
        Op::Image(n) => world.set_image(&format!("v{n}")),
        Op::Config(config) => {
            world.update_service(|service| service.spec_mut().update = Some(*config));
        }
        Op::Down(n) if exists(world, &format!("n{n}")) => {
            world.node_state(&format!("n{n}"), node_status::State::Down);
        }
        Op::Up(n) => {
            let id = format!("n{n}");
            if exists(world, &id) {
                world.node_state(&id, node_status::State::Ready);
            } else {
                world.create(node(&id));
            }
        }
        Op::Drain(n) if exists(world, &format!("n{n}")) => {
            world.availability(&format!("n{n}"), Availability::Drain);
        }
        Op::Activate(n) if exists(world, &format!("n{n}")) => {
            world.availability(&format!("n{n}"), Availability::Active);
        }
        Op::Delete(n) if exists(world, &format!("n{n}")) => {
            world.remove::<Node>(&format!("n{n}"));
        }
        Op::End(n, how) => {
            let running = world.running();
            if let Some(task) = running.get(*n) {
                world.report(&task.id, *how);
            }
        }
        Op::Steps(n) => {
            for _ in 0..*n {
                world.decide();
                world.act();
            }
        }
        Op::Pass(millis) => world.pass(Duration::from_millis(*millis)),
        Op::NewLeader(behind) => {
            world.set_back(Duration::from_millis(*behind));
            world.change_leader();
        }
        _ => {}
    }
}

fn replicas_of(world: &World) -> u64 {
    super::facts::replicas(&world.service()).unwrap()
}

fn converge(replicas: u64, hurried: bool, history: i64, ops: &[Op]) -> Result<(), TestCaseError> {
    let mut world = World::new(NODES);
    world.hurried = hurried;
    world.change::<skep_proto::v1::Cluster>("cluster", |cluster| {
        cluster
            .spec_mut()
            .orchestration_mut()
            .task_history_retention_limit = history;
    });
    world.create(service(replicas));
    let mut wanted = replicas;
    for op in ops {
        execute(&mut world, op);
        if let Op::Scale(replicas) = op {
            wanted = *replicas;
        }
    }
    world.rest();
    if let UpdateState::RollbackStarted
    | UpdateState::RollbackPaused
    | UpdateState::RollbackCompleted = world.update_state()
    {
        // With the spec comes its scale.
        wanted = replicas_of(&world);
    }
    prop_assert_eq!(replicas_of(&world), wanted);
    let running = world.running();
    prop_assert_eq!(running.len() as u64, wanted, "{:?}", world.states());
    let mut slots: Vec<_> = running.iter().map(|task| task.slot).collect();
    slots.dedup();
    prop_assert_eq!(slots.len(), running.len(), "one task a slot");
    let held =
        |task: &std::sync::Arc<skep_proto::v1::Task>| task.desired_state() == TaskState::Ready;
    prop_assert!(!world.tasks().iter().any(held), "no task is left held");
    match world.update_state() {
        UpdateState::Paused | UpdateState::RollbackPaused => {}
        UpdateState::Updating | UpdateState::RollbackStarted => {
            prop_assert!(false, "the update never ends")
        }
        _ => {
            let service = world.service();
            let wanted = skep_proto::v1::Task {
                spec: Some(service.spec().task().clone().into()),
                ..Default::default()
            };
            for task in &running {
                prop_assert_eq!(image(task), image(&wanted));
            }
        }
    }
    // Each operation replaces each task once or twice at most.
    let most = 2 * 6 * (ops.len() + 1);
    prop_assert!(world.tasks().len() <= most, "{} tasks", world.tasks().len());
    let writes = world.fresh_writes();
    prop_assert!(writes.is_empty(), "not settled: {:?}", writes);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 192, ..ProptestConfig::default() })]

    #[test]
    fn any_history_ends_with_the_wanted_tasks(
        replicas in 0..5_u64,
        hurried in any::<bool>(),
        history in prop_oneof![Just(5_i64), Just(1), Just(0), Just(-1)],
        ops in prop::collection::vec(op(), 0..24),
    ) {
        converge(replicas, hurried, history, &ops)?;
    }
}
