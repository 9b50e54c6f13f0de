//! A member that is reached at another address than its group knows makes that known.
//!
//! It tells every manager that it can find, until the log says it. While there is a leader that is all.
//! While there is none, whoever hears of it takes a note of its own and talks to it there: of managers
//! that have all moved, none could otherwise be elected. Such notes only say where messages go, and
//! they come from a member itself, authenticated and dialled back, or from one that was told so; the
//! address that a connection comes from is never used.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use futures_util::future::join_all;
use skep_proto::v1::{
    JoinRequest, JoinResponse, RaftMember, ResolveAddressRequest, raft_client::RaftClient,
    raft_member_status, raft_membership_client::RaftMembershipClient,
};
use skep_security::ServerName;
use tokio::time::timeout;
use tonic::{Request, metadata::MetadataMap, transport::Channel};

use crate::{
    Error, Raft, Status,
    join::{answer, is_address},
    member::Change,
    node::Command,
};

/// Pause after a round in which not all was said and heard, doubled with each.
const MIN_PAUSE: Duration = Duration::from_millis(200);
const MAX_PAUSE: Duration = Duration::from_secs(3);
/// Time for a manager to tell where another one is.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for a manager to take note, and for the leader to write it into the log.
const ANNOUNCE_TIMEOUT: Duration = Duration::from_secs(10);
/// Metadata of a join request by which a member with a log says which one it is, so that one that was
/// removed meanwhile is not taken in anew under another ID. SwarmKit does not look at it.
const RAFT_ID: &str = "skep-raft-id";

/// The Raft ID of a member that asks to be known at another address.
pub(crate) fn announced(metadata: &MetadataMap) -> Option<u64> {
    metadata.get(RAFT_ID)?.to_str().ok()?.parse().ok()
}

/// Whether the group knows where this member is and, if it looked for the others, it has found them.
fn is_settled(status: &Status, addr: &str, looks: bool) -> bool {
    let known = status.member(status.raft_id);
    known.is_some_and(|known| known.addr == addr) && (!looks || status.leader.is_some())
}

impl Raft {
    /// Makes this member's address known, should the group know another one. `contact` is where some
    /// manager of the group is now, in case none is any more where the log says. Returns once that is
    /// done, which may take for ever: run it beside everything else, and only while this member
    /// answers at its address.
    pub async fn announce(&self, contact: Option<&str>) {
        let addr = &self.inner.addr;
        let looks = contact.is_some();
        let mut status = self.status();
        let mut pause = MIN_PAUSE;
        loop {
            let present = status.borrow_and_update().clone();
            if is_settled(&present, addr, looks) {
                return;
            }
            // One that has just joined is in the log soon.
            if looks || present.member(present.raft_id).is_some() || pause > MIN_PAUSE {
                tokio::select! {
                    told = self.tell_all(&present, contact) => if let Err(error) = told {
                        tracing::error!(%error, "the address of this manager cannot be made known");
                        return;
                    },
                    // Then there is nothing to do, or it is done in another way.
                    _ = status.wait_for(|status| {
                        is_settled(status, addr, looks) || status.leading != present.leading
                    }) => {}
                }
            }
            let settled = status.wait_for(|status| is_settled(status, addr, looks));
            match timeout(pause, settled).await {
                Ok(Ok(_)) => {
                    tracing::info!(addr, "the cluster knows the address of this manager");
                    return;
                }
                // Replication has ended.
                Ok(Err(_)) => return,
                Err(_) => pause = (pause * 2).min(MAX_PAUSE),
            }
        }
    }

    /// Tells all managers that can be found where this one is, and asks them where the others are. An
    /// error means that there is no point in going on.
    async fn tell_all(&self, status: &Status, contact: Option<&str>) -> Result<(), Error> {
        let (node_id, addr) = (&self.inner.node_id, &self.inner.addr);
        if status.leading {
            if let Err(error) = self.relocate(status.raft_id, node_id, addr).await {
                tracing::debug!(%error, "the new address of this manager is not in the log yet");
            }
            return Ok(());
        }
        let others = || {
            let members = status.members.iter();
            members.filter(|member| member.raft_id != status.raft_id)
        };
        // Also with a leader: it may reach this member without being reached.
        let missed = others().filter(|member| {
            member.status().reachability() != raft_member_status::Reachability::Reachable
        });
        let missed: Vec<u64> = missed.map(|member| member.raft_id).collect();
        let known = others().filter_map(|member| status.addr(member.raft_id));
        let places: BTreeSet<&str> = known.chain(contact).filter(|place| place != addr).collect();
        let told = join_all(
            places
                .into_iter()
                .map(|place| self.tell(place, status, &missed)),
        );
        let mut refusals = told.await.into_iter().filter_map(Result::err);
        match refusals.find(|refusal| matches!(refusal, Error::Removed)) {
            Some(removed) => Err(removed),
            None => Ok(()),
        }
    }

    /// Tells one manager, and asks it for those that are missed. Fails with [`Error::Removed`] if that is what it says.
    async fn tell(&self, place: &str, status: &Status, missed: &[u64]) -> Result<(), Error> {
        let channel = self.inner.tls.channel(place, ServerName::Manager)?;
        let asked = missed.iter().map(|id| self.ask(channel.clone(), *id));
        join_all(asked).await;
        let known = status.member(status.raft_id);
        if known.is_some_and(|known| known.addr == self.inner.addr) {
            return Ok(());
        }
        let mut request = Request::new(JoinRequest {
            addr: self.inner.addr.clone(),
        });
        let metadata = request.metadata_mut();
        metadata.insert(RAFT_ID, status.raft_id.into());
        let mut client = RaftMembershipClient::new(channel);
        match timeout(ANNOUNCE_TIMEOUT, Box::pin(client.join(request))).await {
            Ok(Err(refused)) if Error::tells_removal(&refused) => Err(Error::Removed),
            Ok(Err(refused)) => {
                tracing::debug!(place, %refused, "a manager has not made this one's address known");
                Ok(())
            }
            Ok(Ok(_)) | Err(_) => Ok(()),
        }
    }

