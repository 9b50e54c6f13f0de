//! A running `swarmd dev`, as its user sees it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Stdio,
};

use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use skep_proto::v1::{
    GetServiceRequest, ListNodesRequest, ListServicesRequest, ListTasksRequest, Node,
    ReplicatedService, Service, Task, TaskState, UpdateServiceRequest, list_tasks_request,
    node_status::State, service_spec::Mode, task_status::RuntimeStatus,
};
use swarmctl::client::Client;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::watch,
};

use crate::wait::{PATIENCE, eventually};

/// Marks the processes of one test's services, so that they can be found.
const MARK: &str = "SKEP_DEV_TEST";

/// A running `swarmd dev`. Dropping it kills it; what it started then ends by itself.
pub struct Dev {
    dir: PathBuf,
    child: Child,
    /// Everything it has printed.
    output: watch::Receiver<String>,
    again: Vec<Child>,
}

impl Dev {
    /// `swarmd dev` on a directory, with quiet logs.
    pub fn command(dir: &Path) -> std::process::Command {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_swarmd"));
        command.args(["dev", "--state-dir"]).arg(dir).env(MARK, dir);
        command
    }

    /// Starts it and waits until it says that all is up.
    pub async fn start(dir: &Path, args: &[&str]) -> Self {
        let mut command = Command::from(Self::command(dir));
        command.args(args).args(["--", "sleep", "1000"]);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, output) = watch::channel(String::new());
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                sender.send_modify(|text| {
                    text.push_str(&line);
                    text.push('\n');
                });
            }
        });
        let dev = Self {
            dir: dir.to_owned(),
            child,
            output,
            again: Vec::new(),
        };
        dev.says("Ctrl-C ends it all.").await;
        dev
    }

    /// Waits until it has printed `text`.
    pub async fn says(&self, text: &str) -> String {
        let mut output = self.output.clone();
        let said = output.wait_for(|output| output.contains(text));
        match tokio::time::timeout(PATIENCE, said).await {
            Ok(Ok(output)) => output.clone(),
            _ => panic!("it never said {text:?}: {}", *self.output.borrow()),
        }
    }

    /// Ends it as Ctrl-C does and waits until it has.
    pub async fn interrupt(&mut self) {
        let pid = Pid::from_raw(self.child.id().unwrap().try_into().unwrap()).unwrap();
        kill_process(pid, Signal::INT).unwrap();
        let status = tokio::time::timeout(PATIENCE, self.child.wait())
            .await
            .unwrap()
            .unwrap();
        assert!(status.success(), "{status}");
    }

    fn pid(&self, node: &str) -> Pid {
        let pid = fs::read_to_string(self.dir.join(node).join("swarmd.lock")).unwrap();
        Pid::from_raw(pid.parse().unwrap()).unwrap()
    }

    /// Kills a node's daemon with SIGKILL.
    pub async fn kill(&mut self, node: &str) {
        kill_process(self.pid(node), Signal::KILL).unwrap();
        self.says(&format!("{node} ended (signal: 9 (SIGKILL))"))
            .await;
    }

    /// The line it printed to start a node that ended again with.
    async fn restart_line(&self, node: &str) -> String {
        let ended = format!("{node} ended");
        let line = |output: &str| {
            output
                .lines()
                .skip_while(|line| !line.starts_with(&ended))
                .find_map(|line| line.trim().strip_prefix("start it again with: "))
                .map(str::to_owned)
        };
        let mut output = self.output.clone();
        let said = output.wait_for(|output| line(output).is_some());
        match tokio::time::timeout(PATIENCE, said).await {
            Ok(Ok(output)) => line(&output).unwrap(),
            _ => panic!("no line to start {node} with in {}", *self.output.borrow()),
        }
    }

    /// Starts it again by the line that was printed when it ended.
    pub async fn start_again(&mut self, node: &str) {
        let line = self.restart_line(node).await;
        let mut words = line.split(' ');
        let log = fs::File::options()
            .append(true)
            .create(true)
            .open(self.dir.join(node).join("again.log"))
            .unwrap();
        let child = Command::new(words.next().unwrap())
            .args(words)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .env(MARK, &self.dir)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        self.again.push(child);
    }

    /// A client of some manager that answers.
    async fn client(&self) -> Client {
        eventually("a manager that answers", async || {
            for number in 1..=3 {
                let socket = self
                    .dir
                    .join(format!("manager-{number}"))
                    .join("swarmd.sock");
                if let Ok(client) = Client::connect(&socket).await {
                    return Some(client);
                }
            }
            None
        })
        .await
    }

    async fn nodes(&self) -> Option<Vec<Node>> {
        let client = self.client().await;
        let nodes = client
            .control()
            .list_nodes(ListNodesRequest::default())
            .await
            .ok()?;
        Some(nodes.into_inner().nodes)
    }

    async fn node(&self, name: &str) -> Option<Node> {
        self.nodes().await?.into_iter().find(|node| {
            node.description
                .as_ref()
                .is_some_and(|description| description.hostname == name)
        })
    }

    /// The manager that leads.
    pub async fn leader(&self) -> String {
        eventually("a leader", async || {
            let leads = |node: &Node| {
                node.manager_status
                    .as_ref()
                    .is_some_and(|status| status.leader)
            };
            let node = self.nodes().await?.into_iter().find(leads)?;
            node.description.map(|description| description.hostname)
        })
        .await
    }

    /// Waits until a node is in a state.
    pub async fn node_is(&self, name: &str, state: State) {
        eventually(&format!("{name} {state:?}"), async || {
            (self.node(name).await?.status().state() == state).then_some(())
        })
        .await;
    }

    /// A service by name.
    pub async fn service(&self, name: &str) -> Service {
        eventually("the service", async || {
            let client = self.client().await;
            let listed = client
                .control()
                .list_services(ListServicesRequest::default())
                .await
                .ok()?;
            let mut services = listed.into_inner().services.into_iter();
            services.find(|service| service.spec().annotations().name == name)
        })
        .await
    }

    /// Sets the number of tasks, through whichever manager answers.
    pub async fn scale(&self, name: &str, replicas: u64) {
        eventually("the update", async || {
            let service_id = self.service(name).await.id;
            let mut control = self.client().await.control();
            let request = GetServiceRequest {
                service_id,
                insert_defaults: false,
            };
            let service = control
                .get_service(request)
                .await
                .ok()?
                .into_inner()
                .service?;
            let mut spec = service.spec().clone();
            spec.mode = Some(Mode::Replicated(ReplicatedService { replicas }));
            let request = UpdateServiceRequest {
                service_id: service.id.clone(),
                service_version: service.meta().version,
                spec: Some(spec),
                ..Default::default()
            };
            control.update_service(request).await.ok()
        })
        .await;
    }

    async fn wanted(&self, name: &str) -> Option<Vec<Task>> {
        let filters = list_tasks_request::Filters {
            service_ids: vec![self.service(name).await.id],
            ..Default::default()
        };
        let request = ListTasksRequest {
            filters: Some(filters),
        };
        let mut tasks = self
            .client()
            .await
            .control()
            .list_tasks(request)
            .await
            .ok()?
            .into_inner()
            .tasks;
        tasks.retain(|task| task.desired_state() <= TaskState::Running);
        Some(tasks)
    }

    /// Process IDs of a service's tasks, waited for until exactly `count` are wanted and run.
    pub async fn task_processes(&self, name: &str, count: usize) -> BTreeSet<i32> {
        eventually(&format!("{count} running tasks"), async || {
            let tasks = self.wanted(name).await?;
            let running = tasks
                .iter()
                .all(|task| task.status().state() == TaskState::Running);
            let pids: BTreeSet<_> = tasks.iter().filter_map(pid).collect();
            let alive = pids.iter().all(|&pid| is_alive(pid));
            (running && alive && pids.len() == count && tasks.len() == count).then_some(pids)
        })
        .await
    }

    /// Process IDs of a service's tasks on one node.
    pub async fn task_processes_on(&self, name: &str, node: &str) -> BTreeSet<i32> {
        let node = self.node(node).await.unwrap().id;
        let tasks = self.wanted(name).await.unwrap();
        tasks
            .iter()
            .filter(|task| task.node_id == node)
            .filter_map(pid)
            .collect()
    }

    /// Waits until these processes are gone.
    pub async fn gone(&self, pids: &BTreeSet<i32>) {
        eventually("the end of stray processes", async || {
            pids.iter().all(|&pid| !is_alive(pid)).then_some(())
        })
        .await;
    }
}

