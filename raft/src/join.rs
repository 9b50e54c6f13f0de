//! Becoming a member, and ceasing to be one.

use std::time::Duration;

use skep_proto::v1::{
    HealthCheckRequest, JoinRequest, JoinResponse, LeaveRequest, RaftMember, RaftMemberStatus,
    health_check_response, health_client::HealthClient, raft_member_status,
    raft_membership_client::RaftMembershipClient,
};
use skep_security::{ServerName, Tls};
use tokio::time::timeout;
use tonic::{
    Request,
    metadata::{MetadataMap, MetadataValue},
};

use crate::{
    Error, Raft, Status,
    member::{Change, Membership},
    node::Command,
};

/// Time for a new member to answer when the leader dials it.
const DIAL_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the leader to answer a new member; SwarmKit's, whose elections are slower.
const JOIN_TIMEOUT: Duration = Duration::from_secs(25);
/// Pause before a manager that was elected just now is asked again.
const PAUSE: Duration = Duration::from_millis(200);
/// Time for a leader to reach the others before it refuses a removal: a new one has not yet.
const REACH_PATIENCE: Duration = Duration::from_secs(1);
/// Metadata of a join request by which a node says that it can begin without a vote. Members of
/// SwarmKit do not say so, and must not be made to: older ones refuse a snapshot that calls themselves
/// a learner.
const LEARNS: &str = "skep-learns";

/// Asks the managers at `manager_addr` to become a member that is reached at `own_addr`. Any manager
/// will do. This node must already answer Health checks for `Raft` there: the leader dials it.
///
/// Call this with an empty log only: a member that has lost its log gets a new Raft ID.
pub async fn request_join(
    tls: &Tls,
    manager_addr: &str,
    own_addr: &str,
) -> Result<JoinResponse, Error> {
    let channel = tls.channel(manager_addr, ServerName::Manager)?;
    let mut client = RaftMembershipClient::new(channel);
    let mut request = Request::new(JoinRequest {
        addr: own_addr.to_owned(),
    });
    let metadata = request.metadata_mut();
    metadata.insert(LEARNS, MetadataValue::from_static("true"));
    match timeout(JOIN_TIMEOUT, Box::pin(client.join(request))).await {
        Ok(response) => Ok(response?.into_inner()),
        Err(_) => Err(Error::Timeout(JOIN_TIMEOUT)),
    }
}

/// Whether a node that asks to join can begin without a vote.
pub(crate) fn learns(metadata: &MetadataMap) -> bool {
    metadata.contains_key(LEARNS)
}

/// What is to be done for a node that asks to join.
#[derive(Debug, PartialEq)]
enum Entry {
    /// It is a member, and keeps its Raft ID.
    Known(u64),
    /// It is a member that never had a log, and is reached elsewhere now.
    Moved(u64),
    /// It was a member and has lost its log: this Raft ID must go before it gets another one.
    Wiped(u64),
    New,
}

/// A member that has its log and only wants to be known elsewhere does not ask for this.
fn entry(status: &Status, node_id: &str, addr: &str) -> Entry {
    let Some(known) = status.member_of(node_id) else {
        return Entry::New;
    };
    let raft_id = known.raft_id;
    // Who votes has acknowledged entries. So has a learner that this leader knows the log of; one that
    // only an earlier leader knew it of counts for nothing, and is welcome to begin again.
    let matched = status.positions.matched.get(&raft_id).copied();
    let had_log = !status.learners.contains(&raft_id) || matched.unwrap_or_default() > 0;
    // A member that takes messages has its log. One that asks without a log takes none.
    let runs = known.addr == addr
        && known.status().reachability() == raft_member_status::Reachability::Reachable;
    if had_log && !runs {
        Entry::Wiped(raft_id)
    } else if known.addr != addr {
        Entry::Moved(raft_id)
    } else {
        Entry::Known(raft_id)
    }
}

