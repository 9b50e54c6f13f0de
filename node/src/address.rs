//! Addresses: where a manager listens and where it says that it does.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, UdpSocket};

/// The `host:port` that a manager tells others.
///
/// What the user gave, with the listener's port if it has none; else the listener's own address,
/// with the IP of the interface in use if it listens on all of them.
pub fn advertised(
    given: Option<&str>,
    listening: SocketAddr,
    peer: Option<&str>,
) -> Result<String, String> {
    if let Some(given) = given {
        return with_port(given, listening.port());
    }
    if !listening.ip().is_unspecified() {
        return Ok(listening.to_string());
    }
    let ip = outgoing_ip(peer).ok_or(
        "no network interface found to reach others by; say where they reach this manager with \
         --advertise-addr",
    )?;
    Ok(SocketAddr::new(ip, listening.port()).to_string())
}

/// Whether `given` can be advertised, before it is known on which port.
pub fn check(given: &str) -> Result<(), String> {
    with_port(given, 0).map(drop)
}

/// `given` with `port`, unless it has one.
fn with_port(given: &str, port: u16) -> Result<String, String> {
    // A bare IPv6 address has colons but no port.
    if let Ok(ip) = given.parse::<IpAddr>() {
        return match ip.is_unspecified() {
            true => Err(unusable(given)),
            false => Ok(SocketAddr::new(ip, port).to_string()),
        };
    }
    let (host, with_port) = match given.rsplit_once(':') {
        Some((host, port)) => {
            let valid = port.parse::<u16>().is_ok_and(|port| port != 0);
            (host, valid.then(|| given.to_owned()))
        }
        None => (given, Some(format!("{given}:{port}"))),
    };
    // An IPv6 address has to be in brackets if a port follows.
    let ip = host.strip_prefix('[').and_then(|ip| ip.strip_suffix(']'));
    let is_host = match (ip, host.parse::<IpAddr>()) {
        (Some(ip), _) => ip.parse::<Ipv6Addr>().is_ok_and(|ip| !ip.is_unspecified()),
        (None, Ok(ip)) => ip.is_ipv4() && !ip.is_unspecified(),
        (None, Err(_)) => is_name(host),
    };
    with_port.filter(|_| is_host).ok_or_else(|| unusable(given))
}

fn is_name(host: &str) -> bool {
    !host.is_empty()
        && host
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
}

fn unusable(given: &str) -> String {
    format!(
        "--advertise-addr {given:?} is no address that others can reach; give HOST or HOST:PORT, such \
         as 10.0.0.1:4242"
    )
}

/// The IP that packets to `peer`, or to the internet, would leave from. Nothing is sent.
fn outgoing_ip(peer: Option<&str>) -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    // An address reserved for documentation: it only asks for the default route.
    socket.connect(peer.unwrap_or("192.0.2.1:9")).ok()?;
    socket.local_addr().ok().map(|addr| addr.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(given: Option<&str>, listening: &str, expected: &str) {
        let listening = listening.parse().unwrap();
        assert_eq!(advertised(given, listening, None).as_deref(), Ok(expected));
    }

    #[test]
    fn what_is_given_wins_and_the_port_is_filled_in() {
        check(Some("10.0.0.1:77"), "0.0.0.0:4242", "10.0.0.1:77");
        check(Some("10.0.0.1"), "0.0.0.0:4242", "10.0.0.1:4242");
        check(Some("host.example"), "0.0.0.0:4242", "host.example:4242");
        check(Some("fd00::1"), "0.0.0.0:4242", "[fd00::1]:4242");
        check(Some("[fd00::1]:7"), "0.0.0.0:4242", "[fd00::1]:7");
        check(None, "127.0.0.1:4242", "127.0.0.1:4242");
    }

    #[test]
    fn nonsense_is_refused() {
        let listening = "0.0.0.0:1".parse().unwrap();
        for given in [
            "",
            "host:port",
            ":1",
            "host:0",
            "a b",
            "http://h",
            "0.0.0.0",
            "0.0.0.0:1",
            "[::]:1",
            "fd00::1:x",
            "[h]:1",
        ] {
            assert!(advertised(Some(given), listening, None).is_err(), "{given}");
            assert!(super::check(given).is_err(), "{given}");
        }
    }

    #[test]
    fn listening_everywhere_uses_the_interface_towards_the_peer() {
        let listening = "0.0.0.0:4242".parse().unwrap();
        let addr = advertised(None, listening, Some("127.0.0.1:1")).unwrap();
        assert_eq!(addr, "127.0.0.1:4242");
    }
}
