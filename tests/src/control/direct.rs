//! A client for load: it shares its processors with what it drives, so there is as little as there can
//! be between a call and its frames, and of an answer only what tells success is read.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use bytes::{BufMut as _, Bytes, BytesMut};
use h2::client::SendRequest;
use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use prost::Message;

/// Bytes before a message: whether it is compressed, and its length.
const FRAME: usize = 5;

/// One HTTP/2 connection to a control socket. Clones share it.
#[derive(Clone, Debug)]
pub struct Direct {
    requests: SendRequest<Bytes>,
}

/// A call, ready to be made again and again.
#[derive(Clone, Debug)]
pub struct Call {
    uri: Uri,
    headers: HeaderMap,
}

impl Call {
    /// A call of `method` of the control API.
    ///
    /// # Errors
    /// If there can be no such name.
    pub fn new(method: &str) -> anyhow::Result<Self> {
        let uri = format!("http://localhost/docker.swarmkit.v1.Control/{method}").parse()?;
        let headers = [
            (header::TE, "trailers"),
            (header::CONTENT_TYPE, "application/grpc"),
        ];
        let headers = headers.map(|(name, value)| (name, HeaderValue::from_static(value)));
        Ok(Self {
            uri,
            headers: headers.into_iter().collect(),
        })
    }
}

impl Direct {
    /// Connects to a control socket once.
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn connect(socket: &Path, tls: bool) -> anyhow::Result<Self> {
        let connecting = || format!("connecting to {}", socket.display());
        let stream = super::dial(socket, tls).await.with_context(connecting)?;
        let (requests, connection) = h2::client::handshake(stream)
            .await
            .with_context(connecting)?;
        // It ends with the last clone of the sender.
        tokio::spawn(connection);
        Ok(Self { requests })
    }

    /// Makes a call and waits for its answer, which it gives back without decoding it.
    ///
    /// # Errors
    /// What the server refuses, and if the connection breaks.
    pub async fn call(&mut self, call: &Call, message: &impl Message) -> anyhow::Result<Bytes> {
        let len = message.encoded_len();
        let mut body = BytesMut::with_capacity(FRAME + len);
        body.put_u8(0);
        body.put_u32(len.try_into()?);
        message.encode(&mut body)?;
        let mut request = Request::new(());
        *request.method_mut() = Method::POST;
        *request.version_mut() = Version::HTTP_2;
        *request.uri_mut() = call.uri.clone();
        *request.headers_mut() = call.headers.clone();

        self.requests = self.requests.clone().ready().await?;
        let (answer, mut stream) = self.requests.send_request(request, false)?;
        stream.send_data(body.freeze(), true)?;
        let (head, mut stream) = answer.await?.into_parts();
        ensure!(head.status == 200, "HTTP status {}", head.status);
        let mut answer = Bytes::new();
        while let Some(chunk) = stream.data().await {
            let chunk = chunk?;
            stream.flow_control().release_capacity(chunk.len())?;
            answer = match answer.is_empty() {
                true => chunk,
                false => [answer, chunk].concat().into(),
            };
        }
        let trailers = stream.trailers().await?;
        // A refusal has no body, and its status comes at once.
        succeeded(trailers.as_ref().unwrap_or(&head.headers))?;
        let framed = answer.len().checked_sub(FRAME).and_then(|len| {
            let stated = answer[1..FRAME].first_chunk().copied()?;
            (u32::from_be_bytes(stated) as usize == len).then_some(())
        });
        framed.context("the answer is not one whole message")?;
        Ok(answer.slice(FRAME..))
    }
}

/// Fails unless the status is 0.
fn succeeded(headers: &HeaderMap) -> anyhow::Result<()> {
    match headers.get("grpc-status") {
        Some(status) if status == "0" => Ok(()),
        Some(status) => bail!(
            "refused with status {status:?}: {:?}",
            headers.get("grpc-message")
        ),
        None => bail!("the answer has no status"),
    }
}
