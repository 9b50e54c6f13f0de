//! Gives up the tasks of nodes that have been down for a day: nothing says any more that they run.
//!
//! Since when a node is down is the time of its object's last change, which a change of leader does
//! not lose. Changing a node that is down begins its day anew.

use std::time::Duration;

use skep_proto::v1::{Node, Task, TaskState};
use skep_store::{By, Kind};

use super::facts::{changed, is_down, is_on_node};
use crate::{
    reconcile::{Plan, Reconciler, View},
    time::Time,
};

/// How long a node must be down (SwarmKit's number).
const PATIENCE: Duration = Duration::from_secs(24 * 60 * 60);

/// Gives up tasks.
#[derive(Debug, Default)]
pub(super) struct Orphans;

impl Reconciler for Orphans {
    fn name(&self) -> &'static str {
        "orphans"
    }

    fn watches(&self) -> &'static [Kind] {
        &[Kind::Node]
    }

    fn plan(&mut self, view: &View<'_>) -> Plan {
        let mut plan = Plan::default();
        match changed::<Node>(view) {
            Some(nodes) => nodes
                .filter_map(|node| view.snapshot.get::<Node>(&node.id))
                .for_each(|node| look(view, node, &mut plan)),
            None => view
                .snapshot
                .all::<Node>()
                .for_each(|node| look(view, node, &mut plan)),
        }
        plan
    }
}

fn look(view: &View<'_>, node: &Node, plan: &mut Plan) {
    let Some(since) = node.meta().updated_at.filter(|_| is_down(Some(node))) else {
        return;
    };
    let due = Time::from(since) + PATIENCE;
    if view.now < due {
        return plan.wake_at(due);
    }
    let tasks = view.snapshot.find::<Task>(By::node(&node.id));
    for task in tasks.filter(|task| is_on_node(task)) {
        let mut task = Task::clone(task);
        let status = task.status_mut();
        status.set_state(TaskState::Orphaned);
        status.message = "Task belonged to a node that was down for a day".to_owned();
        status.timestamp = Some(view.now.into());
        status.err.clear();
        plan.update(task);
    }
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{TaskStatus, node_status::State};
    use skep_store::{Error, Snapshot, Store, testing::ManualLog};

    use crate::reconcile::Trigger;

    use super::*;

    fn snapshot() -> Snapshot {
        // Objects are stored at the second 1000.
        let store = Store::new(|| skep_proto::Timestamp {
            seconds: 1000,
            nanos: 0,
        });
        let log = ManualLog::default();
        store.lead(1, std::sync::Arc::new(log.clone()));
        let mut update = std::pin::pin!(store.update(|tx| {
            for (id, state) in [("down", State::Down), ("up", State::Ready)] {
                let mut node = Node {
                    id: id.to_owned(),
                    ..Default::default()
                };
                node.status_mut().set_state(state);
                tx.create(node)?;
                for state in [
                    TaskState::Pending,
                    TaskState::Assigned,
                    TaskState::Running,
                    TaskState::Complete,
                ] {
                    tx.create(Task {
                        id: format!("{id}-{}", state.as_str_name()),
                        node_id: id.to_owned(),
                        status: Some(TaskStatus {
                            state: state.into(),
                            ..Default::default()
                        }),
                        ..Default::default()
                    })?;
                }
            }
            Ok::<_, Error>(())
        }));
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        assert!(std::future::Future::poll(update.as_mut(), &mut context).is_pending());
        store.apply(&log.take(0, 1)).unwrap();
        assert!(std::future::Future::poll(update.as_mut(), &mut context).is_ready());
        store.snapshot()
    }

    fn plan_at(seconds: i64) -> Plan {
        let snapshot = snapshot();
        // A new one each time: what it decides comes from the store alone.
        Orphans.plan(&View {
            snapshot: &snapshot,
            trigger: &Trigger::Resync,
            now: skep_proto::Timestamp { seconds, nanos: 0 }.into(),
        })
    }

    #[test]
    fn r61_tasks_are_given_up_a_day_after_their_node_fell_also_by_a_leader_of_a_minute() {
        let due = 1000 + 24 * 3600;
        let early = plan_at(due - 1);
        assert!(early.writes.is_empty());
        let wake = skep_proto::Timestamp {
            seconds: due,
            nanos: 0,
        };
        assert_eq!(early.wake_at, Some(wake.into()));

        let given_up: Vec<_> = plan_at(due)
            .writes
            .into_iter()
            .map(|write| match write {
                crate::reconcile::Write::Update(any) => {
                    let task = any.get::<Task>().unwrap();
                    assert_eq!(task.status().state(), TaskState::Orphaned);
                    task.id.clone()
                }
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(given_up, ["down-ASSIGNED", "down-RUNNING"]);
    }
}
