//! A large state and a slow link: a manager joins over it while writes go on, and once the link breaks.
//!
//! Real processes, so that what each needs of memory can be told.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use serde::Serialize;
use skep_proto::{
    skep::{GetRaftStatusRequest, GetRaftStatusResponse, raft_status_client::RaftStatusClient},
    v1::{Annotations, ConfigSpec, CreateConfigRequest, control_client::ControlClient},
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tonic::{Code, transport::Channel};

use super::{LOOK, RECOVERY, address, network::Network, process::Process, set_snapshots};
use crate::control;

/// Bytes of one config: they are at most 500 kB.
const CONFIG_BYTES: usize = 500_000;
/// Who fills the state at the same time.
const FILLERS: usize = 8;
/// Entries between snapshots at least, and those kept behind one. Few, so that snapshots are taken while
/// one is on its way and the log is dropped behind each: whenever there are 64 MiB of it, as the state is
/// large.
const SNAPSHOT_INTERVAL: u64 = 100;
const KEPT_ENTRIES: u64 = 10;
/// Bytes of each write that goes on meanwhile.
const WRITE_BYTES: usize = 40_000;
/// Longest that a write may take: nobody leads for a while, or the leader is busy with nothing else.
const SLOWEST_WRITE: Duration = Duration::from_secs(5);
/// How often as much memory as the state takes a manager may need at most: the new one has the state,
/// and the snapshot that it came in until that is on its disk. One that takes or sends a snapshot makes
/// its bytes piece by piece, so the leader stays below.
const MEMORY_FACTOR: u64 = 2;
/// What it may need besides, in bytes: entries that are held back for the other one (256 MiB), and those
/// after which the next snapshot is due (64 MiB).
const MEMORY_BESIDES: u64 = (256 + 64) << 20;

/// What a run is like.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Size of the state in MiB
    #[arg(long, default_value_t = 500)]
    pub mib: usize,
    /// Bytes that the link carries in a second, in thousands
    #[arg(long, default_value_t = 10_000)]
    pub kbytes: u32,
    /// Writes in a second that go on meanwhile
    #[arg(long, default_value_t = 50)]
    pub writes: u32,
}

/// What came of it. All sizes are in MiB.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Of the configs in the state at the end.
    pub state: u64,
    /// Until the new manager had a vote.
    pub join_seconds: f64,
    /// Acknowledged meanwhile.
    pub writes: u64,
    /// How long the slowest of them took.
    pub slowest_write_ms: u128,
    /// Snapshots that the leader has taken since the new manager was started.
    pub snapshots: usize,
    /// Most memory that the leader has taken, before and while the other one joined.
    pub leader_before: u64,
    /// See `leader_before`.
    pub leader_peak: u64,
    /// Most memory that the new manager has taken.
    pub joiner_peak: u64,
}

/// Runs it. To be awaited on the main thread, with whose end the managers are killed.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let dir = tempfile::tempdir()?;
    let addresses: [SocketAddr; 2] = [address(0), address(1)];
    let network = Network::open(&addresses).await?;
    let [mut leader, mut joiner] = [0, 1].map(|own: usize| {
        let via = (addresses[1 - own], network.door((own, 1 - own)));
        let dir = dir.path().join(format!("manager-{}", own + 1));
        Process::new(dir, addresses[own], vec![via])
    });
    leader.start(None)?;
    leader.started().await?;
    let client = control::connect(&leader.socket(), false).await?;
    let cluster = set_snapshots(client.clone(), SNAPSHOT_INTERVAL, KEPT_ENTRIES).await?;
    let configs = (options.mib * 1024 * 1024).div_ceil(CONFIG_BYTES);
    fill(&client, configs).await.context("filling the state")?;
    // From now on the log does not reach back to the first entry.
    let mut status = Raft::of(&leader).await?;
    let level = status.get().await?.applied_index;
    let further = write_until(&client, async || {
        Ok(status.get().await?.snapshot_index > level)
    })
    .await?;
    let before = ((configs + further) * CONFIG_BYTES) as u64;
    let (leader_before, taken) = (leader.peak_memory()?, leader.count("raft snapshot taken")?);

    network.limit((0, 1), options.kbytes * 1000);
    let (stop, stopped) = watch::channel(false);
    let writer = tokio::spawn(write(client.clone(), options.writes, stopped));
    let began = Instant::now();
    let token = cluster.root_ca().join_tokens().manager.clone();
    joiner.start(Some((addresses[0], &token)))?;
    let least = Duration::from_secs(before) / (options.kbytes * 1000);
    // It breaks when a quarter of the snapshot has arrived, for certain.
    let member = async {
        while status.get().await?.members.len() < 2 {
            sleep(LOOK).await;
        }
        anyhow::Ok(())
    };
    timeout(RECOVERY, member).await.context("no new member")??;
    sleep(least / 4).await;
    ensure!(votes(&status.get().await?) == 1, "the link is not slow");
    network.break_off((0, 1));
    let patience = 2 * least + RECOVERY;
    let joined = async {
        while votes(&status.get().await?) < 2 {
            if let Some(how) = joiner.ended()? {
                bail!("{how}");
            }
            sleep(LOOK).await;
        }
        anyhow::Ok(began.elapsed())
    };
    let joined = timeout(patience, joined).await;
    let join = joined.with_context(|| format!("it has not joined after {patience:?}"))??;
    // Asked before the stores are compared, which takes memory.
    let (leader_peak, joiner_peak) = (leader.peak_memory()?, joiner.peak_memory()?);
    let snapshots = leader.count("raft snapshot taken")? - taken;
    stop.send_replace(true);
    let (writes, slowest) = writer.await??;
    ensure!(
        join >= least + least / 4,
        "{join:?}: the link was not so slow"
    );
    ensure!(
        writes > 0 && slowest < SLOWEST_WRITE,
        "{writes} writes, the slowest took {slowest:?}"
    );
    ensure!(snapshots > 0, "no snapshot was taken meanwhile");
    let state = before + writes * WRITE_BYTES as u64;
    ensure!(
        leader_peak.max(joiner_peak) < MEMORY_FACTOR * state + MEMORY_BESIDES,
        "they need {leader_peak} and {joiner_peak} bytes for a state of {state}"
    );
    joiner.started().await?;
    level_out(&mut leader, &mut joiner).await?;
    Ok(Report {
        state: state >> 20,
        join_seconds: join.as_secs_f64(),
        writes,
        slowest_write_ms: slowest.as_millis(),
        snapshots,
        leader_before: leader_before >> 20,
        leader_peak: leader_peak >> 20,
        joiner_peak: joiner_peak >> 20,
    })
}

