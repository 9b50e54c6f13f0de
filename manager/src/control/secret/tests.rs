//! The calls about secrets, against a store that commits at once.

use skep_proto::v1::{control_server::Control as _, *};
use tonic::Code;

use crate::control::testing::*;

const DATA: &[u8] = b"hunter2";

fn spec(name: &str) -> SecretSpec {
    SecretSpec {
        annotations: labelled(name, "env", "prod"),
        data: DATA.into(),
        ..Default::default()
    }
}

async fn create(swarm: &Swarm, name: &str) -> Secret {
    let request = CreateSecretRequest {
        spec: Some(spec(name)),
    };
    let secret = reply(swarm.control.create_secret(ask(request)).await).secret;
    secret.expect("a reply holds the secret")
}

fn update(secret: &Secret, change: impl FnOnce(&mut SecretSpec)) -> UpdateSecretRequest {
    let mut spec = secret.spec().clone();
    change(&mut spec);
    UpdateSecretRequest {
        secret_id: secret.id.clone(),
        secret_version: secret.meta().version,
        spec: Some(spec),
    }
}

#[tokio::test]
async fn a_secret_with_a_driver_needs_no_data_but_the_name_of_the_driver() {
    let swarm = Swarm::new();
    let create = async |driver: &str| {
        let mut spec = spec("db");
        spec.data.clear();
        spec.driver = Some(Driver {
            name: driver.to_owned(),
            ..Default::default()
        });
        let request = CreateSecretRequest { spec: Some(spec) };
        swarm.control.create_secret(ask(request)).await
    };
    let text = "secret driver must have a name".to_owned();
    assert_eq!(refusal(create("").await), (Code::InvalidArgument, text));
    let secret = reply(create("vault").await).secret.unwrap();
    assert_eq!(secret.spec().driver.as_ref().unwrap().name, "vault");
}

#[tokio::test]
async fn data_goes_in_and_never_comes_out() {
    let swarm = Swarm::new();
    let created = create(&swarm, "db").await;
    assert!(skep_proto::id::is_valid(&created.id));
    assert_eq!(created.spec().annotations().name, "db");
    assert!(created.spec().data.is_empty());
    let stored = swarm.stored::<Secret>(&created.id).unwrap();
    assert_eq!(stored.spec().data, DATA);

    let got = swarm
        .control
        .get_secret(ask(GetSecretRequest {
            secret_id: created.id.clone(),
        }))
        .await;
    assert_eq!(reply(got).secret, Some(created.clone()));
    let listed = swarm
        .control
        .list_secrets(ask(ListSecretsRequest::default()))
        .await;
    assert_eq!(reply(listed).secrets, std::slice::from_ref(&created));

    let request = update(&created, |spec| {
        spec.annotations_mut().labels.insert("a".into(), "b".into());
        spec.data = DATA.into();
    });
    let updated = reply(swarm.control.update_secret(ask(request)).await)
        .secret
        .unwrap();
    assert!(updated.spec().data.is_empty());
    let stored = swarm.stored::<Secret>(&created.id).unwrap();
    assert_eq!(stored.spec().data, DATA, "an update keeps the data");
    assert_eq!(stored.spec().annotations().labels.len(), 2);
    assert_eq!(updated.meta(), stored.meta());
}

#[tokio::test]
async fn only_labels_can_be_changed() {
    let swarm = Swarm::new();
    let secret = create(&swarm, "db").await;
    let labels_only = (
        Code::InvalidArgument,
        "only updates to Labels are allowed".to_owned(),
    );
    let rename = update(&secret, |spec| spec.annotations_mut().name = "other".into());
    assert_eq!(
        refusal(swarm.control.update_secret(ask(rename)).await),
        labels_only
    );
    let other_data = update(&secret, |spec| spec.data = "hunter3".into());
    assert_eq!(
        refusal(swarm.control.update_secret(ask(other_data)).await),
        labels_only
    );

    let ignored = update(&secret, |spec| spec.driver = Some(Driver::default()));
    let updated = reply(swarm.control.update_secret(ask(ignored)).await)
        .secret
        .unwrap();
    assert_eq!(updated.spec().driver, None);

    let stale = update(&secret, |_| {});
    assert_eq!(
        refusal(swarm.control.update_secret(ask(stale)).await),
        (Code::Unknown, "update out of sequence".to_owned())
    );
}

