//! Load on a control socket, and what came of it.
//!
//! It drives any server that speaks this protocol, so that two of them can be compared in one run.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A tool at a terminal.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use prost::Message as _;
use serde::Serialize;
use skep_proto::{
    id,
    v1::{
        Annotations, ConfigSpec, ContainerSpec, CreateConfigRequest, CreateConfigResponse,
        CreateServiceRequest, GetConfigRequest, ListConfigsRequest, ListServiceStatusesRequest,
        RemoveServiceRequest, ReplicatedService, ServiceSpec, TaskSpec,
        control_client::ControlClient, list_configs_request::Filters, service_spec::Mode,
        task_spec::Runtime,
    },
};
use skep_tests::{
    control::{self, Call, Direct},
    floor, latency,
};
use tokio::{task::JoinSet, time::timeout};
use tonic::transport::Channel;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Debug, Parser)]
#[command(name = "load", about = "Load on a control socket, and what came of it")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Acknowledged CreateConfig writes of 100 bytes
    Config {
        #[command(flatten)]
        target: Target,
        /// Clients that write at the same time, each waiting for its answer
        #[arg(long, default_value_t = 1)]
        clients: usize,
        /// Connections that they share [default: each has one of its own]
        #[arg(long)]
        connections: Option<usize>,
        /// How long
        #[arg(long, default_value_t = 10)]
        seconds: u64,
        /// Read one config again and again instead
        #[arg(long)]
        reads: bool,
    },
    /// From the creation of a service until all its tasks run
    Service {
        #[command(flatten)]
        target: Target,
        /// Tasks
        #[arg(long, default_value_t = 1000)]
        replicas: u64,
        /// Given up after so many seconds
        #[arg(long, default_value_t = 300)]
        seconds: u64,
        /// Image of the service: `process` runs a command of the host
        #[arg(long, default_value = "process")]
        image: String,
    },
    /// From the commit that assigns a task until its agent has it, one task at a time. Joins a node
    /// that does nothing; only the first socket is used
    Latency {
        #[command(flatten)]
        target: Target,
        /// How many tasks
        #[arg(long, default_value_t = 500)]
        tasks: usize,
    },
    /// One write at a time through whichever manager answers
    Failover {
        #[command(flatten)]
        target: Target,
        /// How long
        #[arg(long, default_value_t = 30)]
        seconds: u64,
    },
    /// What a write takes at the least: making a record durable, and a round trip over loopback
    Floor {
        /// Where the record is written
        #[arg(long, value_name = "DIR")]
        dir: PathBuf,
        /// How many of each
        #[arg(long, default_value_t = 2000)]
        rounds: usize,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Args)]
struct Target {
    /// Control sockets; clients are spread over them
    #[arg(
        long = "socket",
        visible_alias = "sockets",
        value_delimiter = ',',
        required = true
    )]
    sockets: Vec<PathBuf>,
    /// Speak TLS on the socket, without verifying who answers
    #[arg(long)]
    tls: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct Writes {
    writes_per_s: f64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
    errors: u64,
}

#[derive(Debug, Serialize)]
struct Reads {
    reads_per_s: f64,
    p50_us: u64,
    p99_us: u64,
    max_us: u64,
    errors: u64,
}

impl From<Writes> for Reads {
    fn from(calls: Writes) -> Self {
        Self {
            reads_per_s: calls.writes_per_s,
            p50_us: calls.p50_us,
            p99_us: calls.p99_us,
            max_us: calls.max_us,
            errors: calls.errors,
        }
    }
}

#[derive(Debug, Serialize)]
struct Converged {
    seconds: f64,
    tasks_per_s: f64,
}

#[derive(Debug, Serialize)]
struct Failover {
    longest_gap_ms: u64,
    writes: u64,
    lost: u64,
}

#[derive(Debug, Serialize)]
struct Floor {
    durable_us: u128,
    round_trip_us: u128,
}

/// How long one write of a failover run may take before another manager is tried.
const TRY: Duration = Duration::from_secs(1);

