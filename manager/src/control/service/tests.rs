//! The calls about services, against a store that commits at once.

use skep_proto::v1::{control_server::Control as _, *};
use tonic::Code;

use super::check_change;
use crate::control::{ApiError, testing::*};

async fn create(swarm: &Swarm, spec: ServiceSpec) -> Service {
    let request = CreateServiceRequest { spec: Some(spec) };
    let service = reply(swarm.control.create_service(ask(request)).await).service;
    service.expect("a reply holds the service")
}

fn update(service: &Service, change: impl FnOnce(&mut ServiceSpec)) -> UpdateServiceRequest {
    let mut spec = service.spec().clone();
    change(&mut spec);
    UpdateServiceRequest {
        service_id: service.id.clone(),
        service_version: service.meta().version,
        spec: Some(spec),
        rollback: update_service_request::Rollback::None.into(),
    }
}

fn roll_back(service: &Service) -> UpdateServiceRequest {
    UpdateServiceRequest {
        rollback: update_service_request::Rollback::Previous.into(),
        ..update(service, |_| {})
    }
}

fn replicas(replicas: u64) -> Option<service_spec::Mode> {
    Some(service_spec::Mode::Replicated(ReplicatedService {
        replicas,
    }))
}

#[tokio::test]
async fn create_get_and_remove() {
    let swarm = Swarm::new();
    let created = create(&swarm, service_spec("web")).await;
    assert!(skep_proto::id::is_valid(&created.id));
    assert_eq!(created.spec, Some(service_spec("web")));
    assert_eq!(created.spec_version, Some(Version { index: 0 }));
    assert_eq!(created.job_status, None);
    assert_ne!(created.meta().version().index, 0);
    assert_eq!(created, *swarm.stored::<Service>(&created.id).unwrap());

    let get = |insert_defaults| GetServiceRequest {
        service_id: created.id.clone(),
        insert_defaults,
    };
    let got = reply(swarm.control.get_service(ask(get(false))).await).service;
    assert_eq!(got, Some(created.clone()));
    let filled = reply(swarm.control.get_service(ask(get(true))).await)
        .service
        .unwrap();
    assert!(filled.spec().update.is_some());
    assert_eq!(
        created,
        *swarm.stored::<Service>(&created.id).unwrap(),
        "defaults are not stored"
    );

    let remove = || RemoveServiceRequest {
        service_id: created.id.clone(),
    };
    reply(swarm.control.remove_service(ask(remove())).await);
    let gone = (Code::NotFound, format!("service {} not found", created.id));
    assert_eq!(
        refusal(swarm.control.remove_service(ask(remove())).await),
        gone
    );
    assert_eq!(
        refusal(swarm.control.get_service(ask(get(false))).await),
        gone
    );
}

#[tokio::test]
async fn bad_requests_are_named() {
    let swarm = Swarm::new();
    let control = &swarm.control;
    let service = create(&swarm, service_spec("web")).await;
    let missing = (Code::InvalidArgument, "invalid argument".to_owned());

    let none = control
        .create_service(ask(CreateServiceRequest { spec: None }))
        .await;
    assert_eq!(refusal(none), missing);
    let taken = CreateServiceRequest {
        spec: Some(service_spec("WEB")),
    };
    assert_eq!(
        refusal(control.create_service(ask(taken)).await),
        (
            Code::AlreadyExists,
            "name conflicts with an existing object: service WEB already exists".to_owned()
        )
    );
    let empty = control.get_service(ask(GetServiceRequest::default())).await;
    assert_eq!(refusal(empty), missing);
    let empty = control
        .remove_service(ask(RemoveServiceRequest::default()))
        .await;
    assert_eq!(refusal(empty), missing);
    for request in [
        UpdateServiceRequest {
            service_id: String::new(),
            ..update(&service, |_| {})
        },
        UpdateServiceRequest {
            service_version: None,
            ..update(&service, |_| {})
        },
        UpdateServiceRequest {
            spec: None,
            ..update(&service, |_| {})
        },
    ] {
        assert_eq!(refusal(control.update_service(ask(request)).await), missing);
    }
    let unknown = UpdateServiceRequest {
        service_id: "x".into(),
        ..update(&service, |_| {})
    };
    assert_eq!(
        refusal(control.update_service(ask(unknown)).await),
        (Code::NotFound, "service x not found".to_owned())
    );
}

