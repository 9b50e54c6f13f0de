//! What answers the calls of a door: the control API, to which most of them go, and the others behind
//! a router, which allocates for each call that it finds a service for.

use std::{
    convert::Infallible,
    task::{Context, Poll},
};

use futures_util::future::{BoxFuture, Either};
use http::{Request, Response};
use skep_proto::v1::control_server::ControlServer;
use tonic::{body::Body, server::NamedService as _, service::Routes};
use tower::Service;

use crate::control::Control;

/// The services of a door.
#[derive(Clone, Debug)]
pub struct Services {
    control: ControlServer<Control>,
    others: Routes,
}

impl Services {
    /// `others` are all but the control API.
    pub fn new(control: ControlServer<Control>, others: Routes) -> Self {
        Self {
            control,
            others: others.prepare(),
        }
    }
}

/// Whether the RPC of this path is one of the control API, known or not.
fn is_control(path: &str) -> bool {
    let service = path.strip_prefix('/').and_then(|rpc| rpc.split_once('/'));
    service.is_some_and(|(service, _)| service == ControlServer::<Control>::NAME)
}

impl Service<Request<Body>> for Services {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Either<
        BoxFuture<'static, Result<Response<Body>, Infallible>>,
        <Routes as Service<Request<Body>>>::Future,
    >;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // As both of them are, always.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        if is_control(request.uri().path()) {
            Either::Left(self.control.call(request))
        } else {
            Either::Right(self.others.call(request))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_control_api_is_told_by_its_whole_name() {
        assert!(is_control("/docker.swarmkit.v1.Control/ListNodes"));
        assert!(is_control("/docker.swarmkit.v1.Control/NoSuchCall"));
        assert!(!is_control("/docker.swarmkit.v1.Control"));
        assert!(!is_control("/docker.swarmkit.v1.ControlPlane/ListNodes"));
        assert!(!is_control("/docker.swarmkit.v1.Dispatcher/Session"));
    }
}
