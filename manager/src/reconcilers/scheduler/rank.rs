//! Which of the nodes that can take a task is the better one, and how a group of tasks fills them.

use super::node_info::{Group, NodeInfo};

/// So many recent failures of a group on a node make it the last choice.
const MAX_FAILURES: usize = 5;

/// The place of a node in the ranking for a group, lowest first: few recent failures, if there are
/// many anywhere; then few tasks of the service; then few tasks.
pub(super) fn rank(info: &NodeInfo, group: Group<'_>) -> (usize, usize, usize) {
    let failures = info.failures_of(group);
    let failures = if failures < MAX_FAILURES { 0 } else { failures };
    (failures, info.active_of(group.0), info.active)
}

/// Hands out the nodes of a group's ranking to one task after the other.
///
/// First the best node fills up until the next one is better, and so on, so that the nodes come
/// level; after that each gets one in turn. Nodes that cannot take more are passed over.
#[derive(Debug)]
pub(super) struct Turns {
    /// Places in the list of nodes, best first.
    ring: Vec<usize>,
    full: Vec<bool>,
    at: usize,
}

impl Turns {
    /// `ring` are places of nodes that can take a task, best first.
    pub fn new(ring: Vec<usize>) -> Self {
        let full = vec![false; ring.len()];
        Self { ring, full, at: 0 }
    }

    /// The node of the next task. `can_take` is asked for places, `is_better(a, b)` for whether
    /// place `a` is better than `b`; both as it is after the tasks handed out so far.
    pub fn next(
        &mut self,
        can_take: impl Fn(usize) -> bool,
        is_better: impl Fn(usize, usize) -> bool,
    ) -> Option<usize> {
        let count = self.ring.len();
        // Twice round: a step to a better node passes over one that may have to do in the end.
        for _ in 0..2 * count {
            let turn = self.at % count;
            let place = self.ring[turn];
            if !self.full[turn] {
                let next_is_better =
                    self.at + 1 < count && is_better(self.ring[self.at + 1], place);
                if next_is_better {
                    self.at += 1;
                    continue;
                }
                if can_take(place) {
                    if self.at + 1 >= count {
                        self.at += 1;
                    }
                    return Some(place);
                }
                self.full[turn] = true;
            }
            self.at += 1;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hands out `n` places to nodes that have `tasks` already and can take `room` more.
    fn fill(tasks: &[usize], room: &[usize], n: usize) -> Vec<usize> {
        let mut has = tasks.to_vec();
        let mut ring: Vec<_> = (0..has.len()).filter(|&place| room[place] > 0).collect();
        ring.sort_by_key(|&place| has[place]);
        let mut turns = Turns::new(ring);
        for _ in 0..n {
            let next = turns.next(
                |place| has[place] - tasks[place] < room[place],
                |a, b| has[a] < has[b],
            );
            if let Some(place) = next {
                has[place] += 1;
            }
        }
        has
    }

    #[test]
    fn nodes_come_level_and_then_take_turns() {
        assert_eq!(fill(&[0, 0, 0], &[9, 9, 9], 7), [3, 2, 2]);
        assert_eq!(fill(&[3, 0, 1], &[9, 9, 9], 4), [3, 2, 3]);
        assert_eq!(fill(&[5, 0], &[9, 9], 3), [5, 3]);
    }

    #[test]
    fn full_nodes_are_passed_over() {
        assert_eq!(fill(&[0, 0, 0], &[1, 9, 0], 6), [1, 5, 0]);
        assert_eq!(fill(&[0, 0], &[1, 1], 6), [1, 1]);
        assert_eq!(fill(&[0, 4], &[9, 0], 2), [2, 4]);
        assert!(fill(&[], &[], 2).is_empty());
        assert_eq!(fill(&[1, 0], &[5, 2], 6), [5, 2]);
    }
}
