//! A node's reloadable identity and how it dials.

pub(crate) mod config;
mod connect;
mod trust;

use std::{fmt, sync::Arc, time::Duration};

use bytes::Bytes;
use http::Uri;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use rustls::{ClientConfig, ServerConfig};
use tokio::sync::watch;
use tonic::transport::{Channel, Endpoint};

pub(crate) use connect::{check_address, connect};
use trust::Trust;

use crate::{Credentials, Dial, Error, TcpDial};

/// A connection that is not open by then is given up: there is no machine to answer.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a machine that did answer may take for the TLS handshake, which is what gRPC gives a
/// connection at the least. After a manager's end thousands of nodes want one at once from the next:
/// who gives up early has had the manager work for nothing, and begins again at the end of the queue.
pub(crate) const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// HTTP/2 pings while calls are open and nothing has come for so long. Nodes send heartbeats every 5.5 s
/// at most by default, so that as long as those are answered there are no pings beside them.
const KEEPALIVE: Duration = Duration::from_secs(6);

/// How long the answer to a ping may take: a manager that disappeared without a word is noticed within
/// sixteen seconds, and one that is busy with a crowd is not taken for dead.
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(10);

/// What may be on the way to us on one connection, in bytes. Calls share it: one whose reader pauses
/// holds its stream's two megabytes, and a manager that passes calls on must not be stopped by a few
/// agents that do not read.
const CONNECTION_WINDOW: u32 = 512 * 1024 * 1024;

/// The name a server's certificate must hold. It says what the server is, not where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ServerName {
    /// `swarm-manager`: managers.
    Manager,
    /// `swarm-ca`: managers when called for certificates.
    Ca,
}

impl ServerName {
    /// The DNS name in the certificate.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Manager => "swarm-manager",
            Self::Ca => "swarm-ca",
        }
    }
}

/// A node's current [`Credentials`] and how it dials. Clones share both; new connections in both
/// directions use what was put last, open ones keep what they began with.
#[derive(Clone)]
pub struct Tls {
    inner: Arc<Inner>,
}

struct Inner {
    credentials: watch::Sender<Arc<Credentials>>,
    /// Roots besides the credentials' own.
    trust: Mutex<Trust>,
    dialer: Arc<dyn Dial>,
}

impl Tls {
    /// Dials plain TCP.
    pub fn new(credentials: Credentials) -> Self {
        Self::with_dialer(credentials, Arc::new(TcpDial))
    }

    /// Dials as `dialer` does.
    pub fn with_dialer(credentials: Credentials, dialer: Arc<dyn Dial>) -> Self {
        let (credentials, _) = watch::channel(Arc::new(credentials));
        Self {
            inner: Arc::new(Inner {
                credentials,
                trust: Mutex::default(),
                dialer,
            }),
        }
    }

    /// The credentials in use.
    pub fn current(&self) -> Arc<Credentials> {
        self.inner.credentials.borrow().clone()
    }

    /// Puts new credentials in use, for connections opened or accepted from now on.
    pub fn replace(&self, credentials: Credentials) {
        self.inner.credentials.send_replace(Arc::new(credentials));
    }

    /// Tells of new credentials. It ends with the last clone of this.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Credentials>> {
        self.inner.credentials.subscribe()
    }

    /// Trusts these roots too, in both directions, for connections opened or accepted from now on: the
    /// roots of the cluster that the credentials do not know (yet). They take the place of those named
    /// the last time; an empty list means none.
    ///
    /// # Errors
    /// When one is no root certificate.
    pub fn also_trust(&self, roots_pem: &[Bytes]) -> Result<(), Error> {
        let roots = trust::roots(roots_pem)?;
        *self.inner.trust.lock() = Trust::new(roots);
        Ok(())
    }

    /// What connections are accepted with.
    pub(crate) fn server_config(&self) -> Arc<ServerConfig> {
        self.inner.trust.lock().configs(&self.current()).0
    }

    /// What connections are opened with.
    pub(crate) fn client_config(&self) -> Arc<ClientConfig> {
        self.inner.trust.lock().configs(&self.current()).1
    }

    pub(crate) fn dialer(&self) -> Arc<dyn Dial> {
        self.inner.dialer.clone()
    }

    /// A channel to `addr` (`host:port`), connected when first used and again after failures, with
    /// the credentials of that moment. The server must prove to be `name`. Message size limits
    /// are left to the clients made of it.
    ///
    /// Must be called within a tokio runtime.
    ///
    /// # Errors
    /// [`Error::InvalidAddress`]
    pub fn channel(&self, addr: &str, name: ServerName) -> Result<Channel, Error> {
        check_address(addr)?;
        let (tls, addr) = (self.clone(), addr.to_owned());
        let connector = tower::service_fn(move |_: Uri| {
            let (tls, addr) = (tls.clone(), addr.clone());
            async move {
                let config = tls.client_config();
                connect(&*tls.inner.dialer, config, &addr, name, HANDSHAKE_TIMEOUT)
                    .await
                    .map(TokioIo::new)
            }
        });
        // Dialling and the handshake are bounded one by one, with better errors.
        let endpoint = endpoint(name).connect_timeout(CONNECT_TIMEOUT + HANDSHAKE_TIMEOUT);
        Ok(endpoint.connect_with_connector_lazy(connector))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls")
            .field("credentials", &self.current())
            .finish_non_exhaustive()
    }
}

/// Requests carry the server's name as authority, as stock clients send it. The scheme of the
/// endpoint itself stays `http` because TLS is done by the connector.
pub(crate) fn endpoint(name: ServerName) -> Endpoint {
    let (uri, origin) = match name {
        ServerName::Manager => ("http://swarm-manager", "https://swarm-manager"),
        ServerName::Ca => ("http://swarm-ca", "https://swarm-ca"),
    };
    Endpoint::from_static(uri)
        .origin(Uri::from_static(origin))
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_ANSWER)
}

#[cfg(test)]
mod tests;
