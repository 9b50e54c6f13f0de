//! Managers that join, leave, move, lose their logs, or are not who they say.

use std::{collections::BTreeSet, time::Duration};

use futures_util::stream;
use prost::Message as _;
use skep_proto::v1::{
    JoinRequest, LeaveRequest, RaftMember, StreamRaftMessageRequest, raft_client::RaftClient,
    raft_membership_client::RaftMembershipClient,
};
use tokio::time::timeout;
use tonic::{Code, Status};

use crate::support::{Cluster, Manager};

fn raft_id(cluster: &Cluster, manager: usize) -> u64 {
    cluster.managers[manager].status().raft_id
}

/// The part of `raftpb.Message` that matters here.
#[derive(Clone, PartialEq, prost::Message)]
struct Message {
    #[prost(int32, tag = "1")]
    kind: i32,
    #[prost(uint64, tag = "2")]
    to: u64,
    #[prost(uint64, tag = "3")]
    from: u64,
    #[prost(uint64, tag = "4")]
    term: u64,
    #[prost(uint64, tag = "5")]
    log_term: u64,
    #[prost(uint64, tag = "6")]
    index: u64,
    #[prost(uint64, tag = "8")]
    commit: u64,
}

const VOTE: i32 = 5;
const HEARTBEAT: i32 = 8;