impl Raft {
    /// Makes a node a member, as the leader. It must answer at `addr`. One that `learns` begins as a
    /// learner, and gets a vote by itself once it has caught up; another one votes at once, as all do
    /// in SwarmKit, and until it has caught up the group can do with one member less. A node that asks again gets the same answer as long
    /// as it never had a log, or has it still; otherwise its old membership is ended, if the quorum
    /// survives that, and it becomes another member.
    pub async fn join(
        &self,
        node_id: &str,
        addr: &str,
        learns: bool,
    ) -> Result<JoinResponse, Error> {
        if !is_address(addr) {
            return Err(Error::InvalidAddress(addr.to_owned()));
        }
        let _one_at_a_time = self.membership().await?;
        let status = self.inner.status().clone();
        if !status.leading {
            return Err(Error::NotLeader);
        }
        let member = |raft_id| RaftMember {
            raft_id,
            node_id: node_id.to_owned(),
            addr: addr.to_owned(),
            status: Some(RaftMemberStatus::default()),
        };
        let entry = entry(&status, node_id, addr);
        let raft_id = match entry {
            Entry::Known(raft_id) => return Ok(answer(raft_id, &status)),
            Entry::Moved(raft_id) => raft_id,
            Entry::Wiped(_) | Entry::New => Membership::fresh_id(&status.members, &status.removed),
        };
        self.dial_back(addr).await?;
        let add = if learns {
            Change::AddLearner
        } else {
            Change::Add
        };
        let change = match entry {
            Entry::Moved(_) => Change::Update(member(raft_id)),
            Entry::Wiped(old) => {
                let checked = status.check_removal(old);
                checked.map_err(|error| Error::Wiped(Box::new(error)))?;
                tracing::warn!(
                    node = node_id,
                    "a manager has lost its log; it becomes a new member"
                );
                self.change(Change::Remove(old)).await?;
                add(member(raft_id))
            }
            _ => add(member(raft_id)),
        };
        self.change(change).await?;
        Ok(answer(raft_id, &self.inner.status()))
    }

    /// Removes a member, as the leader, if the group surely goes on without it. A leader does not
    /// remove itself: it hands over leadership and fails with [`Error::NotLeader`], and the next one
    /// can be asked.
    pub async fn remove(&self, raft_id: u64) -> Result<(), Error> {
        let _one_at_a_time = self.membership().await?;
        let mut watched = self.status();
        let decided = watched.wait_for(|status| {
            !status.leading || status.member(raft_id).is_none() || status.can_remove(raft_id)
        });
        // If it is not decided by then, what follows says why.
        let _ = timeout(REACH_PATIENCE, decided).await;
        let own = {
            let status = self.inner.status();
            if !status.leading {
                return Err(Error::NotLeader);
            }
            if status.member(raft_id).is_none() {
                return Err(Error::UnknownMember);
            }
            status.check_removal(raft_id)?;
            status.raft_id == raft_id
        };
        if own {
            self.transfer_leadership().await?;
            return Err(Error::NotLeader);
        }
        self.change(Change::Remove(raft_id)).await
    }

    /// Removes a member as [`Self::remove`] does. A leader that is to remove itself has the next one do
    /// it.
    pub(crate) async fn leave(&self, raft_id: u64) -> Result<(), Error> {
        match self.remove(raft_id).await {
            Err(Error::NotLeader) if self.inner.status().raft_id == raft_id => {}
            done => return done,
        }
        let limit = self.inner.request_timeout;
        let passed_on = timeout(limit, Box::pin(self.pass_on_leave(raft_id))).await;
        passed_on.unwrap_or(Err(Error::Timeout(limit)))
    }

    async fn pass_on_leave(&self, raft_id: u64) -> Result<(), Error> {
        let mut status = self.status();
        loop {
            let another = |status: &Status| {
                let leader = status.leader.as_ref();
                leader.is_some_and(|leader| leader.raft_id != raft_id)
            };
            let leader = match status.wait_for(another).await {
                Ok(status) => status.leader.clone().unwrap_or_default(),
                Err(_) => return Err(Error::Stopped),
            };
            let channel = self.inner.tls.channel(&leader.addr, ServerName::Manager)?;
            let request = LeaveRequest {
                node: Some(RaftMember {
                    raft_id,
                    ..RaftMember::default()
                }),
            };
            let answer = RaftMembershipClient::new(channel).leave(request).await;
            match answer {
                // It does not lead yet, or not any more.
                Err(refused) if refused.message() == Error::NotLeader.to_string() => {
                    tokio::time::sleep(PAUSE).await;
                }
                answer => return Ok(answer.map(drop)?),
            }
        }
    }