#[tokio::test]
async fn bad_requests_are_named() {
    let swarm = Swarm::new();
    let secret = create(&swarm, "db").await;
    let missing = (Code::InvalidArgument, "invalid argument".to_owned());
    let control = &swarm.control;

    let none = control
        .create_secret(ask(CreateSecretRequest { spec: None }))
        .await;
    assert_eq!(refusal(none), missing);
    let twice = CreateSecretRequest {
        spec: Some(spec("DB")),
    };
    assert_eq!(
        refusal(control.create_secret(ask(twice)).await),
        (Code::AlreadyExists, "secret DB already exists".to_owned())
    );
    let empty = CreateSecretRequest {
        spec: Some(SecretSpec {
            annotations: named("e"),
            ..Default::default()
        }),
    };
    assert_eq!(
        refusal(control.create_secret(ask(empty)).await),
        (
            Code::InvalidArgument,
            "secret data must be larger than 0 and less than 512000 bytes".to_owned()
        )
    );

    let no_id = (
        Code::InvalidArgument,
        "secret ID must be provided".to_owned(),
    );
    let get = |id: &str| GetSecretRequest {
        secret_id: id.into(),
    };
    let remove = |id: &str| RemoveSecretRequest {
        secret_id: id.into(),
    };
    assert_eq!(refusal(control.get_secret(ask(get(""))).await), no_id);
    assert_eq!(refusal(control.remove_secret(ask(remove(""))).await), no_id);
    assert_eq!(
        refusal(control.get_secret(ask(get("x"))).await),
        (Code::NotFound, "secret x not found".to_owned())
    );
    assert_eq!(
        refusal(control.remove_secret(ask(remove("x"))).await),
        (Code::NotFound, "could not find secret x".to_owned())
    );

    for request in [
        UpdateSecretRequest {
            secret_id: String::new(),
            ..update(&secret, |_| {})
        },
        UpdateSecretRequest {
            secret_version: None,
            ..update(&secret, |_| {})
        },
        UpdateSecretRequest {
            spec: None,
            ..update(&secret, |_| {})
        },
    ] {
        assert_eq!(refusal(control.update_secret(ask(request)).await), missing);
    }
    let unknown = UpdateSecretRequest {
        secret_id: "x".into(),
        ..update(&secret, |_| {})
    };
    assert_eq!(
        refusal(control.update_secret(ask(unknown)).await),
        (Code::NotFound, "secret x not found".to_owned())
    );
}

#[tokio::test]
async fn a_secret_in_use_stays() {
    let swarm = Swarm::new();
    let secret = create(&swarm, "db").await;
    let user = |name: &str| {
        let mut spec = service_spec(name);
        if let Some(task_spec::Runtime::Container(container)) = &mut spec.task_mut().runtime {
            container.secrets.push(SecretReference {
                secret_id: secret.id.clone(),
                ..Default::default()
            });
        }
        Service {
            id: name.to_owned(),
            spec: Some(spec),
            ..Default::default()
        }
    };
    let remove = || {
        ask(RemoveSecretRequest {
            secret_id: secret.id.clone(),
        })
    };
    swarm.put(user("web")).await;
    assert_eq!(
        refusal(swarm.control.remove_secret(remove()).await),
        (
            Code::InvalidArgument,
            "secret 'db' is in use by the following service: web".to_owned()
        )
    );
    swarm.put(user("api")).await;
    assert_eq!(
        refusal(swarm.control.remove_secret(remove()).await),
        (
            Code::InvalidArgument,
            "secret 'db' is in use by the following services: api, web".to_owned()
        )
    );
    for service_id in ["web", "api"] {
        let request = RemoveServiceRequest {
            service_id: service_id.into(),
        };
        reply(swarm.control.remove_service(ask(request)).await);
    }
    reply(swarm.control.remove_secret(remove()).await);
    assert!(swarm.stored::<Secret>(&secret.id).is_none());
}

