//! One look at a service: the calls, and what they brought together.

use std::collections::{BTreeMap, BTreeSet};

use skep_proto::v1::{
    GetServiceRequest, ListNodesRequest, ListTasksRequest, Node, Service, Task,
    list_tasks_request::Filters, node_status,
};
use tonic::Status;

use crate::client::Client;

/// A service with all that is known of its tasks. The parts were read one after another, so they
/// may be of slightly different moments.
#[derive(Debug, Default)]
pub(crate) struct Observation {
    pub service: Service,
    /// All tasks of the service, old ones included.
    pub tasks: Vec<Task>,
    /// The IDs of those of them that have the current spec.
    pub up_to_date: BTreeSet<String>,
    /// The nodes of the cluster by ID.
    pub nodes: BTreeMap<String, Host>,
}

/// What matters of a node.
#[derive(Debug)]
pub(crate) struct Host {
    pub name: String,
    pub down: bool,
}

impl From<&Node> for Host {
    fn from(node: &Node) -> Self {
        let hostname = node
            .description
            .as_ref()
            .map_or("", |description| &description.hostname);
        let name = if hostname.is_empty() {
            &node.id
        } else {
            hostname
        };
        Self {
            name: name.to_owned(),
            down: node.status().state() == node_status::State::Down,
        }
    }
}

/// Looks at the service with the full ID `service_id`.
pub(crate) async fn observe(client: &Client, service_id: &str) -> Result<Observation, Status> {
    let tasks = |up_to_date| ListTasksRequest {
        filters: Some(Filters {
            service_ids: vec![service_id.to_owned()],
            up_to_date,
            ..Default::default()
        }),
    };
    let mut calls = [
        client.control(),
        client.control(),
        client.control(),
        client.control(),
    ];
    let [one, two, three, four] = &mut calls;
    let (service, all, current, nodes) = tokio::try_join!(
        one.get_service(GetServiceRequest {
            service_id: service_id.to_owned(),
            insert_defaults: false,
        }),
        two.list_tasks(tasks(false)),
        three.list_tasks(tasks(true)),
        four.list_nodes(ListNodesRequest::default()),
    )?;
    let nodes = &nodes.get_ref().nodes;
    Ok(Observation {
        service: service.into_inner().service.unwrap_or_default(),
        tasks: all.into_inner().tasks,
        up_to_date: current
            .into_inner()
            .tasks
            .into_iter()
            .map(|task| task.id)
            .collect(),
        nodes: nodes
            .iter()
            .map(|node| (node.id.clone(), Host::from(node)))
            .collect(),
    })
}
