//! Secrets whose values a plugin makes.

use std::{collections::BTreeMap, sync::Arc};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use parking_lot::Mutex;
use serde_json::{Value, json};
use skep_proto::v1::{
    Annotations, CreateSecretRequest, Driver, FileTarget, SecretReference, SecretSpec, ServiceSpec,
    TaskState, secret_reference::Target, task_spec::Runtime,
};
use skep_tests::{
    cluster::{Cluster, eventually, spec},
    plugin::SecretPlugin,
};

use crate::logs::lines;

/// Creates a secret of the driver `vault` and says what its ID is.
async fn create(cluster: &Cluster, name: &str) -> String {
    let spec = SecretSpec {
        annotations: Some(Annotations {
            name: name.to_owned(),
            labels: [("path".to_owned(), "db/creds".to_owned())].into(),
            ..Default::default()
        }),
        driver: Some(Driver {
            name: "vault".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let request = CreateSecretRequest { spec: Some(spec) };
    let created = cluster.control().await.create_secret(request).await;
    created.unwrap().into_inner().secret.unwrap().id
}

/// A service whose tasks print the secret.
fn printing(name: &str, replicas: u64, secret_id: &str) -> ServiceSpec {
    let script = r#"cat "$CREDENTIALS_DIRECTORY/token"; exec sleep 1000"#;
    let mut spec = spec(name, replicas, &["sh", "-c", script]);
    let Some(Runtime::Container(container)) = &mut spec.task_mut().runtime else {
        unreachable!()
    };
    container.secrets = vec![SecretReference {
        secret_id: secret_id.to_owned(),
        secret_name: "token".to_owned(),
        target: Some(Target::File(FileTarget {
            name: "token".to_owned(),
            ..Default::default()
        })),
    }];
    spec
}

#[tokio::test(flavor = "multi_thread")]
async fn each_task_gets_a_value_of_its_own_from_the_secret_driver() {
    let cluster = Cluster::of_processes(3, 1).await;
    let socket = cluster.plugin_dir().join("vault.sock");
    let asked = Arc::new(Mutex::new(Vec::new()));
    let questions = Arc::clone(&asked);
    let plugin = SecretPlugin::start(&socket, move |question| {
        let task = question["TaskID"].as_str().unwrap();
        let value = BASE64_STANDARD.encode(format!("made for {task}\n"));
        questions.lock().push(question);
        json!({ "Value": value, "DoNotReuse": true })
    });
    let secret_id = create(&cluster, "token").await;
    let web = cluster.create_service(printing("web", 3, &secret_id)).await;
    let tasks = cluster.running(&web.id, 3).await;
    let wanted: BTreeMap<_, _> = tasks
        .iter()
        .map(|task| (task.id.clone(), format!("made for {}\n", task.id)))
        .collect();
    eventually("what the tasks print", async || {
        (lines(&cluster, &web.id).await == wanted).then_some(())
    })
    .await;
    for task in &tasks {
        let questions = asked.lock();
        let question = questions
            .iter()
            .find(|question: &&Value| question["TaskID"] == *task.id)
            .unwrap();
        assert_eq!(question["SecretName"], "token");
        assert_eq!(question["SecretLabels"], json!({ "path": "db/creds" }));
        assert_eq!(question["ServiceID"], *web.id);
        assert_eq!(question["ServiceName"], "web");
        assert_eq!(question["NodeID"], *task.node_id);
        assert_eq!(
            question["TaskName"],
            format!("web.{}.{}", task.slot, task.id)
        );
    }

    // Without its driver a task fails and says why, and the others are left alone.
    drop(plugin);
    let late = cluster
        .create_service(printing("late", 1, &secret_id))
        .await;
    let refused = eventually("a task without its secret", async || {
        let tasks = cluster.tasks(&late.id).await.ok()?;
        tasks
            .into_iter()
            .find(|task| task.status().state() == TaskState::Rejected)
    })
    .await;
    assert!(
        refused.status().err.contains("token"),
        "{}",
        refused.status().err
    );
    let still = cluster.running(&web.id, 3).await;
    assert!(still.iter().all(|task| wanted.contains_key(&task.id)));

    let _plugin = SecretPlugin::start(
        &socket,
        |_| json!({ "Value": BASE64_STANDARD.encode("1\n") }),
    );
    let task = cluster.running(&late.id, 1).await.remove(0);
    eventually("what the late task prints", async || {
        (lines(&cluster, &late.id).await.get(&task.id)? == "1\n").then_some(())
    })
    .await;
}
