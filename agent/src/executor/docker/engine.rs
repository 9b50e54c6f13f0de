//! The engine's API: what of it is used, and what its errors mean to a task.

use std::{collections::HashMap, path::Path, time::Duration};

use bollard::{
    API_DEFAULT_VERSION, ClientVersion, Docker,
    errors::Error as Bollard,
    models::{
        ContainerCreateBody, ContainerSummary, EventMessage, HealthStatusEnum, LocalNodeState,
        NetworkConnectRequest, SystemInfo,
    },
    query_parameters::{
        CreateContainerOptionsBuilder, CreateImageOptionsBuilder, EventsOptionsBuilder,
        ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, StopContainerOptionsBuilder,
    },
};
use futures_util::{StreamExt as _, TryStreamExt as _, stream::BoxStream};
use skep_proto::v1;

use super::{
    plan::{Attachment, Reference},
    ports::published,
};
use crate::{error::Error, executor::Failure};

/// Seconds that an engine may take to begin its answer.
const ANSWER: u64 = 120;
/// Seconds that a registry may take to begin its answer to the engine.
const PULL: u64 = 600;

/// A connection to a Docker engine. Clones are the same one.
#[derive(Clone, Debug)]
pub struct Engine {
    docker: Docker,
}

/// What a container is right now.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Seen {
    /// Created, and not started since.
    pub(super) fresh: bool,
    pub(super) running: bool,
    pub(super) pid: i32,
    pub(super) exit_code: i32,
    pub(super) oom_killed: bool,
    /// What the engine says went wrong, mostly empty.
    pub(super) error: String,
    /// `None` if nobody checks its health.
    pub(super) health: Option<HealthStatusEnum>,
    /// Published on the host right now.
    pub(super) ports: Vec<v1::PortConfig>,
}

impl Engine {
    /// Connects to an engine and settles the version of the API.
    ///
    /// `host` is `unix:///path` or a path.
    ///
    /// # Errors
    /// When it is something else, or nobody answers there.
    pub async fn connect(host: &str) -> Result<Self, Error> {
        let error = |reason: String| Error::Engine {
            host: host.to_owned(),
            reason,
        };
        let path = host.strip_prefix("unix://").unwrap_or(host);
        if !path.starts_with('/') {
            let reason = "only unix sockets are supported; give a path or unix:///path";
            return Err(error(reason.to_owned()));
        }
        if !Path::new(path).exists() {
            return Err(error("there is no such socket".to_owned()));
        }
        let docker = Docker::connect_with_unix(path, ANSWER, API_DEFAULT_VERSION)
            .map_err(|why| error(why.to_string()))?;
        let docker = docker.negotiate_version().await;
        let docker = docker.map_err(|why| error(text(&why)))?;
        Ok(Self { docker })
    }

