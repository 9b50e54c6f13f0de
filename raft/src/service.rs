//! The gRPC services `Raft` and `RaftMembership`, and our own `RaftStream`.
//!
//! Whether the caller may call is decided before; who it is, is taken from the request's extensions
//! ([`skep_security::Caller`]).

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::stream::{self, BoxStream};
use skep_proto::skep::{
    RaftMessage, RaftProgress,
    raft_stream_server::{RaftStream, RaftStreamServer},
};
use skep_proto::v1::{
    JoinRequest, JoinResponse, LeaveRequest, LeaveResponse, ProcessRaftMessageRequest,
    ProcessRaftMessageResponse, ResolveAddressRequest, ResolveAddressResponse,
    StreamRaftMessageRequest, StreamRaftMessageResponse,
    raft_membership_server::{RaftMembership, RaftMembershipServer},
    raft_server::{self, RaftServer},
};
use skep_security::Caller;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, Streaming};

use crate::{
    Error, Raft,
    announce::announced,
    codec::{self, Incoming, Message, MessageType},
    handle::Inner,
    join::learns,
};

/// The text that, with the code NotFound, tells a member that it was removed.
pub const REMOVED: &str = "raft: member was removed from the cluster";
/// Said by a node that has not joined yet.
const NOT_A_MEMBER: &str = "raft: node is not yet part of a raft cluster";
/// Largest snapshot that is put together from pieces, in bytes. It bounds what a peer can make this
/// member allocate; a million tasks are about 0.6 GB.
const MAX_SNAPSHOT_BYTES: usize = 2 * 1024 * 1024 * 1024 - 1;
/// Time between the pieces of a message. Its sender gives up earlier.
const PIECE_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the peers of a [`Raft`]. Clones share it.
///
/// It can be served before there is a `Raft`, and must be: the leader dials a node that wants to join.
/// Until then, and after the last [`Raft`] was dropped, it answers that this node is not a member.
#[derive(Clone, Debug, Default)]
pub struct RaftService {
    /// Open connections hold services: they must not keep the member running.
    raft: Arc<OnceLock<Weak<Inner>>>,
    end: CancellationToken,
}

impl RaftService {
    /// A service whose streams end with `end`.
    pub fn new(end: CancellationToken) -> Self {
        Self {
            raft: Arc::default(),
            end,
        }
    }

    /// Begins to serve this member. What was begun before stays.
    pub fn begin(&self, raft: &Raft) {
        self.raft.get_or_init(|| Arc::downgrade(&raft.inner));
    }

    /// The gRPC services. Requests are expected to bear a [`Caller`] in their extensions.
    pub fn servers(
        &self,
    ) -> (
        RaftServer<Self>,
        RaftMembershipServer<Self>,
        RaftStreamServer<Self>,
    ) {
        (
            RaftServer::new(self.clone()),
            RaftMembershipServer::new(self.clone()),
            RaftStreamServer::new(self.clone()),
        )
    }

    #[allow(
        clippy::result_large_err,
        reason = "a Status is what the caller answers with"
    )]
    fn raft(&self) -> Result<Raft, Status> {
        let inner = self.raft.get().and_then(Weak::upgrade);
        let not_a_member = || Status::failed_precondition(NOT_A_MEMBER);
        Ok(Raft {
            inner: inner.ok_or_else(not_a_member)?,
        })
    }

    /// Takes a message from whoever `caller` is.
    async fn receive(&self, message: Message, caller: Option<Caller>) -> Result<(), Status> {
        let raft = self.raft()?;
        {
            let status = raft.inner.status();
            if status.removed.contains(&message.from) {
                return Err(Status::not_found(REMOVED));
            }
            // Who it is from is known better than the message can tell.
            let identity = caller.and_then(|caller| caller.identity);
            if let (Some(member), Some(identity)) = (status.member(message.from), identity)
                && member.node_id != identity.node_id
            {
                return Ok(());
            }
            // Proposals are only made on the leader itself.
            if message.to != status.raft_id || message.msg_type == MessageType::MsgPropose {
                return Ok(());
            }
        }
        let incoming = if message.msg_type == MessageType::MsgSnapshot {
            tokio::task::spawn_blocking(move || Incoming::new(message))
                .await
                .map_err(|error| Status::internal(error.to_string()))?
        } else {
            Incoming::new(message)
        };
        let incoming = incoming.map_err(|error| Status::invalid_argument(error.to_string()))?;
        raft.deliver(incoming).await.map_err(plain)
    }
}

/// Without a code of its own.
fn plain(error: Error) -> Status {
    Status::new(Code::Unknown, error.to_string())
}

