//! A manager as a process of its own: the node that ships, dialling through the links of the run.
//!
//! It does as its parent says on standard input, a line an order, and dies with it.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    net::SocketAddr,
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use clap::Args;
use futures_util::future::BoxFuture;
use rustix::process::{Signal, set_parent_process_death_signal};
use skep_agent::{OnStop, executor::null::NullExecutor};
use skep_node::{Config, Join, Node};
use skep_proto::v1::node_spec::Availability;
use skep_raft::LogKind;
use skep_security::{BoxedIo, Dial, TcpDial};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// Environment variable with the join token. Not on the command line, which everyone can read.
pub(super) const TOKEN: &str = "CHAOS_JOIN_TOKEN";
/// Order: tell the state of the store.
pub(super) const TELL: &str = "tell";
/// Answer: the node has started.
pub(super) const STARTED: &str = "started";

/// How a manager is started.
#[derive(Debug, Args)]
pub struct Child {
    /// State directory
    #[arg(long)]
    pub(super) state_dir: PathBuf,
    /// Control socket
    #[arg(long)]
    pub(super) socket: PathBuf,
    /// Where it listens for the others
    #[arg(long)]
    pub(super) listen: SocketAddr,
    /// Address of another manager and where it is dialled
    #[arg(long, value_name = "ADDR=DOOR", value_parser = way)]
    pub(super) via: Vec<(String, String)>,
    /// Manager to join
    #[arg(long)]
    pub(super) join: Option<SocketAddr>,
}

fn way(text: &str) -> Result<(String, String), String> {
    let (addr, door) = text.split_once('=').ok_or("must be ADDR=DOOR")?;
    Ok((addr.to_owned(), door.to_owned()))
}

/// Dials other managers through their doors.
struct Doors(BTreeMap<String, String>);

impl Dial for Doors {
    fn dial(&self, addr: String) -> BoxFuture<'static, io::Result<BoxedIo>> {
        let addr = self.0.get(&addr).cloned().unwrap_or(addr);
        TcpDial.dial(addr)
    }
}

/// Runs the manager until its parent is gone or it fails.
pub async fn run(args: Child) -> anyhow::Result<ExitCode> {
    // Also when it is stopped at that time, and cannot see that its input has ended.
    set_parent_process_death_signal(Some(Signal::KILL))?;
    let name = args.state_dir.file_name().unwrap_or_default();
    let hostname = name.to_string_lossy().into_owned();
    let join = args.join.zip(std::env::var(TOKEN).ok());
    let config = Config {
        force_new_cluster: false,
        raft_log: LogKind::default(),
        plugin_dirs: Vec::new(),
        unlock_key: None,
        state_dir: args.state_dir,
        join: join.map(|(addr, token)| Join {
            addr: addr.to_string(),
            token: Some(token),
        }),
        listen_remote_api: args.listen.to_string(),
        advertise_addr: None,
        listen_control_api: args.socket,
        hostname,
        executor: Arc::new(NullExecutor),
        generic_resources: Vec::new(),
        availability: Availability::Drain,
        on_stop: OnStop::Keep,
        dialer: Arc::new(Doors(args.via.into_iter().collect())),
    };
    let mut orders = BufReader::new(tokio::io::stdin()).lines();
    let mut node = tokio::select! {
        node = Box::pin(Node::start(config)) => node?,
        // No orders come before it has started; so this is the end of the parent.
        _ = orders.next_line() => return Ok(ExitCode::SUCCESS),
    };
    println!("{STARTED}");
    loop {
        let order = tokio::select! {
            order = orders.next_line() => order?,
            end = node.run() => anyhow::bail!("{end:?}"),
        };
        match order.as_deref() {
            None => return Ok(ExitCode::SUCCESS),
            Some(TELL) => {
                let (index, digest) = digest(&node);
                println!("{index} {digest:x}");
            }
            Some(other) => anyhow::bail!("unknown order {other:?}"),
        }
    }
}

/// The index that the store is at, and a digest of all that is in it.
fn digest(node: &Node) -> (u64, u64) {
    let Some(manager) = node.manager() else {
        return (0, 0);
    };
    let snapshot = manager.store().snapshot();
    let mut hasher = DefaultHasher::new();
    snapshot.to_bytes().hash(&mut hasher);
    (snapshot.index(), hasher.finish())
}
