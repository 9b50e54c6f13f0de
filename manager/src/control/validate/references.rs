//! References of a container to secrets and configs.

use std::collections::BTreeMap;

use skep_proto::v1::{
    ContainerSpec, config_reference, privileges::credential_spec::Source, secret_reference,
};

use crate::control::ApiError;

pub fn check(spec: &ContainerSpec) -> Result<(), ApiError> {
    secrets(spec)?;
    configs(spec)?;
    credential_spec(spec)
}

fn secrets(spec: &ContainerSpec) -> Result<(), ApiError> {
    let mut files = BTreeMap::new();
    for reference in &spec.secrets {
        let name = &reference.secret_name;
        if reference.secret_id.is_empty() || name.is_empty() {
            return Err(ApiError::invalid("malformed secret reference"));
        }
        match &reference.target {
            None => return Err(no_target("secret")),
            Some(secret_reference::Target::File(file)) => {
                take_file("secret", &mut files, &file.name, name)?;
            }
        }
    }
    Ok(())
}

fn configs(spec: &ContainerSpec) -> Result<(), ApiError> {
    let mut files = BTreeMap::new();
    for reference in &spec.configs {
        let name = &reference.config_name;
        if reference.config_id.is_empty() || name.is_empty() {
            return Err(ApiError::invalid("malformed config reference"));
        }
        match &reference.target {
            None => return Err(no_target("config")),
            Some(config_reference::Target::File(file)) => {
                take_file("config", &mut files, &file.name, name)?;
            }
            Some(config_reference::Target::Runtime(_)) => {}
        }
    }
    Ok(())
}

/// A credential spec in a config needs a reference that hands the config to the runtime.
fn credential_spec(spec: &ContainerSpec) -> Result<(), ApiError> {
    let Some(Source::Config(id)) = spec
        .privileges
        .as_ref()
        .and_then(|privileges| privileges.credential_spec.as_ref())
        .and_then(|credential_spec| credential_spec.source.as_ref())
    else {
        return Ok(());
    };
    let given = spec.configs.iter().any(|reference| {
        reference.config_id == *id
            && matches!(reference.target, Some(config_reference::Target::Runtime(_)))
    });
    if given {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "CredentialSpec references config '{id}', but that config isn't in config references with \
         RuntimeTarget"
    )))
}

fn no_target(kind: &str) -> ApiError {
    ApiError::invalid(format!("malformed {kind} reference, no target provided"))
}

/// Notes that `file` shows `name`; no two may be shown in one file.
fn take_file<'a>(
    kind: &str,
    files: &mut BTreeMap<&'a str, &'a str>,
    file: &'a str,
    name: &'a str,
) -> Result<(), ApiError> {
    if file.is_empty() {
        return Err(ApiError::invalid(format!(
            "malformed file {kind} reference, invalid target file name provided"
        )));
    }
    match files.insert(file, name) {
        None => Ok(()),
        Some(other) => Err(ApiError::invalid(format!(
            "{kind} references '{other}' and '{name}' have a conflicting target: '{file}'"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{
        ConfigReference, FileTarget, Privileges, RuntimeTarget, SecretReference,
        privileges::CredentialSpec,
    };

    use super::*;
    use crate::control::testing::text;

    fn file(name: &str) -> FileTarget {
        FileTarget {
            name: name.into(),
            ..Default::default()
        }
    }

    #[test]
    fn secret_references() {
        let check_all = |references: &[(&str, &str, Option<&str>)], expected: &str| {
            let spec = ContainerSpec {
                secrets: references
                    .iter()
                    .map(|&(id, name, target)| SecretReference {
                        secret_id: id.into(),
                        secret_name: name.into(),
                        target: target.map(|name| secret_reference::Target::File(file(name))),
                    })
                    .collect(),
                ..Default::default()
            };
            assert_eq!(text(check(&spec)), expected, "{references:?}");
        };
        check_all(&[], "");
        check_all(&[("1", "a", Some("x")), ("2", "b", Some("y"))], "");
        check_all(&[("", "a", Some("x"))], "malformed secret reference");
        check_all(&[("1", "", Some("x"))], "malformed secret reference");
        check_all(
            &[("1", "a", None)],
            "malformed secret reference, no target provided",
        );
        check_all(
            &[("1", "a", Some(""))],
            "malformed file secret reference, invalid target file name provided",
        );
        check_all(
            &[("1", "a", Some("x")), ("2", "b", Some("x"))],
            "secret references 'a' and 'b' have a conflicting target: 'x'",
        );
    }

    #[test]
    fn config_references() {
        use config_reference::Target;
        let runtime = || Some(Target::Runtime(RuntimeTarget {}));
        let check_all = |references: &[(&str, &str, Option<Target>)],
                         credential_spec: Option<&str>,
                         expected: &str| {
            let spec = ContainerSpec {
                configs: references
                    .iter()
                    .map(|(id, name, target)| ConfigReference {
                        config_id: (*id).into(),
                        config_name: (*name).into(),
                        target: target.clone(),
                    })
                    .collect(),
                privileges: credential_spec.map(|id| Privileges {
                    credential_spec: Some(CredentialSpec {
                        source: Some(Source::Config(id.into())),
                    }),
                    ..Default::default()
                }),
                ..Default::default()
            };
            assert_eq!(text(check(&spec)), expected, "{references:?}");
        };
        let at = |name: &str| Some(Target::File(file(name)));
        let missing = "CredentialSpec references config '1', but that config isn't in config \
                       references with RuntimeTarget";
        check_all(&[("1", "a", at("x")), ("1", "a", runtime())], Some("1"), "");
        check_all(&[("", "a", at("x"))], None, "malformed config reference");
        check_all(&[("1", "", runtime())], None, "malformed config reference");
        check_all(
            &[("1", "a", None)],
            None,
            "malformed config reference, no target provided",
        );
        check_all(
            &[("1", "a", at(""))],
            None,
            "malformed file config reference, invalid target file name provided",
        );
        check_all(
            &[("1", "a", at("x")), ("2", "b", at("x"))],
            None,
            "config references 'a' and 'b' have a conflicting target: 'x'",
        );
        check_all(&[], Some("1"), missing);
        check_all(&[("1", "a", at("x"))], Some("1"), missing);
        check_all(&[("2", "a", runtime())], Some("1"), missing);
    }
}
