//! `swarmd dev`: a whole cluster on this machine, one process a node.
//!
//! Nothing in it is special: each node is a `swarmd` with its own state directory, joined by a real
//! token over mTLS on loopback. Killing one, also with SIGKILL, is what it is there for.

mod layout;
mod process;

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, bail};
use futures_util::future::join_all;
use skep_proto::v1::{
    Cluster, CreateServiceRequest, ListClustersRequest, ListNodesRequest, ListServicesRequest,
    list_services_request::Filters, node_status::State,
};
use swarmctl::{
    client::Client,
    progress::{self, Output},
    spec::{NewService, Settings},
};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, sleep, timeout_at},
};

use self::{
    layout::{Layout, Member},
    process::{Ended, Process, quoted},
};
use crate::{
    args::{Dev, Log},
    state_dir::StateDir,
};

/// How long the cluster and its service may take to come up.
const DEADLINE: Duration = Duration::from_secs(60);

/// How often a condition is looked at while the cluster comes up.
const POLL: Duration = Duration::from_millis(50);

const SERVICE: &str = "demo";

/// Starts the cluster, shows it, and ends it on Ctrl-C.
pub async fn run(args: Dev, log: &Log) -> anyhow::Result<()> {
    // First of all: nothing is left behind whenever it is told to end.
    let mut asked = Asked::new()?;
    let temporary = match &args.state_dir {
        Some(_) => None,
        None => Some(tempfile::Builder::new().prefix("skep-dev-").tempdir()?),
    };
    let dir = match (&args.state_dir, &temporary) {
        (Some(dir), _) => dir.clone(),
        (None, Some(dir)) => dir.path().to_owned(),
        (None, None) => bail!("no directory to work in"),
    };
    // Another one on the same directory would end the nodes of this one.
    let _lock = StateDir::open(&dir)?;
    let layout = Layout::open(&dir, args.managers, args.workers)?;
    let mut cluster = Running {
        args: &args,
        log,
        layout: &layout,
        processes: Vec::new(),
    };
    let result = tokio::select! {
        result = Box::pin(cluster.run()) => result,
        () = asked.next() => Ok(()),
    };
    say(format_args!("stopping the cluster"));
    let stopped = tokio::select! {
        () = cluster.stop() => true,
        () = asked.next() => false,
    };
    if !stopped {
        say(format_args!("killing the cluster"));
        cluster.kill().await;
    }
    result
}

/// The signals that ask for the end: Ctrl-C, SIGTERM, and the terminal that closes.
struct Asked {
    signals: [Signal; 3],
}

impl Asked {
    fn new() -> io::Result<Self> {
        Ok(Self {
            signals: [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ],
        })
    }

    /// Waits for the next one.
    async fn next(&mut self) {
        let [interrupt, terminate, hangup] = &mut self.signals;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// The cluster's processes, as far as they were started.
struct Running<'a> {
    args: &'a Dev,
    log: &'a Log,
    layout: &'a Layout,
    processes: Vec<Process>,
}

impl Running<'_> {
    /// Brings the cluster up; then, unless `--once`, watches over it for ever.
    async fn run(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + DEADLINE;
        let cluster = self.start(deadline).await?;
        if !self.args.bare {
            Box::pin(self.deploy(deadline)).await?;
        }
        // Also if nobody reads it.
        let _ = self.show(&cluster);
        if self.args.once {
            return Ok(());
        }
        self.watch().await
    }