    async fn change(&self, change: Change) -> Result<(), Error> {
        self.request(|done| Command::Change(change, done)).await
    }

    /// Waits for the turn to change the members.
    pub(crate) async fn membership(&self) -> Result<tokio::sync::MutexGuard<'_, ()>, Error> {
        let limit = self.inner.request_timeout;
        timeout(limit, self.inner.membership.lock())
            .await
            .map_err(|_| Error::Timeout(limit))
    }

    /// Whether a node answers at an address, and is ready for messages.
    pub(crate) async fn dial_back(&self, addr: &str) -> Result<(), Error> {
        let channel = self.inner.tls.channel(addr, ServerName::Manager)?;
        let mut client = HealthClient::new(channel);
        let request = HealthCheckRequest {
            service: "Raft".into(),
        };
        let serving = health_check_response::ServingStatus::Serving;
        match timeout(DIAL_BACK_TIMEOUT, Box::pin(client.check(request))).await {
            Ok(Ok(answer)) if answer.get_ref().status() == serving => Ok(()),
            Ok(Ok(_)) => Err(Error::DialBack("it is not serving".into())),
            Ok(Err(status)) => Err(Error::DialBack(status.message().to_owned())),
            Err(_) => Err(Error::DialBack(format!(
                "no answer within {DIAL_BACK_TIMEOUT:?}"
            ))),
        }
    }
}

pub(crate) fn answer(raft_id: u64, status: &Status) -> JoinResponse {
    JoinResponse {
        raft_id,
        members: status.members.clone(),
        removed_members: Vec::new(),
    }
}

/// Whether this is `host:port`, with brackets around an IPv6 host.
pub(crate) fn is_address(addr: &str) -> bool {
    let Some((host, port)) = addr.rsplit_once(':') else {
        return false;
    };
    let bracketed = host.starts_with('[') && host.ends_with(']') && host.len() > 2;
    let plain = !host.is_empty() && !host.contains([':', '[', ']', '/', ' ']);
    (plain || bracketed) && port.parse::<u16>().is_ok_and(|port| port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// This member leads; member 2 is of node n2.
    fn status(votes: bool, matched: u64, reachable: bool) -> Status {
        let member = |raft_id, reachability: raft_member_status::Reachability| RaftMember {
            raft_id,
            node_id: format!("n{raft_id}"),
            addr: format!("host{raft_id}:4242"),
            status: Some(RaftMemberStatus {
                reachability: reachability.into(),
                ..RaftMemberStatus::default()
            }),
        };
        let other = match reachable {
            true => raft_member_status::Reachability::Reachable,
            false => raft_member_status::Reachability::Unreachable,
        };
        let mut status = Status {
            raft_id: 1,
            leading: true,
            members: vec![
                member(1, raft_member_status::Reachability::Reachable),
                member(2, other),
            ],
            ..Status::default()
        };
        status.positions.matched.insert(2, matched);
        if !votes {
            status.learners.insert(2);
        }
        status
    }

    #[test]
    fn a_node_keeps_its_raft_id_only_while_its_log_cannot_be_missed() {
        let check = |status: &Status, addr: &str, expected| {
            assert_eq!(entry(status, "n2", addr), expected, "{status:?}");
        };
        let (old, new) = ("host2:4242", "elsewhere:4242");
        let other = entry(&status(true, 9, true), "n3", old);
        assert_eq!(other, Entry::New, "another node");
        // It died before it had anything.
        let fresh = status(false, 0, false);
        check(&fresh, old, Entry::Known(2));
        check(&fresh, new, Entry::Moved(2));
        // It runs, and asks once more.
        check(&status(true, 9, true), old, Entry::Known(2));
        // It has been there and has nothing any more.
        check(&status(true, 0, false), old, Entry::Wiped(2));
        check(&status(false, 9, false), old, Entry::Wiped(2));
        check(&status(true, 9, false), new, Entry::Wiped(2));
        check(&status(true, 9, true), new, Entry::Wiped(2));
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for good in ["10.0.0.1:4242", "manager-1:2377", "[fd00::1]:4242"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "10.0.0.1",
            ":4242",
            "host:",
            "host:0",
            "host:99999",
            "::1:4242",
            "a/b:1",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
