//! Secrets and configs: making them, changing their labels, and giving them to services.

use skep_proto::v1::{
    Config, ContainerSpec, Secret, Service, config_reference, secret_reference, task_spec::Runtime,
};
use swarmctl::Exit;

use crate::{
    fake::{Fake, World, service},
    run::{swarmctl, swarmctl_with_input},
};

fn secret(id: &str, name: &str) -> Secret {
    let mut secret = Secret {
        id: id.to_owned(),
        ..Default::default()
    };
    secret.meta_mut().version_mut().index = 10;
    secret.spec_mut().annotations_mut().name = name.to_owned();
    secret.spec_mut().data = "hunter2".into();
    secret
}

fn config(id: &str, name: &str) -> Config {
    let mut config = Config {
        id: id.to_owned(),
        ..Default::default()
    };
    config.meta_mut().version_mut().index = 10;
    config.spec_mut().annotations_mut().name = name.to_owned();
    config.spec_mut().data = "listen 80;\n  location / {}\u{1b}[2J\n".into();
    config
}

fn world() -> World {
    World {
        services: vec![service("s1", "web", 1)],
        secrets: vec![secret("s-10", "db-10"), secret("s-9", "db-9")],
        configs: vec![config("c-1", "nginx")],
        ..Default::default()
    }
}

fn container(service: &Service) -> ContainerSpec {
    match &service.spec().task().runtime {
        Some(Runtime::Container(container)) => container.clone(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_secret_is_made_from_a_file_or_what_is_piped_in() {
    let fake = Fake::new(World::default());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("password");
    std::fs::write(&path, "from a file").unwrap();
    let line = format!("secret create -l tier=db one {}", path.display());
    assert_eq!(swarmctl(&fake, &line).await.ok(), "secret1\n");
    let run = swarmctl_with_input(&fake, "secret create two -", "piped\nin\n").await;
    assert_eq!(run.ok(), "secret2\n");
    let line = "secret create three --driver vault --template-driver golang";
    assert_eq!(swarmctl(&fake, line).await.ok(), "secret3\n");
    let world = fake.world();
    let [one, two, three] = &world.secrets[..] else {
        panic!("{:?}", world.secrets)
    };
    assert_eq!(&one.spec().data[..], b"from a file");
    assert_eq!(one.spec().annotations().labels["tier"], "db");
    assert_eq!(&two.spec().data[..], b"piped\nin\n");
    assert_eq!(three.spec().driver.as_ref().unwrap().name, "vault");
    assert_eq!(three.spec().templating.as_ref().unwrap().name, "golang");
}

#[tokio::test]
async fn data_must_come_from_somewhere() {
    let fake = Fake::new(World::default());
    let err = swarmctl(&fake, "secret create one")
        .await
        .failed(Exit::Usage);
    assert!(err.contains("or - for standard input"), "{err}");
    let err = swarmctl(&fake, "config create one /does/not/exist")
        .await
        .failed(Exit::Failed);
    assert!(err.contains("/does/not/exist: "), "{err}");
    assert!(fake.world().calls.is_empty());
}

#[tokio::test]
async fn what_is_too_large_is_not_read_to_the_end() {
    let fake = Fake::new(World::default());
    let input = "x".repeat(3 << 20);
    swarmctl_with_input(&fake, "config create big -", &input)
        .await
        .ok();
    // The first size that servers refuse.
    assert_eq!(fake.world().configs[0].spec().data.len(), 1_024_000);
}

#[tokio::test]
async fn they_are_listed_by_name() {
    let fake = Fake::new(world());
    let list = swarmctl(&fake, "secret ls").await.ok();
    let words: Vec<_> = list
        .lines()
        .map(|line| {
            line.split_whitespace()
                .take(2)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect();
    assert_eq!(words, ["ID NAME", "s-9 db-9", "s-10 db-10"]);
    assert_eq!(swarmctl(&fake, "config list -q").await.ok(), "c-1\n");
    let json = swarmctl(&fake, "secret ls --format json").await.ok();
    assert_eq!(json.lines().count(), 2);
}

#[tokio::test]
async fn a_config_is_shown_with_its_data_and_a_secret_without() {
    let fake = Fake::new(world());
    let shown = swarmctl(&fake, "config inspect nginx").await.ok();
    assert!(
        shown.ends_with("Data:\nlisten 80;\n  location / {} [2J\n"),
        "{shown}"
    );
    let shown = swarmctl(&fake, "secret inspect s-9").await.ok();
    assert!(shown.contains("db-9"), "{shown}");
    assert!(!shown.contains("Data:"), "{shown}");
}

#[tokio::test]
async fn labels_are_changed_also_when_somebody_else_is_faster() {
    let fake = Fake::new(World {
        conflicts: 2,
        ..world()
    });
    let line = "secret update --label-add a=1 --label-rm b db-9";
    assert_eq!(swarmctl(&fake, line).await.ok(), "db-9\n");
    assert_eq!(fake.count("update_secret"), 3);
    let world = fake.world();
    assert_eq!(world.secrets[1].spec().annotations().labels["a"], "1");
    assert_eq!(world.secrets[1].spec().annotations().name, "db-9");
    assert_eq!(&world.secrets[1].spec().data[..], b"hunter2");
}

#[tokio::test]
async fn several_are_removed() {
    let fake = Fake::new(world());
    let run = swarmctl(&fake, "secret rm db-9 nothing s-10").await;
    assert_eq!(run.out, "db-9\ns-10\n");
    assert_eq!(
        run.failed(Exit::Failed),
        "Error: secret nothing not found\n"
    );
    assert!(fake.world().secrets.is_empty());
    swarmctl(&fake, "config remove nginx").await.ok();
    assert!(fake.world().configs.is_empty());
}

#[tokio::test]
async fn a_service_gets_them_by_their_ids() {
    let fake = Fake::new(world());
    let line = "service create -d --name api --secret source=db-9,target=password,mode=0400 \
                --config nginx -- true";
    swarmctl(&fake, line).await.ok();
    let container = container(&fake.world().services[1]);
    let [secret] = &container.secrets[..] else {
        panic!("{container:?}")
    };
    assert_eq!(secret.secret_id, "s-9");
    assert_eq!(secret.secret_name, "db-9");
    let Some(secret_reference::Target::File(file)) = &secret.target else {
        panic!("{secret:?}")
    };
    assert_eq!((file.name.as_str(), file.mode), ("password", 0o400));
    let [config] = &container.configs[..] else {
        panic!("{container:?}")
    };
    assert_eq!(config.config_id, "c-1");
    assert!(matches!(&config.target, Some(config_reference::Target::File(f)) if f.name == "nginx"));
}

#[tokio::test]
async fn a_secret_that_is_not_there_stops_the_command() {
    let fake = Fake::new(world());
    let line = "service create -d --name api --secret nothing -- true";
    let err = swarmctl(&fake, line).await.failed(Exit::Failed);
    assert_eq!(err, "Error: secret nothing not found\n");
    assert_eq!(fake.count("create_service"), 0);
}

#[tokio::test]
async fn a_secret_is_rotated_in_one_update() {
    let fake = Fake::new(world());
    let line = "service update -d --secret-add source=db-9,target=db web";
    swarmctl(&fake, line).await.ok();
    let line = "service update -d --secret-rm db-9 --secret-add source=db-10,target=db web";
    swarmctl(&fake, line).await.ok();
    let container = container(&fake.world().services[0]);
    let ids: Vec<_> = container.secrets.iter().map(|s| &s.secret_id).collect();
    assert_eq!(ids, ["s-10"]);
}
