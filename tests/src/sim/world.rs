//! The cluster, its clients, and the loop that lets happen what is next.

use std::collections::BTreeMap;

use super::{
    Options, Violation,
    client::Client,
    member::Member,
    operation::Operation,
    plan::{MILLISECOND, Plan, SECOND},
    queue::Event,
    scene::Scene,
    summary::Summary,
};

/// Operations between two oversized ones.
const OVERSIZED_EVERY: u64 = 400;

/// Which part of the operations of a client that also writes are reads.
const READS: f64 = 0.15;

pub(super) struct World {
    pub(super) scene: Scene,
    pub(super) members: BTreeMap<u64, Member>,
    pub(super) clients: Vec<Client>,
    /// Raft ID of the newest member.
    newest: u64,
    operations: u64,
    steps: u64,
}

impl World {
    pub(super) fn new(seed: u64, plan: Plan, options: Options) -> Self {
        Self {
            clients: (0..plan.clients).map(Client::new).collect(),
            scene: Scene::new(seed, plan, options),
            members: BTreeMap::new(),
            newest: 1,
            operations: 0,
            steps: 0,
        }
    }

    pub(super) fn steps(&self) -> u64 {
        self.steps
    }

    pub(super) fn last_events(&self) -> Vec<String> {
        self.scene.trace.last()
    }

    pub(super) fn fresh_id(&mut self) -> u64 {
        self.newest += 1;
        self.newest
    }

    /// Whose store leads, in the highest term.
    pub(super) fn leader(&self) -> Option<u64> {
        let leading = |member: &Member| Some((member.process.as_ref()?.leading?, member.id));
        self.members
            .values()
            .filter_map(leading)
            .max()
            .map(|(_, id)| id)
    }

    pub(super) fn run(&mut self) -> Result<Summary, Violation> {
        let mut founder = Member::new(1, true, &mut self.scene)?;
        founder.start(&mut self.scene)?;
        self.members.insert(1, founder);
        self.grow()?;
        for client in 0..self.clients.len() {
            self.scene.after(client as u64, Event::Client { client });
        }
        self.scene.after(SECOND, Event::Fault);
        let end = self.scene.now + self.scene.plan.duration;
        while self.scene.now < end {
            self.step()?;
        }
        self.settle()?;
        Ok(self.summary())
    }

    /// Lets the next thing happen.
    pub(super) fn step(&mut self) -> Result<(), Violation> {
        // Members tick for ever, so there always is a next one.
        let Some((at, event)) = self.scene.queue.pop() else {
            return super::broken("something happens", "nothing is going to happen any more");
        };
        self.scene.advance(at);
        self.steps += 1;
        self.happens(event)
    }

    fn happens(&mut self, event: Event) -> Result<(), Violation> {
        match event {
            Event::Message(flight) => {
                let to = flight.to;
                match self.members.get_mut(&to) {
                    Some(member) if member.paused_until > self.scene.now => {
                        let later = member.paused_until;
                        self.scene.queue.push(later, Event::Message(flight));
                        return Ok(());
                    }
                    Some(member) => member.receive(&flight, &mut self.scene)?,
                    None => self.scene.report(&flight, false, MILLISECOND),
                }
                self.poll_clients(to)
            }
            Event::Tick { member, life }
            | Event::Turn { member, life }
            | Event::Report { member, life, .. }
            | Event::Written { member, life }
            | Event::Snapshot { member, life }
            | Event::HandoverTimeout { member, life }
            | Event::Watch { member, life, .. } => self.member_event(member, life, event),
            Event::Start { member } => {
                if !self.members.contains_key(&member) {
                    let new = Member::new(member, false, &mut self.scene)?;
                    self.members.insert(member, new);
                }
                match self.members.get_mut(&member) {
                    Some(member) if member.start_due => member.start(&mut self.scene),
                    _ => Ok(()),
                }
            }
            Event::Client { client } => self.client(client),
            Event::Impatience { client, operation } => match self.scene.healed {
                // Now everybody is to get an answer.
                true => Ok(()),
                false => self.clients[client].give_up(operation, &mut self.scene),
            },
            Event::Fault => self.fault(),
            Event::MendNetwork => {
                self.scene.network.mend();
                Ok(())
            }
            Event::MendDisk { member } => {
                if let Some(member) = self.members.get_mut(&member) {
                    member.disk.slow = 1;
                }
                Ok(())
            }
        }
    }

