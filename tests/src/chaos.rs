//! Real processes under random failures: managers are killed, stopped, cut off and slowed down while
//! clients write; afterwards all that was acknowledged must be there, and nothing that was refused.
//!
//! What goes wrong is drawn from a seed (`plan`); when exactly it meets which write is up to the
//! machine.

pub mod big;
pub mod child;
mod client;
mod ledger;
mod network;
mod plan;
mod process;
mod refusal;
mod report;

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::Args;
use skep_proto::v1::{
    Cluster, Config, ListClustersRequest, ListConfigsRequest, UpdateClusterRequest,
    control_client::ControlClient, list_configs_request::Filters,
};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::transport::Channel;

pub use self::report::Report;

use self::{
    client::{Client, Tally},
    ledger::Ledger,
    network::Network,
    plan::{Episode, Fault},
    process::Process,
    report::Counts,
};
use crate::control;

/// How long all may take to be well again when nothing goes wrong any more.
const RECOVERY: Duration = Duration::from_secs(120);
/// How often managers are looked at.
const LOOK: Duration = Duration::from_millis(100);
/// Entries between snapshots, and those kept behind one. Far less than usual, so that managers that
/// were away get snapshots, too.
const SNAPSHOT_INTERVAL: u64 = 2000;
const KEPT_ENTRIES: u64 = 200;

/// What a run is like.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Managers, each a process
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=9))]
    pub managers: u8,
    /// How long things go wrong
    #[arg(long, default_value_t = 60)]
    pub seconds: u64,
    /// Clients that write at the same time
    #[arg(long, default_value_t = 64)]
    pub clients: u64,
    /// What the failures are drawn from [default: random]
    #[arg(long)]
    pub seed: Option<u64>,
    /// Directory for all state and logs, kept afterwards. It must be empty or not exist [default: a
    /// temporary one, kept if something is found]
    #[arg(long)]
    pub state_dir: Option<PathBuf>,
}

/// Runs it. To be awaited on the main thread, with whose end the managers are killed.
pub async fn run(options: &Options) -> anyhow::Result<Report> {
    let (mut temporary, dir) = match &options.state_dir {
        Some(dir) => (None, dir.clone()),
        None => {
            let temporary = tempfile::tempdir()?;
            let dir = temporary.path().to_owned();
            (Some(temporary), dir)
        }
    };
    std::fs::create_dir_all(&dir)?;
    if std::fs::read_dir(&dir)?.next().is_some() {
        bail!("{} is not empty; choose another directory", dir.display());
    }
    let report = Box::pin(Run::start(options, dir.clone()).await?.carry_through()).await;
    if !report.as_ref().is_ok_and(Report::is_clean)
        && let Some(temporary) = &mut temporary
    {
        temporary.disable_cleanup(true);
        eprintln!("state and logs are kept in {}", dir.display());
    }
    report
}

struct Run {
    options: Options,
    seed: u64,
    dir: PathBuf,
    network: Network,
    managers: Vec<Process>,
    counts: Counts,
    began: Instant,
}

impl Run {
    /// A cluster where everything is well.
    async fn start(options: &Options, dir: PathBuf) -> anyhow::Result<Self> {
        let addresses: Vec<_> = (0..options.managers).map(address).collect();
        let network = Network::open(&addresses).await?;
        let mut managers = Vec::new();
        for (own, &listen) in addresses.iter().enumerate() {
            let others = addresses
                .iter()
                .enumerate()
                .filter(|&(other, _)| other != own);
            let via = others.map(|(other, &addr)| (addr, network.door((own, other))));
            let dir = dir.join(format!("manager-{}", own + 1));
            managers.push(Process::new(dir, listen, via.collect()));
        }
        let mut run = Self {
            options: options.clone(),
            seed: options.seed.unwrap_or_else(rand::random),
            dir,
            network,
            managers,
            counts: Counts::default(),
            began: Instant::now(),
        };
        run.managers[0].start(None)?;
        run.managers[0].started().await?;
        let cluster = run.prepare().await?;
        let token = &cluster.root_ca().join_tokens().manager;
        for manager in &mut run.managers[1..] {
            manager.start(Some((addresses[0], token)))?;
            manager
                .started()
                .await
                .with_context(|| format!("joining; see {}", manager.log().display()))?;
        }
        run.agreed().await?;
        Ok(run)
    }

