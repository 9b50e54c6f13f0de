//! One of the clients whose writes are held against what is there in the end.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng as _, rngs::StdRng};
use skep_proto::v1::{
    Annotations, ConfigSpec, CreateConfigRequest, GetConfigRequest, RemoveConfigRequest,
    UpdateConfigRequest, Version, control_client::ControlClient,
};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Response, Status, transport::Channel};

use super::{
    ledger::{self, Ledger, Outcome, REVISION, Write},
    refusal,
};
use crate::control;

/// Objects that a client has at a time. It bounds the size of the store.
const MAX_LIVE: usize = 30;
/// How long a client waits for an answer; one is drawn for each call. The longest is longer than a
/// manager waits for a leader.
const DEADLINES: [Duration; 3] = [
    Duration::from_millis(700),
    Duration::from_secs(3),
    Duration::from_secs(8),
];
/// Pause after an error, so that refusals are not all that the managers are busy with.
const PAUSE: Duration = Duration::from_millis(10);

/// What all clients have done.
#[derive(Debug)]
pub struct Tally {
    pub writes: AtomicU64,
    pub refused: AtomicU64,
    pub unknown: AtomicU64,
    pub reads: AtomicU64,
    /// When a write was last acknowledged, and the longest time between two.
    gap: Mutex<(Instant, Duration)>,
}

impl Tally {
    pub fn new() -> Self {
        Self {
            writes: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            unknown: AtomicU64::new(0),
            reads: AtomicU64::new(0),
            gap: Mutex::new((Instant::now(), Duration::ZERO)),
        }
    }

    fn written(&self) {
        self.writes.fetch_add(1, Ordering::Relaxed);
        let mut gap = self.gap.lock();
        let now = Instant::now();
        *gap = (now, gap.1.max(now - gap.0));
    }

    /// The longest time without an acknowledged write, up to now.
    pub fn longest_gap(&self) -> Duration {
        let gap = self.gap.lock();
        gap.1.max(gap.0.elapsed())
    }
}

/// How a call went that did not succeed.
enum Failure {
    Refused(Status),
    Unknown,
}

/// A client. It is through with one call before it makes the next one.
pub struct Client {
    prefix: String,
    sockets: Vec<PathBuf>,
    tally: Arc<Tally>,
    rng: StdRng,
    ledger: Ledger,
    /// Names of objects whose state is clear.
    live: Vec<String>,
    /// Name and ID of the object that was last removed.
    removed: Option<(String, String)>,
    number: u64,
    /// Which socket, and the connection to it.
    turn: usize,
    connection: Option<ControlClient<Channel>>,
}

impl Client {
    /// One whose objects have names that begin with `prefix`.
    pub fn new(prefix: String, sockets: Vec<PathBuf>, seed: u64, tally: Arc<Tally>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let turn = rng.random_range(0..sockets.len());
        Self {
            prefix,
            sockets,
            tally,
            rng,
            ledger: Ledger::default(),
            live: Vec::new(),
            removed: None,
            number: 0,
            turn,
            connection: None,
        }
    }

    /// Makes calls until `end`.
    pub async fn run(mut self, end: Instant) -> (String, Ledger) {
        while Instant::now() < end {
            // Users do not stay with one manager either.
            if self.rng.random_bool(0.01) {
                self.turn_to_another();
            }
            if !self.connected().await {
                sleep(PAUSE).await;
                self.turn_to_another();
                continue;
            }
            Box::pin(self.step()).await;
        }
        (self.prefix, self.ledger)
    }

    fn turn_to_another(&mut self) {
        self.connection = None;
        self.turn = self.rng.random_range(0..self.sockets.len());
    }

    async fn connected(&mut self) -> bool {
        if self.connection.is_none() {
            let connect = control::connect(&self.sockets[self.turn], false);
            let connected = timeout(DEADLINES[0], Box::pin(connect)).await;
            self.connection = connected.ok().and_then(Result::ok);
        }
        self.connection.is_some()
    }

