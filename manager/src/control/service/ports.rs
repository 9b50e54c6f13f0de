//! Published ports that other services have.

use std::collections::BTreeSet;

use skep_proto::v1::{Network, PortConfig, Service, ServiceSpec, port_config::PublishMode};
use skep_store::{By, Tx};

use super::networks::is_ingress;
use crate::control::ApiError;

/// A port number and a protocol.
type Port = (u32, i32);

/// Fails if a published port of `spec` is taken by a service other than `own`, or needs an ingress
/// network that is not there. Several services may publish a port in host mode: the scheduler keeps
/// them apart.
pub fn check(tx: &Tx, spec: &ServiceSpec, own: Option<&str>) -> Result<(), ApiError> {
    let ports = spec
        .endpoint
        .as_ref()
        .map_or(&[][..], |endpoint| &endpoint.ports);
    let published = |mode: PublishMode| -> BTreeSet<Port> {
        ports
            .iter()
            .filter(|port| port.published_port != 0 && port.publish_mode() == mode)
            .map(number)
            .collect()
    };
    let (ingress, host) = (
        published(PublishMode::Ingress),
        published(PublishMode::Host),
    );
    if !ingress.is_empty() || !host.is_empty() {
        tx.find::<Service>(By::All)
            .filter(|service| own != Some(service.id.as_str()))
            .try_for_each(|service| check_other(service, &ingress, &host))?;
    }
    let needs_ingress = ports
        .iter()
        .any(|port| port.publish_mode() == PublishMode::Ingress);
    if needs_ingress
        && !tx
            .find::<Network>(By::All)
            .any(|network| is_ingress(network))
    {
        return Err(ApiError::FailedPrecondition(
            "service needs ingress network, but no ingress network is present".to_owned(),
        ));
    }
    Ok(())
}

fn check_other(
    service: &Service,
    ingress: &BTreeSet<Port>,
    host: &BTreeSet<Port>,
) -> Result<(), ApiError> {
    let wished = service.spec().endpoint.iter().flat_map(|spec| &spec.ports);
    let allocated = service.endpoint.iter().flat_map(|endpoint| &endpoint.ports);
    for port in wished.chain(allocated) {
        let (taken, how) = match port.publish_mode() {
            PublishMode::Ingress => (
                ingress.contains(&number(port)) || host.contains(&number(port)),
                "an ingress port",
            ),
            PublishMode::Host => (ingress.contains(&number(port)), "a host-published port"),
        };
        if taken {
            return Err(ApiError::invalid(format!(
                "port '{}' is already in use by service '{}' ({}) as {how}",
                port.published_port,
                service.spec().annotations().name,
                service.id
            )));
        }
    }
    Ok(())
}

fn number(port: &PortConfig) -> Port {
    (port.published_port, port.protocol)
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{Endpoint, EndpointSpec, port_config::Protocol};

    use super::*;
    use crate::control::testing::*;

    fn endpoint(ports: Vec<PortConfig>) -> Option<EndpointSpec> {
        Some(EndpointSpec {
            ports,
            ..Default::default()
        })
    }

    fn port(published_port: u32, protocol: Protocol, mode: PublishMode) -> PortConfig {
        PortConfig {
            published_port,
            protocol: protocol.into(),
            publish_mode: mode.into(),
            target_port: 80,
            ..Default::default()
        }
    }

    #[tokio::test]
    async fn ports_of_others_are_taken() {
        use Protocol::{Tcp, Udp};
        use PublishMode::{Host, Ingress};
        let swarm = Swarm::new();
        swarm
            .put(Service {
                id: "s1".into(),
                spec: Some(ServiceSpec {
                    annotations: named("web"),
                    endpoint: endpoint(vec![port(80, Tcp, Ingress), port(0, Tcp, Ingress)]),
                    ..Default::default()
                }),
                endpoint: Some(Endpoint {
                    ports: vec![port(30000, Tcp, Ingress)],
                    ..Default::default()
                }),
                ..Default::default()
            })
            .await;
        swarm
            .put(Service {
                id: "s2".into(),
                spec: Some(ServiceSpec {
                    annotations: named("dns"),
                    endpoint: endpoint(vec![port(53, Udp, Host)]),
                    ..Default::default()
                }),
                ..Default::default()
            })
            .await;
        let check_one = async |port: PortConfig, own: Option<&str>, expected: &str| {
            let spec = ServiceSpec {
                endpoint: endpoint(vec![port]),
                ..Default::default()
            };
            let result = swarm.store.update(|tx| check(tx, &spec, own)).await;
            assert_eq!(text(result), expected, "{:?} {own:?}", spec.endpoint);
        };
        let no_ingress = "service needs ingress network, but no ingress network is present";
        check_one(port(81, Tcp, Ingress), None, no_ingress).await;
        check_one(port(0, Tcp, Ingress), None, no_ingress).await;
        check_one(port(81, Tcp, Host), None, "").await;

        let mut network = Network {
            id: "n".into(),
            ..Default::default()
        };
        network.spec_mut().ingress = true;
        network.spec_mut().annotations = named("ingress");
        swarm.put(network).await;

        let web = "is already in use by service 'web' (s1) as an ingress port";
        let dns = "port '53' is already in use by service 'dns' (s2) as a host-published port";
        check_one(port(80, Tcp, Ingress), None, &format!("port '80' {web}")).await;
        check_one(port(80, Tcp, Host), None, &format!("port '80' {web}")).await;
        check_one(
            port(30000, Tcp, Ingress),
            None,
            &format!("port '30000' {web}"),
        )
        .await;
        check_one(port(80, Udp, Ingress), None, "").await;
        check_one(port(80, Tcp, Ingress), Some("s1"), "").await;
        check_one(port(0, Tcp, Ingress), None, "").await;
        check_one(port(53, Udp, Ingress), None, dns).await;
        check_one(port(53, Udp, Host), None, "").await;
    }
}
