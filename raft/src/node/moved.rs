//! Members that are somewhere else than the log says.

use std::collections::BTreeMap;

use skep_proto::v1::raft_member_status::Reachability;

use super::Node;

impl Node {
    /// Takes note of where a member is, and talks to it there.
    pub(super) fn note_moved(&mut self, raft_id: u64, addr: String, hearsay: bool) {
        let Some(member) = self.replica.members().get(&raft_id) else {
            return;
        };
        if raft_id == self.local.raft_id {
            return;
        }
        let works = self.peers.reachability(raft_id) == Reachability::Reachable;
        self.moved.note(member, addr, hearsay, works);
        self.connect();
        self.news = true;
    }

    /// Where members are of which the log does not say it, this one among them.
    pub(super) fn moved_members(&self) -> BTreeMap<u64, String> {
        let mut moved: BTreeMap<u64, String> = self.moved.addresses().collect();
        let own = &self.local;
        let logged = self.replica.members().get(&own.raft_id);
        if logged.is_some_and(|member| member.addr != own.addr) {
            moved.insert(own.raft_id, own.addr.clone());
        }
        moved
    }
}
