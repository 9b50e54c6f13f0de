//! Addresses: where a manager listens and where it says that it does.

use std::net::{IpAddr, SocketAddr, UdpSocket};

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
        if given.is_empty() {
            return Err("--advertise-addr must not be empty".to_owned());
        }
        // A bare IPv6 address has colons but no port.
        if let Ok(ip) = given.parse::<IpAddr>() {
            return Ok(SocketAddr::new(ip, listening.port()).to_string());
        }
        return match given.rsplit_once(':') {
            Some((host, port)) if !host.is_empty() && port.parse::<u16>().is_ok() => {
                Ok(given.to_owned())
            }
            Some(_) => Err(format!(
                "--advertise-addr {given:?} must be HOST or HOST:PORT"
            )),
            None => Ok(format!("{given}:{}", listening.port())),
        };
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
        check(None, "127.0.0.1:4242", "127.0.0.1:4242");
    }

    #[test]
    fn nonsense_is_refused() {
        let listening = "0.0.0.0:1".parse().unwrap();
        assert!(advertised(Some(""), listening, None).is_err());
        assert!(advertised(Some("host:port"), listening, None).is_err());
        assert!(advertised(Some(":1"), listening, None).is_err());
    }

    #[test]
    fn listening_everywhere_uses_the_interface_towards_the_peer() {
        let listening = "0.0.0.0:4242".parse().unwrap();
        let addr = advertised(None, listening, Some("127.0.0.1:1")).unwrap();
        assert_eq!(addr, "127.0.0.1:4242");
    }
}
