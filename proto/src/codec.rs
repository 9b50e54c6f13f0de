//! How messages travel in calls: as with tonic's own codec, but for three things.
//!
//! What was decoded holds nothing but its own bytes. Otherwise each payload (of a config, say) would
//! be a piece of the buffer that its call was read into, and keep that for as long as it is stored.
//! The buffers are of the size of common messages, as each call makes two. And they grow to the size of a
//! larger message at once: a stream keeps its buffer for as long as it lives.

use std::marker::PhantomData;

use bytes::Buf as _;
use prost::Message;
use tonic::{
    Status,
    codec::{BufferSettings, Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
};

/// First size of a buffer in bytes; it grows with the message. tonic's are of 8 KiB.
const BUFFER_BYTES: usize = 512;
/// As tonic's: messages of a stream that wait are sent together up to so many bytes.
const YIELD_BYTES: usize = 32 * 1024;

/// See the top of this file.
#[derive(Debug)]
pub struct OwnCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for OwnCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for OwnCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = OwnEncoder<T>;
    type Decoder = OwnDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        OwnEncoder(PhantomData)
    }

    fn decoder(&mut self) -> Self::Decoder {
        OwnDecoder(PhantomData)
    }
}

fn settings() -> BufferSettings {
    BufferSettings::new(BUFFER_BYTES, YIELD_BYTES)
}

/// Encodes messages into a buffer that grows once.
#[derive(Debug)]
pub struct OwnEncoder<T>(PhantomData<T>);

impl<T: Message> Encoder for OwnEncoder<T> {
    type Item = T;
    type Error = Status;

    fn encode(&mut self, message: T, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.reserve(message.encoded_len());
        let encoded = message.encode(buf);
        encoded.map_err(|err| Status::internal(err.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        settings()
    }
}

/// Decodes messages that share no memory with the buffer.
#[derive(Debug)]
pub struct OwnDecoder<U>(PhantomData<U>);

impl<U: Message + Default> Decoder for OwnDecoder<U> {
    type Item = U;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<U>, Status> {
        let message = buf.copy_to_bytes(buf.remaining());
        // From a slice, payloads are copied.
        let message = U::decode(&*message).map_err(|err| Status::internal(err.to_string()))?;
        Ok(Some(message))
    }

    fn buffer_settings(&self) -> BufferSettings {
        settings()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        pin::pin,
        task::{Context, Poll, Waker},
    };

    use bytes::{BufMut as _, Bytes, BytesMut};
    use http_body_util::Full;
    use tonic::codec::Streaming;

    use super::*;
    use crate::v1::ConfigSpec;

    #[test]
    fn payloads_do_not_hold_the_buffer_that_they_came_in() {
        let spec = ConfigSpec {
            data: Bytes::from_static(&[7; 100]),
            ..Default::default()
        };
        let mut body = BytesMut::new();
        for _ in 0..2 {
            body.put_u8(0);
            body.put_u32(spec.encoded_len() as u32);
            spec.encode(&mut body).unwrap();
        }
        let decoder = OwnCodec::<ConfigSpec, ConfigSpec>::default().decoder();
        let body = Full::new(body.freeze());
        let mut stream = Streaming::new_request(decoder, body, None, None);
        let mut context = Context::from_waker(Waker::noop());
        let next = pin!(stream.message()).poll(&mut context);
        let Poll::Ready(Ok(Some(decoded))) = next else {
            panic!("the body is there");
        };
        assert_eq!(decoded, spec);
        assert!(
            decoded.data.is_unique(),
            "the stream has not the same bytes"
        );
    }
}
