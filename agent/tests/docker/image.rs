//! Images that are there, or not.

use skep_agent::executor::Failure;

use crate::support::{IMAGE, bench, with};

#[tokio::test]
async fn r50_a_registry_that_says_no_stops_nothing_that_is_here() {
    let Some(bench) = bench().await else { return };
    let task = with(bench.shell("echo here"), |spec| spec.image = IMAGE.into());
    assert_eq!(bench.output(&task).await, ["here"]);

    let absent = with(bench.shell("true"), |spec| {
        spec.image = "registry.invalid/absent:1".into();
    });
    let mut controller = bench.controller(&absent);
    let Err(Failure::Fatal(why)) = controller.prepare().await else {
        panic!("it was prepared")
    };
    assert!(
        !why.contains("No such image") && why.contains("registry.invalid"),
        "the trouble with the registry is shown: {why}"
    );
    controller.remove().await.unwrap();
}

#[tokio::test]
async fn an_id_is_never_pulled() {
    let Some(bench) = bench().await else { return };
    let task = with(bench.shell("true"), |spec| {
        spec.image = format!("sha256:{}", "0".repeat(64));
    });
    let result = bench.controller(&task).prepare().await;
    let Err(Failure::Fatal(why)) = result else {
        panic!("it was prepared")
    };
    assert!(why.starts_with("No such image: sha256:000"), "{why}");
}
