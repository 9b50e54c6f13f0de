//! What runs this node's tasks: as asked for, or what the host has.

use std::{sync::Arc, time::Duration};

use skep_agent::executor::{
    Executor,
    docker::{DEFAULT_HOST, DockerExecutor, Engine},
    null::NullExecutor,
    process::{Launcher, ProcessExecutor},
};
use tokio::time::timeout;
use tracing::info;

use crate::args;

/// How long an engine that was not demanded may take to answer: one whose socket is there may yet
/// be starting.
const PATIENCE: Duration = Duration::from_secs(30);

/// The executor of the command line. Left to choose, it is a Docker engine that answers and is no
/// member of a swarm itself (that one runs what its own managers say), else processes.
pub(crate) async fn choose(
    choice: args::Executor,
    docker_host: &str,
) -> anyhow::Result<Arc<dyn Executor>> {
    // A file of settings may have it as an empty value.
    let docker_host = match docker_host {
        "" => DEFAULT_HOST,
        host => host,
    };
    Ok(match choice {
        args::Executor::Process => own_processes(),
        args::Executor::Null => Arc::new(NullExecutor),
        args::Executor::Docker => {
            let engine = Engine::connect(docker_host).await?;
            Arc::new(DockerExecutor::new(engine).await?)
        }
        args::Executor::Auto => match timeout(PATIENCE, free_engine(docker_host)).await {
            Ok(Ok(engine)) => {
                info!(docker_host, "tasks run as containers of the docker engine");
                Arc::new(DockerExecutor::new(engine).await?)
            }
            Ok(Err(reason)) => processes(&reason),
            Err(_) => processes("the docker engine does not answer in time"),
        },
    })
}

fn processes(reason: &str) -> Arc<dyn Executor> {
    info!(reason, "tasks run as processes of this host");
    own_processes()
}

fn own_processes() -> Arc<dyn Executor> {
    // This very program, also after its file was replaced by a newer one.
    Arc::new(ProcessExecutor::with_launcher(Launcher {
        program: "/proc/self/exe".into(),
        args: vec!["launch".to_owned()],
    }))
}

/// An engine that is ours to use, or why there is none.
async fn free_engine(docker_host: &str) -> Result<Engine, String> {
    let engine = Engine::connect(docker_host).await;
    let engine = engine.map_err(|error| error.to_string())?;
    match engine.is_in_swarm().await {
        Ok(false) => Ok(engine),
        Ok(true) => Err(format!(
            "the docker engine at {docker_host} is a member of a swarm itself"
        )),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn without_an_engine_there_are_processes_unless_one_is_demanded() {
        let host = "unix:///no/such/engine.sock";
        assert!(choose(args::Executor::Auto, host).await.is_ok());
        let demanded = choose(args::Executor::Docker, host).await;
        let why = demanded.err().map(|error| error.to_string());
        let why = why.unwrap_or_default();
        assert!(
            why.contains(host) && why.contains("no such socket"),
            "{why}"
        );
        let elsewhere = choose(args::Executor::Docker, "tcp://10.0.0.1:2375").await;
        let why = elsewhere.err().map(|error| error.to_string());
        assert!(why.is_some_and(|why| why.contains("only unix sockets")));
    }
}
