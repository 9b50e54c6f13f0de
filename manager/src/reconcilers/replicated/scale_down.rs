//! Which slots go when there are more than wanted.

use std::{cmp::Reverse, collections::HashMap};

use super::slots::Slot;

/// Splits held slots into those that stay, at most `replicas`, and those that go: first those with
/// no place or with several tasks, then those on the nodes with the most copies; among these the
/// ones that do not run, and the highest numbers.
pub(super) fn split<'a, 'b>(
    mut held: Vec<&'b Slot<'a>>,
    replicas: u64,
) -> (Vec<&'b Slot<'a>>, Vec<&'b Slot<'a>>) {
    let replicas = usize::try_from(replicas).unwrap_or(usize::MAX);
    if held.len() <= replicas {
        return (held, Vec::new());
    }
    held.sort_by_key(|slot| (Reverse(slot.is_running()), slot.number));
    let mut copies = HashMap::<&str, usize>::new();
    let mut ranked: Vec<_> = held
        .into_iter()
        .map(|slot| {
            let copy = match slot.holders()[..] {
                [task] if !task.node_id.is_empty() => {
                    let copy = copies.entry(&task.node_id).or_default();
                    *copy += 1;
                    *copy
                }
                _ => usize::MAX,
            };
            (copy, slot)
        })
        .collect();
    ranked.sort_by_key(|&(copy, _)| copy);
    let going = ranked.split_off(replicas);
    let bare = |ranked: Vec<(usize, _)>| ranked.into_iter().map(|(_, slot)| slot).collect();
    (bare(ranked), bare(going))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use skep_proto::v1::{Task, TaskState};

    use super::*;
    use crate::reconcilers::replicated::slots;

    fn task(slot: u64, node: &str, state: TaskState) -> Arc<Task> {
        let mut task = Task {
            id: format!("{slot}-{node}-{state:?}"),
            slot,
            node_id: node.to_owned(),
            desired_state: TaskState::Running.into(),
            ..Task::default()
        };
        task.status_mut().set_state(state);
        Arc::new(task)
    }

    fn going(tasks: &[Arc<Task>], replicas: u64) -> Vec<u64> {
        let slots = slots::group(tasks.iter());
        let (staying, going) = split(slots.iter().collect(), replicas);
        assert_eq!(staying.len() + going.len(), slots.len());
        going.iter().map(|slot| slot.number).collect()
    }

    #[test]
    fn crowded_nodes_give_first() {
        let running = TaskState::Running;
        let tasks = [
            task(1, "a", running),
            task(2, "a", running),
            task(3, "a", running),
            task(4, "b", running),
        ];
        assert!(going(&tasks, 4).is_empty());
        assert_eq!(going(&tasks, 3), [3]);
        assert_eq!(going(&tasks, 2), [2, 3]);
        assert_eq!(going(&tasks, 1), [4, 2, 3]);
        assert_eq!(going(&tasks, 0), [1, 4, 2, 3]);
    }

    #[test]
    fn what_does_not_run_or_has_no_node_goes_before() {
        let tasks = [
            task(1, "", TaskState::Pending),
            task(2, "a", TaskState::Preparing),
            task(3, "a", TaskState::Running),
            task(4, "b", TaskState::Running),
        ];
        assert_eq!(going(&tasks, 3), [1]);
        assert_eq!(going(&tasks, 2), [2, 1]);
    }

    #[test]
    fn slots_in_the_middle_of_an_exchange_go_before_others() {
        let tasks = [
            task(1, "a", TaskState::Running),
            task(1, "b", TaskState::Ready),
            task(2, "a", TaskState::Running),
        ];
        assert_eq!(going(&tasks, 1), [1]);
    }
}
