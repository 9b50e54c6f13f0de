//! `service logs` and `task logs`.

use skep_proto::{
    Timestamp,
    v1::{LogContext, LogMessage, LogSelector, LogStream, LogSubscriptionOptions, TaskState},
};
use swarmctl::Exit;
use tonic::{Code, Status};

use crate::{
    fake::{Fake, World, node, service},
    run::swarmctl,
};

const TASK: &str = "task0123456789abcdefghijk";

fn line(task: &str, stream: LogStream, data: &'static str) -> LogMessage {
    LogMessage {
        context: Some(LogContext {
            service_id: "s1".to_owned(),
            node_id: "n1".to_owned(),
            task_id: task.to_owned(),
        }),
        timestamp: Some(Timestamp {
            seconds: 1_767_323_045,
            nanos: 5,
        }),
        stream: stream.into(),
        data: data.into(),
        attrs: Vec::new(),
    }
}

fn world() -> World {
    let mut world = World {
        services: vec![service("s1", "web", 1)],
        nodes: vec![node("n1", "host-1")],
        logs: vec![
            line(TASK, LogStream::Stdout, "hello\n"),
            line("gone", LogStream::Stdout, "half a line"),
        ],
        ..Default::default()
    };
    world.task(TASK, 1, TaskState::Running, TaskState::Running);
    world
}

#[tokio::test]
async fn lines_say_where_they_come_from_as_docker_says_it() {
    let fake = Fake::new(world());
    for (flags, expected) in [
        (
            "",
            "web.1.task01234567@host-1    | hello\ns1.gone@host-1               | half a line\n",
        ),
        (
            "-t --no-task-ids",
            "2026-01-02T03:04:05.000000005Z web.1@host-1    | hello\n\
             2026-01-02T03:04:05.000000005Z s1@host-1       | half a line\n",
        ),
        (
            "--no-trunc --no-resolve",
            "s1.1.task0123456789abcdefghijk@n1    | hello\n\
             s1.gone@n1                           | half a line\n",
        ),
        ("--raw", "hello\nhalf a line"),
    ] {
        let run = swarmctl(&fake, &format!("service logs {flags} web")).await;
        assert_eq!(run.ok(), expected, "{flags}");
    }
    let json = swarmctl(&fake, "service logs --format json web").await.ok();
    assert_eq!(json.lines().count(), 2);
    assert!(json.contains(r#""taskId":"gone""#), "{json}");
}

#[tokio::test]
async fn what_is_wanted_is_asked_for() {
    let fake = Fake::new(world());
    swarmctl(&fake, "service logs web").await.ok();
    swarmctl(
        &fake,
        "service logs -f -n 5 --since 2026-01-02T03:04:05Z s1",
    )
    .await
    .ok();
    swarmctl(&fake, &format!("task logs --tail 0 {TASK}"))
        .await
        .ok();
    swarmctl(&fake, "service logs task0").await.ok();
    let requests = fake.world().log_requests.clone();
    let of_service = Some(LogSelector {
        service_ids: vec!["s1".to_owned()],
        ..Default::default()
    });
    let of_task = Some(LogSelector {
        task_ids: vec![TASK.to_owned()],
        ..Default::default()
    });
    let selectors = requests.iter().map(|request| request.selector.clone());
    let expected = [of_service.clone(), of_service, of_task.clone(), of_task];
    assert_eq!(selectors.collect::<Vec<_>>(), expected);
    let options: Vec<_> = requests
        .into_iter()
        .map(|request| request.options.unwrap())
        .collect();
    assert_eq!(options[0], LogSubscriptionOptions::default());
    let since = Timestamp {
        seconds: 1_767_323_045,
        nanos: 0,
    };
    let tail = LogSubscriptionOptions {
        streams: Vec::new(),
        follow: true,
        tail: -6,
        since: Some(since),
    };
    assert_eq!(options[1], tail);
    assert_eq!(options[2].tail, -1);
}

#[tokio::test]
async fn what_a_task_wrote_to_stderr_goes_there() {
    let mut world = world();
    world.logs = vec![
        line(TASK, LogStream::Stdout, "out\n"),
        line(TASK, LogStream::Stderr, "err\n"),
    ];
    let fake = Fake::new(world);
    let run = swarmctl(&fake, "service logs --raw web").await;
    assert_eq!(
        (run.exit, &*run.out, &*run.err),
        (Exit::Ok, "out\n", "err\n")
    );
}

#[tokio::test]
async fn r48_missing_logs_are_a_warning_and_other_ends_are_errors() {
    let mut world = world();
    let warning = "warning: incomplete log stream. some logs could not be retrieved for the \
                   following reasons: node n2 is not available";
    world.logs_end = Some(Status::unknown(warning));
    let fake = Fake::new(world);
    let run = swarmctl(&fake, "service logs --raw web").await;
    assert_eq!((run.exit, &*run.out), (Exit::Ok, "hello\nhalf a line"));
    assert_eq!(run.err, format!("{warning}\n"));

    fake.world().logs_end = Some(Status::new(Code::Aborted, "log broker is stopped"));
    let run = swarmctl(&fake, "service logs --raw web").await;
    assert_eq!(run.failed(Exit::Failed), "Error: log broker is stopped\n");
    let missing = swarmctl(&fake, "service logs nothing").await;
    assert_eq!(
        missing.failed(Exit::Failed),
        "Error: service nothing not found\n"
    );
    let wrong = swarmctl(&fake, "service logs --tail many web").await;
    assert!(wrong.failed(Exit::Usage).contains("number of lines"));
}