#[tokio::test]
async fn specs_are_checked_and_what_is_not_there_is_refused() {
    let swarm = Swarm::new();
    let service = create(&swarm, service_spec("web")).await;
    let check = async |change: fn(&mut ServiceSpec), code: Code, text: &str| {
        let mut spec = service_spec("other");
        change(&mut spec);
        let request = CreateServiceRequest { spec: Some(spec) };
        let refused = refusal(swarm.control.create_service(ask(request)).await);
        assert_eq!(refused, (code, text.to_owned()));
        let request = update(&service, change);
        let refused = refusal(swarm.control.update_service(ask(request)).await);
        assert_eq!(refused, (code, text.to_owned()));
    };
    let invalid = Code::InvalidArgument;
    check(
        |s| s.annotations_mut().name.clear(),
        invalid,
        "meta: name must be provided",
    )
    .await;
    check(|s| s.mode = None, invalid, "Unrecognized service mode").await;
    check(
        |s| s.task_mut().runtime = None,
        invalid,
        "TaskSpec: missing runtime",
    )
    .await;
    check(
        |s| {
            s.task_mut().placement = Some(Placement {
                constraints: vec!["nonsense".into()],
                ..Default::default()
            });
        },
        Code::Unknown,
        "constraint expected one operator from ==, !=",
    )
    .await;
    check(
        |s| s.mode = Some(service_spec::Mode::Global(GlobalService {})),
        Code::Unimplemented,
        "ServiceSpec: global mode is not supported yet",
    )
    .await;
    check(
        |s| {
            let container = ContainerSpec {
                image: "nginx".into(),
                env: vec!["A={{.Service.Name}}{{.Task.Color}}".into()],
                ..Default::default()
            };
            s.task_mut().runtime = Some(task_spec::Runtime::Container(container));
        },
        invalid,
        "template placeholder {{.Task.Color}}: there is no such field",
    )
    .await;
    assert_eq!(
        *swarm.stored::<Service>(&service.id).unwrap(),
        service,
        "nothing was written"
    );
}

#[tokio::test]
async fn an_update_keeps_the_previous_spec() {
    let swarm = Swarm::new();
    let first = create(&swarm, service_spec("web")).await;
    let request = update(&first, |spec| spec.mode = replicas(3));
    let second = reply(swarm.control.update_service(ask(request)).await)
        .service
        .unwrap();
    assert_eq!(second.spec().mode, replicas(3));
    assert_eq!(second.spec_version, first.meta().version);
    assert_eq!(second.previous_spec, first.spec);
    assert_eq!(second.previous_spec_version, Some(Version { index: 0 }));
    assert_eq!(second.update_status, None);
    assert!(second.meta().version().index > first.meta().version().index);
    assert_eq!(second, *swarm.stored::<Service>(&first.id).unwrap());

    let stale = update(&first, |_| {});
    assert_eq!(
        refusal(swarm.control.update_service(ask(stale)).await),
        (Code::Unknown, "update out of sequence".to_owned())
    );
    let future = UpdateServiceRequest {
        service_version: Some(Version { index: u64::MAX }),
        ..update(&second, |_| {})
    };
    assert_eq!(
        refusal(swarm.control.update_service(ask(future)).await),
        (Code::Unknown, "update out of sequence".to_owned())
    );
}

#[tokio::test]
async fn a_rollback_swaps_the_specs() {
    let swarm = Swarm::new();
    let first = create(&swarm, service_spec("web")).await;
    assert_eq!(
        refusal(swarm.control.update_service(ask(roll_back(&first))).await),
        (
            Code::FailedPrecondition,
            format!("service {} does not have a previous spec", first.id)
        )
    );
    let request = update(&first, |spec| spec.mode = replicas(3));
    let second = reply(swarm.control.update_service(ask(request)).await)
        .service
        .unwrap();
    let third = reply(swarm.control.update_service(ask(roll_back(&second))).await)
        .service
        .unwrap();
    assert_eq!(third.spec, first.spec);
    assert_eq!(third.spec_version, first.spec_version);
    assert_eq!(third.previous_spec, second.spec);
    assert_eq!(third.previous_spec_version, second.spec_version);
    assert_eq!(
        third.update_status,
        Some(UpdateStatus {
            state: update_status::UpdateState::RollbackStarted.into(),
            message: "manually requested rollback".to_owned(),
            started_at: Some(NOW),
            completed_at: None,
        })
    );
    let invalid = UpdateServiceRequest {
        spec: Some(ServiceSpec::default()),
        ..roll_back(&third)
    };
    assert_eq!(
        refusal(swarm.control.update_service(ask(invalid)).await),
        (
            Code::InvalidArgument,
            "meta: name must be provided".to_owned()
        ),
        "the spec of the request is checked, though not used"
    );
    let fourth = reply(
        swarm
            .control
            .update_service(ask(update(&third, |_| {})))
            .await,
    )
    .service;
    assert_eq!(fourth.unwrap().update_status, None);
}

