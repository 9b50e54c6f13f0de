//! `docker.swarmkit.v1.Health`: is this manager there, and does it serve what a name stands for?

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::RwLock;
use skep_proto::v1::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server,
};
use tonic::{Request, Response, Status};

/// What is served, by name. The empty name stands for the process.
#[derive(Clone, Debug, Default)]
pub struct Health {
    services: Arc<RwLock<BTreeMap<&'static str, bool>>>,
}

impl Health {
    /// On the TCP listener: this manager takes part in Raft, or is about to.
    pub const RAFT: &'static str = "Raft";
    /// On the control socket: the control API answers.
    pub const CONTROL_API: &'static str = "ControlAPI";

    /// A process that serves nothing yet but knows of `services`.
    pub fn new(services: &[&'static str]) -> Self {
        let services = services.iter().map(|&name| (name, false)).collect();
        Self {
            services: Arc::new(RwLock::new(services)),
        }
    }

    /// Says whether `service` is served.
    pub fn set(&self, service: &'static str, serving: bool) {
        self.services.write().insert(service, serving);
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = request.into_inner().service;
        let serving = match self.services.read().get(name.as_str()) {
            Some(&serving) => serving,
            None if name.is_empty() => true,
            None => return Err(Status::not_found("unknown service")),
        };
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        Ok(Response::new(HealthCheckResponse {
            status: status.into(),
        }))
    }
}

#[cfg(test)]
mod tests {
    use health_server::Health as _;

    use super::*;

    async fn check(health: &Health, name: &str) -> Result<ServingStatus, Status> {
        let request = HealthCheckRequest {
            service: name.to_owned(),
        };
        health
            .check(Request::new(request))
            .await
            .map(|response| response.into_inner().status())
    }

    #[tokio::test]
    async fn names_are_told_apart() {
        let health = Health::new(&[Health::RAFT]);
        assert_eq!(check(&health, "").await.unwrap(), ServingStatus::Serving);
        assert_eq!(
            check(&health, "Raft").await.unwrap(),
            ServingStatus::NotServing
        );
        health.set(Health::RAFT, true);
        assert_eq!(
            check(&health, "Raft").await.unwrap(),
            ServingStatus::Serving
        );
        let unknown = check(&health, "Other").await.unwrap_err();
        assert_eq!(
            (unknown.code(), unknown.message()),
            (tonic::Code::NotFound, "unknown service")
        );
    }
}
