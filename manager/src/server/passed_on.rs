//! The leader's answer on its way through this manager. When the leader breaks off in the middle, the
//! caller is told in words of gRPC and not by a broken stream: it then knows that this manager is
//! still there, and need not look for another one.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body as _, Frame, SizeHint};
use tonic::{Status, body::Body};

/// An answer of the leader.
pub(super) struct PassedOn {
    /// `None` when it has broken off.
    body: Option<Body>,
}

impl PassedOn {
    pub(super) fn wrap(body: Body) -> Body {
        // Most answers are complete when they come.
        if body.is_end_stream() {
            return body;
        }
        Body::new(Self { body: Some(body) })
    }
}

impl http_body::Body for PassedOn {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let error = match ready!(Pin::new(body).poll_frame(cx)) {
            Some(Err(error)) => error,
            frame => return Poll::Ready(frame),
        };
        self.body = None;
        let text = format!("the leader broke off: {}", error.message());
        let mut trailers = HeaderMap::new();
        Status::unavailable(text).add_header(&mut trailers)?;
        Poll::Ready(Some(Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(|body| body.is_end_stream())
    }

    fn size_hint(&self) -> SizeHint {
        let body = self.body.as_ref();
        body.map_or_else(SizeHint::default, |body| body.size_hint())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::stream;
    use http_body_util::{BodyExt as _, StreamBody};
    use tonic::Code;

    use super::*;

    fn answer(frames: Vec<Result<Frame<Bytes>, Status>>) -> Body {
        PassedOn::wrap(Body::new(StreamBody::new(stream::iter(frames))))
    }

    #[tokio::test]
    async fn an_answer_that_breaks_off_ends_with_a_status() {
        let data = Frame::data(Bytes::from_static(b"half"));
        let broken = Status::internal("connection reset");
        let answer = answer(vec![Ok(data), Err(broken)]).collect().await.unwrap();
        let status = Status::from_header_map(answer.trailers().unwrap()).unwrap();
        assert_eq!(status.code(), Code::Unavailable);
        assert_eq!(
            status.message(),
            "the leader broke off: connection reset",
            "{status}"
        );
        assert_eq!(answer.to_bytes(), "half");
    }

    #[tokio::test]
    async fn the_leaders_own_end_is_passed_on_as_it_is() {
        let end = Status::aborted("node must disconnect");
        let mut trailers = HeaderMap::new();
        end.add_header(&mut trailers).unwrap();
        let answer = answer(vec![Ok(Frame::trailers(trailers))])
            .collect()
            .await
            .unwrap();
        let status = Status::from_header_map(answer.trailers().unwrap()).unwrap();
        assert_eq!(
            (status.code(), status.message()),
            (end.code(), end.message())
        );
    }
}
