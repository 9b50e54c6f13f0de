//! Health checks.

use skep_agent::executor::{Adopted, Failure};
use skep_proto::v1::{self, TaskState};
use tokio::time::timeout;

use crate::support::{Bench, PATIENCE, bench, with};

/// Runs a line; it is healthy as long as there is a file `/ok`.
fn checked(bench: &Bench, line: &str) -> v1::Task {
    with(bench.shell(line), |spec| {
        spec.healthcheck = Some(v1::HealthConfig {
            test: ["CMD", "cat", "/ok"].map(str::to_owned).into(),
            interval: Some(skep_proto::Duration {
                seconds: 0,
                nanos: 200_000_000,
            }),
            retries: 2,
            ..Default::default()
        });
    })
}

#[tokio::test]
async fn a_start_waits_for_health_and_sickness_is_an_end() {
    let Some(bench) = bench().await else { return };
    let line = "trap 'exit 0' TERM; touch /ok; while :; do sleep 0.1; done";
    let task = checked(&bench, line);
    let mut controller = bench.prepared(&task).await;
    timeout(PATIENCE, controller.start())
        .await
        .unwrap()
        .unwrap();
    let id = controller.container().unwrap().container_id;
    let found = bench.docker.inspect_container(&id, None).await.unwrap();
    let health = found.state.unwrap().health.unwrap().status.unwrap();
    assert_eq!(health.to_string(), "healthy");

    let exec = bollard::exec::StartExecOptions::default();
    let config = bollard::models::ExecConfig {
        cmd: Some(vec!["rm".into(), "/ok".into()]),
        ..Default::default()
    };
    let created = bench.docker.create_exec(&id, config).await.unwrap();
    let _running = bench
        .docker
        .start_exec(&created.id, Some(exec))
        .await
        .unwrap();
    let exit = timeout(PATIENCE, controller.wait()).await.unwrap().unwrap();
    assert!(!exit.is_success(), "also if it ends with 0: {exit:?}");
    assert!(exit.reason.contains("unhealthy"), "{}", exit.reason);
    assert_eq!(controller.wait().await.unwrap(), exit, "the same answer");
    controller.remove().await.unwrap();
}

#[tokio::test]
async fn what_never_gets_well_does_not_start() {
    let Some(bench) = bench().await else { return };
    let task = checked(&bench, "trap 'exit 0' TERM; while :; do sleep 0.1; done");
    let mut controller = bench.prepared(&task).await;
    let result = timeout(PATIENCE, controller.start()).await.unwrap();
    let Err(Failure::Fatal(why)) = result else {
        panic!("it is well: {result:?}")
    };
    assert!(why.contains("unhealthy container"), "{why}");
    controller.remove().await.unwrap();
}

#[tokio::test]
async fn a_start_that_waits_for_health_is_taken_up_and_can_be_stopped() {
    let Some(bench) = bench().await else { return };
    let mut task = checked(&bench, "trap 'exit 0' TERM; while :; do sleep 0.1; done");
    task = with(task, |spec| {
        spec.healthcheck.as_mut().unwrap().retries = 1_000_000;
    });
    let mut first = bench.prepared(&task).await;
    let brief = std::time::Duration::from_secs(1);
    assert!(timeout(brief, first.start()).await.is_err(), "it waits");
    drop(first);
    let mut second = bench.controller(&task);
    let adopted = second.adopt(TaskState::Starting).await;
    assert_eq!(adopted, Ok(Adopted::Absent), "it has yet to start");
    assert!(timeout(brief, second.start()).await.is_err(), "it waits");
    second.shutdown().await.unwrap();
    assert_eq!(second.container().unwrap().exit_code, 0);
    second.remove().await.unwrap();
}