    /// Asks a manager where a member is, and takes note.
    async fn ask(&self, channel: Channel, raft_id: u64) {
        let mut client = RaftClient::new(channel);
        let request = ResolveAddressRequest { raft_id };
        let answer = Box::pin(timeout(RESOLVE_TIMEOUT, client.resolve_address(request))).await;
        if let Ok(Ok(answer)) = answer {
            let addr = answer.into_inner().addr;
            self.note_moved(raft_id, addr, true).await;
        }
    }

    /// A member says that it is at `addr` now. The leader writes it into the log; everyone else talks
    /// to it there until the log says where it is, and fails with [`Error::NotLeader`].
    pub(crate) async fn relocate(
        &self,
        raft_id: u64,
        node_id: &str,
        addr: &str,
    ) -> Result<JoinResponse, Error> {
        if !is_address(addr) {
            return Err(Error::InvalidAddress(addr.to_owned()));
        }
        let _one_at_a_time = self.membership().await?;
        let status = self.status().borrow().clone();
        if status.removed.contains(&raft_id) {
            return Err(Error::Removed);
        }
        let known = status.member(raft_id).cloned();
        let known = known.filter(|known| known.node_id == node_id);
        let known = known.ok_or(Error::UnknownMember)?;
        if raft_id != status.raft_id {
            if status.addr(raft_id) != Some(addr) {
                self.dial_back(addr).await?;
            }
            // The leader may need it to write anything at all.
            self.note_moved(raft_id, addr.to_owned(), false).await;
        }
        if !status.leading {
            return Err(Error::NotLeader);
        }
        if known.addr != addr {
            let member = RaftMember {
                addr: addr.to_owned(),
                ..known
            };
            self.request(|done| Command::Change(Change::Update(member), done))
                .await?;
        }
        Ok(answer(raft_id, &self.status().borrow()))
    }

    async fn note_moved(&self, raft_id: u64, addr: String, hearsay: bool) {
        if !is_address(&addr) {
            return;
        }
        let moved = Command::Moved {
            raft_id,
            addr,
            hearsay,
        };
        // If it has ended it needs no addresses.
        let _ = self.inner.commands.send(moved).await;
    }
}

/// Where members are that have moved, as long as the log does not say it. By Raft ID: the address in
/// the log, and the one now.
#[derive(Debug, Default)]
pub(crate) struct Moved(BTreeMap<u64, (String, String)>);

impl Moved {
    /// Takes note that `member` is at `addr`. What is only told by others never takes the place of an
    /// address that works, nor that of one which the member has told itself by the one in the log.
    pub(crate) fn note(&mut self, member: &RaftMember, addr: String, hearsay: bool, works: bool) {
        if hearsay && (works || addr == member.addr) {
            return;
        }
        self.0.remove(&member.raft_id);
        if addr != member.addr {
            let note = (member.addr.clone(), addr);
            self.0.insert(member.raft_id, note);
        }
    }

    /// Forgets those of whom the log says something new.
    pub(crate) fn follow(&mut self, members: &BTreeMap<u64, RaftMember>) {
        self.0.retain(|id, (logged, _)| {
            let member = members.get(id);
            member.is_some_and(|member| member.addr == *logged)
        });
    }

    pub(crate) fn addresses(&self) -> impl Iterator<Item = (u64, String)> {
        self.0.iter().map(|(id, (_, addr))| (*id, addr.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(addr: &str) -> RaftMember {
        RaftMember {
            raft_id: 7,
            addr: addr.to_owned(),
            ..RaftMember::default()
        }
    }

    fn noted(moved: &Moved) -> Option<String> {
        moved.addresses().map(|(_, addr)| addr).next()
    }

    #[test]
    fn hearsay_counts_only_where_nothing_better_is_known() {
        let mut moved = Moved::default();
        let old = member("old:1");
        moved.note(&old, "new:1".into(), true, true);
        assert_eq!(noted(&moved), None, "what works is kept");
        moved.note(&old, "new:1".into(), true, false);
        assert_eq!(noted(&moved).as_deref(), Some("new:1"));
        moved.note(&old, "old:1".into(), true, false);
        assert_eq!(
            noted(&moved).as_deref(),
            Some("new:1"),
            "the log is not news"
        );
        moved.note(&old, "newer:1".into(), false, true);
        assert_eq!(
            noted(&moved).as_deref(),
            Some("newer:1"),
            "it says so itself"
        );
        moved.note(&old, "old:1".into(), false, false);
        assert_eq!(noted(&moved), None, "it has moved back");
    }

    #[test]
    fn the_log_has_the_last_word() {
        let mut moved = Moved::default();
        moved.note(&member("old:1"), "new:1".into(), false, false);
        moved.follow(&BTreeMap::from([(7, member("old:1"))]));
        assert!(noted(&moved).is_some());
        moved.follow(&BTreeMap::from([(7, member("newer:1"))]));
        assert_eq!(noted(&moved), None);
        moved.note(&member("old:1"), "new:1".into(), false, false);
        moved.follow(&BTreeMap::new());
        assert_eq!(noted(&moved), None);
    }
}