/// Sends what `message` says to `to` with the certificate of `by`.
async fn tell(by: &Manager, to: &Manager, message: Vec<u8>) -> Result<(), Status> {
    let message = message.into();
    let pieces = stream::iter([StreamRaftMessageRequest { message }]);
    let mut client = RaftClient::new(by.channel(to));
    client.stream_raft_message(pieces).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_that_dies_half_way_costs_nobody_a_quorum() {
    let mut cluster = Cluster::start(1).await;
    cluster.write("before").await;
    let outsider = cluster.outsider().await;
    let (node_id, addr) = outsider.identity();
    let raft = cluster.managers[0].raft();
    let answer = raft.join(&node_id, &addr, true).await.unwrap();
    assert_eq!(answer.members.len(), 2);
    let status = cluster.managers[0].status();
    assert_eq!(status.learners, BTreeSet::from([answer.raft_id]));
    // With a vote it would be needed for this.
    cluster.write("after").await;
    // It asks again: it is the same member.
    let again = raft.join(&node_id, &addr, true).await.unwrap();
    assert_eq!((again.raft_id, again.members.len()), (answer.raft_id, 2));
    drop((outsider, raft));
    cluster.write("later").await;
    cluster.kill(0);
    cluster.restart(0).await;
    cluster.write("after a restart").await;
    assert_eq!(cluster.managers[0].status().learners, status.learners);
    // Nobody needs it: it can go.
    let raft = cluster.managers[0].raft();
    raft.remove(answer.raft_id).await.unwrap();
    assert_eq!(cluster.managers[0].status().members.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_that_knows_nothing_of_learners_votes_at_once() {
    let mut cluster = Cluster::start(2).await;
    let outsider = cluster.outsider().await;
    let (_, addr) = outsider.identity();
    // What a stock engine says when it joins.
    let leader = cluster.leader().await;
    let mut client = RaftMembershipClient::new(outsider.channel(&cluster.managers[leader]));
    let answer = client
        .join(JoinRequest { addr })
        .await
        .unwrap()
        .into_inner();
    let status = cluster.managers[leader].status();
    assert!(status.learners.is_empty());
    assert!(status.member(answer.raft_id).is_some());
    assert_eq!(answer.members.len(), 3);
    // It is one of three, and not there.
    cluster.write("without it").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r03_a_member_that_has_lost_its_log_gets_a_new_raft_id_and_never_its_old_one() {
    let mut cluster = Cluster::start(3).await;
    cluster.write("before").await;
    cluster.everyone_has("before").await;
    let leader = cluster.leader().await;
    let victim = (leader + 1) % 3;
    let old = raft_id(&cluster, victim);
    cluster.kill(victim);
    cluster.wipe(victim).await;
    cluster.rejoin(victim).await;
    let new = raft_id(&cluster, victim);
    assert_ne!(new, old);
    cluster
        .wait("it votes again", |cluster| {
            let status = cluster.managers[victim].status();
            status.votes() && status.members.len() == 3
        })
        .await;
    cluster.everyone_has("before").await;
    let status = cluster.managers[leader].status();
    assert!(status.removed.contains(&old) && !status.removed.contains(&new));
    assert_eq!(status.members.len(), 3);
    cluster.write("after").await;
    cluster.everyone_has("after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r24_messages_of_strangers_and_for_former_members_do_no_harm() {
    let mut cluster = Cluster::start(3).await;
    cluster.write("before").await;
    let leader = cluster.leader().await;
    let (follower, former) = ((leader + 1) % 3, (leader + 2) % 3);
    let status = cluster.managers[follower].status();
    let (own, leads) = (status.raft_id, raft_id(&cluster, leader));
    let gone = raft_id(&cluster, former);
    cluster.wait_reachable(leader).await;
    let raft = cluster.managers[leader].raft();
    raft.remove(gone).await.unwrap();
    cluster
        .wait("the follower knows", |cluster| {
            let status = cluster.managers[follower].status();
            status.removed.contains(&gone)
        })
        .await;
    let (by, to) = (&cluster.managers[former], &cluster.managers[follower]);
    let message = Message {
        kind: HEARTBEAT,
        to: own,
        from: 4711,
        term: status.term,
        commit: 1 << 40,
        ..Message::default()
    };
    // A former member is told; text and code are what its transport looks for.
    let former_message = Message {
        from: gone,
        ..message.clone()
    };
    let told = tell(by, to, former_message.encode_to_vec()).await;
    let told = told.unwrap_err();
    assert_eq!(told.code(), Code::NotFound);
    assert_eq!(told.message(), "raft: member was removed from the cluster");
    for harmless in [
        message.clone(),
        // Who sends is not who the message says; from the leader this would end the member.
        Message {
            from: leads,
            ..message.clone()
        },
        // For somebody else, or for whom this manager was before.
        Message {
            to: gone,
            from: leads,
            ..message.clone()
        },
        Message {
            kind: VOTE,
            term: status.term + 9,
            log_term: 1,
            index: 1,
            ..message.clone()
        },
        Message {
            term: u64::MAX,
            ..message.clone()
        },
        Message::default(),
    ] {
        tell(by, to, harmless.encode_to_vec()).await.unwrap();
    }
    let garbage = tell(by, to, vec![0xff; 9]).await.unwrap_err();
    assert_eq!(garbage.code(), Code::InvalidArgument);
    cluster.kill(former);
    cluster.write("after").await;
    cluster.everyone_has("after").await;
    let now = cluster.managers[follower].status();
    assert_eq!((now.raft_id, now.term), (own, status.term));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_is_to_leave_hands_over_first() {
    let mut cluster = Cluster::start(3).await;
    cluster.write("before").await;
    let leader = cluster.leader().await;
    cluster.wait_reachable(leader).await;
    let own = raft_id(&cluster, leader);
    let other = &cluster.managers[(leader + 1) % 3];
    let channel = other.channel(&cluster.managers[leader]);
    let request = LeaveRequest {
        node: Some(RaftMember {
            raft_id: own,
            ..RaftMember::default()
        }),
    };
    let left = RaftMembershipClient::new(channel).leave(request).await;
    left.unwrap();
    let ended = cluster.managers[leader].raft();
    let ended = timeout(Duration::from_secs(10), ended.stopped()).await;
    let reason = ended.unwrap().unwrap_err();
    assert!(matches!(*reason, skep_raft::Error::Removed));
    cluster.kill(leader);
    let next = cluster.leader().await;
    assert_eq!(cluster.managers[next].status().members.len(), 2);
    cluster.write("after").await;
    cluster.everyone_has("after").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r32_a_removed_member_that_comes_back_cannot_vote_and_ends() {
    let mut cluster = Cluster::start(3).await;
    cluster.write("before").await;
    let leader = cluster.leader().await;
    let (victim, other) = ((leader + 1) % 3, (leader + 2) % 3);
    let gone = raft_id(&cluster, victim);
    cluster.kill(victim);
    let raft = cluster.managers[leader].raft();
    raft.remove(gone).await.unwrap();
    drop(raft);
    cluster.write("after").await;
    cluster
        .wait("the other one knows", |cluster| {
            cluster.managers[other].status().removed.contains(&gone)
        })
        .await;
    let term = cluster.managers[leader].status().term;
    // Its log says that it is a member, and one of three.
    cluster.restart(victim).await;
    let ended = cluster.managers[victim].raft();
    let ended = timeout(Duration::from_secs(10), ended.stopped()).await;
    let reason = ended.unwrap().unwrap_err();
    assert!(matches!(*reason, skep_raft::Error::Removed), "{reason}");
    cluster.kill(victim);
    cluster.write("later").await;
    assert_eq!(cluster.managers[leader].status().term, term);
    // It is remembered for good.
    for manager in [leader, other] {
        cluster.kill(manager);
    }
    for manager in [leader, other] {
        cluster.restart(manager).await;
    }
    cluster.write("at last").await;
    let status = cluster.managers[leader].status();
    assert!(status.removed.contains(&gone) && status.members.len() == 2);
}
