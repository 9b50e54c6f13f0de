//! Members that come, go and move, and messages that a member must not listen to.

use super::{Group, Member, STEPS_PER_TICK, local};
use crate::{
    Error,
    codec::{Incoming, Message, MessageType},
    log::LogStore as _,
    member::Change,
};

impl Group {
    /// Lets a member take a message, and says what came of it.
    fn hand(&mut self, id: u64, message: Message) -> Result<(), Error> {
        let taken = self.replica(id).step(Incoming::new(message).unwrap());
        self.drain(id);
        taken
    }

    fn term(&mut self, id: u64) -> u64 {
        self.replica(id).role().term
    }

    fn propose_refused(&mut self, change: &Change) -> String {
        let leader = self.elect();
        self.run_until("a change can be proposed", |group| {
            group.members[&leader]
                .replica
                .as_ref()
                .is_some_and(super::Replica::can_change)
        });
        let refused = self.replica(leader).propose_change(7, change);
        refused.unwrap_err().to_string()
    }
}

fn request_vote(from: u64, to: u64, term: u64, log: (u64, u64)) -> Message {
    Message {
        msg_type: MessageType::MsgRequestVote,
        from,
        to,
        term,
        log_term: log.0,
        index: log.1,
        ..Message::default()
    }
}

#[test]
fn a_joiner_that_dies_half_way_costs_nothing() {
    for size in 1..=3 {
        let mut group = Group::of(20 + size, size);
        // It is taken in, and never comes.
        group.change(&Change::AddLearner(local(9).to_wire()));
        group.write();
        let leader = group.elect();
        assert_eq!(group.replica(leader).learners(), [9]);
        for _ in 0..300 {
            group.step();
        }
        group.write();
        // Another leader knows of it too, and would give it its vote.
        if size > 2 {
            group.crash(leader);
            group.run_until("another one leads", |group| {
                group.leader().is_some_and(|id| id != leader)
            });
            group.start(leader);
            let next = group.elect();
            assert_eq!(group.replica(next).learners(), [9]);
        }
        group.members.insert(9, Member::default());
        group.start(9);
        group.run_until("it votes", |group| {
            group.members[&9].members().contains(&9) && group.learners(9).is_empty()
        });
        group.settle();
    }
}

#[test]
fn a_learner_that_lacks_the_log_has_no_vote() {
    let mut group = Group::of(24, 3);
    group.change(&Change::AddLearner(local(9).to_wire()));
    group.members.insert(9, Member::default());
    group.start(9);
    // Nothing that it is sent gets onto its disk, so it acknowledges nothing.
    group.stalled = Some(9);
    for _ in 0..500 {
        group.step();
    }
    let leader = group.elect();
    assert_eq!(group.replica(leader).learners(), [9]);
    group.write();
    // Nor does it stand for election when the leader is gone.
    group.crash(leader);
    group.run_until("another one leads", |group| {
        group.leader().is_some_and(|id| id != leader)
    });
    assert_ne!(group.leader(), Some(9));
    group.stalled = None;
    group.start(leader);
    group.run_until("it votes", |group| {
        !group.learners(9).contains(&9) && group.members[&9].members().contains(&9)
    });
    group.settle();
}

#[test]
fn a_learner_that_lags_has_no_vote() {
    let mut group = Group::of(28, 1);
    group.change(&Change::AddLearner(local(9).to_wire()));
    group.members.insert(9, Member::default());
    group.start(9);
    // Its disk writes until it has some entries, and then nothing for a long time.
    group.stalled = Some(9);
    let mut entries = 0;
    while entries == 0 {
        group.run_until("it is sent something", |group| {
            !group.members[&9].unwritten.is_empty()
        });
        let member = group.members.get_mut(&9).unwrap();
        let append = member.unwritten.pop_front().unwrap();
        member.log.append(&append.batch).unwrap();
        entries = append.batch.entries.len();
        if entries > 0 {
            // Before the leader hears of it.
            for _ in 0..30 {
                group.write();
                (0..STEPS_PER_TICK).for_each(|_| group.step());
            }
        }
        group.replica(9).persisted(append.number);
        group.drain(9);
    }
    group.run_until("the leader knows", |group| {
        group.members[&1].replica.as_ref().unwrap().matched(9) > 0
    });
    // It would be needed for all that comes before it in the log of the leader.
    assert_eq!(group.replica(1).caught_up_learners().next(), None);
    group.stalled = None;
    group.run_until("it votes", |group| {
        group.members[&9].members().contains(&9) && group.learners(9).is_empty()
    });
    group.settle();
}

#[test]
fn a_learner_comes_with_a_snapshot_too() {
    let mut group = Group::of(25, 3);
    group.change(&Change::AddLearner(local(8).to_wire()));
    for _ in 0..10 {
        group.write();
    }
    group.settle();
    for id in 1..=3 {
        let applied = group.replica(id).applied();
        group.replica(id).compact(applied);
    }
    // This one gets a snapshot that names the other learner.
    group.change(&Change::AddLearner(local(9).to_wire()));
    group.members.insert(9, Member::default());
    group.start(9);
    group.run_until("it votes", |group| {
        group.learners(9) == [8] && group.members[&9].members().contains(&9)
    });
    group.settle();
}

