//! Secrets and configs that a service names.

use skep_proto::v1::{Config, Secret, ServiceSpec, task_spec::Runtime};
use skep_store::Tx;

use crate::control::ApiError;

/// All of them must be there under the ID and the name that the references give.
pub fn check(tx: &Tx, spec: &ServiceSpec) -> Result<(), ApiError> {
    let Some(Runtime::Container(container)) = &spec.task().runtime else {
        return Ok(());
    };
    let secrets: Vec<_> = container
        .secrets
        .iter()
        .filter(|reference| {
            tx.get::<Secret>(&reference.secret_id)
                .is_none_or(|secret| secret.spec().annotations().name != reference.secret_name)
        })
        .map(|reference| reference.secret_name.as_str())
        .collect();
    all_found("secret", &secrets)?;
    let configs: Vec<_> = container
        .configs
        .iter()
        .filter(|reference| {
            tx.get::<Config>(&reference.config_id)
                .is_none_or(|config| config.spec().annotations().name != reference.config_name)
        })
        .map(|reference| reference.config_name.as_str())
        .collect();
    all_found("config", &configs)
}

fn all_found(kind: &str, missing: &[&str]) -> Result<(), ApiError> {
    let plural = match missing.len() {
        0 => return Ok(()),
        1 => "",
        _ => "s",
    };
    Err(ApiError::invalid(format!(
        "{kind}{plural} not found: {}",
        missing.join(", ")
    )))
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{ConfigReference, ContainerSpec, SecretReference};

    use super::*;
    use crate::control::testing::*;

    #[tokio::test]
    async fn references_need_their_objects() {
        let swarm = Swarm::new();
        let mut secret = Secret {
            id: "s1".into(),
            ..Default::default()
        };
        secret.spec_mut().annotations = named("key");
        swarm.put(secret).await;
        let mut config = Config {
            id: "c1".into(),
            ..Default::default()
        };
        config.spec_mut().annotations = named("conf");
        swarm.put(config).await;
        let check_all =
            async |secrets: &[(&str, &str)], configs: &[(&str, &str)], expected: &str| {
                let mut spec = ServiceSpec::default();
                spec.task_mut().runtime = Some(Runtime::Container(ContainerSpec {
                    secrets: secrets
                        .iter()
                        .map(|&(id, name)| SecretReference {
                            secret_id: id.into(),
                            secret_name: name.into(),
                            target: None,
                        })
                        .collect(),
                    configs: configs
                        .iter()
                        .map(|&(id, name)| ConfigReference {
                            config_id: id.into(),
                            config_name: name.into(),
                            target: None,
                        })
                        .collect(),
                    ..Default::default()
                }));
                let result = swarm.store.update(|tx| check(tx, &spec)).await;
                assert_eq!(text(result), expected);
            };
        check_all(&[], &[], "").await;
        check_all(&[("s1", "key")], &[("c1", "conf")], "").await;
        check_all(&[("s1", "other")], &[], "secret not found: other").await;
        check_all(&[("s2", "key")], &[], "secret not found: key").await;
        check_all(
            &[("s2", "a"), ("s1", "key"), ("s3", "b")],
            &[],
            "secrets not found: a, b",
        )
        .await;
        check_all(&[], &[("c2", "conf")], "config not found: conf").await;
        check_all(&[], &[("c1", "a"), ("c1", "b")], "configs not found: a, b").await;
    }
}
