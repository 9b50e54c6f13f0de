//! The table of tasks that `service ps` and `task ls` show.

use std::{cmp::Reverse, collections::BTreeMap};

use skep_proto::v1::{Node, Task, TaskState, task_spec::Runtime};

use super::{Table, ago, enum_name, image_name, natural, short_id};

/// What goes before a task that was replaced by the one above it.
const HISTORY: &str = " \\_ ";

/// How nodes are called, by ID.
pub(crate) struct NodeNames(BTreeMap<String, String>);

impl NodeNames {
    pub(crate) fn new(nodes: &[Node]) -> Self {
        let name = |node: &Node| (node.id.clone(), node_name(node));
        Self(nodes.iter().map(name).collect())
    }

    /// The name of the node `id`, or the ID itself if it is gone.
    pub(crate) fn get<'a>(&'a self, id: &'a str) -> &'a str {
        self.0.get(id).map_or(id, String::as_str)
    }
}

/// What a node is called: the name it was given, else its hostname, else its ID.
pub(crate) fn node_name(node: &Node) -> String {
    let hostname = node
        .description
        .as_ref()
        .map_or("", |description| &description.hostname);
    [
        node.spec().annotations().name.as_str(),
        hostname,
        node.id.as_str(),
    ]
    .into_iter()
    .find(|name| !name.is_empty())
    .unwrap_or_default()
    .to_owned()
}

/// What a task is called: `<service>.<slot>`, or `<service>.<node ID>` where there are no slots.
pub(crate) fn task_name(task: &Task) -> String {
    if !task.annotations().name.is_empty() {
        return task.annotations().name.clone();
    }
    let service = match task.service_annotations().name.as_str() {
        "" => &task.service_id,
        name => name,
    };
    match (task.slot, task.node_id.as_str()) {
        (0, "") => service.to_owned(),
        (0, node) => format!("{service}.{node}"),
        (slot, _) => format!("{service}.{slot}"),
    }
}

/// The table of `tasks`, by name and then newest first; older tasks of the same name are indented
/// under the newest.
pub(crate) fn task_table(
    mut tasks: Vec<Task>,
    nodes: &NodeNames,
    now: jiff::Timestamp,
    whole_ids: bool,
) -> Table {
    tasks.sort_by_cached_key(|task| Reverse(created(task)));
    tasks.sort_by(|a, b| natural(&task_name(a), &task_name(b)));
    let mut table = Table::new([
        "ID",
        "NAME",
        "IMAGE",
        "NODE",
        "DESIRED STATE",
        "CURRENT STATE",
        "ERROR",
        "PORTS",
    ]);
    let mut above = String::new();
    for task in &tasks {
        let name = task_name(task);
        let shown = if name == above {
            format!("{HISTORY}{name}")
        } else {
            name.clone()
        };
        above = name;
        table.row([
            if whole_ids {
                &task.id
            } else {
                short_id(&task.id)
            }
            .to_owned(),
            shown,
            image(task).to_owned(),
            nodes.get(&task.node_id).to_owned(),
            enum_name(task.desired_state, TaskState::as_str_name),
            current_state(task, now),
            task.status().err.clone(),
            published_ports(task).join(","),
        ]);
    }
    table
}

/// When the task was made; tasks without that are the oldest.
fn created(task: &Task) -> (i64, i32) {
    task.meta()
        .created_at
        .as_ref()
        .map_or((i64::MIN, 0), |at| (at.seconds, at.nanos))
}

/// The image of the task, without a digest.
fn image(task: &Task) -> &str {
    match &task.spec().runtime {
        Some(Runtime::Container(container)) => image_name(&container.image),
        _ => "",
    }
}

/// The ports of its host under which a task is reached, as `*:8080->80/tcp`.
pub(crate) fn published_ports(task: &Task) -> Vec<String> {
    let ports = task.status().port_status.iter().flat_map(|it| &it.ports);
    let shown = ports.map(|port| {
        let protocol = port.protocol().as_str_name().to_lowercase();
        let (published, target) = (port.published_port, port.target_port);
        format!("*:{published}->{target}/{protocol}")
    });
    shown.collect()
}