#[test]
fn an_address_changes_without_a_vote_being_lost() {
    let mut group = Group::of(26, 3);
    let leader = group.elect();
    let moved = leader % 3 + 1;
    let mut member = local(moved).to_wire();
    member.addr = "elsewhere:4242".to_owned();
    group.change(&Change::Update(member));
    group.write();
    group.settle();
    for id in 1..=3 {
        let replica = group.members[&id].replica.as_ref().unwrap();
        assert_eq!(replica.members()[&moved].addr, "elsewhere:4242");
        assert_eq!(replica.learners(), [0; 0]);
        assert_eq!(replica.conf_state.voters.len(), 3);
    }
}

#[test]
fn changes_that_make_no_sense_are_not_proposed() {
    let mut group = Group::of(27, 3);
    let leader = group.elect();
    let voter = leader % 3 + 1;
    group.change(&Change::Remove(leader % 3 + 1));
    let outdated = Error::Outdated.to_string();
    for change in [
        // Its Raft ID is used up.
        Change::AddLearner(local(voter).to_wire()),
        Change::Add(local(voter).to_wire()),
        Change::Update(local(voter).to_wire()),
        Change::Remove(voter),
        // It would lose its vote.
        Change::AddLearner(local(leader).to_wire()),
        // One node, two members.
        Change::AddLearner({
            let mut member = local(leader).to_wire();
            member.raft_id = 77;
            member
        }),
    ] {
        assert_eq!(group.propose_refused(&change), outdated, "{change:?}");
    }
    let mut alone = Group::new(28);
    assert_eq!(alone.propose_refused(&Change::Remove(1)), outdated);
    alone.write();
}

#[test]
fn strangers_get_no_vote_and_disturb_nobody() {
    let mut group = Group::of(29, 3);
    group.write();
    group.settle();
    let leader = group.elect();
    let follower = leader % 3 + 1;
    let term = group.term(follower);
    let last = group.replica(follower).last_index();
    // Long without a leader, so that a vote would be given.
    group.network.clear();
    for _ in 0..9 {
        group.replica(follower).tick();
    }
    for vote in [
        request_vote(99, follower, term + 5, (1, 1)),
        request_vote(99, follower, term + 5, (term, last)),
        Message {
            msg_type: MessageType::MsgRequestPreVote,
            ..request_vote(99, follower, term + 5, (term, last))
        },
    ] {
        group.hand(follower, vote).unwrap();
        assert!(group.network.iter().all(|(_, sent)| sent.to != 99));
        assert_eq!(group.term(follower), term);
    }
    // It does not even end for what only a leader may say.
    let lie = Message {
        msg_type: MessageType::MsgHeartbeat,
        from: 99,
        to: follower,
        term,
        commit: last + 10,
        ..Message::default()
    };
    assert!(!matches!(
        group.hand(follower, lie),
        Ok(()) | Err(Error::Lost { .. })
    ));
    group.write();
    group.settle();
}

#[test]
fn who_has_more_of_the_log_may_be_a_member_that_is_not_known_yet() {
    let mut group = Group::of(30, 3);
    group.write();
    group.settle();
    let leader = group.elect();
    let (behind, other) = (leader % 3 + 1, (leader + 1) % 3 + 1);
    group.crash(behind);
    group.join(9);
    group.write();
    // Only the new one has this entry besides the leader, and with it all hope for a leader.
    group.crash(other);
    group.propose().unwrap();
    let wanted = group.replica(leader).last_index();
    group.run_until("it has the entry", |group| {
        let replica = group.members[&9].replica.as_ref().unwrap();
        replica.last_index() == wanted && group.members[&9].unwritten.is_empty()
    });
    group.crash(leader);
    group.network.clear();
    group.start(behind);
    group.start(other);
    group.run_until("the new one leads", |group| group.leader() == Some(9));
    group.write();
}

#[test]
fn wrong_receivers_senders_and_terms_are_refused_without_harm() {
    let mut group = Group::of(31, 3);
    group.write();
    group.settle();
    let leader = group.elect();
    let follower = leader % 3 + 1;
    let term = group.term(follower);
    let fine = Message {
        msg_type: MessageType::MsgHeartbeat,
        from: leader,
        to: follower,
        term,
        ..Message::default()
    };
    let wrong = [
        Message {
            to: leader,
            ..fine.clone()
        },
        Message {
            from: follower,
            ..fine.clone()
        },
        Message {
            from: 0,
            ..fine.clone()
        },
        Message {
            term: 0,
            ..fine.clone()
        },
        Message {
            term: u64::MAX,
            ..fine.clone()
        },
        Message {
            msg_type: MessageType::MsgAppend,
            index: u64::MAX,
            ..fine.clone()
        },
        Message {
            msg_type: MessageType::MsgSnapshot,
            ..fine.clone()
        },
        Message {
            msg_type: MessageType::MsgPropose,
            ..fine.clone()
        },
    ];
    for message in wrong {
        let kind = message.msg_type;
        assert!(group.hand(follower, message).is_err(), "{kind:?}");
    }
    // Nobody but the leader hands over.
    let handover = Message {
        msg_type: MessageType::MsgTimeoutNow,
        from: 6 - leader - follower,
        ..fine.clone()
    };
    group.hand(follower, handover).unwrap();
    assert_eq!(group.term(follower), term);
    // An old term is answered and changes nothing.
    let old = Message {
        term: term - 1,
        ..fine
    };
    group.hand(follower, old).unwrap();
    assert_eq!(group.term(follower), term);
    assert_eq!(group.leader(), Some(leader));
    group.write();
    group.settle();
}

