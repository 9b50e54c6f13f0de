//! Every manager's control socket answers for the cluster.

use skep_proto::v1::{
    CreateServiceRequest, GetServiceRequest, ListServicesRequest, RemoveServiceRequest,
    UpdateServiceRequest, service_spec::Mode,
};
use skep_tests::cluster::{Cluster, eventually, spec};
use tonic::Code;

#[tokio::test(flavor = "multi_thread")]
async fn every_manager_creates_lists_updates_and_removes_alike() {
    let cluster = Cluster::start(3, 1).await;
    for name in cluster.managers() {
        let mut control = cluster.control_of(&name).await;
        let service = format!("by-{name}");
        let request = CreateServiceRequest {
            spec: Some(spec(&service, 2, &["sleep", "1000"])),
        };
        let created = control
            .create_service(request)
            .await
            .unwrap()
            .into_inner()
            .service
            .unwrap();
        for other in cluster.managers() {
            let mut control = cluster.control_of(&other).await;
            let request = GetServiceRequest {
                service_id: created.id.clone(),
                ..Default::default()
            };
            let seen = control
                .get_service(request)
                .await
                .unwrap()
                .into_inner()
                .service
                .unwrap();
            assert_eq!(
                seen.spec().annotations().name,
                service,
                "{other} sees it at once"
            );
        }
        cluster.running(&created.id, 2).await;

        let request = GetServiceRequest {
            service_id: created.id.clone(),
            ..Default::default()
        };
        let current = control
            .get_service(request)
            .await
            .unwrap()
            .into_inner()
            .service
            .unwrap();
        let mut changed = current.spec().clone();
        let Some(Mode::Replicated(mode)) = &mut changed.mode else {
            panic!("not replicated")
        };
        mode.replicas = 1;
        let update = UpdateServiceRequest {
            service_id: created.id.clone(),
            service_version: current.meta().version,
            spec: Some(changed),
            ..Default::default()
        };
        control.update_service(update.clone()).await.unwrap();
        let stale = control.update_service(update).await.unwrap_err();
        assert_eq!(
            (stale.code(), stale.message()),
            (Code::Unknown, "update out of sequence")
        );
        cluster.running(&created.id, 1).await;

        let request = RemoveServiceRequest {
            service_id: created.id.clone(),
        };
        control.remove_service(request).await.unwrap();
        let listed = control
            .list_services(ListServicesRequest::default())
            .await
            .unwrap();
        assert!(listed.into_inner().services.is_empty());
        eventually("no task left", async || {
            cluster
                .tasks(&created.id)
                .await
                .ok()?
                .is_empty()
                .then_some(())
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_checked_and_unique_whichever_manager_is_asked() {
    let cluster = Cluster::start(3, 0).await;
    cluster.create("web", 0, &["sleep", "1"]).await;
    for name in cluster.managers() {
        let mut control = cluster.control_of(&name).await;
        let request = CreateServiceRequest {
            spec: Some(spec("WEB", 1, &["sleep", "1"])),
        };
        let taken = control.create_service(request).await.unwrap_err();
        assert_eq!(taken.code(), Code::AlreadyExists);
        assert_eq!(
            taken.message(),
            "name conflicts with an existing object: service WEB already exists"
        );
        let request = CreateServiceRequest {
            spec: Some(spec("no spaces", 1, &["sleep", "1"])),
        };
        let invalid = control.create_service(request).await.unwrap_err();
        assert_eq!(invalid.code(), Code::InvalidArgument);
        assert_eq!(
            invalid.message(),
            "name must be valid as a DNS name component"
        );
        let request = GetServiceRequest {
            service_id: "nothere".to_owned(),
            ..Default::default()
        };
        let missing = control.get_service(request).await.unwrap_err();
        assert_eq!(
            (missing.code(), missing.message()),
            (Code::NotFound, "service nothere not found")
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn r49_a_list_larger_than_4_mib_comes_through_a_follower() {
    use skep_proto::v1::{Annotations, ConfigSpec, CreateConfigRequest, ListConfigsRequest};

    let cluster = Cluster::start(3, 0).await;
    let mut control = cluster.control_of(&cluster.follower().await).await;
    for number in 0..8 {
        let spec = ConfigSpec {
            annotations: Some(Annotations {
                name: format!("big-{number}"),
                ..Default::default()
            }),
            data: vec![b'x'; 900_000].into(),
            ..Default::default()
        };
        control
            .create_config(CreateConfigRequest { spec: Some(spec) })
            .await
            .unwrap();
    }
    let listed = control
        .list_configs(ListConfigsRequest::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(listed.configs.len(), 8);
    assert!(
        listed
            .configs
            .iter()
            .all(|config| config.spec().data.len() == 900_000)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_an_update_leaves_alone_are_up_to_date() {
    use skep_proto::v1::{ListTasksRequest, list_tasks_request::Filters};

    let cluster = Cluster::start(1, 1).await;
    let web = cluster.create("web", 2, &["sleep", "1000"]).await;
    let before = cluster.running(&web.id, 2).await;
    // Every node fits: nothing has to be replaced for this.
    cluster
        .update(&web.id, |spec| {
            spec.task_mut()
                .placement
                .get_or_insert_default()
                .constraints = vec!["node.platform.os==linux".to_owned()];
        })
        .await;
    let filters = Filters {
        service_ids: vec![web.id.clone()],
        up_to_date: true,
        ..Default::default()
    };
    let mut control = cluster.control().await;
    let request = ListTasksRequest {
        filters: Some(filters),
    };
    let listed = control.list_tasks(request).await.unwrap().into_inner();
    let ids = |tasks: &[skep_proto::v1::Task]| {
        let mut ids: Vec<_> = tasks.iter().map(|task| task.id.clone()).collect();
        ids.sort();
        ids
    };
    assert_eq!(ids(&listed.tasks), ids(&before));
}
