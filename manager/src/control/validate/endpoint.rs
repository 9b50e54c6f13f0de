//! Endpoint specs.

use std::collections::BTreeSet;

use skep_proto::v1::{EndpointSpec, endpoint_spec::ResolutionMode, port_config::PublishMode};

use crate::control::ApiError;

pub fn check(spec: Option<&EndpointSpec>) -> Result<(), ApiError> {
    let Some(spec) = spec else {
        return Ok(());
    };
    let ingress = spec
        .ports
        .iter()
        .any(|port| port.publish_mode() == PublishMode::Ingress);
    if ingress && spec.mode() == ResolutionMode::Dnsrr {
        return Err(ApiError::invalid(
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
        ));
    }
    let mut published = BTreeSet::new();
    let twice = spec
        .ports
        .iter()
        .filter(|port| port.published_port != 0)
        .any(|port| !published.insert((port.published_port, port.protocol)));
    if twice {
        return Err(ApiError::invalid(
            "EndpointSpec: duplicate published ports provided",
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{PortConfig, port_config::Protocol};

    use super::*;
    use crate::control::testing::text;

    #[test]
    fn ports() {
        use Protocol::{Tcp, Udp};
        use PublishMode::{Host, Ingress};
        use ResolutionMode::{Dnsrr, Vip};
        let check_one =
            |mode: ResolutionMode, ports: &[(u32, Protocol, PublishMode)], expected: &str| {
                let port =
                    |&(published_port, protocol, mode): &(u32, Protocol, PublishMode)| PortConfig {
                        published_port,
                        target_port: 80,
                        protocol: protocol.into(),
                        publish_mode: mode.into(),
                        ..Default::default()
                    };
                let spec = EndpointSpec {
                    mode: mode.into(),
                    ports: ports.iter().map(port).collect(),
                };
                assert_eq!(text(check(Some(&spec))), expected, "{ports:?}");
            };
        let twice = "EndpointSpec: duplicate published ports provided";
        assert_eq!(text(check(None)), "");
        check_one(Vip, &[], "");
        check_one(Dnsrr, &[], "");
        check_one(Dnsrr, &[(80, Tcp, Host)], "");
        check_one(
            Dnsrr,
            &[(80, Tcp, Ingress)],
            "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
        );
        check_one(Vip, &[(80, Tcp, Ingress), (80, Udp, Ingress)], "");
        check_one(Vip, &[(0, Tcp, Ingress), (0, Tcp, Ingress)], "");
        check_one(Vip, &[(80, Tcp, Ingress), (80, Tcp, Ingress)], twice);
        check_one(Vip, &[(80, Tcp, Ingress), (80, Tcp, Host)], twice);
    }
}
