//! A connection to the services on a manager's Unix socket, in plaintext: who may connect
//! is decided by the permissions of the socket.

use std::{
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use hyper_util::rt::TokioIo;
use skep_proto::{
    skep::{
        GetRaftStatusRequest, GetRaftStatusResponse, node_client::NodeClient,
        raft_status_client::RaftStatusClient,
    },
    v1::{ca_client::CaClient, control_client::ControlClient, logs_client::LogsClient},
};
use tokio::net::UnixStream;
use tonic::{
    Code,
    transport::{Channel, Endpoint},
};

use crate::{Error, error::innermost};

/// How long connecting to the socket may take; it is on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection to one control socket. It dials again by itself when the daemon was restarted.
#[derive(Debug, Clone)]
pub struct Client {
    channel: Channel,
    socket: PathBuf,
}

impl Client {
    /// Connects to `socket`, or says why that is not possible ([`Error::Unreachable`]).
    pub async fn connect(socket: &Path) -> Result<Self, Error> {
        let unreachable = |reason: String| Error::Unreachable {
            socket: socket.to_owned(),
            reason,
        };
        let path = socket.to_owned();
        let dial = tower::service_fn(move |_| {
            let path = path.clone();
            async move { io::Result::Ok(TokioIo::new(UnixStream::connect(path).await?)) }
        });
        // The address is never resolved; it is what the server sees as `:authority`.
        let channel = Endpoint::from_static("http://localhost")
            .connect_timeout(CONNECT_TIMEOUT)
            .connect_with_connector(dial)
            .await
            .map_err(|error| unreachable(innermost(&error)))?;
        Ok(Self {
            channel,
            socket: socket.to_owned(),
        })
    }

    /// The connection, for stubs that are not here.
    pub fn channel(&self) -> Channel {
        self.channel.clone()
    }

    /// The stub of the Control service. Stubs are cheap and share the connection.
    pub fn control(&self) -> ControlClient<Channel> {
        // Lists of a big cluster are larger than the usual 4 MiB; the peer is trusted.
        ControlClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    /// The stub of the CA service.
    pub fn ca(&self) -> CaClient<Channel> {
        CaClient::new(self.channel.clone())
    }

    /// The stub of the Logs service.
    pub fn logs(&self) -> LogsClient<Channel> {
        // One message may carry a whole line, however long; the peer is trusted.
        LogsClient::new(self.channel.clone()).max_decoding_message_size(usize::MAX)
    }

    /// The stub of the service of the node itself.
    pub fn node(&self) -> NodeClient<Channel> {
        NodeClient::new(self.channel.clone())
    }

    /// How replication stands on the manager behind the socket; `None` if that one is not of Skep and
    /// cannot tell.
    pub async fn raft_status(&self) -> Result<Option<GetRaftStatusResponse>, Error> {
        let mut client = RaftStatusClient::new(self.channel.clone());
        match client.get_raft_status(GetRaftStatusRequest {}).await {
            Ok(reply) => Ok(Some(reply.into_inner())),
            Err(status) if status.code() == Code::Unimplemented => Ok(None),
            Err(status) => Err(status.into()),
        }
    }

    /// The socket this client was connected to.
    pub fn socket(&self) -> &Path {
        &self.socket
    }
}
