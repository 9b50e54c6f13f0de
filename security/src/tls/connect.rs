//! Opens one connection: dial, handshake, and errors that tell a wrong address from a dead one.

use std::{io, sync::Arc, time::Duration};

use http::uri::Authority;
use rustls::{CertificateError, ClientConfig, pki_types};
use tokio::time::timeout;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{CONNECT_TIMEOUT, ServerName, config};
use crate::{BoxedIo, Dial, Error, crypto::ALPN};

/// Whether `addr` has the form `host:port`.
pub(crate) fn check_address(addr: &str) -> Result<(), Error> {
    let authority = addr.parse::<Authority>().ok().filter(|authority| {
        !authority.as_str().contains('@')
            && !authority.host().is_empty()
            && authority.port_u16().is_some_and(|port| port != 0)
    });
    authority
        .map(drop)
        .ok_or_else(|| Error::InvalidAddress(addr.to_owned()))
}

/// Dials `addr` within [`CONNECT_TIMEOUT`] and does the TLS handshake within `patience`.
pub(crate) async fn connect(
    dialer: &dyn Dial,
    config: Arc<ClientConfig>,
    addr: &str,
    name: ServerName,
    patience: Duration,
) -> Result<TlsStream<BoxedIo>, Error> {
    let unreachable = |source| Error::Unreachable {
        addr: addr.to_owned(),
        source,
    };
    let not_a_manager = |reason| Error::NotAManager {
        addr: addr.to_owned(),
        reason,
    };

    let io = timeout(CONNECT_TIMEOUT, dialer.dial(addr.to_owned()))
        .await
        .unwrap_or_else(|_| Err(timed_out("no answer", CONNECT_TIMEOUT)))
        .map_err(unreachable)?;
    let server = pki_types::ServerName::try_from(name.as_str())
        .map_err(|error| Error::unusable("server name", error))?;
    let stream = timeout(patience, TlsConnector::from(config).connect(server, io))
        .await
        .unwrap_or_else(|_| Err(timed_out("no answer to the TLS handshake", patience)))
        .map_err(|error| match refusal(&error, name) {
            Some(reason) => not_a_manager(reason),
            None => unreachable(error),
        })?;
    match stream.get_ref().1.alpn_protocol() {
        Some(ALPN) => Ok(stream),
        // It has proved that it is one. Managers of SwarmKit of engine 20.10 do not negotiate any more
        // once they have had a new certificate, and speak HTTP/2 all the same.
        None if name == ServerName::Manager => Ok(stream),
        _ => Err(not_a_manager("it speaks TLS but not HTTP/2".to_owned())),
    }
}

fn timed_out(what: &str, limit: Duration) -> io::Error {
    let text = format!("{what} within {} s", limit.as_secs());
    io::Error::new(io::ErrorKind::TimedOut, text)
}

/// Why the handshake failed if that is the server's nature; `None` if the connection broke.
fn refusal(error: &io::Error, name: ServerName) -> Option<String> {
    use rustls::Error as Tls;
    let error = error.get_ref()?.downcast_ref::<Tls>()?;
    Some(match error {
        Tls::InvalidMessage(_) => "it does not speak TLS".to_owned(),
        Tls::NoApplicationProtocol
        | Tls::AlertReceived(rustls::AlertDescription::NoApplicationProtocol) => {
            "it speaks TLS but not HTTP/2".to_owned()
        }
        Tls::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => format!("its certificate does not name {}", name.as_str()),
        Tls::InvalidCertificate(error) => format!("its certificate {}", config::explain(error)),
        other => format!("the TLS handshake failed: {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_need_host_and_port() {
        for good in [
            "10.0.0.1:2377",
            "manager.example:2377",
            "[::1]:2377",
            "m1:1",
        ] {
            assert!(check_address(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "10.0.0.1",
            ":2377",
            "host:",
            "host:0",
            "host:99999",
            "a b:1",
            "u@h:1",
            "h:1/x",
        ] {
            assert!(check_address(bad).is_err(), "{bad}");
        }
    }
}
