//! What keeps tasks from a node, and what users are told.

use skep_proto::v1::{
    DiscreteGenericResource, Driver, EndpointSpec, EngineDescription, GenericResource,
    NamedGenericResource, NetworkAttachmentConfig, PluginDescription, PortConfig,
    ReplicatedService, ResourceRequirements, Resources, RestartPolicy, Service, Task, TaskState,
    generic_resource::Resource, node_spec::Availability, node_status, port_config::PublishMode,
    service_spec::Mode,
};
use skep_store::Object;

use super::{by_node, world};
use crate::reconcilers::{
    facts::state,
    world::{World, node, service},
};
#[test]
fn reservations_bound_what_a_node_takes() {
    let mut world = World::new(2);
    let mut service = service(5);
    service.spec_mut().task_mut().resources = Some(ResourceRequirements {
        reservations: Some(Resources {
            nano_cpus: 2_000_000_000,
            ..Resources::default()
        }),
        ..ResourceRequirements::default()
    });
    world.create(service);
    world.settle();
    assert_eq!(world.running().len(), 4);
    let waiting = world
        .tasks()
        .into_iter()
        .find(|t| state(t) == TaskState::Pending)
        .unwrap();
    assert_eq!(
        waiting.status().err,
        "no suitable node (insufficient resources on 2 nodes)"
    );
    let version = waiting.version();
    world.node_state("n0", node_status::State::Unknown);
    world.node_state("n0", node_status::State::Ready);
    world.rest();
    let waiting = world
        .tasks()
        .into_iter()
        .find(|t| state(t) == TaskState::Pending)
        .unwrap();
    assert_eq!(
        waiting.version(),
        version,
        "the same reason is not written again"
    );
    world.create(node("n2"));
    world.rest();
    assert_eq!(world.running().len(), 5);
    assert!(
        world
            .running()
            .iter()
            .all(|task| task.status().err.is_empty())
    );
}

#[test]
fn generic_resources_are_counted_assigned_and_given_back() {
    let resource = |resource| GenericResource {
        resource: Some(resource),
    };
    let gpu = |value: &str| {
        resource(Resource::NamedResourceSpec(NamedGenericResource {
            kind: "gpu".to_owned(),
            value: value.to_owned(),
        }))
    };
    let gpus = |value: i64| {
        resource(Resource::DiscreteResourceSpec(DiscreteGenericResource {
            kind: "gpu".to_owned(),
            value,
        }))
    };
    let mut world = World::new(0);
    for (id, offered) in [("n0", vec![gpu("a"), gpu("b")]), ("n1", vec![gpus(1)])] {
        let mut node = node(id);
        let description = node.description.get_or_insert_default();
        description.resources.get_or_insert_default().generic = offered;
        world.create(node);
    }
    world.create(node("n2"));
    let mut service = service(4);
    service.spec_mut().task_mut().resources = Some(ResourceRequirements {
        reservations: Some(Resources {
            generic: vec![gpus(1)],
            ..Resources::default()
        }),
        ..ResourceRequirements::default()
    });
    service.spec_mut().task_mut().restart = Some(RestartPolicy::default());
    world.create(service);
    world.settle();
    let mut assigned: Vec<_> = world
        .running()
        .iter()
        .map(|task| {
            (
                task.node_id.clone(),
                task.assigned_generic_resources.clone(),
            )
        })
        .collect();
    assigned.sort_by_key(|(node, resources)| (node.clone(), format!("{resources:?}")));
    let expected = [
        ("n0", vec![gpu("a")]),
        ("n0", vec![gpu("b")]),
        ("n1", vec![gpus(1)]),
    ];
    assert_eq!(
        assigned,
        expected.map(|(node, resources)| (node.to_owned(), resources))
    );
    let waiting = |world: &World| {
        world
            .tasks()
            .into_iter()
            .find(|task| state(task) == TaskState::Pending)
    };
    assert_eq!(
        waiting(&world).unwrap().status().err,
        "no suitable node (insufficient resources on 3 nodes)"
    );
    // One that has ended gives its resource to the one that waits.
    let ends = world
        .running()
        .into_iter()
        .find(|task| task.assigned_generic_resources == [gpu("a")])
        .unwrap();
    world.report(&ends.id, TaskState::Complete);
    world.settle();
    assert!(waiting(&world).is_none());
    let heirs = world.running();
    let heirs = heirs
        .iter()
        .filter(|task| task.assigned_generic_resources == [gpu("a")]);
    assert_eq!(heirs.count(), 1);
}

