//! Networks and ports.
//!
//! An engine that is not a member of the swarm has no overlay networks and no routing mesh. What
//! is left are the host's own networks, those that somebody made on this engine under the name of
//! the swarm's, and ports published on this host.

use std::collections::HashMap;

use bollard::models::{EndpointSettings, NetworkingConfig, PortBinding, PortMap};
use skep_proto::v1::{
    self,
    port_config::{Protocol, PublishMode},
};

use super::{map, some};

/// The label of networks that every engine has, such as `host`.
const PREDEFINED: &str = "com.docker.swarm.predefined";

/// A network to attach a container to once it is created.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) struct Attachment {
    pub(in super::super) network: String,
    pub(in super::super) endpoint: EndpointSettings,
}

#[derive(Default)]
pub(super) struct Networks {
    pub(super) mode: Option<String>,
    pub(super) first: Option<NetworkingConfig>,
    /// Older engines take only one network when a container is created.
    pub(super) further: Vec<Attachment>,
    pub(super) exposed: Vec<String>,
    pub(super) ports: Option<PortMap>,
}

pub(super) fn plan(task: &v1::Task) -> Result<Networks, String> {
    let mut planned = Networks::default();
    for attachment in &task.networks {
        let empty = v1::Network::default();
        let network = attachment.network.as_ref().unwrap_or(&empty);
        let annotations = network.spec().annotations();
        let name = annotations.name.clone();
        let predefined = annotations.labels.contains_key(PREDEFINED);
        let driver = network.driver_state.as_ref();
        let driver = driver.or(network.spec().driver_config.as_ref());
        let driver = driver.map_or("", |driver| driver.name.as_str());
        if !predefined && matches!(driver, "" | "overlay") {
            return Err(format!(
                "network {name:?} is an overlay, which only engines have that joined the swarm \
                 themselves: run the task on one of those"
            ));
        }
        let endpoint = EndpointSettings {
            aliases: some(attachment.aliases.clone()),
            driver_opts: map(&attachment.driver_attachment_opts),
            ..EndpointSettings::default()
        };
        if planned.mode.is_some() {
            planned.further.push(Attachment {
                network: name,
                endpoint,
            });
            continue;
        }
        planned.mode = Some(name.clone());
        // The engine's own networks know no aliases.
        if !predefined {
            planned.first = Some(NetworkingConfig {
                endpoints_config: Some(HashMap::from([(name, endpoint)])),
            });
        }
    }
    let mut ports = PortMap::new();
    for port in task.endpoint.iter().flat_map(|endpoint| &endpoint.ports) {
        if port.publish_mode() != PublishMode::Host {
            return Err(format!(
                "port {} is published by the routing mesh, which only engines have that joined \
                 the swarm themselves: publish it in mode host",
                port.target_port
            ));
        }
        let protocol = match port.protocol() {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        let key = format!("{}/{protocol}", port.target_port);
        let binding = PortBinding {
            host_ip: None,
            // None: the engine chooses one.
            host_port: (port.published_port != 0).then(|| port.published_port.to_string()),
        };
        let bindings = ports.entry(key.clone()).or_default();
        bindings.get_or_insert_default().push(binding);
        if !planned.exposed.contains(&key) {
            planned.exposed.push(key);
        }
    }
    planned.ports = (!ports.is_empty()).then_some(ports);
    Ok(planned)
}