    async fn step(&mut self) {
        if self.live.len() >= MAX_LIVE {
            return self.remove().await;
        }
        match self.rng.random_range(0..100) {
            _ if self.live.len() < 5 => self.create().await,
            0..35 => self.create().await,
            35..65 => self.update().await,
            65..85 => self.remove().await,
            85..93 => self.read().await,
            93..95 => self.read_removed().await,
            95..97 => self.create_again().await,
            _ => self.update_outdated().await,
        }
    }

    /// Makes a call. An error ends with a pause.
    async fn call<T>(
        &mut self,
        call: impl AsyncFnOnce(ControlClient<Channel>) -> Result<Response<T>, Status>,
    ) -> Result<T, Failure> {
        let Some(connection) = self.connection.clone() else {
            return Err(Failure::Unknown);
        };
        let deadline = DEADLINES[self.rng.random_range(0..DEADLINES.len())];
        let failure = match timeout(deadline, call(connection)).await {
            Ok(Ok(answer)) => return Ok(answer.into_inner()),
            Ok(Err(status)) if refusal::is_definite(&status) => Failure::Refused(status),
            Ok(Err(_)) | Err(_) => Failure::Unknown,
        };
        if matches!(failure, Failure::Unknown) {
            self.turn_to_another();
        }
        sleep(PAUSE).await;
        Err(failure)
    }

    /// Records how a write went. Returns whether the state of the object is still clear.
    fn record(&mut self, name: &str, write: Write, outcome: Outcome) -> bool {
        let clear = match outcome {
            Outcome::Done(_) => {
                self.tally.written();
                true
            }
            Outcome::Refused => {
                self.tally.refused.fetch_add(1, Ordering::Relaxed);
                true
            }
            Outcome::Unknown => {
                self.tally.unknown.fetch_add(1, Ordering::Relaxed);
                false
            }
        };
        self.ledger.record(name, write, outcome);
        clear
    }

    fn any_live(&mut self) -> Option<(usize, String)> {
        let place = (!self.live.is_empty()).then(|| self.rng.random_range(0..self.live.len()))?;
        Some((place, self.live[place].clone()))
    }

    async fn create(&mut self) {
        let name = format!("{}{}", self.prefix, self.number);
        self.number += 1;
        let request = creation(&name, 0);
        let created = self
            .call(async |mut client| client.create_config(request).await)
            .await;
        let outcome = match created {
            Ok(answer) => Outcome::Done(answer.config.map(Box::new)),
            Err(Failure::Refused(_)) => Outcome::Refused,
            Err(Failure::Unknown) => Outcome::Unknown,
        };
        let done = matches!(outcome, Outcome::Done(_));
        if self.record(&name, Write::Create, outcome) {
            if done {
                self.live.push(name);
            }
        } else if self.rng.random_bool(0.5) && self.connected().await {
            self.retry(&name).await;
        }
    }

    /// Creates an object whose creation had no answer once more, as users do: there must not be two.
    async fn retry(&mut self, name: &str) {
        let request = creation(name, 0);
        let created = self
            .call(async |mut client| client.create_config(request).await)
            .await;
        match created {
            Ok(answer) => {
                let outcome = Outcome::Done(answer.config.map(Box::new));
                self.record(name, Write::Create, outcome);
            }
            Err(Failure::Refused(status)) if status.code() == Code::AlreadyExists => {
                self.ledger.exists(name);
            }
            // As unclear as before.
            Err(_) => {}
        }
    }

    async fn update(&mut self) {
        let Some((place, name)) = self.any_live() else {
            return;
        };
        let Some(request) = self.change(&name, None) else {
            return;
        };
        let updated = self
            .call(async |mut client| client.update_config(request).await)
            .await;
        let outcome = match updated {
            Ok(answer) => Outcome::Done(answer.config.map(Box::new)),
            Err(Failure::Refused(_)) => Outcome::Refused,
            Err(Failure::Unknown) => Outcome::Unknown,
        };
        if !self.record(&name, Write::Update, outcome) {
            self.live.swap_remove(place);
        }
    }