#[tokio::test]
async fn a_service_gets_what_exists_and_only_its_current_spec_holds_on_to_it() {
    let swarm = Swarm::new();
    let secret = create(&swarm, "db").await;
    let mut spec = service_spec("web");
    let reference = |name: &str| SecretReference {
        secret_id: secret.id.clone(),
        secret_name: name.to_owned(),
        target: Some(secret_reference::Target::File(FileTarget {
            name: "password".to_owned(),
            ..Default::default()
        })),
    };
    fn secrets(spec: &mut ServiceSpec, secrets: Vec<SecretReference>) {
        match &mut spec.task_mut().runtime {
            Some(task_spec::Runtime::Container(container)) => container.secrets = secrets,
            other => panic!("not a container: {other:?}"),
        }
    }
    secrets(&mut spec, vec![reference("other")]);
    let request = CreateServiceRequest {
        spec: Some(spec.clone()),
    };
    assert_eq!(
        refusal(swarm.control.create_service(ask(request)).await),
        (Code::InvalidArgument, "secret not found: other".to_owned())
    );
    secrets(&mut spec, vec![reference("db")]);
    let request = CreateServiceRequest {
        spec: Some(spec.clone()),
    };
    let service = reply(swarm.control.create_service(ask(request)).await)
        .service
        .unwrap();
    let remove = || {
        ask(RemoveSecretRequest {
            secret_id: secret.id.clone(),
        })
    };
    assert_eq!(
        refusal(swarm.control.remove_secret(remove()).await).1,
        "secret 'db' is in use by the following service: web"
    );
    secrets(&mut spec, Vec::new());
    let request = UpdateServiceRequest {
        service_id: service.id.clone(),
        service_version: service.meta().version,
        spec: Some(spec),
        ..Default::default()
    };
    let service = reply(swarm.control.update_service(ask(request)).await)
        .service
        .unwrap();
    assert!(service.previous_spec.is_some());
    reply(swarm.control.remove_secret(remove()).await);
}

#[tokio::test]
async fn names_and_ids_are_one_filter_and_case_does_not_matter() {
    let swarm = Swarm::new();
    for (id, name, env) in [
        ("a1", "Alpha", "prod"),
        ("b1", "beta", "test"),
        ("g1", "gamma", "prod"),
    ] {
        swarm
            .put(Secret {
                id: id.into(),
                spec: Some(SecretSpec {
                    annotations: labelled(name, "env", env),
                    ..Default::default()
                }),
                ..Default::default()
            })
            .await;
    }
    swarm
        .put(Secret {
            id: "i1".into(),
            spec: Some(SecretSpec {
                annotations: named("internal"),
                ..Default::default()
            }),
            internal: true,
            ..Default::default()
        })
        .await;
    let list = async |names: &[&str], prefixes: &[&str], ids: &[&str], env: Option<&str>| {
        let strings = |values: &[&str]| values.iter().map(|&v| v.to_owned()).collect();
        let filters = list_secrets_request::Filters {
            names: strings(names),
            name_prefixes: strings(prefixes),
            id_prefixes: strings(ids),
            labels: env
                .iter()
                .map(|&v| ("env".to_owned(), v.to_owned()))
                .collect(),
        };
        let request = ListSecretsRequest {
            filters: Some(filters),
        };
        let mut ids: Vec<_> = reply(swarm.control.list_secrets(ask(request)).await)
            .secrets
            .into_iter()
            .map(|secret| secret.id)
            .collect();
        ids.sort();
        ids.join(" ")
    };
    assert_eq!(list(&[], &[], &[], None).await, "a1 b1 g1");
    assert_eq!(list(&["ALPHA"], &[], &[], None).await, "a1");
    assert_eq!(list(&["alpha"], &["BE"], &["g"], None).await, "a1 b1 g1");
    assert_eq!(
        list(&["alpha"], &["al"], &["a"], None).await,
        "a1",
        "each once"
    );
    assert_eq!(list(&["alpha"], &["be"], &[], Some("prod")).await, "a1");
    assert_eq!(list(&[], &[], &[], Some("")).await, "a1 b1 g1");
    assert_eq!(list(&["nobody"], &[], &[], None).await, "");
    assert_eq!(list(&["internal"], &[], &["i"], None).await, "");
}