#[test]
fn some_things_never_change() {
    let check = |change: fn(&mut ServiceSpec), expected: &str| {
        let old = service_spec("web");
        let mut new = old.clone();
        change(&mut new);
        match check_change(&old, &new) {
            Ok(()) => assert_eq!(expected, ""),
            Err(err) => assert_eq!(err, ApiError::unimplemented(expected)),
        }
    };
    check(|_| {}, "");
    check(|s| s.mode = replicas(9), "");
    check(
        |s| s.mode = Some(service_spec::Mode::Global(GlobalService {})),
        "service mode change is not allowed",
    );
    check(
        |s| s.annotations_mut().name = "Web".into(),
        "renaming services is not supported",
    );
    #[allow(deprecated)]
    let alone: fn(&mut ServiceSpec) = |s| s.networks = vec![NetworkAttachmentConfig::default()];
    check(
        alone,
        "networks must be migrated to TaskSpec before being changed",
    );
    #[allow(deprecated)]
    let both: fn(&mut ServiceSpec) = |s| {
        s.networks = vec![NetworkAttachmentConfig::default()];
        s.task_mut().networks = vec![NetworkAttachmentConfig::default()];
    };
    check(both, "");
}

#[tokio::test]
async fn renaming_is_refused_by_the_api() {
    let swarm = Swarm::new();
    let service = create(&swarm, service_spec("web")).await;
    let request = update(&service, |spec| spec.annotations_mut().name = "api".into());
    assert_eq!(
        refusal(swarm.control.update_service(ask(request)).await),
        (
            Code::Unimplemented,
            "renaming services is not supported".to_owned()
        )
    );
}

#[tokio::test]
async fn lists_are_filtered() {
    let swarm = Swarm::new();
    for (id, name, label) in [("a1", "Web", "x"), ("a2", "webapp", "y"), ("b1", "db", "x")] {
        let mut spec = service_spec(name);
        spec.annotations = labelled(name, "team", label);
        swarm
            .put(Service {
                id: id.into(),
                spec: Some(spec),
                ..Default::default()
            })
            .await;
    }
    let list = async |change: fn(&mut list_services_request::Filters)| {
        let mut filters = list_services_request::Filters::default();
        change(&mut filters);
        let request = ListServicesRequest {
            filters: Some(filters),
        };
        let mut ids: Vec<_> = reply(swarm.control.list_services(ask(request)).await)
            .services
            .into_iter()
            .map(|service| service.id)
            .collect();
        ids.sort();
        ids.join(" ")
    };
    let all = swarm
        .control
        .list_services(ask(ListServicesRequest::default()))
        .await;
    assert_eq!(reply(all).services.len(), 3);
    assert_eq!(list(|_| {}).await, "a1 a2 b1");
    assert_eq!(
        list(|f| f.names = vec!["Web".into(), "db".into()]).await,
        "a1 b1"
    );
    assert_eq!(
        list(|f| f.names = vec!["web".into()]).await,
        "",
        "case matters"
    );
    assert_eq!(list(|f| f.name_prefixes = vec!["web".into()]).await, "a2");
    assert_eq!(
        list(|f| f.name_prefixes = vec!["w".into(), "W".into()]).await,
        "a1 a2"
    );
    assert_eq!(
        list(|f| f.id_prefixes = vec!["a".into(), "a1".into()]).await,
        "a1 a2"
    );
    let both: fn(&mut list_services_request::Filters) = |f| {
        f.id_prefixes = vec!["a".into()];
        f.labels = [("team".to_owned(), "x".to_owned())].into();
    };
    assert_eq!(list(both).await, "a1");
    let contradiction: fn(&mut list_services_request::Filters) = |f| {
        f.names = vec!["db".into()];
        f.id_prefixes = vec!["a".into()];
    };
    assert_eq!(list(contradiction).await, "");
    assert_eq!(
        list(|f| f.runtimes = vec!["container".into()]).await,
        "a1 a2 b1"
    );
    assert_eq!(list(|f| f.runtimes = vec!["attachment".into()]).await, "");
}

#[tokio::test]
async fn a_follower_refuses_writes_and_answers_reads() {
    let swarm = Swarm::new();
    let service = create(&swarm, service_spec("web")).await;
    swarm.store.follow();
    let request = CreateServiceRequest {
        spec: Some(service_spec("api")),
    };
    assert_eq!(
        refusal(swarm.control.create_service(ask(request)).await),
        (
            Code::Unknown,
            "raft: failed to process the request: node lost leader status".to_owned()
        )
    );
    let request = GetServiceRequest {
        service_id: service.id.clone(),
        ..Default::default()
    };
    assert_eq!(
        reply(swarm.control.get_service(ask(request)).await).service,
        Some(service)
    );
}

#[tokio::test]
async fn a_service_too_large_for_the_log_is_refused() {
    let swarm = Swarm::new();
    let mut spec = service_spec("web");
    spec.annotations_mut().labels =
        [("a".to_owned(), "x".repeat(skep_store::MAX_PROPOSAL_BYTES))].into();
    let request = CreateServiceRequest { spec: Some(spec) };
    assert_eq!(
        refusal(swarm.control.create_service(ask(request)).await),
        (
            Code::Unknown,
            "raft: raft message is too large and can't be sent; the limit of a write is 1572864 bytes"
                .to_owned()
        )
    );
}