    async fn remove(&mut self) {
        let Some((place, name)) = self.any_live() else {
            return;
        };
        let config_id = self.id(&name);
        let request = RemoveConfigRequest {
            config_id: config_id.clone(),
        };
        let removed = self
            .call(async |mut client| client.remove_config(request).await)
            .await;
        let outcome = match removed {
            Ok(_) => Outcome::Done(None),
            Err(Failure::Refused(_)) => Outcome::Refused,
            Err(Failure::Unknown) => Outcome::Unknown,
        };
        let refused = matches!(outcome, Outcome::Refused);
        if self.record(&name, Write::Remove, outcome) && !refused {
            self.removed = Some((name, config_id));
            self.live.swap_remove(place);
        } else if !refused {
            self.live.swap_remove(place);
        }
    }

    async fn read(&mut self) {
        if let Some((_, name)) = self.any_live() {
            let config_id = self.id(&name);
            self.look(&name, config_id).await;
        }
    }

    async fn read_removed(&mut self) {
        if let Some((name, config_id)) = self.removed.clone() {
            self.look(&name, config_id).await;
        }
    }

    async fn look(&mut self, name: &str, config_id: String) {
        let request = GetConfigRequest { config_id };
        let got = self
            .call(async |mut client| client.get_config(request).await)
            .await;
        let found = match got {
            Ok(answer) => answer.config,
            Err(Failure::Refused(status)) if status.code() == Code::NotFound => None,
            Err(_) => return,
        };
        self.tally.reads.fetch_add(1, Ordering::Relaxed);
        self.ledger.read(name, found.as_ref());
    }

    /// Creates an object of a name that is taken.
    async fn create_again(&mut self) {
        let Some((place, name)) = self.any_live() else {
            return;
        };
        // A revision that it never has otherwise.
        let request = creation(&name, u64::MAX - 1);
        let created = self
            .call(async |mut client| client.create_config(request).await)
            .await;
        if matches!(created, Err(Failure::Unknown)) {
            // It may still arrive, and be right once the object is removed. So it stays.
            self.ledger.freeze(&name);
            self.live.swap_remove(place);
        }
        self.must_be_refused(created.map(drop), || format!("{name}: created again"));
    }

    /// Updates an object with a version that it had before.
    async fn update_outdated(&mut self) {
        let Some((_, name)) = self.any_live() else {
            return;
        };
        let Some(request) = self.change(&name, Some(u64::MAX - 1)) else {
            return;
        };
        let updated = self
            .call(async |mut client| client.update_config(request).await)
            .await;
        self.must_be_refused(updated.map(drop), || {
            format!("{name}: updated with an old version")
        });
    }

    fn must_be_refused(&mut self, result: Result<(), Failure>, what: impl FnOnce() -> String) {
        match result {
            Ok(()) => self.ledger.accepted(what()),
            Err(Failure::Refused(_)) => {
                self.tally.refused.fetch_add(1, Ordering::Relaxed);
            }
            // Whatever came of it, it must not be there.
            Err(Failure::Unknown) => {
                self.tally.unknown.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn id(&self, name: &str) -> String {
        let known = self.ledger.get(name);
        known.map(|known| known.id.clone()).unwrap_or_default()
    }

    /// An update of an object: the right one, or one to `wrong` that comes too late.
    fn change(&self, name: &str, wrong: Option<u64>) -> Option<UpdateConfigRequest> {
        let known = self.ledger.get(name)?;
        let revision = wrong.or(known.revision().map(|revision| revision + 1))?;
        let index = known.version - u64::from(wrong.is_some());
        Some(UpdateConfigRequest {
            config_id: known.id.clone(),
            config_version: Some(Version { index }),
            spec: creation(name, revision).spec,
        })
    }
}

fn creation(name: &str, revision: u64) -> CreateConfigRequest {
    let annotations = Annotations {
        name: name.to_owned(),
        labels: [(REVISION.to_owned(), revision.to_string())].into(),
        ..Default::default()
    };
    let spec = ConfigSpec {
        annotations: Some(annotations),
        data: ledger::data(name),
        ..Default::default()
    };
    CreateConfigRequest { spec: Some(spec) }
}
