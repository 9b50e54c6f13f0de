//! Becoming a member, and ceasing to be one.

use std::time::Duration;

use skep_proto::v1::{
    HealthCheckRequest, JoinRequest, JoinResponse, RaftMember, health_check_response,
    health_client::HealthClient, raft_membership_client::RaftMembershipClient,
};
use skep_security::{ServerName, Tls};
use tokio::time::timeout;

use crate::{
    Error, Raft,
    member::{Change, Membership},
    node::Command,
};

/// Time for a new member to answer when the leader dials it.
const DIAL_BACK_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for the leader to answer a new member; SwarmKit's, whose elections are slower.
const JOIN_TIMEOUT: Duration = Duration::from_secs(25);

/// Asks the managers at `manager_addr` to become a member that is reached at `own_addr`. Any manager
/// will do. This node must already answer Health checks for `Raft` there: the leader dials it.
///
/// Call this with an empty log only: a member that lost its log must be removed first, or it ends
/// with [`Error::Lost`] as soon as the leader finds out.
pub async fn request_join(
    tls: &Tls,
    manager_addr: &str,
    own_addr: &str,
) -> Result<JoinResponse, Error> {
    let channel = tls.channel(manager_addr, ServerName::Manager)?;
    let mut client = RaftMembershipClient::new(channel);
    let request = JoinRequest {
        addr: own_addr.to_owned(),
    };
    match timeout(JOIN_TIMEOUT, Box::pin(client.join(request))).await {
        Ok(response) => Ok(response?.into_inner()),
        Err(_) => Err(Error::Timeout(JOIN_TIMEOUT)),
    }
}

impl Raft {
    /// Makes a node a member, as the leader. It must answer at `addr`. A node that is a member
    /// already gets the same answer again, or its new address is made known. While there is no
    /// leader, a member that asks again gets its answer from whoever knows it.
    pub async fn join(&self, node_id: &str, addr: &str) -> Result<JoinResponse, Error> {
        if !is_address(addr) {
            return Err(Error::InvalidAddress(addr.to_owned()));
        }
        let _one_at_a_time = self.membership().await?;
        let status = self.status();
        let (known, raft_id) = {
            let status = status.borrow();
            let mut members = status.members.iter();
            let known = members.find(|member| member.node_id == node_id).cloned();
            if !status.leading {
                // A member that died before it knew that it is one may be what keeps the group
                // without a leader. It changes nothing to tell it.
                return match known {
                    Some(known) if status.leader.is_none() && known.addr == addr => {
                        Ok(answer(known.raft_id, &status.members))
                    }
                    _ => Err(Error::NotLeader),
                };
            }
            let fresh = Membership::fresh_id(&status.members, &status.removed);
            (known, fresh)
        };
        let raft_id = known.as_ref().map_or(raft_id, |known| known.raft_id);
        if known.is_none_or(|known| known.addr != addr) {
            self.dial_back(addr).await?;
            let member = RaftMember {
                raft_id,
                node_id: node_id.to_owned(),
                addr: addr.to_owned(),
                status: None,
            };
            self.request(|done| Command::Change(Change::Add(member), done))
                .await?;
        }
        Ok(answer(raft_id, &self.status().borrow().members))
    }

    /// Removes a member, as the leader, if the group surely goes on without it. A leader does not
    /// remove itself: it hands over leadership and fails with [`Error::NotLeader`], and the next one
    /// can be asked.
    pub async fn remove(&self, raft_id: u64) -> Result<(), Error> {
        let _one_at_a_time = self.membership().await?;
        let own = {
            let status = self.status();
            let status = status.borrow();
            if !status.leading {
                return Err(Error::NotLeader);
            }
            if status.member(raft_id).is_none() {
                return Err(Error::UnknownMember);
            }
            if !status.can_remove(raft_id) {
                return Err(Error::QuorumLoss);
            }
            status.raft_id == raft_id
        };
        if own {
            self.transfer_leadership().await?;
            return Err(Error::NotLeader);
        }
        self.request(|done| Command::Change(Change::Remove(raft_id), done))
            .await
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

pub(crate) fn answer(raft_id: u64, members: &[RaftMember]) -> JoinResponse {
    JoinResponse {
        raft_id,
        members: members.to_vec(),
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
    use super::is_address;

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