    async fn start(&mut self, deadline: Instant) -> anyhow::Result<Cluster> {
        let (resumed, new): (Vec<_>, Vec<_>) = self
            .layout
            .members()
            .partition(|member| member.is_resumed());
        // Members of an old cluster need each other for a quorum: all at once.
        for member in &resumed {
            self.spawn(member, None)?;
        }
        let mut new = new.into_iter();
        if resumed.is_empty() {
            let founder = new.next().context("a cluster has at least one manager")?;
            self.spawn(founder, None)?;
        }
        let cluster = self
            .wait(
                "the first manager",
                deadline,
                first_cluster(self.layout.first()),
            )
            .await?;
        let tokens = cluster.root_ca().join_tokens().clone();
        for member in new {
            let token = if member.is_manager() {
                &tokens.manager
            } else {
                &tokens.worker
            };
            self.spawn(member, Some(token))?;
            // Managers come in one after another: each changes who has a vote.
            if member.is_manager() {
                self.wait(member.name(), deadline, first_cluster(member.socket()))
                    .await?;
            }
        }
        let count = self.layout.members().count();
        self.wait("all nodes", deadline, all_ready(self.layout.first(), count))
            .await?;
        say(format_args!(
            "{} and {} are ready",
            counted(self.args.managers, "manager"),
            counted(self.args.workers, "worker")
        ));
        Ok(cluster)
    }

    fn spawn(&mut self, member: &Member, token: Option<&str>) -> anyhow::Result<()> {
        let join = token.map(|token| (self.layout.first_addr(), token));
        self.processes
            .push(Process::spawn(member, join, self.args.bare, self.log)?);
        Ok(())
    }

    /// Waits for `condition`, unless a process ends or time is up.
    async fn wait<T>(
        &mut self,
        what: &str,
        deadline: Instant,
        condition: impl Future<Output = T>,
    ) -> anyhow::Result<T> {
        let ended = join_any(&mut self.processes);
        tokio::select! {
            done = timeout_at(deadline, condition) => {
                done.with_context(|| format!("{what} did not come up within {DEADLINE:?}"))
            }
            ended = ended => bail!(ended.what),
        }
    }

    async fn deploy(&mut self, deadline: Instant) -> anyhow::Result<()> {
        let client = Client::connect(self.layout.first()).await?;
        let filters = Filters {
            names: vec![SERVICE.to_owned()],
            ..Default::default()
        };
        let known = client
            .control()
            .list_services(ListServicesRequest {
                filters: Some(filters),
            })
            .await?
            .into_inner();
        let service = match known.services.into_iter().next() {
            Some(service) => service,
            None => {
                let spec = self.demo().to_spec()?;
                let request = CreateServiceRequest { spec: Some(spec) };
                let created = client.control().create_service(request).await;
                let created = created.map_err(|status| anyhow::anyhow!("{}", status.message()))?;
                created
                    .into_inner()
                    .service
                    .context("the manager answered without a service")?
            }
        };
        let output = if io::stderr().is_terminal() {
            Output::Bars
        } else {
            Output::Lines
        };
        let left = deadline.saturating_duration_since(Instant::now());
        progress::wait_converged(&client, &service.id, output, Some(left)).await?;
        Ok(())
    }

    fn demo(&self) -> NewService {
        let command = match &self.args.command[..] {
            [] => ["sh", "-c", "while :; do date; sleep 1; done"]
                .map(str::to_owned)
                .to_vec(),
            command => command.to_vec(),
        };
        NewService {
            name: SERVICE.to_owned(),
            command,
            settings: Settings {
                replicas: Some(3),
                ..Default::default()
            },
            ..Default::default()
        }
    }

    fn show(&self, cluster: &Cluster) -> io::Result<()> {
        let tokens = cluster.root_ca().join_tokens();
        let swarmctl = swarmctl_command();
        let socket = quoted(&self.layout.first().display().to_string());
        let mut out = io::stdout().lock();
        writeln!(out, "\nControl sockets")?;
        for member in self.layout.members().filter(|member| member.is_manager()) {
            writeln!(out, "  {}  {}", member.name(), member.socket().display())?;
        }
        writeln!(out, "\nJoin {} with", self.layout.first_addr())?;
        writeln!(out, "  worker   {}", tokens.worker)?;
        writeln!(out, "  manager  {}", tokens.manager)?;
        writeln!(out, "\nTry")?;
        writeln!(out, "  {swarmctl} --socket {socket} node ls")?;
        if self.args.bare {
            writeln!(
                out,
                "  {swarmctl} --socket {socket} service create --name web -- sleep 1000"
            )?;
            writeln!(out, "  {swarmctl} --socket {socket} service ls")?;
        } else {
            writeln!(out, "  {swarmctl} --socket {socket} service ps {SERVICE}")?;
            writeln!(
                out,
                "  {swarmctl} --socket {socket} service update --replicas 5 {SERVICE}"
            )?;
        }
        if !self.args.once {
            writeln!(out, "\nCtrl-C ends it all.")?;
        }
        out.flush()
    }

