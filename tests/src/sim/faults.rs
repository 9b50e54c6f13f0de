//! What breaks, and when.

use rand::{Rng, seq::IteratorRandom};

use super::{
    Violation,
    keys::Cut,
    oracle::MemberChange,
    plan::{MILLISECOND, Micros, SECOND, TICK},
    queue::Event,
    trace::Note,
    world::World,
};

/// Longest time of a write while a disk stalls.
const STALL: Micros = 20 * SECOND;

/// Members that may be down or paused at a time on purpose, beyond which only all of them are.
const DOWN: usize = 2;

impl World {
    /// Lets one thing break and decides when the next one does.
    pub(super) fn fault(&mut self) -> Result<(), Violation> {
        if self.scene.healed {
            return Ok(());
        }
        let calm = self.scene.plan.calm.clone();
        let calm = self.scene.between(&calm);
        self.scene.after(calm, Event::Fault);
        match self.scene.rng.random_range(0..114) {
            0..22 => self.crash_one(),
            22..26 => self.crash_all(),
            26..38 => {
                self.pause_one();
                Ok(())
            }
            38..56 => {
                self.break_network();
                Ok(())
            }
            56..70 => {
                self.break_disk();
                Ok(())
            }
            70..76 => {
                self.skew_clock();
                Ok(())
            }
            76..86 => self.change_members(),
            86..94 => self.transfer(),
            94..102 => self.change_key(),
            102..108 => self.stop_one(),
            _ => {
                self.scene.network.mend();
                self.scene.note(0, Note::Mended);
                Ok(())
            }
        }
    }

    fn any_running(&mut self) -> Option<u64> {
        let running = self.members.values().filter(|member| member.is_running());
        running.map(|member| member.id).choose(&mut self.scene.rng)
    }

    /// Short times are more frequent than long ones, and some are very short.
    fn downtime(&mut self) -> Micros {
        let longest = [
            3 * MILLISECOND,
            30 * MILLISECOND,
            300 * MILLISECOND,
            5 * SECOND,
        ];
        let longest = longest[self.scene.rng.random_range(0..longest.len())];
        self.scene.between(&(MILLISECOND..longest))
    }

    pub(super) fn crash(&mut self, id: u64) -> Result<(), Violation> {
        let downtime = self.downtime();
        if let Some(member) = self.members.get_mut(&id) {
            member.crash(&mut self.scene)?;
            member.start_due = true;
            self.scene.after(downtime, Event::Start { member: id });
        }
        self.poll_clients(id)
    }

    fn crash_one(&mut self) -> Result<(), Violation> {
        self.victim(0.4).map_or(Ok(()), |victim| self.crash(victim))
    }

    /// One that may go down. The leader is the one that matters most: it is taken in this share of cases.
    fn victim(&mut self, leads: f64) -> Option<u64> {
        let members = self.members.values();
        let down = members.filter(|member| !member.is_running() && !member.gone);
        if down.count() >= DOWN {
            return None;
        }
        match self.leader() {
            Some(leader) if self.scene.chance(leads) => Some(leader),
            _ => self.any_running(),
        }
    }

    /// Somebody stops a member, which is not a fault but a change of leaders at a bad time.
    fn stop_one(&mut self) -> Result<(), Violation> {
        let Some(id) = self.victim(0.8) else {
            return Ok(());
        };
        if let Some(member) = self.members.get_mut(&id)
            && member.paused_until <= self.scene.now
        {
            member.ask_stop(&mut self.scene)?;
        }
        self.poll_clients(id)
    }

    fn crash_all(&mut self) -> Result<(), Violation> {
        let ids: Vec<u64> = self.members.keys().copied().collect();
        ids.into_iter().try_for_each(|id| self.crash(id))
    }

    /// The process is stopped and goes on later without knowing of it.
    fn pause_one(&mut self) {
        let downtime = self.downtime();
        if let Some(id) = self.any_running()
            && let Some(member) = self.members.get_mut(&id)
        {
            member.paused_until = self.scene.now + downtime;
            let millis = downtime / MILLISECOND;
            self.scene.note(id, Note::Paused { millis });
        }
    }