fn pid(task: &Task) -> Option<i32> {
    let RuntimeStatus::Container(container) = task.status().runtime_status.as_ref()?;
    Some(container.pid)
}

fn is_alive(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid).is_ok())
}

/// Processes that belong to the cluster in `dir`: its daemons by their command line, and its tasks by
/// the directory they were started from or the mark their daemon's tasks carry.
pub fn processes_of(dir: &Path) -> Vec<i32> {
    let dir = dir.canonicalize().unwrap().display().to_string();
    let tasks = task_marks(Path::new(&dir));
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else {
            continue;
        };
        let command = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
        let is_daemon = contains(&command, dir.as_bytes());
        let is_task = environment.split(|&byte| byte == 0).any(|variable| {
            String::from_utf8_lossy(variable)
                .strip_prefix("SKEP_TASK_ID=")
                .is_some_and(|id| tasks.contains_key(id))
        });
        if is_daemon || is_task {
            found.push(pid);
        }
    }
    found
}

/// IDs of all tasks that nodes of this cluster know.
fn task_marks(dir: &Path) -> BTreeMap<String, PathBuf> {
    let mut tasks = BTreeMap::new();
    for node in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = node.path().join("worker").join("tasks");
        for task in fs::read_dir(path).into_iter().flatten().flatten() {
            tasks.insert(task.file_name().to_string_lossy().into_owned(), task.path());
        }
    }
    tasks
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}
