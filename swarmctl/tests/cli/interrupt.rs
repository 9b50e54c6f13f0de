//! Ctrl-C while waiting, which needs a process of its own.

use std::process::Stdio;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Command,
};

use crate::fake::{Fake, World};

#[tokio::test]
async fn ctrl_c_stops_the_waiting_and_not_the_service() {
    let fake = Fake::new(World::default());
    let mut child = Command::new(env!("CARGO_BIN_EXE_swarmctl"))
        .args(["service", "create", "--name", "web", "--", "true"])
        .env("SWARM_SOCKET", &fake.socket)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut err = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    err.read_line(&mut line).await.unwrap();
    assert_eq!(line, "overall progress: 0 out of 1 tasks\n");
    let kill = format!("kill -INT {}", child.id().unwrap());
    assert!(
        Command::new("sh")
            .args(["-c", &kill])
            .status()
            .await
            .unwrap()
            .success()
    );
    let mut rest = String::new();
    err.read_to_string(&mut rest).await.unwrap();
    let expected = "\
Operation continuing in background.
Use `swarmctl service ps web` to check progress.
";
    assert_eq!(rest, expected);
    assert_eq!(child.wait().await.unwrap().code(), Some(130));
    assert_eq!(fake.world().services.len(), 1);
}
