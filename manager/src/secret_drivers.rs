//! Secret drivers: programs beside the swarm that make the value of a secret for each task that needs it.
//!
//! They speak Docker's plugin protocol, HTTP over a socket that lies in one of the plugin directories.
//! These are looked through for each value, so that a driver may come and go. Nothing is kept.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http::{Request, header};
use serde_json::{Map, Value, json};
use skep_proto::v1::{EndpointSpec, SecretSpec, Task, task_spec::Runtime};
use tokio::{
    fs::File,
    io::AsyncReadExt as _,
    net::{TcpStream, UnixStream},
    sync::Semaphore,
    time::sleep,
};

use crate::control;

/// Where Docker looks for plugins.
pub const PLUGIN_DIRS: [&str; 3] = [
    "/run/docker/plugins",
    "/etc/docker/plugins",
    "/usr/lib/docker/plugins",
];

/// What such a plugin says that it implements (Docker's name).
const CAPABILITY: &str = "secretprovider";
const ACTIVATE: &str = "/Plugin.Activate";
const GET_SECRET: &str = "/SecretProvider.GetSecret";
const CONTENT_TYPE: &str = "application/vnd.docker.plugins.v1.2+json";

/// Largest answer that is read, in bytes: the largest secret in base64, and some more.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Largest file with an address that is read, in bytes.
const MAX_ADDRESS_BYTES: u64 = 4096;
/// Of what a driver says is wrong, so many characters are passed on.
const MAX_REASON_CHARS: usize = 500;
/// Values that are asked for at the same time, for all nodes.
const AT_ONCE: usize = 32;
/// Pause before trying again to connect to a plugin at whose socket too many wait already.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// The drivers that can be found in some directories. Clones share how many are asked at a time.
#[derive(Clone, Debug)]
pub struct SecretDrivers {
    dirs: Vec<PathBuf>,
    places: Arc<Semaphore>,
}

impl SecretDrivers {
    /// Those in these directories, the first one first. The driver `vault` is `vault.sock`, a Unix
    /// socket, or `vault.spec`, a file with a URL (`unix:///path` or `tcp://host:port`), in the directory
    /// itself or in `vault` there.
    pub fn new(dirs: Vec<PathBuf>) -> Self {
        Self {
            dirs,
            places: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }

    /// The value of this secret for this task. Callers bound the time.
    ///
    /// # Errors
    /// Why there is none, in words.
    pub(crate) async fn value(&self, secret: &SecretSpec, task: &Task) -> Result<Bytes, String> {
        let name = secret.driver.as_ref().map_or("", |driver| &driver.name);
        let _place = self.places.acquire().await;
        let address = self.find(name).await?;
        if !implements(&address.call(ACTIVATE, Bytes::new()).await?) {
            return Err(format!("the plugin does not implement {CAPABILITY}"));
        }
        let question = question(secret, task).to_string();
        let value = value(&address.call(GET_SECRET, question.into()).await?)?;
        control::check_secret_size(&value).map_err(|error| error.to_string())?;
        Ok(value)
    }

    async fn find(&self, name: &str) -> Result<Address, String> {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            return Err(format!("{name:?} cannot be the name of a plugin's file"));
        }
        for dir in self
            .dirs
            .iter()
            .flat_map(|dir| [dir.clone(), dir.join(name)])
        {
            let socket = dir.join(format!("{name}.sock"));
            if tokio::fs::try_exists(&socket).await.unwrap_or(false) {
                return Ok(Address::Unix(socket));
            }
            let spec = dir.join(format!("{name}.spec"));
            let is_file = tokio::fs::metadata(&spec)
                .await
                .is_ok_and(|it| it.is_file());
            if is_file && let Ok(file) = File::open(&spec).await {
                let mut text = String::new();
                let read = file.take(MAX_ADDRESS_BYTES).read_to_string(&mut text).await;
                read.map_err(|error| format!("{name}.spec cannot be read: {error}"))?;
                return Address::parse(text.trim());
            }
        }
        let dirs = self.dirs.iter().map(|dir| dir.to_string_lossy());
        Err(format!(
            "there is no {name}.sock and no {name}.spec in {}; the plugin must run where the leader runs",
            dirs.collect::<Vec<_>>().join(", ")
        ))
    }
}

impl Default for SecretDrivers {
    /// Those that Docker would find.
    fn default() -> Self {
        Self::new(PLUGIN_DIRS.map(PathBuf::from).into())
    }
}

