//! Secrets and configs.

use std::path::Path;

use skep_agent::executor::Failure;
use skep_proto::v1::{self, config_reference, secret_reference};

use crate::support::{bench, with};

fn target(name: &str, owner: &str, mode: u32) -> v1::FileTarget {
    v1::FileTarget {
        name: name.into(),
        uid: owner.into(),
        gid: owner.into(),
        mode,
    }
}

fn secret(name: &str, target: v1::FileTarget) -> v1::SecretReference {
    v1::SecretReference {
        secret_id: format!("id-of-{name}"),
        secret_name: name.into(),
        target: Some(secret_reference::Target::File(target)),
    }
}

#[tokio::test]
async fn secrets_and_configs_are_files_in_memory_and_go_with_the_task() {
    let Some(bench) = bench().await else { return };
    let mut key = v1::Secret {
        id: "id-of-key".into(),
        ..Default::default()
    };
    key.spec_mut().data = "hunter2".into();
    bench.dependencies.put_secret(key);
    let mut app = v1::Config {
        id: "id-of-app".into(),
        ..Default::default()
    };
    app.spec_mut().data = "port=1".into();
    bench.dependencies.put_config(app);

    let line = "cat /run/secrets/key; echo; cat /etc/deep/key; echo; cat /app.conf; echo
        stat -c '%a %u %g' /run/secrets/key /etc/deep/key /app.conf
        echo x 2>/dev/null > /run/secrets/key || echo read-only
        mount | grep -c /run/secrets/key";
    let task = with(bench.shell(line), |spec| {
        spec.secrets = vec![
            secret("key", target("key", "0", 0o400)),
            secret("key", target("/etc/deep/key", "7", 0o440)),
        ];
        spec.configs = vec![v1::ConfigReference {
            config_id: "id-of-app".into(),
            config_name: "app".into(),
            target: Some(config_reference::Target::File(target(
                "app.conf", "", 0o444,
            ))),
        }];
        spec.read_only = true;
    });
    let mut controller = bench.started(&task).await;
    assert!(controller.wait().await.unwrap().is_success());
    let lines: Vec<_> = bench.logs(&task, Default::default()).await;
    let lines: Vec<_> = lines.iter().map(|(_, line)| line.trim_end()).collect();
    let expected = [
        "hunter2",
        "hunter2",
        "port=1",
        "400 0 0",
        "440 7 7",
        "444 0 0",
        "read-only",
        "1",
    ];
    assert_eq!(lines, expected);

    let id = controller.container().unwrap().container_id;
    let found = bench.docker.inspect_container(&id, None).await.unwrap();
    let mounts = found.host_config.unwrap().mounts.unwrap();
    let source = mounts[0].source.clone().unwrap();
    assert!(source.contains(&task.id), "{source}");
    assert!(Path::new(&source).exists());
    controller.remove().await.unwrap();
    assert!(!Path::new(&source).parent().unwrap().exists());
}

#[tokio::test]
async fn a_secret_that_is_not_here_is_named() {
    let Some(bench) = bench().await else { return };
    let task = with(bench.shell("true"), |spec| {
        spec.secrets = vec![secret("key", target("key", "", 0o400))];
    });
    let mut controller = bench.controller(&task);
    let Err(Failure::Fatal(why)) = controller.prepare().await else {
        panic!("it was prepared")
    };
    assert!(
        why.starts_with("secret \"key\" is not on this node"),
        "{why}"
    );
    // After a restart it may yet come.
    let mut controller = bench.controller(&task);
    controller.adopt(v1::TaskState::Preparing).await.unwrap();
    let result = controller.prepare().await;
    assert!(matches!(result, Err(Failure::Temporary(_))), "{result:?}");
    controller.remove().await.unwrap();
}