    fn member_event(&mut self, id: u64, life: u64, event: Event) -> Result<(), Violation> {
        let scene = &mut self.scene;
        let Some(member) = self.members.get_mut(&id) else {
            return Ok(());
        };
        if member.life != life || !member.is_running() {
            return Ok(());
        }
        if member.paused_until > scene.now {
            scene.queue.push(member.paused_until, event);
            return Ok(());
        }
        let crash = match event {
            Event::Written { .. } if !scene.healed => {
                scene.plan.crashes[usize::from(member.disk.writes_vote())]
            }
            _ => 0.0,
        };
        match event {
            Event::Tick { .. } => member.tick(scene)?,
            Event::Turn { .. } => member.turn(scene)?,
            Event::Report { report, .. } => member.told(report, scene)?,
            Event::Written { .. } => member.written(scene)?,
            Event::Snapshot { .. } => member.snapshot_taken(scene)?,
            Event::HandoverTimeout { .. } => member.end(scene)?,
            Event::Watch { watcher, .. } => member.watch(watcher, scene)?,
            _ => {}
        }
        self.poll_clients(id)?;
        match crash > 0.0 && self.scene.chance(crash) {
            true => self.crash(id),
            false => Ok(()),
        }
    }

    /// Lets those look who wait for the store of a member.
    pub(super) fn poll_clients(&mut self, id: u64) -> Result<(), Violation> {
        let Some(member) = self.members.get_mut(&id) else {
            return Ok(());
        };
        let life = member.process.is_some().then_some(member.life);
        if let Some(process) = &mut member.process
            && !std::mem::take(&mut process.news)
        {
            return Ok(());
        }
        if let Some(process) = &mut member.process {
            for ((client, number), granted) in std::mem::take(&mut process.reads.done) {
                let snapshot = granted.then(|| process.store.snapshot());
                self.clients[client].read_now(number, snapshot.as_ref(), &mut self.scene)?;
            }
        }
        for client in &mut self.clients {
            let asked = |client: &Client| {
                let busy = client.busy.as_ref();
                busy.filter(|busy| busy.member == id).map(|busy| busy.life)
            };
            if asked(client).is_some() {
                client.poll(&mut self.scene)?;
            }
            // With the process the connection is gone, and what was about to be said.
            if asked(client).is_some() && asked(client) != life {
                client.end(None, &mut self.scene)?;
            }
        }
        Ok(())
    }

    /// A client does its next thing, if it finds somebody to do it with.
    fn client(&mut self, number: usize) -> Result<(), Violation> {
        let client = &mut self.clients[number];
        if client.busy.is_some() || client.content {
            return Ok(());
        }
        let scene = &mut self.scene;
        let now = scene.now;
        let leading = |member: &&mut Member| {
            let process = member.process.as_ref();
            member.paused_until <= now && process.is_some_and(|process| process.leading.is_some())
        };
        // Who was deposed and does not know it yet is as good as the leader.
        let leaders = self.members.values_mut().filter(leading);
        let Some(member) = rand::seq::IteratorRandom::choose(leaders, &mut scene.rng) else {
            let wait = scene.between(&(10 * MILLISECOND..200 * MILLISECOND));
            scene.after(wait, Event::Client { client: number });
            return Ok(());
        };
        self.operations += 1;
        // Some only read: who writes to a leader that was cut off waits there, and sees nothing else.
        let reads = if number % 4 == 1 { 1.0 } else { READS };
        if self.operations > 1 && !scene.healed && scene.chance(reads) {
            client.begin_read(self.operations, member, scene);
            return Ok(());
        }
        let operation = match self.operations {
            1 => Operation::cluster(&scene.plan),
            _ if scene.healed => Operation::last(&mut scene.rng),
            every if every.is_multiple_of(OVERSIZED_EVERY) => Operation::oversized(&mut scene.rng),
            _ => Operation::draw(&mut scene.rng, |id| client.knows(id)),
        };
        client.begin(operation, self.operations, member, scene)
    }

    fn summary(&self) -> Summary {
        let mut summary = Summary {
            trace: self.scene.trace.hash(),
            steps: self.steps,
            virtual_ms: self.scene.now / MILLISECOND,
            entries: self.scene.oracle.last(),
            starts: self.members.values().map(|member| member.life).sum(),
            leaders: self.scene.oracle.leaderships(),
            keys: self
                .members
                .values()
                .map(|member| member.disk.keys.changed())
                .sum(),
            ..self.scene.counts
        };
        for client in &self.clients {
            summary.acknowledged += client.counts.acknowledged;
            summary.refused += client.counts.refused;
            summary.unknown += client.counts.unknown;
        }
        summary
    }
}
