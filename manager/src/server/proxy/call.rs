//! A call that is passed on: what is sent in its place, and what its answer becomes.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use skep_security::{Caller, forward_headers};
use tonic::{Status, body::Body};

use super::Door;
use crate::server::passed_on::PassedOn;

/// Metadata to which every manager on the way to the leader adds itself; SwarmKit's name.
pub(super) const REDIRECT: &str = "redirect";

/// Managers that a call may go through on its way. While leaders change it can be more than one;
/// without end it is when a wrong address leads back.
pub(super) const MAX_REDIRECTS: usize = 3;

/// Says on whose behalf the call is made (through the socket it is the manager's own) and through
/// whom. Returns who calls.
#[allow(clippy::result_large_err)] // A refusal is answered as it is.
pub(super) fn mark(
    door: Door,
    own_id: &str,
    request: &mut Request<Body>,
) -> Result<Option<Caller>, Status> {
    let caller = request.extensions().get::<Caller>().cloned();
    *request.extensions_mut() = http::Extensions::default();
    let headers = request.headers_mut();
    match (door, &caller) {
        (Door::Remote, Some(caller)) => {
            if caller.forwarded_by.is_none() {
                headers.remove(REDIRECT);
            }
            forward_headers(caller, headers);
        }
        _ => {
            headers.remove(REDIRECT);
            strip(headers);
        }
    }
    let redirects = headers.get_all(REDIRECT).iter().count();
    if redirects >= MAX_REDIRECTS {
        let text = format!(
            "no leader was found within {redirects} redirects; managers may advertise each other's \
             addresses"
        );
        return Err(Status::resource_exhausted(text));
    }
    if let Ok(own_id) = HeaderValue::from_str(own_id) {
        headers.append(REDIRECT, own_id);
    }
    Ok(caller)
}

fn strip(headers: &mut HeaderMap) {
    let nobody = Caller {
        identity: None,
        remote_addr: String::new(),
        forwarded_by: None,
    };
    forward_headers(&nobody, headers);
    for name in [
        "forwarded_cert",
        "forwarded_cert_cn",
        "forwarded_cert_org",
        "remote_addr",
    ] {
        headers.remove(name);
    }
}

pub(super) async fn read(body: Body, limit: usize) -> Result<Bytes, Status> {
    let read = Limited::new(body, limit).collect().await;
    let read =
        read.map_err(|err| Status::invalid_argument(format!("the request cannot be read: {err}")))?;
    Ok(read.to_bytes())
}

pub(super) fn rebuild(parts: &http::request::Parts, body: Bytes) -> Request<Body> {
    let mut request = Request::new(Body::new(Full::new(body)));
    *request.method_mut() = parts.method.clone();
    *request.uri_mut() = Uri::from_static("/");
    if let Some(path) = parts.uri.path_and_query() {
        *request.uri_mut() = Uri::from(path.clone());
    }
    *request.headers_mut() = parts.headers.clone();
    *request.extensions_mut() = parts.extensions.clone();
    request
}

pub(super) fn answer(result: Result<Response<Body>, tonic::transport::Error>) -> Response<Body> {
    result
        .map(|answer| answer.map(PassedOn::wrap))
        .unwrap_or_else(|err| {
            let text = format!(
                "connection error: the leader did not answer: {}",
                causes(&err)
            );
            Status::unavailable(text).into_http()
        })
}

/// Whether the connection could not be made at all.
pub(super) fn unreachable(err: &tonic::transport::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(err);
    while let Some(err) = source {
        if err.is::<tonic::ConnectError>() {
            return true;
        }
        source = err.source();
    }
    false
}

fn causes(err: &dyn std::error::Error) -> String {
    let mut text = err.to_string();
    let mut source = err.source();
    while let Some(err) = source {
        text.push_str(": ");
        text.push_str(&err.to_string());
        source = err.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::{super::tests::heartbeat, *};

    #[test]
    fn redirects_are_counted_and_clients_cannot_claim_any() {
        let redirects = |request: &Request<Body>| {
            let all = request.headers().get_all(REDIRECT).iter();
            all.map(|id| id.to_str().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        for (door, forwarded_by, expected) in [
            (Door::Remote, None, vec!["m1"]),
            (Door::Remote, Some("m2"), vec!["m2", "m1"]),
            (Door::Socket, None, vec!["m1"]),
        ] {
            let mut request = heartbeat(forwarded_by);
            let headers = request.headers_mut();
            headers.append(REDIRECT, HeaderValue::from_static("m2"));
            mark(door, "m1", &mut request).unwrap();
            assert_eq!(redirects(&request), expected, "{door:?}");
        }
    }
}
