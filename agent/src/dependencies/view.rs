//! What one task sees of the secrets and configs: those it refers to, their templates expanded.

use std::sync::Arc;

use skep_proto::v1::{self, Driver, config_reference, secret_reference, task_spec::Runtime};
use skep_template::{GOLANG, Payload, Scope};

use super::Dependencies;
use crate::executor::Failure;

/// A task, expanded, and its node.
pub(super) struct View {
    pub(super) task: Arc<v1::Task>,
    pub(super) node: Arc<skep_template::Node>,
}

impl View {
    pub(super) fn secret(
        &self,
        all: &Dependencies,
        secret: Arc<v1::Secret>,
    ) -> Result<Arc<v1::Secret>, String> {
        let spec = secret.spec();
        match self.expanded(all, spec.templating.as_ref(), &spec.data)? {
            None => Ok(secret),
            Some(data) => {
                let mut secret = v1::Secret::clone(&secret);
                secret.spec_mut().data = data.into();
                Ok(Arc::new(secret))
            }
        }
    }

    pub(super) fn config(
        &self,
        all: &Dependencies,
        config: Arc<v1::Config>,
    ) -> Result<Arc<v1::Config>, String> {
        let spec = config.spec();
        match self.expanded(all, spec.templating.as_ref(), &spec.data)? {
            None => Ok(config),
            Some(data) => {
                let mut config = v1::Config::clone(&config);
                config.spec_mut().data = data.into();
                Ok(Arc::new(config))
            }
        }
    }

    fn expanded(
        &self,
        all: &Dependencies,
        templating: Option<&Driver>,
        data: &[u8],
    ) -> Result<Option<Vec<u8>>, String> {
        match templating.map(|driver| driver.name.as_str()) {
            None | Some("") => Ok(None),
            Some(GOLANG) => {
                let files = Files { view: self, all };
                let scope = Scope::of_payload(&self.task, &self.node, &files);
                let data = scope.expand_bytes(data);
                data.map(Some).map_err(|error| error.to_string())
            }
            Some(other) => Err(format!(
                "templates of kind {other:?} are not known; use {GOLANG:?}"
            )),
        }
    }

    pub(super) fn check(&self, all: &Dependencies) -> Result<(), Failure> {
        let missing = |kind: &str, name: &str| {
            if all.is_complete() {
                Failure::Fatal(format!("{kind} {name:?} was not sent to this node"))
            } else {
                Failure::Temporary(format!(
                    "{kind} {name:?} is not known before there is a session with a manager"
                ))
            }
        };
        let wrong = |kind: &str, name: &str, why| Failure::Fatal(format!("{kind} {name:?}: {why}"));
        for reference in self.secrets() {
            let name = &reference.secret_name;
            let secret = all.raw_secret(&reference.secret_id, &self.task.id);
            let secret = secret.ok_or_else(|| missing("secret", name))?;
            self.secret(all, secret)
                .map_err(|why| wrong("secret", name, why))?;
        }
        for reference in self.configs() {
            let name = &reference.config_name;
            let config = all.raw_config(&reference.config_id);
            let config = config.ok_or_else(|| missing("config", name))?;
            self.config(all, config)
                .map_err(|why| wrong("config", name, why))?;
        }
        Ok(())
    }

    fn secrets(&self) -> &[v1::SecretReference] {
        match &self.task.spec().runtime {
            Some(Runtime::Container(spec)) => &spec.secrets,
            _ => &[],
        }
    }

    fn configs(&self) -> &[v1::ConfigReference] {
        match &self.task.spec().runtime {
            Some(Runtime::Container(spec)) => &spec.configs,
            _ => &[],
        }
    }
}

/// What a template may name: the task's own secrets and configs by their files, as they are.
struct Files<'a> {
    view: &'a View,
    all: &'a Dependencies,
}