fn decode(bytes: &Bytes) -> Result<Message, Status> {
    codec::decode(bytes).map_err(|error| Status::invalid_argument(error.to_string()))
}

/// Puts the pieces of a snapshot together again.
#[derive(Default)]
struct Assembly {
    first: Option<Message>,
    data: Vec<Bytes>,
    size: usize,
}

impl Assembly {
    fn add(&mut self, mut piece: Message) -> Result<(), Status> {
        if let Some(first) = &self.first {
            let kind = MessageType::MsgSnapshot;
            if first.msg_type != kind || piece.msg_type != kind || first.index != piece.index {
                return Err(Status::invalid_argument(
                    "the messages of a stream must be pieces of one snapshot",
                ));
            }
        }
        if piece.has_snapshot() {
            let data = std::mem::take(&mut piece.mut_snapshot().data);
            self.size += data.len();
            if self.size > MAX_SNAPSHOT_BYTES {
                return Err(Status::resource_exhausted("the snapshot is too large"));
            }
            self.data.push(data);
        }
        self.first.get_or_insert(piece);
        Ok(())
    }

    fn finish(mut self) -> Option<Message> {
        let mut message = self.first?;
        if message.has_snapshot() {
            message.mut_snapshot().data = match self.data.len() {
                1 => self.data.remove(0),
                _ => {
                    let mut whole = BytesMut::with_capacity(self.size);
                    for piece in self.data {
                        whole.extend_from_slice(&piece);
                    }
                    whole.freeze()
                }
            };
        }
        Some(message)
    }
}

#[tonic::async_trait]
impl raft_server::Raft for RaftService {
    async fn process_raft_message(
        &self,
        request: Request<ProcessRaftMessageRequest>,
    ) -> Result<Response<ProcessRaftMessageResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let message = decode(&request.into_inner().message)?;
        self.receive(message, caller).await?;
        Ok(Response::new(ProcessRaftMessageResponse {}))
    }

    async fn stream_raft_message(
        &self,
        request: Request<Streaming<StreamRaftMessageRequest>>,
    ) -> Result<Response<StreamRaftMessageResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let mut pieces = request.into_inner();
        let mut assembly = Assembly::default();
        while let Some(piece) = timeout(PIECE_TIMEOUT, pieces.message())
            .await
            .map_err(|_| Status::deadline_exceeded("the rest of the message did not come"))??
        {
            assembly.add(decode(&piece.message)?)?;
        }
        // A large one takes a while to copy.
        let message = tokio::task::spawn_blocking(move || assembly.finish()).await;
        if let Some(message) = message.map_err(|error| Status::internal(error.to_string()))? {
            self.receive(message, caller).await?;
        }
        Ok(Response::new(StreamRaftMessageResponse {}))
    }

    async fn resolve_address(
        &self,
        request: Request<ResolveAddressRequest>,
    ) -> Result<Response<ResolveAddressResponse>, Status> {
        let raft_id = request.into_inner().raft_id;
        let raft = self.raft()?;
        let status = raft.inner.status();
        let Some(addr) = status.addr(raft_id) else {
            return Err(Status::not_found(format!("member {raft_id:x} not found")));
        };
        Ok(Response::new(ResolveAddressResponse {
            addr: addr.to_owned(),
        }))
    }
}

/// How soon a sender learns that its messages have arrived.
const PROGRESS_DELAY: Duration = Duration::from_millis(100);

/// A stream of messages from a peer, and what is to be answered.
struct Receiving {
    service: RaftService,
    caller: Option<Caller>,
    messages: Streaming<RaftMessage>,
    received: u64,
    /// When the sender is to be told of those that it has not been told of.
    tell: Option<Instant>,
}

impl Receiving {
    /// Takes messages until it is time for an answer. `None` at the end of the stream.
    async fn step(mut self) -> Result<Option<(RaftProgress, Self)>, Status> {
        let end = self.service.end.clone();
        loop {
            let tell = self.tell;
            let message = tokio::select! {
                () = end.cancelled() => return Ok(None),
                message = self.messages.message() => message?,
                () = sleep_until(tell.unwrap_or_else(Instant::now)), if tell.is_some() => {
                    self.tell = None;
                    let received = self.received;
                    return Ok(Some((RaftProgress { received }, self)));
                }
            };
            let Some(RaftMessage { message }) = message else {
                return Ok(None);
            };
            let message = decode(&message)?;
            self.service.receive(message, self.caller.clone()).await?;
            self.received += 1;
            self.tell = tell.or_else(|| Some(Instant::now() + PROGRESS_DELAY));
        }
    }
}

