//! What containers are given besides a command, and what they write: secrets, configs, health checks, logs.

use std::{collections::BTreeSet, time::Duration};

use skep_proto::v1::{Annotations, CreateSecretRequest};
use skep_proto::v1::{
    Config, ConfigReference, FileTarget, GetConfigRequest, HealthConfig, ListConfigsRequest,
    LogMessage, LogSelector, LogSubscriptionOptions, Secret, SecretReference, SecretSpec,
    SubscribeLogsRequest, config_reference, logs_client::LogsClient, secret_reference,
};
use skep_tests::{
    cluster::{configs::config_of, eventually},
    control,
};

use crate::fixture::{Fixture, container};

fn file(name: &str, mode: u32) -> FileTarget {
    FileTarget {
        name: name.to_owned(),
        uid: "0".to_owned(),
        gid: "0".to_owned(),
        mode,
    }
}

async fn secret(fixture: &Fixture, name: &str, data: &'static str) -> SecretReference {
    let spec = SecretSpec {
        annotations: Some(Annotations {
            name: name.to_owned(),
            ..Default::default()
        }),
        data: data.into(),
        ..Default::default()
    };
    let request = CreateSecretRequest { spec: Some(spec) };
    let mut control = fixture.cluster.control().await;
    let created = control.create_secret(request).await.unwrap().into_inner();
    let Secret { id, .. } = created.secret.unwrap();
    SecretReference {
        secret_id: id,
        secret_name: name.to_owned(),
        target: Some(secret_reference::Target::File(file(name, 0o400))),
    }
}

async fn config(fixture: &Fixture, name: &str, target: &str) -> ConfigReference {
    let mut control = fixture.cluster.control().await;
    let created = control.create_config(config_of(name, 100)).await.unwrap();
    let Config { id, .. } = created.into_inner().config.unwrap();
    ConfigReference {
        config_id: id,
        config_name: name.to_owned(),
        target: Some(config_reference::Target::File(file(target, 0o444))),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn containers_get_their_secrets_and_configs_and_are_checked() {
    let Some(fixture) = Fixture::start().await else {
        return;
    };
    let key = secret(&fixture, "key", "open sesame").await;
    let motd = config(&fixture, "motd", "/motd").await;
    let each = fixture.engines.len();
    let web = fixture
        .sleepers("web", each as u64, |spec| {
            let container = container(spec);
            container.secrets = vec![key.clone()];
            container.configs = vec![motd.clone()];
            container.healthcheck = Some(HealthConfig {
                test: ["CMD-SHELL", "test -s /run/secrets/key && test -s /motd"]
                    .map(str::to_owned)
                    .to_vec(),
                interval: Duration::from_millis(200).try_into().ok(),
                timeout: Duration::from_secs(10).try_into().ok(),
                retries: 50,
                ..Default::default()
            });
        })
        .await;
    // A task with a check runs once the check has passed.
    fixture.runs(&web, each).await;
    for engine in &fixture.engines {
        let containers = engine.containers_of(&web.id);
        let id = containers[0].split(' ').next().unwrap();
        assert_eq!(
            engine.inspect(id, "{{.State.Health.Status}}").unwrap(),
            "healthy"
        );
        let cat = |path| engine.docker(&["exec", id, "cat", path]);
        assert_eq!(cat("/run/secrets/key"), "open sesame");
        assert_eq!(cat("/motd"), "x".repeat(100));
        let mode = engine.docker(&["exec", id, "stat", "-c", "%a", "/run/secrets/key"]);
        assert_eq!(mode, "400");
    }
    // What is in use stays.
    let mut control = fixture.cluster.control().await;
    let listed = control.list_configs(ListConfigsRequest::default()).await;
    let config_id = listed.unwrap().into_inner().configs[0].id.clone();
    let request = skep_proto::v1::RemoveConfigRequest {
        config_id: config_id.clone(),
    };
    let refused = control.remove_config(request).await.unwrap_err();
    assert_eq!(
        refused.message(),
        "config 'motd' is in use by the following service: web"
    );
    control
        .get_config(GetConfigRequest { config_id })
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_containers_write_is_brought_together() {
    let Some(fixture) = Fixture::start().await else {
        return;
    };
    let each = fixture.engines.len();
    let web = fixture
        .sleepers("web", each as u64, |spec| {
            let script =
                "echo one; echo two; echo end >&2; i=0; while :; do sleep 1; echo more; done";
            container(spec).command = ["sh", "-c", script].map(str::to_owned).to_vec();
        })
        .await;
    let tasks = fixture.runs(&web, each).await;
    let ids: BTreeSet<_> = tasks.iter().map(|task| task.id.clone()).collect();

    let ask = async |options: LogSubscriptionOptions| {
        // A follower takes it to the leader.
        let follower = fixture.cluster.follower().await;
        let socket = fixture.cluster.state_dir(&follower).join("s.sock");
        let mut logs = LogsClient::new(control::channel(&socket, false).await.unwrap());
        let request = SubscribeLogsRequest {
            selector: Some(LogSelector {
                service_ids: vec![web.id.clone()],
                ..Default::default()
            }),
            options: Some(options),
        };
        logs.subscribe_logs(request).await.unwrap().into_inner()
    };
    let text = |message: &LogMessage| String::from_utf8_lossy(&message.data).trim().to_owned();

    // What there is, and the end.
    eventually("the first lines of every container", async || {
        let mut stream = ask(LogSubscriptionOptions::default()).await;
        let mut all = Vec::new();
        while let Some(message) = stream.message().await.unwrap() {
            all.extend(message.messages);
        }
        ids.iter()
            .all(|id| {
                let of_task = all.iter().filter(|m| m.context().task_id == *id);
                let lines: Vec<_> = of_task.map(text).collect();
                ["one", "two", "end"]
                    .iter()
                    .all(|line| lines.iter().any(|l| l == line))
            })
            .then_some(())
    })
    .await;

    // What comes, until nobody listens any more.
    let mut stream = ask(LogSubscriptionOptions {
        follow: true,
        tail: -1,
        ..Default::default()
    })
    .await;
    let mut missing = ids.clone();
    while !missing.is_empty() {
        let message = stream
            .message()
            .await
            .unwrap()
            .expect("a stream without end");
        for message in message.messages {
            if text(&message) == "more" {
                missing.remove(&message.context().task_id);
            }
        }
    }
}
