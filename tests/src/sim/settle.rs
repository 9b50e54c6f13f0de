//! Before the faults a cluster grows to its size; after them it has to come to rest.

use super::{
    Violation, broken,
    oracle::MemberChange,
    plan::{MILLISECOND, SECOND, TICK},
    queue::Event,
    trace::Note,
    world::World,
};

/// Virtual time in which a cluster without faults has to grow by a member, and in which one that is
/// healed has to answer everybody and bring all members to the same state.
const PATIENCE: u64 = 60 * SECOND;
/// Time between two looks whether that is so.
const LOOK: u64 = 50 * MILLISECOND;

impl World {
    /// Lets things happen until `done`, within bounds.
    fn run_until(
        &mut self,
        what: &'static str,
        done: impl Fn(&Self) -> Result<(), String>,
    ) -> Result<(), Violation> {
        let deadline = self.scene.now + PATIENCE;
        let mut look = self.scene.now;
        loop {
            while self.scene.now < look {
                self.step()?;
            }
            look = self.scene.now + LOOK;
            match done(self) {
                Ok(()) => return Ok(()),
                Err(lacks) if self.scene.now > deadline => return broken(what, lacks),
                Err(_) => {}
            }
        }
    }

    /// Adds members one by one.
    pub(super) fn grow(&mut self) -> Result<(), Violation> {
        for _ in 1..self.scene.plan.members {
            let id = self.fresh_id();
            while !self.scene.oracle.members.contains(&id) {
                if let Some(leader) = self.leader()
                    && let Some(member) = self.members.get_mut(&leader)
                {
                    member.ask_change(MemberChange::Add(id), &mut self.scene);
                }
                let patience = self.scene.now + SECOND;
                self.run_until("a cluster without faults grows", |world| {
                    let added = world.scene.oracle.members.contains(&id);
                    match added || world.scene.now > patience {
                        true => Ok(()),
                        false => Err(format!("member {id} is not added")),
                    }
                })?;
            }
        }
        Ok(())
    }

    /// Mends everything, and checks that all ends well.
    pub(super) fn settle(&mut self) -> Result<(), Violation> {
        let scene = &mut self.scene;
        scene.note(0, Note::Healed);
        scene.healed = true;
        scene.network.healed = true;
        scene.network.mend();
        for id in scene.oracle.members.clone() {
            scene.after(1, Event::Start { member: id });
        }
        for member in self.members.values_mut() {
            member.tick = TICK;
            member.paused_until = 0;
            member.disk.mend();
            member.start_due = true;
            member.start(scene)?;
        }
        self.run_until("a healed cluster answers everybody", |world| {
            match world
                .clients
                .iter()
                .filter(|client| !client.content)
                .count()
            {
                0 => Ok(()),
                left => Err(format!("{left} clients have no write acknowledged")),
            }
        })?;
        self.run_until("the members of a healed cluster become the same", |world| {
            let last = world.scene.oracle.last();
            for id in &world.scene.oracle.members {
                let process = world
                    .members
                    .get(id)
                    .and_then(|member| member.process.as_ref());
                match process {
                    Some(process) if process.store.snapshot().index() == last => {}
                    Some(process) => {
                        let index = process.store.snapshot().index();
                        return Err(format!("member {id} is at {index} of {last}"));
                    }
                    None => return Err(format!("member {id} does not run")),
                }
            }
            Ok(())
        })?;
        self.run_until("changes of keys come to their end", |world| {
            let present = &world.scene.oracle.members;
            let mut members = world.members.values();
            match members.find(|member| present.contains(&member.id) && member.disk.keys.change()) {
                Some(member) => Err(format!("member {} has two keys", member.id)),
                None => Ok(()),
            }
        })?;
        for member in self.members.values() {
            if let Err(error) = member.disk.check() {
                let details = format!("member {}: {error}", member.id);
                return broken("a member starts again from its log", details);
            }
        }
        self.scene.oracle.check_acknowledged()?;
        for member in self.members.values_mut() {
            member.check_watchers(&mut self.scene)?;
        }
        Ok(())
    }
}
