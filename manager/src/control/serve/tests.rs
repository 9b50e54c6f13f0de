//! The kinds of objects that cannot be made yet.

use skep_proto::v1::{control_server::Control as _, *};
use tonic::Code;

use crate::control::testing::*;

fn not_yet(what: &str) -> (Code, String) {
    (Code::Unimplemented, format!("{what} is not supported yet"))
}

fn invalid(text: &str) -> (Code, String) {
    (Code::InvalidArgument, text.to_owned())
}

fn unknown(kind: &str) -> (Code, String) {
    (Code::NotFound, format!("{kind} x not found"))
}

#[tokio::test]
async fn networks() {
    let swarm = Swarm::new();
    let control = &swarm.control;
    let create = control
        .create_network(ask(CreateNetworkRequest::default()))
        .await;
    assert_eq!(refusal(create), not_yet("creating networks"));
    let get = |id: &str| {
        ask(GetNetworkRequest {
            network_id: id.into(),
            ..Default::default()
        })
    };
    let remove = |id: &str| {
        ask(RemoveNetworkRequest {
            network_id: id.into(),
            ..Default::default()
        })
    };
    assert_eq!(
        refusal(control.get_network(get("")).await),
        invalid("invalid argument")
    );
    assert_eq!(
        refusal(control.get_network(get("x")).await),
        unknown("network")
    );
    assert_eq!(
        refusal(control.remove_network(remove("x")).await),
        unknown("network")
    );
    let list = || ask(ListNetworksRequest::default());
    assert_eq!(reply(control.list_networks(list()).await).networks, []);
    let mut network = Network {
        id: "n1".into(),
        ..Default::default()
    };
    network.spec_mut().annotations = named("mesh");
    let network = Network::clone(&*swarm.put(network).await);
    assert_eq!(
        reply(control.list_networks(list()).await).networks,
        std::slice::from_ref(&network)
    );
    assert_eq!(
        reply(control.get_network(get("n1")).await).network,
        Some(network)
    );
    assert_eq!(
        refusal(control.remove_network(remove("n1")).await),
        not_yet("removing networks")
    );
}

#[tokio::test]
async fn volumes() {
    let swarm = Swarm::new();
    let control = &swarm.control;
    let create = control
        .create_volume(ask(CreateVolumeRequest::default()))
        .await;
    assert_eq!(refusal(create), not_yet("creating volumes"));
    let get = ask(GetVolumeRequest {
        volume_id: "x".into(),
    });
    assert_eq!(refusal(control.get_volume(get).await), unknown("volume"));
    let remove = ask(RemoveVolumeRequest {
        volume_id: "x".into(),
        force: true,
    });
    assert_eq!(
        refusal(control.remove_volume(remove).await),
        unknown("volume")
    );
    let update = async |id: &str, spec: bool, version: bool| {
        let request = UpdateVolumeRequest {
            volume_id: id.into(),
            spec: spec.then(VolumeSpec::default),
            volume_version: version.then(Version::default),
        };
        refusal(control.update_volume(ask(request)).await)
    };
    assert_eq!(
        update("", true, true).await,
        invalid("VolumeID must not be empty")
    );
    assert_eq!(
        update("x", false, true).await,
        invalid("Spec must not be empty")
    );
    assert_eq!(
        update("x", true, false).await,
        invalid("VolumeVersion must not be empty")
    );
    assert_eq!(update("x", true, true).await, unknown("volume"));

    let mut volume = Volume {
        id: "v1".into(),
        ..Default::default()
    };
    volume.spec_mut().annotations = named("data");
    volume.spec_mut().group = "fast".into();
    volume.spec_mut().driver = Some(Driver {
        name: "csi".into(),
        ..Default::default()
    });
    swarm.put(volume).await;
    let list = async |change: fn(&mut list_volumes_request::Filters)| {
        let mut filters = list_volumes_request::Filters::default();
        change(&mut filters);
        let request = ListVolumesRequest {
            filters: Some(filters),
        };
        reply(control.list_volumes(ask(request)).await)
            .volumes
            .len()
    };
    assert_eq!(list(|_| {}).await, 1);
    assert_eq!(
        list(|f| f.groups = vec!["slow".into(), "fast".into()]).await,
        1
    );
    assert_eq!(list(|f| f.groups = vec!["slow".into()]).await, 0);
    assert_eq!(list(|f| f.drivers = vec!["csi".into()]).await, 1);
    assert_eq!(list(|f| f.drivers = vec!["CSI".into()]).await, 0);
}

#[tokio::test]
async fn extensions() {
    let swarm = Swarm::new();
    let control = &swarm.control;
    let create = control
        .create_extension(ask(CreateExtensionRequest::default()))
        .await;
    assert_eq!(refusal(create), not_yet("creating extensions"));
    let get = |id: &str| {
        ask(GetExtensionRequest {
            extension_id: id.into(),
        })
    };
    let remove = |id: &str| {
        ask(RemoveExtensionRequest {
            extension_id: id.into(),
        })
    };
    let no_id = invalid("extension ID must be provided");
    assert_eq!(refusal(control.get_extension(get("")).await), no_id);
    assert_eq!(
        refusal(control.get_extension(get("x")).await),
        unknown("extension")
    );
    assert_eq!(refusal(control.remove_extension(remove("")).await), no_id);
    assert_eq!(
        refusal(control.remove_extension(remove("x")).await),
        unknown("extension")
    );
}

#[tokio::test]
async fn resources() {
    let swarm = Swarm::new();
    let control = &swarm.control;
    let create = control
        .create_resource(ask(CreateResourceRequest::default()))
        .await;
    assert_eq!(refusal(create), not_yet("creating resources"));
    let get = |id: &str| {
        ask(GetResourceRequest {
            resource_id: id.into(),
        })
    };
    let remove = |id: &str| {
        ask(RemoveResourceRequest {
            resource_id: id.into(),
        })
    };
    let no_id = invalid("resource ID must be present");
    assert_eq!(refusal(control.get_resource(get("")).await), no_id);
    assert_eq!(
        refusal(control.get_resource(get("x")).await),
        unknown("resource")
    );
    assert_eq!(refusal(control.remove_resource(remove("")).await), no_id);
    assert_eq!(
        refusal(control.remove_resource(remove("x")).await),
        unknown("resource")
    );
    let update = |version: bool| {
        ask(UpdateResourceRequest {
            resource_id: "x".into(),
            resource_version: version.then(Version::default),
            ..Default::default()
        })
    };
    assert_eq!(
        refusal(control.update_resource(update(false)).await),
        invalid("must include ID and version")
    );
    assert_eq!(
        refusal(control.update_resource(update(true)).await),
        unknown("resource")
    );

    swarm
        .put(Extension {
            id: "e1".into(),
            annotations: named("kind1"),
            ..Default::default()
        })
        .await;
    swarm
        .put(Resource {
            id: "r1".into(),
            annotations: named("Thing"),
            kind: "kind1".into(),
            ..Default::default()
        })
        .await;
    let list = async |name: &str, kind: &str| {
        let request = ListResourcesRequest {
            filters: Some(list_resources_request::Filters {
                names: vec![name.into()],
                kind: kind.into(),
                ..Default::default()
            }),
        };
        reply(control.list_resources(ask(request)).await)
            .resources
            .len()
    };
    assert_eq!(list("thing", "").await, 1);
    assert_eq!(list("thing", "kind1").await, 1);
    assert_eq!(list("thing", "kind2").await, 0);
    assert_eq!(list("other", "kind1").await, 0);
}