// One thread: with more of them, handing work from one to the other costs more than the work.
#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Config {
            target,
            clients,
            connections,
            seconds,
            reads,
        } => {
            let connections = connections.unwrap_or(clients).clamp(1, clients.max(1));
            let time = Duration::from_secs(seconds);
            let measured = config(&target, clients, connections, time, reads).await?;
            if reads {
                print(target.json, &Reads::from(measured))
            } else {
                print(target.json, &measured)
            }
        }
        Command::Service {
            target,
            replicas,
            seconds,
            image,
        } => {
            let result = service(&target, replicas, Duration::from_secs(seconds), image).await?;
            print(target.json, &result)
        }
        Command::Latency { target, tasks } => {
            let result = latency::measure(&target.sockets[0], target.tls, tasks).await?;
            print(target.json, &result)
        }
        Command::Failover { target, seconds } => {
            let result = failover(&target, Duration::from_secs(seconds)).await?;
            print(target.json, &result)
        }
        Command::Floor { dir, rounds, json } => {
            let floor = floor::measure(&dir, rounds)?;
            let result = Floor {
                durable_us: floor.durable.as_micros(),
                round_trip_us: floor.round_trip.as_micros(),
            };
            print(json, &result)
        }
    }
}

fn print(json: bool, result: &impl Serialize) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(result)?);
        return Ok(());
    }
    let value = serde_json::to_value(result)?;
    for (name, value) in value.as_object().into_iter().flatten() {
        println!("{name:<16} {value}");
    }
    Ok(())
}

fn config_request(name: String) -> CreateConfigRequest {
    let spec = ConfigSpec {
        annotations: Some(Annotations {
            name,
            ..Default::default()
        }),
        data: vec![b'x'; 100].into(),
        ..Default::default()
    };
    CreateConfigRequest { spec: Some(spec) }
}

async fn config(
    target: &Target,
    clients: usize,
    connections: usize,
    time: Duration,
    reads: bool,
) -> anyhow::Result<Writes> {
    let mut connected = Vec::new();
    for socket in target.sockets.iter().cycle().take(connections) {
        connected.push(Direct::connect(socket, target.tls).await?);
    }
    let run = id::random();
    let (create, get) = (Call::new("CreateConfig")?, Call::new("GetConfig")?);
    let read = match connected.first_mut().filter(|_| reads) {
        Some(client) => {
            let request = config_request(format!("load-{run}"));
            let created = client.call(&create, &request).await?;
            let created = CreateConfigResponse::decode(created)?;
            let config = created.config.context("no config in the answer")?;
            Some(GetConfigRequest {
                config_id: config.id,
            })
        }
        None => None,
    };
    let start = Instant::now();
    let end = start + time;
    let mut writers = JoinSet::new();
    for (number, client) in (0..clients).zip(connected.iter().cycle()) {
        let (run, read, mut client) = (run.clone(), read.clone(), client.clone());
        let (create, get) = (create.clone(), get.clone());
        writers.spawn(async move {
            let (mut latencies, mut errors) = (Vec::new(), 0_u64);
            while Instant::now() < end {
                let name = format!("load-{run}-{number}-{}", latencies.len() as u64 + errors);
                let before = Instant::now();
                let done = match &read {
                    Some(read) => client.call(&get, read).await,
                    None => client.call(&create, &config_request(name)).await,
                };
                match done {
                    Ok(_) => latencies.push(before.elapsed().as_micros() as u64),
                    Err(_) => errors += 1,
                }
            }
            (latencies, errors)
        });
    }
    let (mut latencies, mut errors) = (Vec::new(), 0);
    while let Some(writer) = writers.join_next().await {
        let (own, failed) = writer?;
        latencies.extend(own);
        errors += failed;
    }
    let seconds = start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let at = |share: f64| -> u64 {
        let index = (latencies.len() as f64 * share) as usize;
        latencies
            .get(index.min(latencies.len().saturating_sub(1)))
            .copied()
            .unwrap_or(0)
    };
    Ok(Writes {
        writes_per_s: latencies.len() as f64 / seconds,
        p50_us: at(0.5),
        p99_us: at(0.99),
        max_us: at(1.0),
        errors,
    })
}