    /// Tells of processes that end. Never returns by itself: the cluster may live without them.
    async fn watch(&mut self) -> anyhow::Result<()> {
        loop {
            if self.processes.iter().all(Process::has_ended) {
                std::future::pending::<()>().await;
            }
            let ended = join_any(&mut self.processes).await;
            let Ended { what, command } = ended;
            say(format_args!("{what}\n  start it again with: {command}"));
        }
    }

    async fn stop(&mut self) {
        // Workers first: they still have someone to tell how their tasks ended.
        let (managers, workers): (Vec<_>, Vec<_>) = self
            .processes
            .iter_mut()
            .partition(|process| process.is_manager());
        join_all(workers.into_iter().map(Process::stop)).await;
        join_all(managers.into_iter().map(Process::stop)).await;
    }

    async fn kill(&mut self) {
        join_all(self.processes.iter_mut().map(Process::kill)).await;
    }
}

/// The next process that ends.
async fn join_any(processes: &mut [Process]) -> Ended {
    let running: Vec<_> = processes
        .iter_mut()
        .filter(|process| !process.has_ended())
        .map(|process| Box::pin(process.ended()))
        .collect();
    if running.is_empty() {
        return std::future::pending().await;
    }
    futures_util::future::select_all(running).await.0
}

/// The cluster, as soon as the manager at `socket` knows it.
async fn first_cluster(socket: &Path) -> Cluster {
    poll(async || {
        let client = Client::connect(socket).await.ok()?;
        let clusters = client
            .control()
            .list_clusters(ListClustersRequest::default())
            .await
            .ok()?;
        clusters.into_inner().clusters.into_iter().next()
    })
    .await
}

/// Waits until `count` nodes are ready.
async fn all_ready(socket: &Path, count: usize) {
    poll(async || {
        let client = Client::connect(socket).await.ok()?;
        let nodes = client
            .control()
            .list_nodes(ListNodesRequest::default())
            .await
            .ok()?
            .into_inner();
        let ready = nodes
            .nodes
            .iter()
            .filter(|node| node.status().state() == State::Ready);
        (ready.count() >= count).then_some(())
    })
    .await
}

async fn poll<T>(look: impl AsyncFn() -> Option<T>) -> T {
    loop {
        if let Some(found) = look().await {
            return found;
        }
        sleep(POLL).await;
    }
}

/// How to call swarmctl from here: the one built beside this program, or else through cargo.
fn swarmctl_command() -> String {
    let beside = std::env::current_exe()
        .ok()
        .map(|exe| exe.with_file_name("swarmctl"));
    match beside.filter(|path| path.exists()) {
        Some(path) => quoted(&shown(path)),
        None => "cargo run -q --release --bin swarmctl --".to_owned(),
    }
}

/// A path relative to the working directory where that is shorter.
fn shown(path: PathBuf) -> String {
    let relative = std::env::current_dir()
        .ok()
        .and_then(|dir| Some(path.strip_prefix(dir).ok()?.to_owned()));
    relative.unwrap_or(path).display().to_string()
}

/// `1 manager`, `3 managers`.
fn counted(count: u16, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Tells the user. The cluster goes on if nobody listens any more (`swarmd dev | head`), and is ended
/// in order.
fn say(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout().lock(), "{text}");
}
