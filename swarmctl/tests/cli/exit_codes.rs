//! The exit codes the help promises.

use swarmctl::Exit;
use tokio::net::UnixListener;
use tonic::Status;

use crate::{
    fake::{Fake, World, service},
    run::{swarmctl, swarmctl_at},
};

#[tokio::test]
async fn refused_is_1_with_the_servers_message_alone() {
    let fake = Fake::new(World::default());
    let text = "name conflicts with an existing object: service web already exists";
    fake.world()
        .failures
        .push_back(Status::already_exists(text));
    let err = swarmctl(&fake, "service create --name web -- true")
        .await
        .failed(Exit::Failed);
    assert_eq!(err, format!("Error: {text}\n"));
    assert_eq!(Exit::Failed.code(), 1);
}

#[tokio::test]
async fn a_wrong_line_is_2() {
    let fake = Fake::new(World {
        services: vec![service("s1", "web", 1)],
        ..Default::default()
    });
    for line in [
        "",
        "service",
        "service create --name web",
        "service create --name web --reserve-cpu lots -- true",
        "service create --name web --mode global --replicas 2 -- true",
        "service create --name web -d --timeout 5s -- true",
        "service scale web",
        "service inspect",
        "node update n1",
        "node ls --format yaml",
    ] {
        let run = swarmctl(&fake, line).await;
        assert_eq!(run.exit, Exit::Usage, "{line}: {run:?}");
        assert!(!run.err.is_empty() && run.out.is_empty(), "{line}: {run:?}");
    }
    assert!(fake.world().calls.is_empty(), "nothing was asked");
    assert_eq!(Exit::Usage.code(), 2);
}

#[tokio::test]
async fn help_and_version_are_0_and_go_to_stdout() {
    let fake = Fake::new(World::default());
    assert!(swarmctl(&fake, "--help").await.ok().contains("Exit codes:"));
    assert!(
        swarmctl(&fake, "service create --help")
            .await
            .ok()
            .contains("--restart-condition")
    );
    assert!(
        swarmctl(&fake, "--version")
            .await
            .ok()
            .starts_with("swarmctl ")
    );
}

#[tokio::test]
async fn no_socket_is_3_and_says_which_and_what_to_do() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("absent.sock");
    let err = swarmctl_at(&socket, "node ls")
        .await
        .failed(Exit::Unreachable);
    let start = format!(
        "Error: cannot reach the control socket {}: ",
        socket.display()
    );
    assert!(err.starts_with(&start), "{err}");
    assert!(err.contains("No such file"), "{err}");
    assert!(err.contains("--socket or SWARM_SOCKET"), "{err}");
    assert_eq!(Exit::Unreachable.code(), 3);
}

#[tokio::test]
async fn a_socket_of_something_else_is_3() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("other.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    let closes = async {
        loop {
            drop(listener.accept().await);
        }
    };
    let run = tokio::select! {
        run = swarmctl_at(&socket, "node ls") => run,
        () = closes => unreachable!(),
    };
    let err = run.failed(Exit::Unreachable);
    assert!(err.contains("control socket"), "{err}");
}