    /// Whether the engine is a member of a swarm itself, or on its way into one.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn is_in_swarm(&self) -> Result<bool, Failure> {
        let state = self.info().await?.swarm.and_then(|it| it.local_node_state);
        Ok(!matches!(
            state,
            None | Some(LocalNodeState::EMPTY | LocalNodeState::INACTIVE)
        ))
    }

    pub(super) fn api(&self) -> ClientVersion {
        self.docker.client_version()
    }

    pub(super) fn docker(&self) -> &Docker {
        &self.docker
    }

    pub(super) async fn info(&self) -> Result<SystemInfo, Failure> {
        let info = self.docker.info().await;
        info.map_err(failure("cannot ask the engine what it is"))
    }

    /// The containers with a label, running or not.
    pub(super) async fn labelled(
        &self,
        label: &str,
        value: &str,
    ) -> Result<Vec<ContainerSummary>, Failure> {
        let filters = HashMap::from([("label", vec![format!("{label}={value}")])]);
        let options = ListContainersOptionsBuilder::new()
            .all(true)
            .filters(&filters)
            .build();
        let listed = self.docker.list_containers(Some(options)).await;
        listed.map_err(failure("cannot list containers"))
    }

    /// The container's ID.
    pub(super) async fn create(
        &self,
        name: &str,
        body: ContainerCreateBody,
    ) -> Result<String, Failure> {
        let options = CreateContainerOptionsBuilder::new().name(name).build();
        let created = self.docker.create_container(Some(options), body).await;
        let created = created.map_err(failure("cannot create the container"))?;
        for warning in created.warnings {
            tracing::warn!(container = name, warning, "the engine warns");
        }
        Ok(created.id)
    }

    pub(super) async fn attach(&self, id: &str, to: Attachment) -> Result<(), Failure> {
        let what = format!("cannot attach the container to network {:?}", to.network);
        let request = NetworkConnectRequest {
            container: id.to_owned(),
            endpoint_config: Some(to.endpoint),
        };
        let attached = self.docker.connect_network(&to.network, request).await;
        attached.map_err(failure(&what))
    }

    /// Whether the engine has a network.
    pub(super) async fn has_network(&self, name: &str) -> Result<bool, Failure> {
        found(self.docker.inspect_network(name, None).await, "network").map(|it| it.is_some())
    }

    /// Does nothing if it runs.
    pub(super) async fn start(&self, id: &str) -> Result<(), Failure> {
        let started = self.docker.start_container(id, None).await;
        started.map_err(failure("starting container failed"))
    }

    /// Returns when it does not run, `grace` seconds after the stop signal at the latest.
    pub(super) async fn stop(&self, id: &str, grace: i32) -> Result<(), Failure> {
        let options = StopContainerOptionsBuilder::new().t(grace).build();
        let mut docker = self.docker.clone();
        let grace = u64::try_from(grace).unwrap_or_default();
        docker.set_timeout(Duration::from_secs(grace + ANSWER));
        let stopped = docker.stop_container(id, Some(options)).await;
        found(stopped, "container").map(drop)
    }

    /// Removes the container, also one that runs, and its unnamed volumes.
    pub(super) async fn remove(&self, id: &str) -> Result<(), Failure> {
        let options = RemoveContainerOptionsBuilder::new().force(true).v(true);
        let removed = self
            .docker
            .remove_container(id, Some(options.build()))
            .await;
        match removed {
            // Somebody is at it already.
            Err(Bollard::DockerResponseServerError {
                status_code: 409,
                message,
            }) => Err(Failure::Temporary(message)),
            removed => found(removed, "container").map(drop),
        }
    }

    /// `None` if there is no such container.
    pub(super) async fn look(&self, id: &str) -> Result<Option<Seen>, Failure> {
        let found = found(self.docker.inspect_container(id, None).await, "container")?;
        Ok(found.map(|container| {
            let state = container.state.unwrap_or_default();
            let ports = container.network_settings.and_then(|it| it.ports);
            use bollard::models::ContainerStateStatusEnum as Status;
            let number = |value: Option<i64>| {
                let value = value.unwrap_or_default();
                i32::try_from(value).unwrap_or(i32::MAX)
            };
            let health = state.health.and_then(|health| health.status);
            Seen {
                fresh: state.status == Some(Status::CREATED),
                running: state.running.unwrap_or_default(),
                pid: number(state.pid),
                exit_code: number(state.exit_code),
                oom_killed: state.oom_killed.unwrap_or_default(),
                error: state.error.unwrap_or_default(),
                health: health
                    .filter(|it| !matches!(it, HealthStatusEnum::EMPTY | HealthStatusEnum::NONE)),
                ports: ports.map(published).unwrap_or_default(),
            }
        }))
    }

    /// Waits until a container does not run any more, whatever its exit code.
    pub(super) async fn ended(&self, id: &str) -> Result<(), Failure> {
        let mut waiting = std::pin::pin!(self.docker.wait_container(id, None));
        match waiting.next().await {
            Some(Ok(_) | Err(Bollard::DockerContainerWaitError { .. })) => Ok(()),
            Some(Err(error)) => found(Err(error), "container").map(|_: Option<()>| ()),
            None => Err(Failure::Temporary("the engine stopped to wait".to_owned())),
        }
    }

    /// What happens to the health of a container from a point in time on, in seconds of Unix time.
    pub(super) fn health(
        &self,
        id: &str,
        since: u64,
    ) -> BoxStream<'static, Result<EventMessage, Failure>> {
        let filters = HashMap::from([
            ("type", vec!["container"]),
            ("container", vec![id]),
            ("event", vec!["health_status"]),
        ]);
        let options = EventsOptionsBuilder::new()
            .since(&since.to_string())
            .filters(&filters)
            .build();
        let events = self.docker.events(Some(options));
        let told = failure("cannot follow the health of the container");
        events.map_err(told).boxed()
    }

    pub(super) async fn has_image(&self, reference: &str) -> Result<bool, Failure> {
        found(self.docker.inspect_image(reference).await, "image").map(|it| it.is_some())
    }

    /// Fetches an image, with the credentials as the API wants them: JSON in URL-safe base64.
    pub(super) async fn pull(&self, image: &Reference, auth: &str) -> Result<(), Failure> {
        let mut docker = self.docker.clone();
        docker.set_timeout(Duration::from_secs(PULL));
        if !auth.is_empty() {
            // The library would encode them anew, in a form that older engines cannot read.
            let mut header: http::HeaderValue = auth.parse().map_err(|_| {
                Failure::Fatal("the credentials for the registry are malformed".to_owned())
            })?;
            header.set_sensitive(true);
            docker = docker.with_request_modifier(move |mut request| {
                let headers = request.headers_mut();
                headers.insert("x-registry-auth", header.clone());
                request
            });
        }
        let options = CreateImageOptionsBuilder::new()
            .from_image(&image.name)
            .tag(&image.tag)
            .build();
        let progress = docker.create_image(Some(options), None, None);
        let pulled = progress.try_for_each(|_| std::future::ready(Ok(()))).await;
        pulled.map_err(failure(""))
    }
}

/// What the engine has, `None` if it says that there is no such thing.
fn found<T>(result: Result<T, Bollard>, what: &str) -> Result<Option<T>, Failure> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Bollard::DockerResponseServerError {
            status_code: 404, ..
        }) => Ok(None),
        Err(error) => Err(failure(&format!("trouble with the {what}"))(error)),
    }
}

/// An error of the engine as the end of a task, or as a reason to try again.
pub(super) fn failure(what: &str) -> impl Fn(Bollard) -> Failure {
    let what = match what {
        "" => String::new(),
        what => format!("{what}: "),
    };
    move |error| {
        let text = format!("{what}{}", text(&error));
        if is_temporary(&error) {
            Failure::Temporary(text)
        } else {
            Failure::Fatal(text)
        }
    }
}

/// Whether the engine was not there to answer, and may be soon.
fn is_temporary(error: &Bollard) -> bool {
    matches!(
        error,
        Bollard::RequestTimeoutError
            | Bollard::IOError { .. }
            | Bollard::HyperResponseError { .. }
            | Bollard::HyperLegacyError { .. }
            | Bollard::SocketNotFoundError(_)
            | Bollard::DockerResponseServerError {
                status_code: 503,
                ..
            }
    )
}

/// The engine's own words.
fn text(error: &Bollard) -> String {
    match error {
        Bollard::DockerResponseServerError { message, .. } => message.clone(),
        Bollard::DockerStreamError { error } => error.clone(),
        error if is_temporary(error) => format!("the engine does not answer: {error}"),
        error => error.to_string(),
    }
}
