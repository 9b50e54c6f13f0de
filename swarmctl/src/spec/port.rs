//! Published ports as they are written on the command line: `published=8080,target=80,mode=host`.

use skep_proto::v1::{
    PortConfig,
    port_config::{Protocol, PublishMode},
};

use super::pairs;

const EXPECTED: &str = "expected published=PORT,target=PORT,protocol=tcp|udp|sctp,mode=host|ingress, \
                        or [PUBLISHED:]TARGET[/PROTOCOL] for the routing mesh";

/// A port in one of the forms of docker's `--publish`. As there, the short one means the routing mesh.
pub fn port(text: &str) -> Result<PortConfig, String> {
    if text.contains('=') {
        long(text)
    } else {
        short(text)
    }
}

/// Whether `TARGET[/PROTOCOL]` means this port.
pub fn is_port(port: &PortConfig, wanted: &str) -> bool {
    let Ok((target, protocol)) = target(wanted) else {
        return false;
    };
    port.target_port == target && port.protocol() == protocol
}

fn long(text: &str) -> Result<PortConfig, String> {
    let mut port = PortConfig::default();
    for (key, value) in pairs::assignments(text, EXPECTED)? {
        match &*key {
            "published" => port.published_port = number(&value)?,
            "target" => port.target_port = number(&value)?,
            "protocol" => port.set_protocol(protocol(&value)?),
            "mode" => port.set_publish_mode(match &*value {
                "host" => PublishMode::Host,
                "ingress" => PublishMode::Ingress,
                _ => return Err(format!("mode={value}: {EXPECTED}")),
            }),
            _ => return Err(format!("unknown key {key:?}: {EXPECTED}")),
        }
    }
    match port.target_port {
        0 => Err(format!("no target: {EXPECTED}")),
        _ => Ok(port),
    }
}

fn short(text: &str) -> Result<PortConfig, String> {
    let (published, rest) = match text.split_once(':') {
        Some((published, rest)) => (number(published)?, rest),
        None => (0, text),
    };
    let (target_port, protocol) = target(rest)?;
    Ok(PortConfig {
        published_port: published,
        target_port,
        protocol: protocol.into(),
        ..PortConfig::default()
    })
}

fn target(text: &str) -> Result<(u32, Protocol), String> {
    match text.split_once('/') {
        Some((target, name)) => Ok((number(target)?, protocol(name)?)),
        None => Ok((number(text)?, Protocol::Tcp)),
    }
}

fn number(text: &str) -> Result<u32, String> {
    match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port.into()),
        _ => Err(format!(
            "{text:?} is no port between 1 and 65535: {EXPECTED}"
        )),
    }
}

fn protocol(text: &str) -> Result<Protocol, String> {
    match text {
        "tcp" => Ok(Protocol::Tcp),
        "udp" => Ok(Protocol::Udp),
        "sctp" => Ok(Protocol::Sctp),
        _ => Err(format!("unknown protocol {text:?}: {EXPECTED}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read() {
        let read = |text: &str| {
            let port = port(text).unwrap();
            let (protocol, mode) = (port.protocol(), port.publish_mode());
            (port.published_port, port.target_port, protocol, mode)
        };
        let (host, mesh) = (PublishMode::Host, PublishMode::Ingress);
        assert_eq!(
            read("published=8080,target=80,protocol=udp,mode=host"),
            (8080, 80, Protocol::Udp, host)
        );
        assert_eq!(read("mode=host,target=80"), (0, 80, Protocol::Tcp, host));
        assert_eq!(read("target=80"), (0, 80, Protocol::Tcp, mesh));
        assert_eq!(read("8080:80/sctp"), (8080, 80, Protocol::Sctp, mesh));
        assert_eq!(read("80"), (0, 80, Protocol::Tcp, mesh));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_what_is_expected() {
        for text in [
            "",
            "web",
            "0",
            "80:0",
            "65536",
            "8080-8090:80-90",
            "127.0.0.1:80:80",
            "80/icmp",
            "published=80",
            "target=80,mode=mesh",
            "target=80,port=1",
            "target=-1",
        ] {
            let refused = port(text).unwrap_err();
            assert!(refused.contains("expected published="), "{text}: {refused}");
        }
    }

    #[test]
    fn a_port_is_meant_by_its_target() {
        let udp = port("published=53,target=5353,protocol=udp,mode=host").unwrap();
        assert!(is_port(&udp, "5353/udp"));
        assert!(!is_port(&udp, "5353"));
        assert!(!is_port(&udp, "53/udp"));
    }
}
