//! Runs a node until it is told to stop.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use skep_agent::{OnStop, executor::Executor};
use skep_proto::v1::node_spec;
use skep_raft::LogKind;
use skep_security::TcpDial;
use tokio::signal::unix::{SignalKind, signal};
use tracing::info;

use crate::{
    Config, End, Join, Node, address,
    args::{self, Run},
    control_socket, executor, generic_resource,
};

/// Past this, stopping is given up: nothing in it takes longer unless something is stuck.
const STOP_DEADLINE: Duration = Duration::from_secs(60);

/// Runs a node as the command line says, until SIGTERM or SIGINT.
pub async fn run(args: Run) -> anyhow::Result<()> {
    if args.exit_with_parent {
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM))
            .context("following the parent process")?;
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut asked = std::pin::pin!(async move {
        tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} }
    });
    let socket = args.listen_control_api.clone();
    let executor = tokio::select! {
        chosen = executor::choose(args.executor, &args.docker_host) => chosen?,
        () = &mut asked => return Ok(()),
    };
    let config = config(args, executor)?;
    let started = tokio::select! {
        started = Box::pin(Node::start(config)) => started,
        () = &mut asked => {
            control_socket::remove(&socket);
            return Ok(());
        }
    };
    // A worker has no control socket, and a node that did not start has none any more.
    if !started.as_ref().is_ok_and(|node| node.manager().is_some()) {
        control_socket::remove(&socket);
    }
    let mut node = started?;
    let end = tokio::select! {
        () = &mut asked => None,
        end = node.run() => Some(end),
    };
    if let Some(End::Left) = end {
        // Its tasks have their grace periods. Whoever does not want to wait asks once more.
        let left = tokio::select! {
            left = Box::pin(node.leave()) => left,
            () = &mut asked => bail!("stopped while it was leaving; use `swarmd leave` once more"),
        };
        control_socket::remove(&socket);
        return Ok(left?);
    }
    info!("stopping");
    if tokio::time::timeout(STOP_DEADLINE, Box::pin(node.stop()))
        .await
        .is_err()
    {
        bail!("stopping took longer than {STOP_DEADLINE:?}; given up");
    }
    control_socket::remove(&socket);
    match end {
        Some(End::Failed(reason)) => bail!(reason),
        _ => Ok(()),
    }
}

fn config(args: Run, executor: Arc<dyn Executor>) -> anyhow::Result<Config> {
    // Before anything is asked of a cluster.
    if let Some(addr) = &args.advertise_addr {
        address::check(addr).map_err(anyhow::Error::msg)?;
    }
    // A file of settings may have both as empty values.
    let token = args.join_token.filter(|token| !token.is_empty());
    let addr = args
        .join_addr
        .filter(|addr| token.is_some() || !addr.is_empty());
    let join = addr.map(|addr| Join { addr, token });
    if args.force_new_cluster && join.is_some() {
        bail!(
            "--force-new-cluster goes on without the other managers, and --join-addr looks for them; \
             leave out one of the two"
        );
    }
    let hostname = args.hostname.unwrap_or_else(|| {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    });
    Ok(Config {
        state_dir: args.state_dir,
        // A file of settings may have both as empty values.
        join,
        force_new_cluster: args.force_new_cluster,
        raft_log: match args.raft_log {
            args::RaftLog::Segments => LogKind::Segments,
            args::RaftLog::Sled => LogKind::Sled,
        },
        plugin_dirs: args
            .plugin_dir
            .into_iter()
            .filter(|dir| !dir.as_os_str().is_empty())
            .collect(),
        listen_remote_api: args.listen_remote_api,
        advertise_addr: args.advertise_addr,
        listen_control_api: args.listen_control_api,
        hostname,
        executor,
        generic_resources: generic_resource::parse(&args.generic_resource)
            .map_err(anyhow::Error::msg)?,
        availability: match args.availability {
            args::Availability::Active => node_spec::Availability::Active,
            args::Availability::Pause => node_spec::Availability::Pause,
            args::Availability::Drain => node_spec::Availability::Drain,
        },
        on_stop: match args.on_stop {
            args::OnStop::Keep => OnStop::Keep,
            args::OnStop::Stop => OnStop::Stop,
        },
        dialer: Arc::new(TcpDial),
        unlock_key: args
            .unlock_key
            .filter(|key| !key.is_empty())
            .map(|key| key.parse())
            .transpose()?,
    })
}
