//! What comes out of a turn: the replica's wishes are carried out, and those who wait are told.

use std::collections::BTreeMap;

use skep_proto::v1;
use skep_store::Entry;

use super::Node;
use crate::{Error, Status, codec::MessageType, disk::Job, replica::Output};

impl Node {
    /// Does all that the replica wants done, as far as the disk keeps up.
    pub(super) fn process(&mut self) -> Result<(), Error> {
        while self.replica.has_output() && self.disk.has_room() {
            let output = self.replica.take_output()?;
            self.handle(output)?;
            self.replica.campaign_if_alone();
        }
        match self.replica.is_removed() {
            true => Err(Error::Removed),
            false => Ok(()),
        }
    }

    fn handle(&mut self, output: Output) -> Result<(), Error> {
        self.news |= output.members_changed || output.role.is_some();
        if let Some(role) = output.role {
            // Before anything of the next leader is applied.
            if !role.leads || self.leading.is_some_and(|term| term != role.term) {
                self.stop_leading();
            }
        }
        for read in output.reads {
            self.inputs.reads.confirmed(read);
        }
        for message in output.messages {
            let to = message.to;
            let lost = if message.msg_type == MessageType::MsgSnapshot {
                let index = message.get_snapshot().get_metadata().index;
                let offered = self.replica.offered(index).cloned();
                let sent = offered.is_some_and(|offered| self.peers.send(message, Some(offered)));
                if !sent {
                    self.replica.report_snapshot(to, false);
                }
                !sent
            } else {
                !self.peers.send(message, None)
            };
            if lost {
                self.replica.report_unreachable(to);
            }
        }
        if let Some(append) = output.append
            && !self.disk.submit(Job::Append(append))
        {
            return Err(Error::Thread("the raft log is closed".into()));
        }
        if let Some((index, tables)) = output.restore {
            self.store.restore(index, tables);
            self.snapshots.restored(index);
        }
        if !output.committed.is_empty() {
            let mut entries = Vec::with_capacity(output.committed.len());
            for committed in output.committed {
                if let Some(done) = committed.change.and_then(|id| self.changing.remove(&id)) {
                    self.answers.push((done, Ok(())));
                }
                entries.push(Entry {
                    index: committed.index,
                    data: committed.data,
                });
            }
            self.store.apply(&entries)?;
        }
        if output.members_changed {
            self.moved.follow(self.replica.members());
            self.connect();
        }
        self.start_leading();
        Ok(())
    }

    /// Makes the members the peers.
    pub(super) fn connect(&mut self) {
        let members = self.replica.members();
        let mut known: BTreeMap<u64, String> = BTreeMap::new();
        // Until the log has told of this member, it knows the others from when it joined.
        if !members.contains_key(&self.local.raft_id) {
            let peers = self.local.peers.iter();
            known.extend(peers.map(|peer| (peer.raft_id, peer.addr.clone())));
        }
        known.extend(
            members
                .iter()
                .map(|(id, member)| (*id, member.addr.clone())),
        );
        known.extend(self.moved.addresses());
        known.remove(&self.local.raft_id);
        for id in self.peers.set(&known) {
            self.replica.report_unreachable(id);
            self.replica.report_snapshot(id, false);
        }
    }

    /// Makes the status current, and then gives the answers that go with it.
    pub(super) fn tell_status(&mut self) {
        if std::mem::take(&mut self.news) {
            self.tell_news();
        } else {
            let applied = self.replica.applied();
            self.inputs.status.send_if_modified(|status| {
                status.applied = applied;
                false
            });
        }
        for (done, answer) in self.answers.drain(..) {
            // Who asked may have gone away.
            let _ = done.send(answer);
        }
    }

    fn tell_news(&self) {
        let role = self.replica.role();
        let mut members = Vec::with_capacity(self.replica.members().len());
        for (id, member) in self.replica.members() {
            let reachability = if *id == self.local.raft_id {
                v1::raft_member_status::Reachability::Reachable
            } else {
                self.peers.reachability(*id)
            };
            let mut member = member.clone();
            member.status = Some(v1::RaftMemberStatus {
                leader: *id == role.leader,
                reachability: reachability.into(),
                message: String::new(),
            });
            members.push(member);
        }
        let status = Status {
            raft_id: self.local.raft_id,
            term: role.term,
            leader: members
                .iter()
                .find(|member| member.raft_id == role.leader)
                .cloned(),
            leading: self.leading.is_some(),
            moved: self.moved_members(),
            members,
            learners: self.replica.learners().iter().copied().collect(),
            removed: self.replica.removed().clone(),
            applied: self.replica.applied(),
            positions: self.replica.positions(self.snapshots.newest()),
        };
        self.inputs.status.send_if_modified(|present| {
            let news = *present != status;
            *present = status;
            news
        });
    }
}
