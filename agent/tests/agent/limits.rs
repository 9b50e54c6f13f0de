//! Bounds of a task's process, with real processes and, as root, real control groups.

use std::{fs, path::Path};

use rustix::process::geteuid;
use skep_agent::executor::{Controller, Failure, process::ProcessExecutor};
use skep_proto::v1::{self, container_spec::Ulimit};
use tokio::time::timeout;

use crate::support::{PATIENCE, able, command, controller, launching, shell, until, with, written};

async fn run(task: &v1::Task, dir: &Path) -> (Box<dyn Controller>, String, String) {
    let mut controller = controller(&launching(), task, dir);
    controller.prepare().await.unwrap();
    controller.start().await.unwrap();
    let exit = timeout(PATIENCE, controller.wait()).await.unwrap().unwrap();
    let output = written(&launching(), task, dir).await;
    (controller, output, exit.reason)
}

fn limited(task: v1::Task, limits: v1::Resources) -> v1::Task {
    let mut task = task;
    task.spec_mut().resources = Some(v1::ResourceRequirements {
        limits: Some(limits),
        ..Default::default()
    });
    task
}

fn groups_of(task: &v1::Task) -> Vec<String> {
    let places = ["memory/skep", "cpu/skep", "pids/skep", "skep"];
    let dirs = places.map(|place| format!("/sys/fs/cgroup/{place}/{}", task.id));
    dirs.into_iter()
        .filter(|dir| Path::new(dir).exists())
        .collect()
}

fn has_groups() -> bool {
    geteuid().is_root()
        && ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/cgroup.controllers"]
            .iter()
            .any(|path| Path::new(path).exists())
}

#[tokio::test]
async fn ulimits_and_the_oom_score_are_set_before_the_command_runs() {
    let dir = tempfile::tempdir().unwrap();
    let line = "ulimit -S -n; ulimit -H -n; cat /proc/self/oom_score_adj; env; cat";
    let task = with(shell(line), |spec| {
        spec.ulimits = vec![Ulimit {
            name: "nofile".to_owned(),
            soft: 77,
            hard: 99,
        }];
        spec.oom_score_adj = 321;
        spec.env = vec!["COLOR=red".to_owned()];
    });
    let (_, output, _) = run(&task, dir.path()).await;
    assert!(output.starts_with("77\n99\n321\n"), "{output}");
    assert!(
        output.contains("COLOR=red") && !output.contains("CARGO"),
        "{output}"
    );
    assert!(
        output.contains(&format!("SKEP_TASK_ID={}", task.id)),
        "{output}"
    );
}

#[tokio::test]
async fn what_a_launcher_cannot_start_is_told_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("no-program");
    fs::write(&file, "#!/no/such/interpreter\n").unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
    fs::set_permissions(&file, mode).unwrap();
    let task = with(command(&[file.to_str().unwrap()]), |spec| {
        spec.oom_score_adj = 1
    });
    let mut controller = controller(&launching(), &task, dir.path());
    controller.prepare().await.unwrap();
    let Err(Failure::Fatal(why)) = controller.start().await else {
        panic!("started")
    };
    assert!(
        why.contains("cannot be started") && why.contains("No such file"),
        "{why}"
    );
    controller.remove().await.unwrap();
}

#[tokio::test]
async fn without_a_launcher_limits_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let task = with(shell("true"), |spec| spec.oom_score_adj = 1);
    let mut controller = controller(&ProcessExecutor::default(), &task, dir.path());
    let Err(Failure::Fatal(why)) = controller.prepare().await else {
        panic!("accepted")
    };
    assert!(why.contains("no launcher"), "{why}");
}

#[tokio::test]
async fn extra_groups_need_root() {
    let dir = tempfile::tempdir().unwrap();
    let task = with(shell("id -u; id -g; id -G"), |spec| {
        spec.user = "12345:54321".to_owned();
        spec.groups = vec!["777".to_owned(), "888".to_owned()];
    });
    if !able("root, to give groups", geteuid().is_root()) {
        let mut controller = controller(&launching(), &task, dir.path());
        assert!(matches!(controller.prepare().await, Err(Failure::Fatal(_))));
        return;
    }
    let (_, output, _) = run(&task, dir.path()).await;
    assert_eq!(output, "12345\n54321\n54321 777 888\n");
}

#[tokio::test]
async fn memory_is_limited_and_the_reason_told() {
    if !able("root and control groups", has_groups()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // A shell that holds ever more.
    let line = "a=0123456789abcdef; while :; do a=$a$a; done";
    let task = limited(
        shell(line),
        v1::Resources {
            memory_bytes: 32 << 20,
            ..Default::default()
        },
    );
    let (mut controller, _, reason) = run(&task, dir.path()).await;
    assert_eq!(controller.container().unwrap().exit_code, 137, "{reason}");
    assert!(reason.contains("more memory than its limit"), "{reason}");
    assert_eq!(
        groups_of(&task),
        Vec::<String>::new(),
        "gone with the process"
    );
    controller.remove().await.unwrap();
}

#[tokio::test]
async fn processors_and_processes_are_limited_and_what_escapes_is_ended() {
    if !able("root and control groups", has_groups()) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    // The inner one leaves the group of processes, but not the control group.
    let line =
        "setsid sleep 1000 & echo $!; for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; wait";
    let task = with(shell(line), |spec| spec.pids_limit = 5);
    let limits = v1::Resources {
        nano_cpus: 500_000_000,
        ..Default::default()
    };
    let task = limited(task, limits);
    let mut controller = controller(&launching(), &task, dir.path());
    controller.prepare().await.unwrap();
    assert!(!groups_of(&task).is_empty());
    controller.start().await.unwrap();
    let exit = timeout(PATIENCE, controller.wait()).await.unwrap().unwrap();
    assert!(!exit.is_success(), "it cannot fork");
    let output = written(&launching(), &task, dir.path()).await;
    let escaped: i32 = output.lines().find_map(|line| line.parse().ok()).unwrap();
    until("what escaped is ended", || !crate::support::alive(escaped)).await;
    assert_eq!(groups_of(&task), Vec::<String>::new());
    controller.remove().await.unwrap();
}
