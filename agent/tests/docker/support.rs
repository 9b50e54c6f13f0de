//! An engine with an image, and tasks for it.

use std::{path::PathBuf, process::Command, sync::Arc, time::Duration};

use bollard::{Docker, query_parameters::CreateImageOptionsBuilder};
use bytes::Bytes;
use futures_util::{StreamExt as _, TryStreamExt as _};
use skep_agent::{
    Dependencies,
    executor::{
        Controller, Executor, TaskContext,
        docker::{DockerExecutor, Engine},
    },
};
use skep_proto::v1::{self, LogSubscriptionOptions, task_spec::Runtime};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// A tag that no registry has.
pub(crate) const IMAGE: &str = "registry.invalid/skep-test:busybox";
const BUSYBOX: [&str; 2] = ["/usr/bin/busybox", "/bin/busybox"];

/// An engine, and an executor on it.
pub(crate) struct Bench {
    pub(crate) docker: Docker,
    pub(crate) executor: DockerExecutor,
    pub(crate) dependencies: Dependencies,
    /// The ID of an image that has a shell.
    pub(crate) image: String,
    pub(crate) dir: TempDir,
}

/// `None`, with the reason printed, if there is no engine to test with.
pub(crate) async fn bench() -> Option<Bench> {
    let skip = |why: &str| {
        assert!(
            std::env::var("SKEP_REQUIRE_ALL").as_deref() != Ok("1"),
            "{why}"
        );
        eprintln!("skipped: {why}");
    };
    let Ok(socket) = std::env::var("SKEP_TEST_DOCKER") else {
        skip("SKEP_TEST_DOCKER names no engine's socket");
        return None;
    };
    let Some(busybox) = BUSYBOX.iter().find(|path| PathBuf::from(path).exists()) else {
        skip("there is no busybox to make an image of");
        return None;
    };
    let engine = Engine::connect(&socket).await.unwrap();
    let docker = Docker::connect_with_unix(&socket, 60, bollard::API_DEFAULT_VERSION).unwrap();
    let docker = docker.negotiate_version().await.unwrap();
    Some(Bench {
        image: image(&docker, busybox).await,
        docker,
        executor: DockerExecutor::new(engine).await.unwrap(),
        dependencies: Dependencies::default(),
        dir: tempfile::tempdir().unwrap(),
    })
}

/// Makes the image, unless an earlier test has.
async fn image(docker: &Docker, busybox: &str) -> String {
    if let Ok(found) = docker.inspect_image(IMAGE).await {
        return found.id.unwrap();
    }
    let root = tempfile::tempdir().unwrap();
    let script = r#"
        mkdir -p "$1/bin" "$1/etc" "$1/tmp" "$1/run"
        cp "$2" "$1/bin/busybox"
        for name in sh cat stat id pwd hostname mount sleep touch rm tail grep nproc ls echo; do
            ln "$1/bin/busybox" "$1/bin/$name"
        done
        printf 'root:x:0:0::/:/bin/sh\nweb:x:7:8::/:/bin/sh\n' > "$1/etc/passwd"
        tar -C "$1" -c .
    "#;
    let tar = Command::new("sh")
        .args(["-ec", script, "sh"])
        .arg(root.path())
        .arg(busybox)
        .output()
        .unwrap();
    assert!(tar.status.success(), "{tar:?}");
    let (repo, tag) = IMAGE.rsplit_once(':').unwrap();
    let options = CreateImageOptionsBuilder::new()
        .from_src("-")
        .repo(repo)
        .tag(tag);
    let body = bollard::body_full(Bytes::from(tar.stdout));
    let done = docker.create_image(Some(options.build()), Some(body), None);
    done.try_collect::<Vec<_>>().await.unwrap();
    docker.inspect_image(IMAGE).await.unwrap().id.unwrap()
}

impl Bench {
    /// A task that runs a line in a shell.
    pub(crate) fn shell(&self, line: &str) -> v1::Task {
        let mut task = v1::Task {
            id: skep_proto::id::random(),
            service_id: skep_proto::id::random(),
            node_id: skep_proto::id::random(),
            slot: 1,
            ..Default::default()
        };
        task.service_annotations_mut().name = "test".to_owned();
        let spec = v1::ContainerSpec {
            image: self.image.clone(),
            command: ["sh", "-c", line].map(str::to_owned).into(),
            stop_grace_period: Some(skep_proto::Duration {
                seconds: 30,
                nanos: 0,
            }),
            ..Default::default()
        };
        task.spec_mut().runtime = Some(Runtime::Container(spec));
        task
    }

    fn context(&self, task: &v1::Task) -> TaskContext {
        TaskContext {
            task: Arc::new(task.clone()),
            dir: self.dir.path().to_owned(),
            dependencies: self.dependencies.clone(),
        }
    }

    pub(crate) fn controller(&self, task: &v1::Task) -> Box<dyn Controller> {
        self.executor.controller(self.context(task)).unwrap()
    }

    /// The task's controller, with its container created.
    pub(crate) async fn prepared(&self, task: &v1::Task) -> Box<dyn Controller> {
        let mut controller = self.controller(task);
        controller.prepare().await.unwrap();
        controller
    }

    /// The task's controller, with its container started.
    pub(crate) async fn started(&self, task: &v1::Task) -> Box<dyn Controller> {
        let mut controller = self.prepared(task).await;
        controller.start().await.unwrap();
        controller
    }

    /// What the task wrote, of `options`.
    pub(crate) async fn logs(
        &self,
        task: &v1::Task,
        options: LogSubscriptionOptions,
    ) -> Vec<(v1::LogStream, String)> {
        let lines = self.executor.logs(&self.context(task), options).unwrap();
        let lines = lines.map(|line| {
            let line = line.unwrap();
            (line.stream, String::from_utf8(line.data.into()).unwrap())
        });
        tokio::time::timeout(PATIENCE, lines.collect())
            .await
            .unwrap()
    }

    /// Runs a task to its end, wherever that is, and takes it away: what it wrote to stdout.
    pub(crate) async fn output(&self, task: &v1::Task) -> Vec<String> {
        let mut controller = self.started(task).await;
        let exit = tokio::time::timeout(PATIENCE, controller.wait()).await;
        let exit = exit.unwrap().unwrap();
        let lines = self.logs(task, LogSubscriptionOptions::default()).await;
        assert!(exit.is_success(), "{exit:?} {lines:?}");
        controller.remove().await.unwrap();
        let lines = lines
            .into_iter()
            .map(|(_, line)| line.trim_end().to_owned());
        lines.collect()
    }

    /// IDs of all containers of a task.
    pub(crate) async fn containers(&self, task: &v1::Task) -> Vec<String> {
        let label = format!("com.docker.swarm.task.id={}", task.id);
        let filters = std::collections::HashMap::from([("label", vec![label])]);
        let options = bollard::query_parameters::ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters);
        let listed = self.docker.list_containers(Some(options.build())).await;
        listed.unwrap().into_iter().filter_map(|it| it.id).collect()
    }
}

/// Changes the container spec of a task.
pub(crate) fn with(mut task: v1::Task, change: impl FnOnce(&mut v1::ContainerSpec)) -> v1::Task {
    if let Some(Runtime::Container(spec)) = &mut task.spec_mut().runtime {
        change(spec);
    }
    task
}
