//! Images of a registry that wants to know who asks.

use skep_proto::v1::{ContainerSpec, Placement, Service, Task, TaskState};
use skep_tests::{
    cluster::eventually,
    engines::{Engine, Registry},
};

use crate::fixture::{Fixture, container};

/// Where a manager could listen; here it is a registry that does.
const REGISTRY: u8 = 9;

/// A service of one task on this host, which pulls `image` with these credentials.
async fn service(fixture: &Fixture, name: &str, host: &str, image: &str, auth: &str) -> Service {
    fixture
        .sleepers(name, 1, |spec| {
            let ContainerSpec {
                image: of_task,
                pull_options,
                ..
            } = container(spec);
            *of_task = image.to_owned();
            pull_options.get_or_insert_default().registry_auth = auth.to_owned();
            spec.task_mut().placement = Some(Placement {
                constraints: vec![format!("node.hostname=={host}")],
                ..Default::default()
            });
        })
        .await
}

async fn runs(fixture: &Fixture, service: &Service) -> Task {
    fixture.cluster.running(&service.id, 1).await.remove(0)
}

/// Waits until a task was refused, and ends the service. Returns why.
async fn refused(fixture: &Fixture, service: &Service) -> String {
    let why = eventually("a task that is rejected", async || {
        let tasks = fixture.cluster.tasks(&service.id).await.ok()?;
        let mut refused = tasks.iter().map(Task::status);
        let refused = refused.find(|status| status.state() == TaskState::Rejected)?;
        Some(refused.err.clone())
    })
    .await;
    fixture.cluster.scale(&service.id, 0).await;
    why
}

fn env(engine: &Engine, task: &Task) -> String {
    let name = format!("{}.1.{}", task.service_annotations().name, task.id);
    engine.inspect(&name, "{{.Config.Env}}").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn r50_credentials_reach_the_registry_and_what_is_local_needs_none() {
    let Some(mut fixture) = Fixture::start().await else {
        return;
    };
    let registry = Registry::serve(&fixture.lab.manager_ip(REGISTRY)).await;
    let layer = fixture.lab.layer();
    let first = registry.push("hive/web", "1", &layer, &["COLOUR=amber"]);
    let tag = registry.image("hive/web:1");
    let (auth, wrong) = (registry.auth(), registry.auth_with("wax"));
    let driven = fixture.drive().await;
    let stock = fixture.engines.iter().map(|engine| (engine.name(), engine));
    for (host, engine) in stock.chain([("worker-1", &driven)]) {
        let ours = host == "worker-1";
        let name = |name: &str| format!("{name}-{host}");

        // Nobody has the image, and the registry does not give it to everybody.
        for (kind, auth) in [("wrong", wrong.as_str()), ("none", "")] {
            let service = service(&fixture, &name(kind), host, &tag, auth).await;
            let why = refused(&fixture, &service).await;
            // Stock engines of these versions hide it.
            let expected = if ours { "auth" } else { "No such image" };
            assert!(why.contains(expected), "{host}, {kind} credentials: {why}");
            assert!(!(ours && why.contains("No such image")), "{why}");
        }
        assert!(registry.asked().is_empty());

        let good = service(&fixture, &name("good"), host, &tag, &auth).await;
        let task = runs(&fixture, &good).await;
        assert!(env(engine, &task).contains("COLOUR=amber"));
        assert!(registry.asked().contains(&"hive/web/1".to_owned()));

        // What is there runs, whatever the registry says of who asks.
        let again = service(&fixture, &name("again"), host, &tag, &wrong).await;
        runs(&fixture, &again).await;
        assert!(registry.asked().is_empty());

        // A digest means one thing for ever: nobody needs to be asked for what is there.
        let pinned = registry.image(&format!("hive/web@{first}"));
        let pinned = service(&fixture, &name("pinned"), host, &pinned, &auth).await;
        runs(&fixture, &pinned).await;
        assert!(registry.asked().is_empty());

        // A tag is asked for each time.
        registry.push("hive/web", "1", &layer, &["COLOUR=blue"]);
        let moved = service(&fixture, &name("moved"), host, &tag, &auth).await;
        let task = runs(&fixture, &moved).await;
        assert!(
            env(engine, &task).contains("COLOUR=blue"),
            "the tag has moved"
        );

        // Both at once: the digest counts, and it is fetched by it.
        let third = registry.push("hive/web", "3", &layer, &["COLOUR=green"]);
        let both = registry.image(&format!("hive/web:1@{third}"));
        registry.asked();
        let both = service(&fixture, &name("both"), host, &both, &auth).await;
        let task = runs(&fixture, &both).await;
        assert!(env(engine, &task).contains("COLOUR=green"));
        let asked = registry.asked();
        assert!(asked.contains(&format!("hive/web/{third}")), "{asked:?}");
        assert!(!asked.contains(&"hive/web/1".to_owned()), "{asked:?}");

        registry.push("hive/web", "1", &layer, &["COLOUR=amber"]);
    }
}