#[test]
fn who_votes_alone_says_nothing_before_its_term_is_on_disk() {
    let mut group = Group::new(21);
    group.elect();
    group.change(&Change::AddLearner(local(2).to_wire()));
    group.members.insert(2, Member::default());
    group.start(2);
    group.run_until("the learner follows", |group| {
        group.members[&2].members().contains(&2)
    });
    group.crash(1);
    group.stalled = Some(1);
    group.network.clear();
    group.start(1);
    let term = group.term(2);
    for _ in 0..3 * STEPS_PER_TICK {
        group.replica(1).campaign_if_alone();
        group.drain(1);
        group.step();
    }
    assert!(group.replica(1).role().leads);
    assert_eq!(group.term(2), term);
    group.stalled = None;
    group.write();
}

#[test]
fn a_removal_is_a_secret_until_it_cannot_be_forgotten() {
    for seed in 0..20 {
        let mut group = Group::of(seed, 2);
        group.write();
        let leader = group.elect();
        let other = 3 - leader;
        // The removal gets onto the leader's disk, but not that it is committed.
        group.isolated = Some(leader);
        let removal = Change::Remove(other);
        group.run_until("the disk has all", |group| {
            group.members[&leader].unwritten.is_empty()
        });
        group.replica(leader).propose_change(7, &removal).unwrap();
        let index = group.replica(leader).last_index();
        group.drain(leader);
        group.run_until("the disk has the removal", |group| {
            group.members[&leader].unwritten.is_empty()
        });
        group.stalled = Some(leader);
        group.isolated = None;
        group.run_until("it is committed", |group| {
            let replica = group.members[&leader].replica.as_ref().unwrap();
            replica.positions(0).committed >= index
        });
        for _ in 0..3 * STEPS_PER_TICK {
            group.step();
            assert!(group.replica(leader).removed().is_empty(), "seed {seed}");
            assert!(!group.is_removed(other), "seed {seed}");
        }
        // It forgets, and needs the other for one more time.
        group.members.get_mut(&leader).unwrap().unwritten.clear();
        group.crash(leader);
        group.stalled = None;
        group.start(leader);
        group.write();
    }
}

#[test]
fn a_leader_that_dies_before_it_has_told_of_its_removal_comes_back_and_tells() {
    for seed in 0..20 {
        let mut group = Group::of(seed, 2);
        group.write();
        let leader = group.elect();
        let removal = Change::Remove(leader);
        group.run_until("the members can be changed", |group| {
            let replica = group.members[&leader].replica.as_ref().unwrap();
            replica.can_change()
        });
        group.replica(leader).propose_change(7, &removal).unwrap();
        let index = group.replica(leader).last_index();
        group.drain(leader);
        group.run_until("it is committed", |group| {
            let replica = group.members[&leader].replica.as_ref().unwrap();
            replica.positions(0).committed >= index
        });
        // What it says of it is lost, but not what it writes.
        group.isolated = Some(leader);
        group.network.clear();
        for _ in 0..STEPS_PER_TICK {
            group.step();
        }
        group.crash(leader);
        group.isolated = None;
        group.start(leader);
        group.write();
    }
}

/// A leader is demoted while messages overtake each other: it hands over, and is removed by the next.
#[test]
fn r11_reordered_messages_while_a_leader_is_demoted_cost_no_quorum() {
    for seed in 40..60 {
        let mut group = Group::of(seed, 3);
        group.write();
        let old = group.elect();
        group.delay = 60;
        group.loss = 0.1;
        let out = |group: &Group| {
            let mut rest = group.members.iter().filter(|(id, _)| **id != old);
            rest.all(|(_, member)| {
                let replica = member.replica.as_ref().unwrap();
                replica.removed().contains(&old) && replica.conf_state.voters.len() == 2
            })
        };
        for _ in 0..100_000 {
            if out(&group) {
                break;
            }
            match group.leader() {
                Some(leader) if leader == old && group.now.is_multiple_of(300) => {
                    group.replica(old).transfer_leader(old % 3 + 1);
                    group.drain(old);
                }
                Some(leader) if leader != old => {
                    let replica = group.replica(leader);
                    if replica.can_change() && replica.members().contains_key(&old) {
                        replica.propose_change(3, &Change::Remove(old)).unwrap();
                        group.drain(leader);
                    }
                }
                _ => {}
            }
            group.step();
        }
        assert!(out(&group), "seed {seed}");
        group.crash(old);
        group.write();
    }
}