    /// Makes snapshots frequent. Returns the cluster.
    async fn prepare(&self) -> anyhow::Result<Cluster> {
        let client = control::connect(&self.managers[0].socket(), false).await?;
        set_snapshots(client, SNAPSHOT_INTERVAL, KEPT_ENTRIES).await
    }

    async fn carry_through(mut self) -> anyhow::Result<Report> {
        let total = Duration::from_secs(self.options.seconds);
        self.began = Instant::now();
        let end = self.began + total;
        let tally = Arc::new(Tally::new());
        let sockets: Vec<_> = self.managers.iter().map(Process::socket).collect();
        let mut clients = JoinSet::new();
        for number in 0..self.options.clients {
            let seed = self.seed.wrapping_mul(1_000_003).wrapping_add(number);
            let prefix = format!("chaos-{number}-");
            let client = Client::new(prefix, sockets.clone(), seed, tally.clone());
            clients.spawn(client.run(end));
        }
        let plan = plan::draw(self.seed, self.managers.len(), total);
        self.carry_out(&plan, end).await?;
        let longest_gap = tally.longest_gap();
        let ledgers = clients.join_all().await;

        // What is there must be there for good.
        for manager in &mut self.managers {
            manager.kill().await?;
        }
        let healed = Instant::now();
        for manager in &mut self.managers {
            manager.revive()?;
        }
        // A read right after the election must see everything, too.
        let early = self.stored().await;
        let agreed = self.agreed().await;
        let recovery = healed.elapsed();
        let stored = self.stored().await;
        let mut wrong = std::mem::take(&mut self.counts.wrong);
        wrong.extend(agreed.err().map(|err| err.to_string()));
        let mut found = Vec::new();
        match (early, stored) {
            (Ok(early), Ok(stored)) => {
                if early != stored {
                    let text = "all configs, read as soon as there was a leader".to_owned();
                    found.push((ledger::Fault::Stale, text));
                }
                found.extend(settle(ledgers, &stored));
            }
            (Err(err), _) | (_, Err(err)) => {
                wrong.push(format!("the configs cannot be listed: {err}"));
            }
        }
        Ok(Report::new(
            &self.options,
            self.seed,
            &tally,
            &self.counts,
            (longest_gap, recovery),
            (found, wrong),
        ))
    }

    /// Lets everything go wrong that is planned.
    async fn carry_out(&mut self, plan: &[Episode], end: Instant) -> anyhow::Result<()> {
        let mut log = std::fs::File::create(self.dir.join("faults"))?;
        let mut turns: Vec<(Duration, bool, &Fault)> = Vec::new();
        for episode in plan {
            turns.push((episode.at, true, &episode.fault));
            turns.push((episode.until, false, &episode.fault));
        }
        turns.sort_by_key(|&(at, ..)| at);
        for (at, begins, fault) in turns {
            self.watch_until(self.began + at).await?;
            let sign = if begins { '+' } else { '-' };
            let now = self.began.elapsed().as_secs_f64();
            writeln!(log, "{now:8.3} {sign} {fault}")?;
            if begins {
                self.begin(fault).await?;
            } else {
                self.finish(fault)?;
            }
        }
        self.watch_until(end).await
    }

    /// Waits, and starts again what ends without having been killed.
    async fn watch_until(&mut self, at: Instant) -> anyhow::Result<()> {
        loop {
            for manager in &mut self.managers {
                if let Some(how) = manager.ended()? {
                    self.counts.wrong.push(how);
                    manager.start(None)?;
                }
            }
            let now = Instant::now();
            if now >= at {
                return Ok(());
            }
            sleep_until(at.min(now + LOOK)).await;
        }
    }

