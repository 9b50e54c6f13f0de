//! Which nodes can take a task, and how it is said that none can.

use std::cmp::Reverse;

use skep_proto::{
    executor,
    v1::{Placement, Platform, Task, task_spec::Runtime},
};

use super::{node_info::NodeInfo, plugins::Needed};
use crate::reconcilers::constraint::{self, Constraint};

/// What can speak against a node, in the order in which it is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Filter {
    Ready,
    Resource,
    Plugin,
    Executor,
    Constraint,
    Platform,
    HostPort,
    MaxReplicas,
}

impl Filter {
    const ALL: [Self; 8] = [
        Self::Ready,
        Self::Resource,
        Self::Plugin,
        Self::Executor,
        Self::Constraint,
        Self::Platform,
        Self::HostPort,
        Self::MaxReplicas,
    ];

    /// What users are told when `n` nodes failed it.
    fn explain(self, n: usize) -> String {
        let on = |what: &str| match n {
            1 => format!("{what} on 1 node"),
            n => format!("{what} on {n} nodes"),
        };
        match self {
            Self::Ready if n == 1 => "1 node not available for new tasks".to_owned(),
            Self::Ready => format!("{n} nodes not available for new tasks"),
            Self::Resource => on("insufficient resources"),
            Self::Plugin => on("missing plugin"),
            Self::Executor => on("no executor for the image"),
            Self::Constraint => on("scheduling constraints not satisfied"),
            Self::Platform => on("unsupported platform"),
            Self::HostPort => on("host-mode port already in use"),
            Self::MaxReplicas => "max replicas per node limit exceed".to_owned(),
        }
    }
}

/// All filters, prepared for one task. Tasks of a group are alike to them.
#[derive(Debug)]
pub(super) struct Pipeline<'a> {
    task: &'a Task,
    plugins: Needed<'a>,
    constraints: Vec<Constraint>,
    platforms: &'a [Platform],
    max_replicas: u64,
}

impl<'a> Pipeline<'a> {
    pub fn new(task: &'a Task) -> Self {
        let placement: Option<&Placement> = task.spec().placement.as_ref();
        Self {
            task,
            plugins: Needed::of(task),
            // They were checked when the service was made; SwarmKit ignores what it cannot read.
            constraints: placement
                .and_then(|p| constraint::parse(&p.constraints).ok())
                .unwrap_or_default(),
            platforms: placement.map_or(&[], |p| &p.platforms),
            max_replicas: placement.map_or(0, |p| p.max_replicas),
        }
    }

    /// The first filter that the node fails.
    pub fn obstacle(&self, info: &NodeInfo) -> Option<Filter> {
        Filter::ALL
            .into_iter()
            .find(|filter| !self.passes(*filter, info))
    }

    /// Why none of the nodes can take the task: most frequent reasons first, empty if there are no
    /// nodes.
    pub fn explain<'n>(&self, nodes: impl IntoIterator<Item = &'n NodeInfo>) -> String {
        let mut counts = Filter::ALL.map(|filter| (filter, 0_usize));
        for filter in nodes.into_iter().filter_map(|info| self.obstacle(info)) {
            for (counted, n) in &mut counts {
                *n += usize::from(*counted == filter);
            }
        }
        counts.sort_by_key(|&(_, n)| Reverse(n));
        let texts = counts
            .iter()
            .filter(|(_, n)| *n > 0)
            .map(|(filter, n)| filter.explain(*n));
        texts.collect::<Vec<_>>().join("; ")
    }

    fn passes(&self, filter: Filter, info: &NodeInfo) -> bool {
        match filter {
            Filter::Ready => info.is_ready(),
            Filter::Resource => info.free.fits(self.task),
            Filter::Plugin => self.plugins.are_on(info),
            Filter::Executor => runs_image(self.task, info),
            Filter::Constraint => self.constraints.iter().all(|c| c.matches(&info.node)),
            Filter::Platform => self.platforms.is_empty() || self.supports_platform(info),
            Filter::HostPort => info.has_ports_for(self.task),
            Filter::MaxReplicas => {
                self.max_replicas == 0
                    || (info.active_of(&self.task.service_id) as u64) < self.max_replicas
            }
        }
    }

    fn supports_platform(&self, info: &NodeInfo) -> bool {
        let description = info.node.description.as_ref();
        let Some(node) = description.and_then(|d| d.platform.as_ref()) else {
            return false;
        };
        self.platforms.iter().any(|wanted| {
            (wanted.os.is_empty() || wanted.os == node.os)
                && (wanted.architecture.is_empty()
                    || go_name(&wanted.architecture) == go_name(&node.architecture))
        })
    }
}

/// Whether the node runs what the task's image stands for. One that reports no engine is not asked.
fn runs_image(task: &Task, info: &NodeInfo) -> bool {
    let Some(Runtime::Container(container)) = &task.spec().runtime else {
        return true;
    };
    let description = info.node.description.as_ref();
    let Some(engine) = description.and_then(|d| d.engine.as_ref()) else {
        return true;
    };
    let is_process = container.image == executor::PROCESS_IMAGE;
    let mut plugins = engine.plugins.iter();
    match plugins.find(|plugin| plugin.r#type == executor::PLUGIN) {
        None => !is_process,
        Some(plugin) => is_process || plugin.name != executor::PROCESS,
    }
}