impl Payload for Files<'_> {
    fn secret(&self, target: &str) -> Option<Vec<u8>> {
        let reference = self.view.secrets().iter().find(|reference| {
            matches!(&reference.target,
                Some(secret_reference::Target::File(file)) if file.name == target)
        })?;
        let secret = self
            .all
            .raw_secret(&reference.secret_id, &self.view.task.id)?;
        Some(secret.spec().data.to_vec())
    }

    fn config(&self, target: &str) -> Option<Vec<u8>> {
        let reference = self.view.configs().iter().find(|reference| {
            matches!(&reference.target,
                Some(config_reference::Target::File(file)) if file.name == target)
        })?;
        let config = self.all.raw_config(&reference.config_id)?;
        Some(config.spec().data.to_vec())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str) -> v1::FileTarget {
        v1::FileTarget {
            name: name.to_owned(),
            ..Default::default()
        }
    }

    fn view(all: &Dependencies) -> Dependencies {
        let spec = v1::ContainerSpec {
            env: vec!["USER=ann".to_owned()],
            secrets: vec![v1::SecretReference {
                secret_id: "s1".to_owned(),
                secret_name: "password".to_owned(),
                target: Some(secret_reference::Target::File(file("pw"))),
            }],
            configs: vec![v1::ConfigReference {
                config_id: "c1".to_owned(),
                config_name: "settings".to_owned(),
                target: Some(config_reference::Target::File(file("app.conf"))),
            }],
            ..Default::default()
        };
        let mut task = v1::Task {
            id: "t1".to_owned(),
            ..Default::default()
        };
        task.spec_mut().runtime = Some(Runtime::Container(spec));
        all.of_task(Arc::new(task), Arc::default())
    }

    fn secret(data: &'static str) -> v1::Secret {
        let mut secret = v1::Secret {
            id: "s1".to_owned(),
            ..Default::default()
        };
        secret.spec_mut().data = data.into();
        secret
    }

    fn config(data: &'static str, templating: &str) -> v1::Config {
        let mut config = v1::Config {
            id: "c1".to_owned(),
            ..Default::default()
        };
        config.spec_mut().data = data.into();
        config.spec_mut().templating = Some(Driver {
            name: templating.to_owned(),
            ..Default::default()
        });
        config
    }

    #[test]
    fn what_is_missing_is_named_once_a_manager_has_told_all() {
        let all = Dependencies::default();
        let view = view(&all);
        let Err(Failure::Temporary(why)) = view.check() else {
            panic!("nobody has told anything yet")
        };
        assert!(why.contains("secret \"password\""), "{why}");
        all.replace([secret("x")], []);
        let Err(Failure::Fatal(why)) = view.check() else {
            panic!("the config is missing")
        };
        assert!(why.contains("config \"settings\""), "{why}");
        all.put_config(config("plain {{", ""));
        assert_eq!(view.check(), Ok(()));
        assert_eq!(view.config("c1").unwrap().spec().data, "plain {{");
    }

    #[test]
    fn templates_are_expanded_for_the_task_alone() {
        let all = Dependencies::default();
        let template = "{{env \"USER\"}}:{{secret \"pw\"}}@{{.Task.ID}}";
        all.replace([secret("hunter2")], [config(template, "golang")]);
        let view = view(&all);
        assert_eq!(view.check(), Ok(()));
        assert_eq!(view.config("c1").unwrap().spec().data, "ann:hunter2@t1");
        assert_eq!(all.config("c1").unwrap().spec().data, template);
    }

    #[test]
    fn bad_templates_are_told_by_the_name_of_the_config() {
        for (data, kind) in [("{{secret \"no\"}}", "golang"), ("x", "jinja")] {
            let all = Dependencies::default();
            all.replace([secret("hunter2")], [config(data, kind)]);
            let view = view(&all);
            let Err(Failure::Fatal(why)) = view.check() else {
                panic!("accepted")
            };
            assert!(why.contains("config \"settings\""), "{why}");
            assert!(view.config("c1").is_none(), "never as it is");
        }
    }
}
