//! The graceful end of a member: it lets someone else lead, writes what waits, and ends.

use rand::seq::IteratorRandom;
use skep_raft::drive;

use super::{Member, Process};
use crate::sim::{
    Violation, broken,
    plan::{MILLISECOND, SECOND},
    queue::Event,
    scene::Scene,
    trace::Note,
};

impl Process {
    /// Asks a member with a vote to take over, of whom something was heard lately: the shell knows who
    /// is reachable from its connections. `false` if there is none, or this one does not lead.
    pub(super) fn hand_over(&mut self, id: u64, scene: &mut Scene) -> bool {
        if !self.replica.role().leads {
            return false;
        }
        let (members, learners) = (self.replica.members(), self.replica.learners());
        let lately = scene.now.saturating_sub(SECOND);
        let heard = self.heard.iter().filter(|(_, at)| **at >= lately);
        let others = heard.map(|(other, _)| *other);
        let others =
            others.filter(|other| members.contains_key(other) && !learners.contains(other));
        let Some(to) = others.choose(&mut scene.rng) else {
            return false;
        };
        scene.note(id, Note::Transfer { to });
        self.replica.transfer_leader(to);
        true
    }
}

impl Member {
    /// Hands over leadership and ends.
    pub(in crate::sim) fn ask_stop(&mut self, scene: &mut Scene) -> Result<(), Violation> {
        let (member, life) = (self.id, self.life);
        let Some(process) = &mut self.process else {
            return Ok(());
        };
        if process.stopping.is_some() {
            return Ok(());
        }
        scene.note(member, Note::AskedToStop);
        let asked = process.hand_over(member, scene);
        process.stopping = Some(asked);
        let patience = match asked {
            true => drive::HANDOVER_TIMEOUT.as_micros() as u64,
            false => 0,
        };
        scene.after(patience, Event::HandoverTimeout { member, life });
        self.turn(scene)
    }

    /// Ends once someone else may lead.
    pub(super) fn end_if_stopped(&mut self, scene: &mut Scene) -> Result<(), Violation> {
        match &self.process {
            Some(process) if process.stopping.is_some() && !process.replica.role().leads => {
                self.end(scene)
            }
            _ => Ok(()),
        }
    }

    /// Ends, whoever leads, and is started again later.
    pub(in crate::sim) fn end(&mut self, scene: &mut Scene) -> Result<(), Violation> {
        let Some(process) = self.process.take() else {
            return Ok(());
        };
        process.store.follow();
        let handed_over = process.stopping == Some(true) && !process.replica.role().leads;
        scene.note(self.id, Note::Ended { handed_over });
        scene.counts.stops[0] += 1;
        scene.counts.stops[1] += u64::from(handed_over);
        self.paused_until = 0;
        if let Err(error) = self.disk.close(&mut scene.rng) {
            let rule = "what a member writes follows what it wrote";
            return broken(rule, error.to_string());
        }
        self.start_due = true;
        let downtime = scene.between(&(MILLISECOND..2 * SECOND));
        scene.after(downtime, Event::Start { member: self.id });
        Ok(())
    }
}
