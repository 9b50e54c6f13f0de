//! Credentials for the registry of an image: those that `docker login` has left on this machine.

use std::{
    env, fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use clap::Args;
use serde_json::{Value, json};
use skep_proto::v1::{ServiceSpec, task_spec::Runtime};

use crate::Error;

/// What docker calls its own registry in its configuration.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The user name of a credential helper that has a token and no password.
const TOKEN_USER: &str = "<token>";

/// Whether nodes get the credentials that this machine has.
#[derive(Debug, Clone, Default, Args)]
pub(crate) struct RegistryFlags {
    /// Give the nodes the credentials for the image's registry that docker login has stored here
    #[arg(long)]
    with_registry_auth: bool,
}

impl RegistryFlags {
    /// Puts the credentials into `spec`. Without any, what is there stays.
    pub(crate) fn apply(&self, spec: &mut ServiceSpec) -> Result<(), Error> {
        let Some(Runtime::Container(container)) = &mut spec.task_mut().runtime else {
            return Ok(());
        };
        if !self.with_registry_auth || container.image == super::PROCESS_IMAGE {
            return Ok(());
        }
        let Some(path) = config_file() else {
            return Ok(());
        };
        let auth = read(&path, registry(&container.image)).map_err(|problem| {
            Error::Usage(format!(
                "--with-registry-auth: {}: {problem}",
                path.display()
            ))
        })?;
        if let Some(auth) = auth {
            container.pull_options.get_or_insert_default().registry_auth =
                URL_SAFE.encode(auth.to_string());
        }
        Ok(())
    }
}

/// The key of an image's registry in docker's configuration.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some(("docker.io" | "index.docker.io", _)) | None => DOCKER_HUB,
        // Else it is the first part of a path on docker's own.
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        Some(_) => DOCKER_HUB,
    }
}

fn config_file() -> Option<PathBuf> {
    let directory = env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".docker")))?;
    Some(directory.join("config.json"))
}

/// The credentials for `registry` as engines want them, `None` if there are none.
fn read(path: &Path, registry: &str) -> Result<Option<Value>, String> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.to_string()),
    };
    let config: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
    let helper = config["credHelpers"][registry]
        .as_str()
        .or_else(|| config["credsStore"].as_str());
    match helper.filter(|helper| !helper.is_empty()) {
        Some(helper) => ask(helper, registry),
        None => stored(&config["auths"][registry], registry),
    }
}

/// Credentials that are written down in the configuration.
fn stored(entry: &Value, registry: &str) -> Result<Option<Value>, String> {
    let wrong = || format!("the entry of {registry} in auths cannot be read; log in again");
    let text = |key: &str| entry[key].as_str().filter(|text| !text.is_empty());
    let mut auth = json!({ "serveraddress": registry });
    if let Some(pair) = text("auth") {
        let pair = STANDARD.decode(pair).map_err(|_| wrong())?;
        let pair = String::from_utf8(pair).map_err(|_| wrong())?;
        let (user, password) = pair.split_once(':').ok_or_else(wrong)?;
        auth["username"] = user.into();
        // Docker has written it with a zero at the end.
        auth["password"] = password.trim_end_matches('\0').into();
    }
    for key in ["identitytoken", "registrytoken"] {
        if let Some(token) = text(key) {
            auth[key] = token.into();
        }
    }
    let found = auth.as_object().is_some_and(|auth| auth.len() > 1);
    Ok(found.then_some(auth))
}

/// Asks a credential helper: the registry goes to its input, JSON comes back.
fn ask(helper: &str, registry: &str) -> Result<Option<Value>, String> {
    if helper.contains(['/', '\\']) {
        return Err(format!("{helper:?} is not the name of a credential helper"));
    }
    let program = format!("docker-credential-{helper}");
    let failed = |error: io::Error| format!("{program}: {error}");
    let mut child = Command::new(&program)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        // One that does not read it says so by its exit code.
        let _ = writeln!(input, "{registry}");
    }
    let output = child.wait_with_output().map_err(failed)?;
    if !output.status.success() {
        // That is how helpers say that they know nothing of the registry.
        return Ok(None);
    }
    let answer: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| format!("{program}: {error}"))?;
    let (user, secret) = (&answer["Username"], &answer["Secret"]);
    Ok(Some(if user.as_str() == Some(TOKEN_USER) {
        json!({ "serveraddress": registry, "identitytoken": secret })
    } else {
        json!({ "serveraddress": registry, "username": user, "password": secret })
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_name_their_registry() {
        for (image, expected) in [
            ("nginx", DOCKER_HUB),
            ("user/app:1", DOCKER_HUB),
            ("docker.io/library/nginx", DOCKER_HUB),
            ("registry.example.com/app", "registry.example.com"),
            ("localhost/app", "localhost"),
            ("host:5000/app@sha256:0", "host:5000"),
        ] {
            assert_eq!(registry(image), expected, "{image}");
        }
    }

    #[test]
    fn credentials_are_read_as_docker_writes_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("config.json");
        assert_eq!(read(&path, "r.example.com"), Ok(None), "no file");
        let text = json!({ "auths": {
            "r.example.com": { "auth": STANDARD.encode("me:se:cret") },
            "t.example.com": { "auth": "", "identitytoken": "abc" },
            "x.example.com": { "auth": "!" },
            "e.example.com": {},
        }});
        fs::write(&path, text.to_string()).unwrap();
        assert_eq!(
            read(&path, "r.example.com"),
            Ok(Some(json!({
                "serveraddress": "r.example.com", "username": "me", "password": "se:cret",
            })))
        );
        assert_eq!(
            read(&path, "t.example.com"),
            Ok(Some(
                json!({ "serveraddress": "t.example.com", "identitytoken": "abc" })
            ))
        );
        assert!(
            read(&path, "x.example.com")
                .unwrap_err()
                .contains("log in again")
        );
        for none in ["e.example.com", "other.example.com"] {
            assert_eq!(read(&path, none), Ok(None), "{none}");
        }
        fs::write(&path, "not JSON").unwrap();
        assert!(read(&path, "r.example.com").is_err());
        let helper = json!({ "credHelpers": { "r.example.com": "skep-does-not-exist" } });
        fs::write(&path, helper.to_string()).unwrap();
        let error = read(&path, "r.example.com").unwrap_err();
        assert!(
            error.contains("docker-credential-skep-does-not-exist"),
            "{error}"
        );
    }
}