#[tonic::async_trait]
impl RaftStream for RaftService {
    type MessagesStream = BoxStream<'static, Result<RaftProgress, Status>>;

    async fn messages(
        &self,
        request: Request<Streaming<RaftMessage>>,
    ) -> Result<Response<Self::MessagesStream>, Status> {
        self.raft()?;
        let receiving = Receiving {
            service: self.clone(),
            caller: request.extensions().get::<Caller>().cloned(),
            messages: request.into_inner(),
            received: 0,
            tell: None,
        };
        let progress = stream::try_unfold(receiving, Receiving::step);
        Ok(Response::new(Box::pin(progress)))
    }
}

#[tonic::async_trait]
impl RaftMembership for RaftService {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        let caller = request.extensions().get::<Caller>().cloned();
        let identity = caller.as_ref().and_then(|caller| caller.identity.as_ref());
        let (Some(caller), Some(identity)) = (&caller, identity) else {
            return Err(Status::permission_denied("only a node can join"));
        };
        let addr = specify(&request.get_ref().addr, &caller.remote_addr);
        let raft = self.raft()?;
        let joined = match announced(request.metadata()) {
            Some(raft_id) => Box::pin(raft.relocate(raft_id, &identity.node_id, &addr)).await,
            None => {
                let learns = learns(request.metadata());
                Box::pin(raft.join(&identity.node_id, &addr, learns)).await
            }
        };
        let response = joined.map_err(|error| {
            let code = match error {
                Error::NotLeader | Error::Stopped | Error::Wiped(_) => Code::FailedPrecondition,
                Error::InvalidAddress(_) => Code::InvalidArgument,
                Error::Removed => Code::NotFound,
                _ => Code::Unknown,
            };
            Status::new(code, error.to_string())
        })?;
        Ok(Response::new(response))
    }

    async fn leave(
        &self,
        request: Request<LeaveRequest>,
    ) -> Result<Response<LeaveResponse>, Status> {
        let Some(member) = request.into_inner().node else {
            return Err(Status::invalid_argument("no node information provided"));
        };
        let raft = self.raft()?;
        Box::pin(raft.leave(member.raft_id)).await.map_err(plain)?;
        Ok(Response::new(LeaveResponse {}))
    }
}

/// An unspecified host means the one that the call came from.
fn specify(addr: &str, remote: &str) -> String {
    let unspecified = addr
        .parse::<SocketAddr>()
        .ok()
        .filter(|addr| addr.ip().is_unspecified());
    // The caller's port is that of an outgoing connection.
    let host = remote
        .parse::<SocketAddr>()
        .map(|remote| remote.ip())
        .or_else(|_| remote.parse::<IpAddr>());
    match (unspecified, host) {
        (Some(addr), Ok(host)) => SocketAddr::new(host, addr.port()).to_string(),
        _ => addr.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unspecified_host_is_the_callers() {
        for (addr, remote, expected) in [
            ("0.0.0.0:4242", "10.1.2.3:5555", "10.1.2.3:4242"),
            ("[::]:4242", "[fd00::7]:5555", "[fd00::7]:4242"),
            ("0.0.0.0:4242", "10.1.2.3", "10.1.2.3:4242"),
            ("0.0.0.0:4242", "", "0.0.0.0:4242"),
            ("10.9.9.9:4242", "10.1.2.3:5555", "10.9.9.9:4242"),
            ("manager:4242", "10.1.2.3:5555", "manager:4242"),
        ] {
            assert_eq!(specify(addr, remote), expected);
        }
    }

    fn piece(index: u64, data: &'static [u8]) -> Message {
        let mut message = Message {
            msg_type: MessageType::MsgSnapshot,
            index,
            ..Message::default()
        };
        message.mut_snapshot().data = Bytes::from_static(data);
        message
    }

    #[test]
    fn pieces_become_one_snapshot() {
        let mut assembly = Assembly::default();
        for data in [&b"ab"[..], b"cd", b"e"] {
            assembly.add(piece(3, data)).unwrap();
        }
        assert_eq!(assembly.finish().unwrap(), piece(3, b"abcde"));
    }

    #[test]
    fn pieces_of_different_messages_are_refused() {
        let mut assembly = Assembly::default();
        assembly.add(piece(3, b"ab")).unwrap();
        let refused = assembly.add(piece(4, b"cd")).unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        let mut assembly = Assembly::default();
        assembly.add(Message::default()).unwrap();
        assert!(assembly.add(Message::default()).is_err());
        assert!(Assembly::default().finish().is_none());
    }
}