/// Where a plugin listens.
#[derive(Debug, PartialEq, Eq)]
enum Address {
    Unix(PathBuf),
    Tcp(String),
}

impl Address {
    fn parse(url: &str) -> Result<Self, String> {
        match url.split_once("://") {
            Some(("unix", path)) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(("tcp", addr)) if addr.contains(':') => Ok(Self::Tcp(addr.to_owned())),
            _ => Err(format!(
                "{url:?} is not unix:///path and not tcp://host:port"
            )),
        }
    }

    /// One call, on a connection of its own as not all plugins keep theirs open.
    async fn call(&self, path: &str, body: Bytes) -> Result<Value, String> {
        let request = Request::post(path)
            .header(header::HOST, "plugin")
            .header(header::ACCEPT, CONTENT_TYPE)
            .header(header::CONTENT_TYPE, CONTENT_TYPE)
            .body(body)
            .map_err(|error| error.to_string())?;
        let failed = |error: io::Error| format!("{self} cannot be reached: {error}");
        let answer = match self {
            Self::Unix(path) => {
                let io = connect(path).await.map_err(failed)?;
                skep_security::post(io, request, MAX_ANSWER_BYTES).await
            }
            Self::Tcp(addr) => {
                let io = TcpStream::connect(addr).await.map_err(failed)?;
                skep_security::post(io, request, MAX_ANSWER_BYTES).await
            }
        };
        let answer = answer.map_err(|error| format!("{path} of {self}: {error}"))?;
        // What is wrong with an answer must not quote it: it may hold a secret.
        serde_json::from_slice(&answer).map_err(|_| format!("{path} of {self}: not JSON"))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(addr) => f.write_str(addr),
        }
    }
}

/// Connects as soon as there is room in the socket's queue.
async fn connect(path: &Path) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path).await {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => sleep(BUSY_PAUSE).await,
            done => return done,
        }
    }
}

fn implements(manifest: &Value) -> bool {
    let implemented = manifest["Implements"].as_array();
    implemented.is_some_and(|list| list.iter().any(|it| it == CAPABILITY))
}

/// What a driver is told (SwarmKit's names). What is empty is left out.
fn question(secret: &SecretSpec, task: &Task) -> Value {
    let service = task.service_annotations();
    let container = match &task.spec().runtime {
        Some(Runtime::Container(container)) => Some(container),
        _ => None,
    };
    let endpoint = task
        .endpoint
        .as_ref()
        .and_then(|endpoint| endpoint.spec.as_ref());
    without_empty(json!({
        "SecretName": secret.annotations().name,
        "SecretLabels": secret.annotations().labels,
        "ServiceHostname": container.map_or("", |container| &container.hostname),
        "ServiceID": task.service_id,
        "ServiceName": service.name,
        "ServiceLabels": service.labels,
        "TaskID": task.id,
        "TaskName": control::task_name(task),
        "TaskImage": container.map_or("", |container| &container.image),
        "NodeID": task.node_id,
        "ServiceEndpointSpec": endpoint.map(endpoint_spec),
    }))
}

fn endpoint_spec(spec: &EndpointSpec) -> Value {
    let ports = spec.ports.iter().map(|port| {
        without_empty(json!({
            "Name": port.name,
            "Protocol": port.protocol,
            "TargetPort": port.target_port,
            "PublishedPort": port.published_port,
            "PublishMode": port.publish_mode,
        }))
    });
    let ports: Vec<_> = ports.collect();
    without_empty(json!({ "Mode": spec.mode, "Ports": ports }))
}

fn without_empty(value: Value) -> Value {
    let Value::Object(fields) = value else {
        return value;
    };
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Number(number) => number.as_i64() == Some(0),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) => false,
    };
    let fields = fields.into_iter().filter(|(_, value)| !empty(value));
    Value::Object(fields.collect::<Map<_, _>>())
}

/// The value in an answer.
fn value(answer: &Value) -> Result<Bytes, String> {
    match &answer["Err"] {
        Value::Null => {}
        Value::String(none) if none.is_empty() => {}
        Value::String(error) => return Err(error.chars().take(MAX_REASON_CHARS).collect()),
        _ => return Err("its Err is not a text".to_owned()),
    }
    let value = answer["Value"].as_str().unwrap_or_default();
    let value = BASE64_STANDARD.decode(value);
    value
        .map(Bytes::from)
        .map_err(|_| "its Value is not base64".to_owned())
}

#[cfg(test)]
mod tests;