/// How replication stands at a manager.
struct Raft(RaftStatusClient<Channel>);

impl Raft {
    async fn of(manager: &Process) -> anyhow::Result<Self> {
        let channel = control::channel(&manager.socket(), false).await?;
        Ok(Self(RaftStatusClient::new(channel)))
    }

    async fn get(&mut self) -> anyhow::Result<GetRaftStatusResponse> {
        Ok(self
            .0
            .get_raft_status(GetRaftStatusRequest {})
            .await?
            .into_inner())
    }
}

fn votes(status: &GetRaftStatusResponse) -> usize {
    status
        .members
        .iter()
        .filter(|member| !member.learner)
        .count()
}

async fn create(
    client: &mut ControlClient<Channel>,
    name: String,
    bytes: usize,
) -> anyhow::Result<()> {
    let spec = ConfigSpec {
        annotations: Some(Annotations {
            name,
            ..Default::default()
        }),
        data: vec![b'x'; bytes].into(),
        ..Default::default()
    };
    match client
        .create_config(CreateConfigRequest { spec: Some(spec) })
        .await
    {
        Err(status) if status.code() != Code::AlreadyExists => Err(status.into()),
        _ => Ok(()),
    }
}

async fn fill(client: &ControlClient<Channel>, configs: usize) -> anyhow::Result<()> {
    let mut fillers = JoinSet::new();
    for filler in 0..FILLERS {
        let mut client = client.clone();
        fillers.spawn(async move {
            for number in (filler..configs).step_by(FILLERS) {
                create(&mut client, format!("large-{number}"), CONFIG_BYTES).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = fillers.join_next().await {
        done??;
    }
    Ok(())
}

/// Writes until it is so. Returns how often.
async fn write_until(
    client: &ControlClient<Channel>,
    mut done: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<usize> {
    let mut client = client.clone();
    for number in 0..10 * SNAPSHOT_INTERVAL as usize {
        if done().await? {
            return Ok(number);
        }
        create(&mut client, format!("further-{number}"), CONFIG_BYTES).await?;
    }
    bail!("no snapshot is taken")
}

/// Writes so often a second until it is told to stop. Returns how many there were and how long the
/// slowest took.
async fn write(
    mut client: ControlClient<Channel>,
    per_second: u32,
    stop: watch::Receiver<bool>,
) -> anyhow::Result<(u64, Duration)> {
    let mut ticks = interval(Duration::from_secs(1) / per_second);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let (mut number, mut slowest) = (0, Duration::ZERO);
    while !*stop.borrow() {
        ticks.tick().await;
        let began = Instant::now();
        let written = create(&mut client, format!("meanwhile-{number}"), WRITE_BYTES).await;
        written.with_context(|| format!("write {number}"))?;
        slowest = slowest.max(began.elapsed());
        number += 1;
    }
    Ok((number, slowest))
}

/// Waits until both have the same.
async fn level_out(first: &mut Process, second: &mut Process) -> anyhow::Result<()> {
    let give_up = Instant::now() + RECOVERY;
    loop {
        let (one, other) = (first.tell().await?, second.tell().await?);
        if one == other {
            return Ok(());
        }
        ensure!(one.0 != other.0, "the stores differ at index {}", one.0);
        ensure!(
            Instant::now() < give_up,
            "they are not level: {one:?}, {other:?}"
        );
        sleep(LOOK).await;
    }
}
