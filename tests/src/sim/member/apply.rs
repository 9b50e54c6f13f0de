//! Doing what the replica wants done.

use bytes::Bytes;
use prost::Message as _;
use rand::Rng;
use skep_proto::v1::InternalRaftRequest;
use skep_raft::{Append, Output, Replica, drive};
use skep_store::Entry;

use super::Member;
use crate::sim::{
    Violation, broken, digest, disk::Job, mutation::Mutation, plan::SECOND, queue::Event,
    scene::Scene, trace::Note,
};

impl Member {
    /// Does all that the replica wants done, as far as the disk keeps up.
    pub(super) fn process_outputs(&mut self, scene: &mut Scene) -> Result<(), Violation> {
        while let Some(process) = &mut self.process
            && process.replica.has_output()
            && self.disk.has_room()
        {
            let output = match process.replica.take_output() {
                Ok(output) => output,
                Err(error) => return broken("committed entries make sense", error.to_string()),
            };
            self.handle(output, scene)?;
            if let Some(process) = &mut self.process {
                process.replica.campaign_if_alone();
            }
        }
        match &self.process {
            Some(process) if process.replica.is_removed() => self.removed(scene),
            _ => Ok(()),
        }
    }

    fn handle(&mut self, mut output: Output, scene: &mut Scene) -> Result<(), Violation> {
        let (id, life) = (self.id, self.life);
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        if let Some(role) = output.role {
            let (term, leader, leads) = (role.term, role.leader, role.leads);
            scene.note(
                id,
                Note::Role {
                    term,
                    leader,
                    leads,
                },
            );
            if leads {
                scene.oracle.leads(term, id)?;
            }
            if !leads || process.leading.is_some_and(|leading| leading != term) {
                process.stop_leading(id, scene);
            }
        }
        for read in std::mem::take(&mut output.reads) {
            process.reads.confirmed(read.context, read.index);
        }
        match drive::take_messages(&mut process.replica, &mut output) {
            Ok(messages) => messages
                .into_iter()
                .for_each(|message| scene.send(id, life, message)),
            Err(error) => return broken("messages can be sent", error.to_string()),
        }
        if let Some(append) = output.append {
            check_append(id, &process.replica, &append, scene)?;
            if !self.disk.submit(Job::Append(append)) {
                return broken("the disk has room", "an append was refused");
            }
        }
        if let Some((index, tables)) = output.restore {
            let before = process.store.snapshot().index();
            process.store.restore(index, tables);
            process.jumps.push((before, index));
            process.newest_snapshot = index;
            process.news = true;
            scene.counts.snapshots[1] += 1;
            scene.note(id, Note::Restored { index });
            let digest = digest::of_store(&process.store.snapshot());
            scene.oracle.check_store(id, index, digest)?;
        }
        if !output.committed.is_empty() {
            let mut entries = Vec::with_capacity(output.committed.len());
            for committed in output.committed {
                if let Some(added) = scene.oracle.commits(id, &committed)? {
                    // It starts when it gets its answer, or asks again.
                    let wait = scene.between(&(0..2 * SECOND));
                    scene.after(wait, Event::Start { member: added });
                }
                let mut data = committed.data;
                if scene.is(Mutation::DropChange) && process.leading.is_none() && id == 1 {
                    data = drop_change(data, scene);
                }
                let index = committed.index;
                entries.push(Entry { index, data });
            }
            let (first, last) = (entries[0].index, entries[entries.len() - 1].index);
            scene.note(id, Note::Committed { first, last });
            if let Err(error) = process.store.apply(&entries) {
                return broken("committed entries can be applied", error.to_string());
            }
            process.news = true;
            let snapshot = process.store.snapshot();
            scene
                .oracle
                .check_store(id, snapshot.index(), digest::of_store(&snapshot))?;
        }
        process.start_leading(id, scene);
        Ok(())
    }
}

/// What goes into a log must match what others have in theirs.
fn check_append(
    member: u64,
    replica: &Replica,
    append: &Append,
    scene: &mut Scene,
) -> Result<(), Violation> {
    let entries = drive::entries(&append.batch);
    let (mut first, mut last, mut before) = (0, 0, None);
    for entry in entries {
        if first == 0 {
            first = entry.index;
            before = replica.term(first - 1);
        }
        let position = (entry.index, entry.term);
        scene.oracle.logs(member, position, before, entry.data)?;
        (last, before) = (entry.index, Some(entry.term));
    }
    let number = append.number;
    let snapshot = drive::snapshot_index(&append.batch).unwrap_or(0);
    scene.note(
        member,
        Note::Append {
            number,
            first,
            last,
            snapshot,
        },
    );
    Ok(())
}

/// The planted fault: an entry loses its last action now and then.
fn drop_change(data: Bytes, scene: &mut Scene) -> Bytes {
    match InternalRaftRequest::decode(data.clone()) {
        Ok(mut request) if scene.rng.random_ratio(1, 20) && request.action.len() > 1 => {
            request.action.pop();
            request.encode_to_vec().into()
        }
        _ => data,
    }
}
