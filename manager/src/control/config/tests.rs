//! The calls about configs, against a store that commits at once.

use skep_proto::v1::{control_server::Control as _, *};
use tonic::Code;

use crate::control::testing::*;

fn spec(name: &str) -> ConfigSpec {
    ConfigSpec {
        annotations: named(name),
        data: "data".into(),
        ..Default::default()
    }
}

async fn create(swarm: &Swarm, name: &str) -> Config {
    let request = CreateConfigRequest {
        spec: Some(spec(name)),
    };
    let config = reply(swarm.control.create_config(ask(request)).await).config;
    config.expect("a reply holds the config")
}

fn update(config: &Config, change: impl FnOnce(&mut ConfigSpec)) -> UpdateConfigRequest {
    let mut spec = config.spec().clone();
    change(&mut spec);
    UpdateConfigRequest {
        config_id: config.id.clone(),
        config_version: config.meta().version,
        spec: Some(spec),
    }
}

#[tokio::test]
async fn data_comes_out_as_it_went_in() {
    let swarm = Swarm::new();
    let created = create(&swarm, "app").await;
    assert_eq!(created.spec().data, "data");
    let got = swarm
        .control
        .get_config(ask(GetConfigRequest {
            config_id: created.id.clone(),
        }))
        .await;
    assert_eq!(reply(got).config, Some(created.clone()));
    let listed = swarm
        .control
        .list_configs(ask(ListConfigsRequest::default()))
        .await;
    assert_eq!(reply(listed).configs, std::slice::from_ref(&created));
    let request = update(&created, |spec| {
        spec.annotations_mut().labels.insert("a".into(), "b".into());
    });
    let updated = reply(swarm.control.update_config(ask(request)).await)
        .config
        .unwrap();
    assert_eq!(updated.spec().data, "data");
    assert_eq!(updated.spec().annotations().labels.len(), 1);
    assert_eq!(updated, *swarm.stored::<Config>(&created.id).unwrap());
}

#[tokio::test]
async fn only_labels_can_be_changed() {
    let swarm = Swarm::new();
    let config = create(&swarm, "app").await;
    let labels_only = (
        Code::InvalidArgument,
        "only updates to Labels are allowed".to_owned(),
    );
    let rename = update(&config, |spec| spec.annotations_mut().name = "other".into());
    assert_eq!(
        refusal(swarm.control.update_config(ask(rename)).await),
        labels_only
    );
    let other_data = update(&config, |spec| spec.data = "x".into());
    assert_eq!(
        refusal(swarm.control.update_config(ask(other_data)).await),
        labels_only
    );
    let no_data = update(&config, |spec| spec.data = "".into());
    reply(swarm.control.update_config(ask(no_data)).await);
    let stale = update(&config, |_| {});
    assert_eq!(
        refusal(swarm.control.update_config(ask(stale)).await),
        (Code::Unknown, "update out of sequence".to_owned())
    );
}

#[tokio::test]
async fn bad_requests_are_named() {
    let swarm = Swarm::new();
    create(&swarm, "app").await;
    let control = &swarm.control;
    let none = control
        .create_config(ask(CreateConfigRequest { spec: None }))
        .await;
    assert_eq!(
        refusal(none),
        (Code::InvalidArgument, "invalid argument".to_owned())
    );
    let twice = CreateConfigRequest {
        spec: Some(spec("app")),
    };
    assert_eq!(
        refusal(control.create_config(ask(twice)).await),
        (Code::AlreadyExists, "config app already exists".to_owned())
    );
    let get = |id: &str| GetConfigRequest {
        config_id: id.into(),
    };
    let remove = |id: &str| RemoveConfigRequest {
        config_id: id.into(),
    };
    let no_id = (
        Code::InvalidArgument,
        "config ID must be provided".to_owned(),
    );
    assert_eq!(refusal(control.get_config(ask(get(""))).await), no_id);
    assert_eq!(refusal(control.remove_config(ask(remove(""))).await), no_id);
    assert_eq!(
        refusal(control.get_config(ask(get("x"))).await),
        (Code::NotFound, "config x not found".to_owned())
    );
    assert_eq!(
        refusal(control.remove_config(ask(remove("x"))).await),
        (Code::NotFound, "could not find config x".to_owned())
    );
}

#[tokio::test]
async fn a_config_in_use_stays() {
    let swarm = Swarm::new();
    let config = create(&swarm, "app").await;
    let mut spec = service_spec("web");
    if let Some(task_spec::Runtime::Container(container)) = &mut spec.task_mut().runtime {
        container.configs.push(ConfigReference {
            config_id: config.id.clone(),
            ..Default::default()
        });
    }
    // A previous spec alone does not count.
    swarm
        .put(Service {
            id: "old".into(),
            spec: Some(service_spec("old")),
            previous_spec: Some(spec.clone()),
            ..Default::default()
        })
        .await;
    swarm
        .put(Service {
            id: "web".into(),
            spec: Some(spec),
            ..Default::default()
        })
        .await;
    let remove = || {
        ask(RemoveConfigRequest {
            config_id: config.id.clone(),
        })
    };
    assert_eq!(
        refusal(swarm.control.remove_config(remove()).await),
        (
            Code::InvalidArgument,
            "config 'app' is in use by the following service: web".to_owned()
        )
    );
    let request = RemoveServiceRequest {
        service_id: "web".into(),
    };
    reply(swarm.control.remove_service(ask(request)).await);
    reply(swarm.control.remove_config(remove()).await);
    assert!(swarm.stored::<Config>(&config.id).is_none());
}
