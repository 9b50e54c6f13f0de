//! Scripted observations.

use skep_proto::{
    Timestamp,
    v1::{
        GlobalService, JobStatus, Meta, ReplicatedJob, ReplicatedService, ServiceSpec, TaskStatus,
        UpdateConfig, UpdateStatus, Version,
    },
};

use super::*;
use crate::progress::observe::Host;

/// A service with a monitor period of two seconds, on nodes `n1` and `n2`.
struct World {
    seen: Observation,
    tracker: Tracker,
    start: Instant,
}

impl World {
    fn new(mode: Mode) -> Self {
        let spec = ServiceSpec {
            mode: Some(mode),
            update: Some(UpdateConfig {
                monitor: Some(skep_proto::Duration {
                    seconds: 2,
                    nanos: 0,
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let node = |name: &str| {
            (
                name.to_owned(),
                Host {
                    name: format!("host-{name}"),
                    down: false,
                },
            )
        };
        Self {
            seen: Observation {
                service: Service {
                    id: "s".to_owned(),
                    spec: Some(spec),
                    ..Default::default()
                },
                nodes: [node("n1"), node("n2")].into(),
                ..Default::default()
            },
            tracker: Tracker::new(false),
            start: Instant::now(),
        }
    }

    fn replicated(replicas: u64) -> Self {
        Self::new(Mode::Replicated(ReplicatedService { replicas }))
    }

    /// Puts the task `id` of `slot` in place of the one it was, up to date or not.
    fn put(&mut self, id: &str, slot: u64, state: TaskState, desired: TaskState) -> &mut Task {
        self.seen.up_to_date.insert(id.to_owned());
        self.seen.tasks.retain(|task| task.id != id);
        self.seen.tasks.push(Task {
            id: id.to_owned(),
            slot,
            node_id: "n1".to_owned(),
            desired_state: desired.into(),
            status: Some(TaskStatus {
                state: state.into(),
                ..Default::default()
            }),
            meta: Some(Meta {
                // Later letters are younger.
                created_at: Some(Timestamp {
                    seconds: id.as_bytes()[0].into(),
                    nanos: 0,
                }),
                ..Default::default()
            }),
            ..Default::default()
        });
        self.seen.tasks.last_mut().unwrap()
    }

    fn run(&mut self, id: &str, slot: u64) {
        self.put(id, slot, TaskState::Running, TaskState::Running);
    }

    fn fail(&mut self, id: &str, slot: u64, error: &str) {
        let task = self.put(id, slot, TaskState::Failed, TaskState::Shutdown);
        task.status_mut().err = error.to_owned();
    }

    fn update(&mut self, state: UpdateState, message: &str) {
        self.seen.service.update_status = Some(UpdateStatus {
            state: state.into(),
            message: message.to_owned(),
            ..Default::default()
        });
    }

    fn at(&mut self, millis: u64) -> Step {
        self.tracker
            .step(&self.seen, self.start + Duration::from_millis(millis))
    }

    /// The view at a time at which waiting goes on.
    fn waits(&mut self, millis: u64) -> View {
        let step = self.at(millis);
        assert!(
            matches!(step.verdict, Verdict::Waiting),
            "{:?} at {millis}",
            step.verdict
        );
        step.view
    }

    fn converges(&mut self, millis: u64) {
        let step = self.at(millis);
        assert!(
            matches!(step.verdict, Verdict::Converged),
            "{:?} at {millis}",
            step.verdict
        );
        assert_eq!(step.view.verify, Some(Verify::Converged("s".to_owned())));
    }

    fn fails(&mut self, millis: u64) -> ProgressError {
        match self.at(millis).verdict {
            Verdict::Failed(error) => error,
            other => panic!("{other:?} at {millis}"),
        }
    }
}

fn lines(view: &View) -> Vec<String> {
    view.rows.iter().map(Row::line).collect()
}

#[test]
fn a_new_service_converges_when_its_tasks_ran_for_the_monitor_period() {
    let mut world = World::replicated(2);
    assert_eq!(world.waits(0).summary(), "0 out of 2 tasks");
    world.put("a", 1, TaskState::New, TaskState::Running);
    world.run("b", 2);
    let view = world.waits(200);
    assert_eq!(view.summary(), "1 out of 2 tasks");
    assert_eq!(lines(&view), ["1/2: new", "2/2: running"]);
    world.run("a", 1);
    let stable = |left| {
        Some(Verify::Stable {
            period: Duration::from_secs(2),
            left: Duration::from_millis(left),
        })
    };
    assert_eq!(world.waits(400).verify, stable(2000));
    assert_eq!(world.waits(2399).verify, stable(1));
    world.converges(2400);
}

#[test]
fn a_failure_while_verifying_starts_the_period_anew() {
    let mut world = World::replicated(1);
    world.run("a", 1);
    world.waits(0);
    world.fail("a", 1, "exit 1");
    world.put("b", 1, TaskState::Ready, TaskState::Ready);
    let view = world.waits(1500);
    assert_eq!(view.verify, None);
    assert_eq!(
        lines(&view),
        ["1/1: ready: exit 1"],
        "says why it starts again"
    );
    world.run("b", 1);
    world.waits(2500);
    world.waits(4499);
    world.converges(4500);
}

#[test]
fn what_a_waiting_task_waits_for_is_shown() {
    let mut world = World::replicated(1);
    let task = world.put("a", 1, TaskState::Pending, TaskState::Running);
    task.status_mut().err = "no suitable node (x)".to_owned();
    assert_eq!(
        lines(&world.waits(0)),
        ["1/1: pending: no suitable node (x)"]
    );
    world.waits(1_000_000);
}

#[test]
fn tasks_on_nodes_that_are_down_or_gone_do_not_count() {
    let mut world = World::replicated(1);
    world.run("a", 1);
    world.seen.nodes.get_mut("n1").unwrap().down = true;
    assert_eq!(world.waits(0).ready, 0);
    world.seen.nodes.remove("n1");
    assert_eq!(world.waits(10_000).ready, 0);
}

#[test]
fn old_tasks_have_to_stop_first() {
    let mut world = World::replicated(1);
    world.run("a", 1);
    world.seen.up_to_date.clear();
    assert_eq!(world.waits(0).ready, 0, "the old spec does not count");
    world.run("b", 1);
    assert_eq!(world.waits(10_000).verify, Some(Verify::OldTasks(1)));
    world.seen.tasks[0].desired_state = TaskState::Shutdown.into();
    world.seen.tasks[0].status_mut().state = TaskState::Shutdown.into();
    world.waits(20_000);
    world.converges(22_000);
}

#[test]
fn tasks_that_were_scaled_away_have_to_stop_and_leave_no_trace() {
    let mut world = World::replicated(1);
    world.run("a", 1);
    world.run("b", 2);
    assert_eq!(
        world.waits(0).summary(),
        "2 out of 1 tasks",
        "nobody has acted yet"
    );
    world.put("b", 2, TaskState::Running, TaskState::Remove);
    assert_eq!(world.waits(100).verify, Some(Verify::OldTasks(1)));
    world.seen.tasks.pop();
    // History of the slot that is gone.
    world.put("A", 2, TaskState::Complete, TaskState::Shutdown);
    world.fail("B", 3, "exit 1");
    world.waits(200);
    world.converges(2200);
}

#[test]
fn no_tasks_are_a_number_of_tasks_too() {
    let mut world = World::replicated(0);
    world.waits(0);
    world.converges(2000);
}

#[test]
fn an_update_converges_when_the_managers_say_so() {
    let mut world = World::replicated(1);
    world.run("a", 1);
    world.update(UpdateState::Updating, "update in progress");
    world.waits(0);
    assert_eq!(world.waits(60_000).verify, Some(Verify::Update));
    world.update(UpdateState::Completed, "update completed");
    world.converges(60_001);
}

#[test]
fn a_paused_update_fails_with_its_message() {
    let mut world = World::replicated(1);
    world.run("a", 1);
    world.update(UpdateState::Paused, "because of task x");
    assert_eq!(
        world.fails(0).to_string(),
        "service update paused: because of task x"
    );
    world.update(UpdateState::RollbackPaused, "again");
    assert!(matches!(world.fails(0), ProgressError::RollbackPaused(_)));
}

#[test]
fn an_automatic_rollback_is_a_failure_once_it_is_over() {
    let mut world = World::replicated(1);
    world.put("a", 1, TaskState::Starting, TaskState::Running);
    world.update(UpdateState::RollbackStarted, "failure of task x");
    let view = world.waits(0);
    assert_eq!(
        view.overall(),
        "overall progress: rolling back update: 0 out of 1 tasks"
    );
    world.update(UpdateState::RollbackCompleted, "rollback completed");
    world.waits(100);
    world.run("a", 1);
    assert_eq!(
        world.fails(200).to_string(),
        "service rolled back: failure of task x"
    );
}

#[test]
fn a_rollback_that_was_asked_for_is_a_success() {
    let mut world = World::replicated(1);
    world.tracker = Tracker::new(true);
    world.run("a", 1);
    world.update(UpdateState::RollbackStarted, "manually requested rollback");
    world.waits(0);
    world.update(UpdateState::RollbackCompleted, "rollback completed");
    world.converges(100);
}

#[test]
fn tasks_that_complete_and_are_not_started_again_count() {
    let mut world = World::replicated(2);
    world.put("a", 1, TaskState::Complete, TaskState::Shutdown);
    world.put("b", 2, TaskState::Complete, TaskState::Running);
    assert_eq!(world.waits(0).ready, 1, "the second may be started again");
    world.put("b", 2, TaskState::Complete, TaskState::Shutdown);
    world.waits(100);
    world.converges(2100);
}

#[test]
fn tasks_that_failed_for_good_end_the_waiting() {
    let mut world = World::replicated(2);
    world.run("a", 1);
    world.fail("b", 2, "exit 1");
    world.waits(0);
    world.put("c", 2, TaskState::Starting, TaskState::Running);
    world.waits(1900);
    world.fail("c", 2, "exit 2");
    world.waits(2000);
    world.waits(3999);
    match world.fails(4000) {
        ProgressError::GaveUp { count: 1, first } => assert_eq!(first, "exit 2"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_global_service_wants_every_node_that_has_a_task() {
    let mut world = World::new(Mode::Global(GlobalService {}));
    world.run("a", 0);
    world
        .put("b", 0, TaskState::Running, TaskState::Running)
        .node_id = "n2".to_owned();
    world.seen.up_to_date.remove("b");
    let view = world.waits(0);
    assert_eq!(view.summary(), "1 out of 2 tasks");
    assert_eq!(lines(&view), ["host-n1: running"]);
    world
        .put("b", 0, TaskState::Shutdown, TaskState::Shutdown)
        .node_id = "n2".to_owned();
    world
        .put("c", 0, TaskState::Running, TaskState::Running)
        .node_id = "n2".to_owned();
    world.waits(100);
    world.converges(2100);
}

#[test]
fn a_job_converges_when_enough_tasks_completed() {
    let mut world = World::new(Mode::ReplicatedJob(ReplicatedJob {
        max_concurrent: 1,
        total_completions: 2,
    }));
    world.seen.service.job_status = Some(JobStatus {
        job_iteration: Some(Version { index: 1 }),
        ..Default::default()
    });
    let run = Some(Version { index: 1 });
    world
        .put("x", 0, TaskState::Complete, TaskState::Remove)
        .job_iteration = Some(Version::default());
    world
        .put("a", 0, TaskState::Running, TaskState::Complete)
        .job_iteration = run;
    assert_eq!(
        world.waits(0).overall(),
        "job progress: 0 out of 2 complete"
    );
    world
        .put("a", 0, TaskState::Complete, TaskState::Complete)
        .job_iteration = run;
    assert_eq!(world.waits(100).ready, 1);
    world
        .put("b", 1, TaskState::Complete, TaskState::Complete)
        .job_iteration = run;
    world.converges(200);
}

#[test]
fn many_tasks_have_no_rows() {
    let mut world = World::replicated(MAX_ROWS + 1);
    world.run("a", 1);
    assert!(world.waits(0).rows.is_empty());
}
