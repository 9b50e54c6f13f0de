//! The ports under which a container is reached, as the engine tells them.
//!
//! An engine binds a port once for IPv4 and once for IPv6. The status of a task has no addresses,
//! so what differs only in those is told once.

use bollard::models::PortMap;
use skep_proto::v1::{
    PortConfig,
    port_config::{Protocol, PublishMode},
};

/// What is published, in a fixed order. What the engine says of a port that makes no sense is left
/// out: a status is no reason to end a task.
pub(super) fn published(ports: PortMap) -> Vec<PortConfig> {
    let mut all: Vec<_> = ports
        .into_iter()
        .filter_map(|(key, bindings)| {
            let (target, protocol) = target(&key)?;
            Some((target, protocol, bindings.unwrap_or_default()))
        })
        .flat_map(|(target, protocol, bindings)| {
            let published = bindings
                .into_iter()
                .filter_map(|binding| binding.host_port?.parse::<u16>().ok());
            published.map(move |published| (target, protocol as i32, published))
        })
        .collect();
    all.sort_unstable();
    all.dedup();
    let config = |(target, protocol, published): (u16, i32, u16)| PortConfig {
        protocol,
        target_port: target.into(),
        published_port: published.into(),
        publish_mode: PublishMode::Host.into(),
        ..PortConfig::default()
    };
    all.into_iter().map(config).collect()
}

/// The port in the container, of `80/tcp`.
fn target(key: &str) -> Option<(u16, Protocol)> {
    let (port, protocol) = key.split_once('/').unwrap_or((key, "tcp"));
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        _ => return None,
    };
    Some((port.parse().ok()?, protocol))
}

#[cfg(test)]
mod tests {
    use bollard::models::PortBinding;

    use super::*;

    #[test]
    fn a_port_is_told_once_for_all_addresses() {
        let bound = |ip: &str, port: &str| PortBinding {
            host_ip: Some(ip.to_owned()),
            host_port: Some(port.to_owned()),
        };
        let map = PortMap::from([
            (
                "80/tcp".to_owned(),
                Some(vec![bound("0.0.0.0", "32768"), bound("::", "32768")]),
            ),
            // Older engines choose a port of their own for each family.
            (
                "53/udp".to_owned(),
                Some(vec![bound("::", "32770"), bound("0.0.0.0", "32769")]),
            ),
            // Exposed by the image and not published.
            ("443/tcp".to_owned(), None),
            ("9/odd".to_owned(), Some(vec![bound("::", "1")])),
            ("7/tcp".to_owned(), Some(vec![bound("::", "none")])),
        ]);
        let ports = published(map);
        let short = |port: &PortConfig| (port.target_port, port.protocol(), port.published_port);
        assert_eq!(
            ports.iter().map(short).collect::<Vec<_>>(),
            [
                (53, Protocol::Udp, 32769),
                (53, Protocol::Udp, 32770),
                (80, Protocol::Tcp, 32768),
            ]
        );
        assert!(
            ports
                .iter()
                .all(|port| port.publish_mode() == PublishMode::Host)
        );
    }
}