async fn service(
    target: &Target,
    replicas: u64,
    patience: Duration,
    image: String,
) -> anyhow::Result<Converged> {
    let mut client = control::connect(&target.sockets[0], target.tls).await?;
    let container = ContainerSpec {
        image,
        command: vec!["sleep".to_owned()],
        args: vec!["1000000".to_owned()],
        ..Default::default()
    };
    let spec = ServiceSpec {
        annotations: Some(Annotations {
            name: format!("load-{}", id::random()),
            ..Default::default()
        }),
        task: Some(TaskSpec {
            runtime: Some(Runtime::Container(container)),
            ..Default::default()
        }),
        mode: Some(Mode::Replicated(ReplicatedService { replicas })),
        ..Default::default()
    };
    let start = Instant::now();
    let created = client
        .create_service(CreateServiceRequest { spec: Some(spec) })
        .await?;
    let service_id = created
        .into_inner()
        .service
        .context("no service in the answer")?
        .id;
    loop {
        let request = ListServiceStatusesRequest {
            services: vec![service_id.clone()],
        };
        let statuses = client
            .list_service_statuses(request)
            .await?
            .into_inner()
            .statuses;
        let running = statuses.first().map_or(0, |status| status.running_tasks);
        if running >= replicas {
            break;
        }
        if start.elapsed() > patience {
            bail!("only {running} of {replicas} tasks run after {patience:?}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let seconds = start.elapsed().as_secs_f64();
    client
        .remove_service(RemoveServiceRequest { service_id })
        .await?;
    Ok(Converged {
        seconds,
        tasks_per_s: replicas as f64 / seconds,
    })
}

async fn failover(target: &Target, time: Duration) -> anyhow::Result<Failover> {
    let run = id::random();
    let mut clients: Vec<Option<ControlClient<Channel>>> = vec![None; target.sockets.len()];
    let (mut turn, mut number) = (0, 0_u64);
    let mut acknowledged = BTreeSet::new();
    let mut last = Instant::now();
    let mut longest = Duration::ZERO;
    let end = Instant::now() + time;
    while Instant::now() < end {
        let name = format!("failover-{run}-{number}");
        number += 1;
        let socket = &target.sockets[turn];
        if clients[turn].is_none() {
            clients[turn] = control::connect(socket, target.tls).await.ok();
        }
        let written = match &mut clients[turn] {
            Some(client) => {
                let write = client.create_config(config_request(name.clone()));
                matches!(timeout(TRY, write).await, Ok(Ok(_)))
            }
            None => false,
        };
        if written {
            acknowledged.insert(name);
            longest = longest.max(last.elapsed());
            last = Instant::now();
        } else {
            clients[turn] = None;
            turn = (turn + 1) % clients.len();
            // All managers may be without a leader for a while; do not spin on their refusals.
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    longest = longest.max(last.elapsed());
    let stored = stored(target, &format!("failover-{run}-")).await?;
    let lost = acknowledged
        .iter()
        .filter(|name| !stored.contains(*name))
        .count() as u64;
    Ok(Failover {
        longest_gap_ms: longest.as_millis() as u64,
        writes: acknowledged.len() as u64,
        lost,
    })
}

/// Names of all configs that start so, from whichever manager answers.
async fn stored(target: &Target, prefix: &str) -> anyhow::Result<Arc<BTreeSet<String>>> {
    let mut reason = None;
    for socket in &target.sockets {
        let filters = Filters {
            name_prefixes: vec![prefix.to_owned()],
            ..Default::default()
        };
        let request = ListConfigsRequest {
            filters: Some(filters),
        };
        let listed = match control::connect(socket, target.tls).await {
            Ok(mut client) => client
                .list_configs(request)
                .await
                .map_err(anyhow::Error::from),
            Err(err) => Err(err),
        };
        match listed {
            Ok(listed) => {
                let configs = listed.into_inner().configs;
                let names = configs
                    .iter()
                    .map(|config| config.spec().annotations().name.clone());
                return Ok(Arc::new(names.collect()));
            }
            Err(err) => reason = Some(err),
        }
    }
    bail!("no manager lists the configs: {reason:?}")
}