    async fn begin(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill(who) => {
                for &one in who {
                    self.counts.kills += u64::from(self.managers[one].kill().await?);
                }
            }
            Fault::Stop(who) => {
                for &one in who {
                    self.counts.stops += u64::from(self.managers[one].stop()?);
                }
            }
            Fault::Cut(links) => {
                self.counts.partitions += 1;
                links.iter().for_each(|&link| self.network.cut(link));
            }
            Fault::Slow(links, delay) => {
                self.counts.slowed += 1;
                links
                    .iter()
                    .for_each(|&link| self.network.slow(link, *delay));
            }
            Fault::Break(links) => {
                self.counts.broken += 1;
                links.iter().for_each(|&link| self.network.break_off(link));
            }
        }
        Ok(())
    }

    fn finish(&mut self, fault: &Fault) -> anyhow::Result<()> {
        match fault {
            Fault::Kill(who) => who.iter().try_for_each(|&one| self.managers[one].revive()),
            Fault::Stop(who) => who.iter().try_for_each(|&one| self.managers[one].resume()),
            Fault::Cut(links) => {
                links.iter().for_each(|&link| self.network.mend(link));
                Ok(())
            }
            Fault::Slow(links, delay) => {
                links
                    .iter()
                    .for_each(|&link| self.network.hurry(link, *delay));
                Ok(())
            }
            Fault::Break(_) => Ok(()),
        }
    }

    /// Waits until all managers have the same index. Fails if their stores differ then.
    async fn agreed(&mut self) -> anyhow::Result<()> {
        let give_up = Instant::now() + RECOVERY;
        loop {
            let mut told = Vec::new();
            for manager in &mut self.managers {
                told.push(manager.tell().await.with_context(|| {
                    format!("asking a manager; see {}", manager.log().display())
                })?);
            }
            let (index, digest) = &told[0];
            if told.iter().all(|(other, _)| other == index) {
                if told.iter().all(|(_, other)| other == digest) {
                    return Ok(());
                }
                bail!("the stores differ at the same index: {told:?}");
            }
            if Instant::now() > give_up {
                bail!("the managers are not level after {RECOVERY:?}: {told:?}");
            }
            sleep(LOOK).await;
        }
    }

    /// All configs, as soon as there is a leader.
    async fn stored(&self) -> anyhow::Result<Vec<Config>> {
        let give_up = Instant::now() + RECOVERY;
        loop {
            let err = match timeout(RECOVERY, self.list()).await {
                Ok(Ok(configs)) => return Ok(configs),
                Ok(Err(err)) => err,
                Err(err) => err.into(),
            };
            if Instant::now() > give_up {
                return Err(err);
            }
            sleep(LOOK).await;
        }
    }

    async fn list(&self) -> anyhow::Result<Vec<Config>> {
        let mut client = control::connect(&self.managers[0].socket(), false).await?;
        let filters = Filters {
            name_prefixes: vec!["chaos-".to_owned()],
            ..Default::default()
        };
        let request = ListConfigsRequest {
            filters: Some(filters),
        };
        Ok(client.list_configs(request).await?.into_inner().configs)
    }
}

/// Where manager `number` listens: on a loopback address that no other run uses, where no outgoing
/// connection can have taken the port.
fn address(number: u8) -> SocketAddr {
    let [.., high, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 128 | high, low, number + 1);
    SocketAddr::new(IpAddr::V4(ip), 4242)
}

/// Holds what is stored against what each client knows.
fn settle(ledgers: Vec<(String, Ledger)>, stored: &[Config]) -> Vec<(ledger::Fault, String)> {
    let mut all = Vec::new();
    for (prefix, ledger) in ledgers {
        let own = |config: &&Config| config.spec().annotations().name.starts_with(&prefix);
        let own: Vec<_> = stored.iter().filter(own).cloned().collect();
        all.extend(ledger.settle(&own));
    }
    all
}

/// Sets how many entries there are between snapshots, and how many are kept behind one. Returns the
/// cluster as it was.
async fn set_snapshots(
    mut client: ControlClient<Channel>,
    interval: u64,
    kept: u64,
) -> anyhow::Result<Cluster> {
    let listed = client.list_clusters(ListClustersRequest::default()).await?;
    let cluster = listed.into_inner().clusters.into_iter().next();
    let cluster = cluster.context("a new cluster without a cluster object")?;
    let mut spec = cluster.spec().clone();
    spec.raft_mut().snapshot_interval = interval;
    spec.raft_mut().log_entries_for_slow_followers = kept;
    let request = UpdateClusterRequest {
        cluster_id: cluster.id.clone(),
        cluster_version: cluster.meta().version,
        spec: Some(spec),
        rotation: None,
    };
    client.update_cluster(request).await?;
    Ok(cluster)
}
