//! Secrets and configs for a service, as they are written on the command line.
//!
//! What is read here has a name and no ID yet: [`resolve`] asks the manager for it.

use skep_proto::v1::{
    ConfigReference, FileTarget, SecretReference, ServiceSpec, config_reference, secret_reference,
    task_spec::Runtime,
};

use super::{pairs, values};
use crate::{Error, client::Client, lookup};

/// Who owns the file and what may be done with it, unless something else is said.
const OWNER: &str = "0";
const MODE: u32 = 0o444;

/// The permission bits. Those above them have other places in the wire format.
const MODE_BITS: u32 = 0o777;

const EXPECTED: &str = "expected NAME or source=NAME,target=FILE,uid=ID,gid=ID,mode=0444";

/// A secret as `NAME`, or in the long form with `source`, `target`, `uid`, `gid` and `mode`.
pub fn secret(text: &str) -> Result<SecretReference, String> {
    let (name, file) = reference(text)?;
    Ok(SecretReference {
        secret_id: String::new(),
        secret_name: name,
        target: Some(secret_reference::Target::File(file)),
    })
}

/// A config, in the same forms.
pub fn config(text: &str) -> Result<ConfigReference, String> {
    let (name, file) = reference(text)?;
    Ok(ConfigReference {
        config_id: String::new(),
        config_name: name,
        target: Some(config_reference::Target::File(file)),
    })
}

fn reference(text: &str) -> Result<(String, FileTarget), String> {
    let mut source = String::new();
    let mut file = FileTarget {
        name: String::new(),
        uid: OWNER.to_owned(),
        gid: OWNER.to_owned(),
        mode: MODE,
    };
    if text.contains(['=', ',']) {
        for (key, value) in pairs::assignments(text, EXPECTED)? {
            match key.as_str() {
                "source" | "src" => source = value,
                "target" => file.name = value,
                "uid" => file.uid = number("uid", value)?,
                "gid" => file.gid = number("gid", value)?,
                "mode" => file.mode = mode(&value)?,
                _ => return Err(format!("unknown key {key:?}: {EXPECTED}")),
            }
        }
    } else {
        text.clone_into(&mut source);
    }
    if source.is_empty() {
        return Err(format!("no source: {EXPECTED}"));
    }
    if file.name.is_empty() {
        file.name.clone_from(&source);
    }
    Ok((source, file))
}

/// The wire format has IDs of users and groups as text, names do not work on nodes.
fn number(key: &str, value: String) -> Result<String, String> {
    match value.parse::<u32>() {
        Ok(_) => Ok(value),
        Err(_) => Err(format!("{key} is not a number: {EXPECTED}")),
    }
}

/// With a leading zero only: docker takes `444` as a decimal number, which nobody means.
fn mode(text: &str) -> Result<u32, String> {
    match values::octal(text, MODE_BITS) {
        Ok(mode) if text.starts_with('0') => Ok(mode),
        _ => Err(format!(
            "mode={text}: expected an octal number with a leading zero, such as 0444"
        )),
    }
}

/// Whether `wanted` means this secret: its name or its ID.
pub(super) fn is_secret(reference: &SecretReference, wanted: &str) -> bool {
    reference.secret_name == wanted || reference.secret_id == wanted
}

/// As [`is_secret`].
pub(super) fn is_config(reference: &ConfigReference, wanted: &str) -> bool {
    reference.config_name == wanted || reference.config_id == wanted
}

/// Looks up the secrets and configs that `spec` has the names of only. Fails with
/// [`Error::NotFound`] if there is none of a name.
pub(crate) async fn resolve(client: &Client, spec: &mut ServiceSpec) -> Result<(), Error> {
    let Some(Runtime::Container(container)) = &mut spec.task_mut().runtime else {
        return Ok(());
    };
    for reference in &mut container.secrets {
        if reference.secret_id.is_empty() {
            let secret = lookup::secret(client, &reference.secret_name).await?;
            reference
                .secret_name
                .clone_from(&secret.spec().annotations().name);
            reference.secret_id = secret.id;
        }
    }
    for reference in &mut container.configs {
        if reference.config_id.is_empty() {
            let config = lookup::config(client, &reference.config_name).await?;
            reference
                .config_name
                .clone_from(&config.spec().annotations().name);
            reference.config_id = config.id;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, uid: &str, gid: &str, mode: u32) -> FileTarget {
        FileTarget {
            name: name.to_owned(),
            uid: uid.to_owned(),
            gid: gid.to_owned(),
            mode,
        }
    }

    #[test]
    fn short_and_long_forms() {
        for (text, expected) in [
            ("db", file("db", "0", "0", 0o444)),
            ("source=db", file("db", "0", "0", 0o444)),
            ("src=db,target=pw", file("pw", "0", "0", 0o444)),
            (
                "target=/run/pw,source=db,uid=33,gid=44,mode=0400",
                file("/run/pw", "33", "44", 0o400),
            ),
        ] {
            let (source, target) = reference(text).unwrap();
            assert_eq!((source.as_str(), target), ("db", expected), "{text}");
        }
        assert!(secret("db").unwrap().secret_id.is_empty());
        assert_eq!(config("db").unwrap().config_name, "db");
    }

    #[test]
    fn what_is_wrong_is_said_with_the_form() {
        for (text, problem) in [
            ("", "no source"),
            ("target=x", "no source"),
            ("source=a,targets=b", "unknown key \"targets\""),
            ("source=a,ro", "expected"),
            ("source=a,uid=root", "uid is not a number"),
            ("source=a,mode=444", "octal"),
            ("source=a,mode=04444", "octal"),
        ] {
            let error = secret(text).unwrap_err();
            assert!(error.contains(problem), "{text}: {error}");
        }
    }
}