#[test]
fn a_node_without_the_plugin_is_passed_over() {
    let mut world = World::new(1);
    let mut engine = node("n1");
    engine.description.get_or_insert_default().engine = Some(EngineDescription {
        plugins: vec![PluginDescription {
            r#type: "Log".to_owned(),
            name: "json-file".to_owned(),
        }],
        ..EngineDescription::default()
    });
    world.availability("n0", Availability::Pause);
    world.create(engine);
    let mut service = service(1);
    service.spec_mut().task_mut().log_driver = Some(Driver {
        name: "fluentd".to_owned(),
        ..Driver::default()
    });
    world.create(service);
    world.rest();
    assert_eq!(
        world.tasks()[0].status().err,
        "no suitable node (1 node not available for new tasks; missing plugin on 1 node)"
    );
    world.availability("n0", Availability::Active);
    world.rest();
    assert_eq!(by_node(&world).into_keys().collect::<Vec<_>>(), ["n0"]);
}

#[test]
fn without_nodes_tasks_say_so_and_wait() {
    let mut world = world(0, 1);
    assert_eq!(world.tasks()[0].status().err, "no suitable node");
    world.create(node("n0"));
    world.settle();
    assert_eq!(world.running().len(), 1);
}

#[test]
fn a_preassigned_task_is_confirmed_or_told_why_not() {
    let mut world = World::new(2);
    world.availability("n1", Availability::Pause);
    for node in ["n0", "n1"] {
        let mut task = Task {
            id: format!("on-{node}"),
            service_id: "global".to_owned(),
            node_id: node.to_owned(),
            desired_state: TaskState::Running.into(),
            ..Task::default()
        };
        task.status_mut().set_state(TaskState::Pending);
        world.create(task);
    }
    world.create(Service {
        id: "global".to_owned(),
        ..Service::default()
    });
    world.plan_only();
    let snapshot = world.snapshot();
    let status = |id: &str| snapshot.get::<Task>(id).unwrap().status().clone();
    assert_eq!(status("on-n0").state(), TaskState::Assigned);
    let message = "scheduler confirmed task can run on preassigned node";
    assert_eq!(status("on-n0").message, message);
    assert_eq!(status("on-n1").state(), TaskState::Pending);
    assert_eq!(status("on-n1").err, "1 node not available for new tasks");
}

#[test]
fn networks_and_ingress_ports_keep_tasks_waiting_with_a_reason() {
    let mut world = World::new(1);
    let mut service = service(1);
    service.spec_mut().task_mut().networks = vec![NetworkAttachmentConfig {
        target: "blue".to_owned(),
        ..Default::default()
    }];
    world.create(service);
    world.rest();
    let task = world.tasks()[0].clone();
    assert_eq!(state(&task), TaskState::New);
    assert_eq!(
        task.status().err,
        "cannot allocate network blue: network support is not available yet"
    );
    let port = |publish_mode: PublishMode| PortConfig {
        publish_mode: publish_mode.into(),
        target_port: 80,
        published_port: 8080,
        ..PortConfig::default()
    };
    let publish = |service: &mut Service, mode| {
        service.spec_mut().task_mut().networks.clear();
        let ports = vec![port(mode)];
        service.spec_mut().endpoint = Some(EndpointSpec {
            ports,
            ..EndpointSpec::default()
        });
    };
    world.update_service(|service| publish(service, PublishMode::Ingress));
    world.rest();
    let task = world.tasks().pop().unwrap();
    assert_eq!(
        task.status().err,
        "cannot publish target port 80/tcp through the ingress network: network support is not \
         available yet"
    );
    world.update_service(|service| {
        publish(service, PublishMode::Host);
        service.spec_mut().mode = Some(Mode::Replicated(ReplicatedService { replicas: 2 }));
    });
    world.rest();
    assert_eq!(world.running().len(), 1);
    assert_eq!(
        world.running()[0].endpoint.as_ref().unwrap().ports,
        [port(PublishMode::Host)]
    );
    assert!(world.tasks().iter().any(|task| {
        task.status().err == "no suitable node (host-mode port already in use on 1 node)"
    }));
}

#[test]
fn a_thousand_tasks_are_placed_in_one_plan() {
    let mut world = World::new(5);
    world.create(service(1000));
    world.rest();
    assert_eq!(by_node(&world).into_values().collect::<Vec<_>>(), [200; 5]);
}