    fn break_network(&mut self) {
        let ids: Vec<u64> = self.members.keys().copied().collect();
        let leader = self.leader();
        let scene = &mut self.scene;
        let sides: Vec<bool> = ids.iter().map(|_| scene.rng.random()).collect();
        let alone = match leader {
            Some(leader) if scene.chance(0.4) => leader,
            _ => ids[scene.rng.random_range(0..ids.len())],
        };
        let other = ids[scene.rng.random_range(0..ids.len())];
        let kind = scene.rng.random_range(0..6);
        let mut pairs = Vec::new();
        for (from, from_side) in ids.iter().zip(&sides) {
            for (to, to_side) in ids.iter().zip(&sides) {
                let cut = match kind {
                    // Two halves; one member alone; one that is not heard; one that hears nothing; a pair.
                    0 => from_side != to_side,
                    1 => *from == alone || *to == alone,
                    2 => *from == alone,
                    3 => *to == alone,
                    _ => (*from, *to) == (alone, other),
                };
                if cut && from != to {
                    pairs.push((*from, *to));
                }
            }
        }
        if kind == 5 {
            let times = scene.rng.random_range(2..60);
            scene.network.slow.insert((alone, other), times);
            scene.note(
                0,
                Note::SlowLink {
                    from: alone,
                    to: other,
                    times,
                },
            );
        } else {
            scene.note(0, Note::Cut { pairs: pairs.len() });
            scene.network.cut.extend(pairs);
        }
        let end = scene.between(&(50 * MILLISECOND..5 * SECOND));
        scene.after(end, Event::MendNetwork);
    }

    fn break_disk(&mut self) {
        let Some(mut id) = self.any_running() else {
            return;
        };
        let downtime = self.downtime();
        let kind = self.scene.rng.random_range(0..10);
        if kind >= 7
            && let Some(leader) = self.leader()
        {
            id = leader;
        }
        let scene = &mut self.scene;
        let Some(member) = self.members.get_mut(&id) else {
            return;
        };
        if kind < 4 {
            member.disk.fails = true;
            member.start_due = true;
            scene.note(id, Note::DiskWillFail);
            scene.after(downtime + SECOND, Event::Start { member: id });
        } else {
            member.disk.slow = match kind {
                4..7 => scene.rng.random_range(2..200),
                // The next write takes so long that a leader has to give way.
                _ => STALL / scene.plan.sync.end,
            };
            let times = member.disk.slow;
            scene.note(id, Note::SlowDisk { times });
            scene.after(downtime, Event::MendDisk { member: id });
        }
    }

    /// A log gets another key. Half of the time the power goes during the change.
    fn change_key(&mut self) -> Result<(), Violation> {
        let Some(id) = self.any_running() else {
            return Ok(());
        };
        let rng = &mut self.scene.rng;
        let cut = rng.random_bool(0.5).then(|| Cut {
            at_end: rng.random(),
            after: rng.random(),
        });
        let told = rng.random_bool(0.8);
        if let Some(member) = self.members.get_mut(&id) {
            member.ask_key(cut, told, &mut self.scene)?;
        }
        self.poll_clients(id)
    }

    fn skew_clock(&mut self) {
        let drift = self.scene.plan.drift;
        if let Some(id) = self.any_running()
            && let Some(member) = self.members.get_mut(&id)
        {
            let rate = 1.0 + self.scene.rng.random_range(-drift..=drift);
            member.tick = (TICK as f64 * rate) as Micros;
            let percent = (rate * 100.0) as u64;
            self.scene.note(id, Note::Clock { percent });
        }
    }

    fn change_members(&mut self) -> Result<(), Violation> {
        let Some(leader) = self.leader() else {
            return Ok(());
        };
        let present = &self.scene.oracle.members;
        let sizes = self.scene.plan.sizes.clone();
        let grow = present.len() < sizes.end && self.scene.rng.random();
        let change = if grow {
            MemberChange::Add(self.fresh_id())
        } else if present.len() > sizes.start {
            // A leader does not remove itself: it hands over leadership first.
            let others = present.iter().filter(|id| **id != leader);
            match others.choose(&mut self.scene.rng) {
                Some(id) => MemberChange::Remove(*id),
                None => return Ok(()),
            }
        } else {
            return Ok(());
        };
        if let Some(member) = self.members.get_mut(&leader) {
            member.ask_change(change, &mut self.scene);
        }
        Ok(())
    }

    fn transfer(&mut self) -> Result<(), Violation> {
        let Some(leader) = self.leader() else {
            return Ok(());
        };
        let to = self.scene.oracle.members.iter().copied();
        let Some(to) = to.choose(&mut self.scene.rng) else {
            return Ok(());
        };
        self.scene.note(leader, Note::Transfer { to });
        match self.members.get_mut(&leader) {
            Some(member) => member.transfer(to, &mut self.scene),
            None => Ok(()),
        }
    }
}