/// `Running 5 seconds ago`.
fn current_state(task: &Task, now: jiff::Timestamp) -> String {
    let status = task.status();
    let state = enum_name(status.state, TaskState::as_str_name);
    match status.timestamp.as_ref().and_then(|since| ago(since, now)) {
        Some(since) => format!("{state} {since}"),
        None => state,
    }
}

#[cfg(test)]
mod tests {
    use skep_proto::{
        Shared, Timestamp,
        v1::{
            Annotations, ContainerSpec, Meta, NodeDescription, PortConfig, PortStatus, TaskSpec,
            TaskStatus, port_config::Protocol,
        },
    };

    use super::*;

    fn task(slot: u64, made: i64, state: TaskState, desired: TaskState) -> Task {
        Task {
            id: format!("task{slot}at{made}xxxxxxxxxxxx"),
            slot,
            node_id: "n1".to_owned(),
            meta: Some(Meta {
                created_at: Some(Timestamp {
                    seconds: made,
                    nanos: 0,
                }),
                ..Default::default()
            }),
            spec: Some(Shared::from(TaskSpec {
                runtime: Some(Runtime::Container(ContainerSpec {
                    image: "process".to_owned(),
                    ..Default::default()
                })),
                ..Default::default()
            })),
            service_annotations: Some(Annotations {
                name: "web".to_owned(),
                ..Default::default()
            }),
            status: Some(TaskStatus {
                timestamp: Some(Timestamp {
                    seconds: 995,
                    nanos: 0,
                }),
                state: state.into(),
                err: if state == TaskState::Failed {
                    "exit 1"
                } else {
                    ""
                }
                .to_owned(),
                ..Default::default()
            }),
            desired_state: desired.into(),
            ..Default::default()
        }
    }

    #[test]
    fn history_is_indented_under_the_newest_task() {
        let tasks = vec![
            task(10, 1, TaskState::Running, TaskState::Running),
            task(2, 1, TaskState::Failed, TaskState::Shutdown),
            task(2, 2, TaskState::Running, TaskState::Running),
        ];
        let node = Node {
            id: "n1".to_owned(),
            description: Some(NodeDescription {
                hostname: "host-1".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let now = jiff::Timestamp::from_second(1000).unwrap();
        let mut out = Vec::new();
        task_table(tasks, &NodeNames::new(&[node]), now, false)
            .write(&mut out)
            .unwrap();
        let expected = "\
ID             NAME        IMAGE     NODE     DESIRED STATE   CURRENT STATE           ERROR    PORTS
task2at2xxxx   web.2       process   host-1   Running         Running 5 seconds ago
task2at1xxxx    \\_ web.2   process   host-1   Shutdown        Failed 5 seconds ago    exit 1
task10at1xxx   web.10      process   host-1   Running         Running 5 seconds ago
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn ports_are_shown_as_docker_does() {
        let mut web = task(1, 1, TaskState::Running, TaskState::Running);
        assert!(published_ports(&web).is_empty());
        let port = |published_port, target_port, protocol: Protocol| PortConfig {
            published_port,
            target_port,
            protocol: protocol.into(),
            ..Default::default()
        };
        web.status_mut().port_status = Some(PortStatus {
            ports: vec![
                port(8080, 80, Protocol::Tcp),
                port(32768, 53, Protocol::Udp),
            ],
        });
        let shown = published_ports(&web).join(",");
        assert_eq!(shown, "*:8080->80/tcp,*:32768->53/udp");
        let now = jiff::Timestamp::from_second(1000).unwrap();
        let mut out = Vec::new();
        let table = task_table(vec![web], &NodeNames::new(&[]), now, false);
        table.write(&mut out).unwrap();
        assert!(String::from_utf8(out).unwrap().trim_end().ends_with(&shown));
    }

    #[test]
    fn tasks_without_a_slot_are_named_after_their_node() {
        let mut global = task(0, 1, TaskState::Running, TaskState::Running);
        assert_eq!(task_name(&global), "web.n1");
        global.service_annotations = None;
        global.service_id = "s1".to_owned();
        global.node_id = String::new();
        assert_eq!(task_name(&global), "s1");
    }
}
