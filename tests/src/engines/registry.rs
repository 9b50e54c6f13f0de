//! A registry of images that asks for a password: as much of its API as an engine needs to pull.

use std::{collections::HashMap, io, net::SocketAddr, sync::Arc, time::Duration};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use parking_lot::Mutex;
use ring::digest;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

const USER: &str = "bee";
const PASSWORD: &str = "honey";

/// Bytes that the head of a request may have.
const MAX_HEAD: usize = 16 * 1024;
/// Time for an engine to say what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// A registry in this process, without TLS. Dropping it ends it.
pub struct Registry {
    addr: SocketAddr,
    shared: Arc<Shared>,
    _serving: JoinSet<()>,
}

#[derive(Default)]
struct Shared {
    /// What there is under a path, with its type and its digest.
    content: Mutex<HashMap<String, (&'static str, Vec<u8>)>>,
    asked: Mutex<Vec<String>>,
}

impl Registry {
    /// A registry that listens on this IP address.
    pub async fn serve(ip: &str) -> Self {
        let listener = TcpListener::bind((ip, 0)).await.unwrap();
        let (addr, shared) = (listener.local_addr().unwrap(), Arc::<Shared>::default());
        let mut serving = JoinSet::new();
        let answering = Arc::clone(&shared);
        serving.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // Who does not get an answer asks again, or says that there was none.
                let _ = timeout(PATIENCE, answering.answer(stream)).await;
            }
        });
        Self {
            addr,
            shared,
            _serving: serving,
        }
    }

    /// Makes `name:tag` an image of one layer, a tar archive, with these variables set. Returns its
    /// digest.
    pub fn push(&self, name: &str, tag: &str, layer: &[u8], env: &[&str]) -> String {
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": { "Env": env },
            "rootfs": { "type": "layers", "diff_ids": [digest(layer)] },
        });
        let config = config.to_string().into_bytes();
        let part = |kind, data: &[u8]| json!({ "mediaType": kind, "digest": digest(data), "size": data.len() });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": part(CONFIG, &config),
            "layers": [part(LAYER, layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let id = digest(&manifest);
        let mut content = self.shared.content.lock();
        let mut put = |kind, reference: &str, data: (&'static str, Vec<u8>)| {
            content.insert(format!("/v2/{name}/{kind}/{reference}"), data);
        };
        put("blobs", &digest(&config), (CONFIG, config));
        put("blobs", &digest(layer), (LAYER, layer.to_vec()));
        put("manifests", &id, (MANIFEST, manifest.clone()));
        put("manifests", tag, (MANIFEST, manifest));
        id
    }

    /// The reference of an image of this registry, by a tag (`web:1`) or a digest (`web@sha256:…`).
    pub fn image(&self, image: &str) -> String {
        format!("{}/{image}", self.addr)
    }

    /// The credentials that it takes, in the form in which a service holds them.
    pub fn auth(&self) -> String {
        self.auth_with(PASSWORD)
    }

    /// Such credentials with another password.
    pub fn auth_with(&self, password: &str) -> String {
        let server = self.addr.to_string();
        let auth = json!({ "username": USER, "password": password, "serveraddress": server });
        URL_SAFE.encode(auth.to_string())
    }

    /// The manifests that were asked for with the right credentials since this was called last, each
    /// as `name/tag` or `name/digest`.
    pub fn asked(&self) -> Vec<String> {
        std::mem::take(&mut *self.shared.asked.lock())
    }
}

impl Shared {
    /// One request and its answer.
    async fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let count = stream.read_buf(&mut head).await?;
            // An engine tries TLS first, and something else when that is not understood.
            if count == 0 || head.len() > MAX_HEAD || !matches!(head[0], b'G' | b'H') {
                return Ok(());
            }
        }
        let head = String::from_utf8_lossy(&head);
        let mut lines = head.lines();
        let mut words = lines.next().unwrap_or_default().split(' ');
        let (method, path) = (
            words.next().unwrap_or_default(),
            words.next().unwrap_or_default(),
        );
        let basic = format!("Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
        let allowed = lines.any(|line| {
            line.split_once(": ").is_some_and(|(name, value)| {
                name.eq_ignore_ascii_case("authorization") && value == basic
            })
        });
        let (status, kind, data) = match (allowed, path) {
            (false, _) => {
                let text = json!({ "errors": [{
                    "code": "UNAUTHORIZED",
                    "message": "authentication required",
                }]});
                (
                    "401 Unauthorized",
                    "application/json",
                    text.to_string().into(),
                )
            }
            (true, "/v2/") => ("200 OK", "application/json", b"{}".to_vec()),
            (true, path) => {
                if let Some((name, reference)) = path.split_once("/manifests/") {
                    let name = name.trim_start_matches("/v2/");
                    self.asked.lock().push(format!("{name}/{reference}"));
                }
                match self.content.lock().get(path) {
                    Some((kind, data)) => ("200 OK", *kind, data.clone()),
                    None => ("404 Not Found", "application/json", b"{}".to_vec()),
                }
            }
        };
        let mut answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\
             Docker-Distribution-Api-Version: registry/2.0\r\nDocker-Content-Digest: {}\r\n\
             WWW-Authenticate: Basic realm=\"hive\"\r\nConnection: close\r\n\r\n",
            data.len(),
            digest(&data),
        )
        .into_bytes();
        if method == "GET" {
            answer.extend(data);
        }
        stream.write_all(&answer).await?;
        stream.shutdown().await
    }
}

fn digest(data: &[u8]) -> String {
    let digest = digest::digest(&digest::SHA256, data);
    let hex: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("sha256:{hex}")
}
