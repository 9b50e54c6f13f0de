//! Changing the key of a member's log.

use super::Member;
use crate::sim::{
    Violation, broken,
    keys::Cut,
    plan::{MILLISECOND, SECOND},
    queue::Event,
    scene::Scene,
    trace::Note,
};

impl Member {
    /// The log is to get another key. Unless the member is told, it finds out later.
    pub(in crate::sim) fn ask_key(
        &mut self,
        cut: Option<Cut>,
        told: bool,
        scene: &mut Scene,
    ) -> Result<(), Violation> {
        scene.note(self.id, Note::KeyAsked { cut });
        self.disk.keys.ask(cut);
        if !told || self.process.is_none() {
            return Ok(());
        }
        let begun = self.disk.rotation().map(|rotation| rotation.begin_if_due());
        match begun {
            Some(Err(_)) if self.disk.keys.power_lost() => {
                self.power_lost(scene);
                self.crash(scene)
            }
            Some(Err(error)) => broken("a change of the key can begin", error.to_string()),
            _ => self.turn(scene),
        }
    }

    /// The machine is off for a while.
    pub(super) fn power_lost(&mut self, scene: &mut Scene) {
        scene.note(self.id, Note::PowerLost);
        self.start_due = true;
        let downtime = scene.between(&(MILLISECOND..SECOND));
        scene.after(downtime, Event::Start { member: self.id });
    }
}