/// Go's name for an architecture that `uname` names differently.
fn go_name(architecture: &str) -> &str {
    match architecture {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{
        ContainerSpec, Endpoint, EngineDescription, Node, NodeDescription, PluginDescription,
        PortConfig, node_spec::Availability, node_status, port_config::PublishMode,
    };

    use super::*;

    fn node(id: &str) -> Node {
        let mut node = Node {
            id: id.to_owned(),
            description: Some(NodeDescription {
                platform: Some(Platform {
                    architecture: "x86_64".to_owned(),
                    os: "linux".to_owned(),
                }),
                ..NodeDescription::default()
            }),
            ..Node::default()
        };
        node.status_mut().set_state(node_status::State::Ready);
        node
    }

    fn placed(placement: Placement) -> Task {
        let mut task = Task::default();
        task.spec_mut().placement = Some(placement);
        task
    }

    fn obstacle(task: &Task) -> Option<Filter> {
        Pipeline::new(task).obstacle(&NodeInfo::new(node("a").into()))
    }

    #[test]
    fn images_go_to_engines_and_commands_to_hosts() {
        let task = |image: &str| {
            let mut task = Task::default();
            task.spec_mut().runtime = Some(Runtime::Container(ContainerSpec {
                image: image.to_owned(),
                ..Default::default()
            }));
            task
        };
        let fits = |image: &str, executor: Option<&str>| {
            let mut node = node("a");
            let plugins = executor.map(|name| PluginDescription {
                r#type: executor::PLUGIN.to_owned(),
                name: name.to_owned(),
            });
            node.description.get_or_insert_default().engine = Some(EngineDescription {
                plugins: plugins.into_iter().collect(),
                ..Default::default()
            });
            Pipeline::new(&task(image)).obstacle(&NodeInfo::new(node.into()))
                != Some(Filter::Executor)
        };
        assert!(fits("nginx", None) && !fits("process", None));
        assert!(!fits("nginx", Some("process")) && fits("process", Some("process")));
        assert!(fits("nginx", Some("null")) && fits("process", Some("null")));
    }

    #[test]
    fn only_ready_and_active_nodes() {
        let task = Task::default();
        assert_eq!(obstacle(&task), None);
        let pipeline = Pipeline::new(&task);
        for state in [
            node_status::State::Unknown,
            node_status::State::Down,
            node_status::State::Disconnected,
        ] {
            let mut node = node("a");
            node.status_mut().set_state(state);
            assert_eq!(
                pipeline.obstacle(&NodeInfo::new(node.into())),
                Some(Filter::Ready)
            );
        }
        for availability in [Availability::Pause, Availability::Drain] {
            let mut node = node("a");
            node.spec_mut().set_availability(availability);
            assert_eq!(
                pipeline.obstacle(&NodeInfo::new(node.into())),
                Some(Filter::Ready)
            );
        }
    }

    #[test]
    fn platforms_have_two_names() {
        let task = |architecture: &str, os: &str| {
            placed(Placement {
                platforms: vec![Platform {
                    architecture: architecture.into(),
                    os: os.into(),
                }],
                ..Placement::default()
            })
        };
        for (architecture, os) in [("amd64", "linux"), ("x86_64", ""), ("", "linux"), ("", "")] {
            assert_eq!(
                obstacle(&task(architecture, os)),
                None,
                "{architecture} {os}"
            );
        }
        assert_eq!(obstacle(&task("arm64", "linux")), Some(Filter::Platform));
        assert_eq!(obstacle(&task("amd64", "windows")), Some(Filter::Platform));
    }

    #[test]
    fn host_ports_and_copies_are_counted() {
        let mut task = placed(Placement {
            max_replicas: 1,
            ..Placement::default()
        });
        task.set_desired_state(skep_proto::v1::TaskState::Running);
        task.endpoint = Some(Endpoint {
            ports: vec![PortConfig {
                publish_mode: PublishMode::Host.into(),
                published_port: 80,
                ..PortConfig::default()
            }],
            ..Endpoint::default()
        });
        let node = node("a");
        let mut info = NodeInfo::new(node.into());
        assert_eq!(Pipeline::new(&task).obstacle(&info), None);
        info.add(&task);
        assert_eq!(Pipeline::new(&task).obstacle(&info), Some(Filter::HostPort));
        let mut portless = task.clone();
        portless.endpoint = None;
        assert_eq!(
            Pipeline::new(&portless).obstacle(&info),
            Some(Filter::MaxReplicas)
        );
    }

    #[test]
    fn reasons_are_told_most_frequent_first() {
        let task = placed(Placement {
            constraints: vec!["node.id==x".to_owned()],
            ..Placement::default()
        });
        let mut down = node("down");
        down.status_mut().set_state(node_status::State::Down);
        let nodes = [node("a"), node("b")];
        let infos: Vec<_> = [&down, &nodes[0], &nodes[1]]
            .map(|node| NodeInfo::new(node.clone().into()))
            .into();
        assert_eq!(
            Pipeline::new(&task).explain(&infos),
            "scheduling constraints not satisfied on 2 nodes; 1 node not available for new tasks"
        );
        assert_eq!(Pipeline::new(&task).explain(&infos[..0]), "");
        assert_eq!(
            Filter::Ready.explain(2),
            "2 nodes not available for new tasks"
        );
        assert_eq!(
            Filter::Resource.explain(1),
            "insufficient resources on 1 node"
        );
        assert_eq!(Filter::Plugin.explain(2), "missing plugin on 2 nodes");
    }
}
