use skep_proto::v1::{
    Annotations, IndexEntry, Node, NodeDescription, NodeRole, Resource, SelectBy, SelectByCustom,
    SelectBySlot, Service, Task, TaskState, select_by::By,
};
use skep_store::Object as _;

use super::*;

const CREATE: i32 = 1;
const UPDATE: i32 = 2;
const REMOVE: i32 = 4;

fn entry(kind: &str, action: i32, filters: Vec<By>) -> WatchEntry {
    WatchEntry {
        kind: kind.to_owned(),
        action,
        filters: filters
            .into_iter()
            .map(|by| SelectBy { by: Some(by) })
            .collect(),
    }
}

fn matcher(entries: Vec<WatchEntry>) -> Result<Matcher, BadRequest> {
    Matcher::new(WatchRequest {
        entries,
        ..Default::default()
    })
}

fn refused(entry: WatchEntry) -> String {
    matcher(vec![entry]).unwrap_err().to_string()
}

/// Whether a watch on these conditions hears of the object's creation.
fn selects(kind: &str, filters: Vec<By>, object: impl Into<AnyObject>) -> bool {
    let matcher = matcher(vec![entry(kind, CREATE, filters)]).unwrap();
    !matcher.live(1, &[Change::Create(object.into())]).is_empty()
}

fn annotations(name: &str) -> Annotations {
    Annotations {
        name: name.to_owned(),
        indices: vec![IndexEntry {
            key: "zone".to_owned(),
            val: "north".to_owned(),
        }],
        ..Default::default()
    }
}

fn custom(index: &str, value: &str) -> SelectByCustom {
    SelectByCustom {
        kind: "ignored".to_owned(),
        index: index.to_owned(),
        value: value.to_owned(),
    }
}

fn node() -> Node {
    let mut node = Node {
        id: "node1".to_owned(),
        role: NodeRole::Manager.into(),
        description: Some(NodeDescription {
            hostname: "Host".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    node.spec_mut().annotations = Some(annotations("label"));
    node
}

fn task() -> Task {
    Task {
        id: "task1".to_owned(),
        service_id: "s1".to_owned(),
        node_id: "n1".to_owned(),
        slot: 3,
        desired_state: TaskState::Running.into(),
        annotations: Some(annotations("t")),
        ..Default::default()
    }
}

fn service(id: &str) -> Service {
    Service {
        id: id.to_owned(),
        ..Default::default()
    }
}

fn slot(service_id: &str, slot: u64) -> By {
    By::Slot(SelectBySlot {
        service_id: service_id.to_owned(),
        slot,
    })
}

#[test]
fn requests_that_make_no_sense_are_refused_with_the_texts_of_swarmkit() {
    assert_eq!(
        refused(entry("", CREATE, vec![])),
        "no kind of object specified"
    );
    for action in [0, 8, -8] {
        assert_eq!(
            refused(entry("task", action, vec![])),
            "unrecognized action"
        );
    }
    let id = || By::Id("a".to_owned());
    let name = || By::Name("a".to_owned());
    let service = || By::ServiceId("a".to_owned());
    for filters in [
        vec![id(), id()],
        vec![id(), By::IdPrefix("a".to_owned())],
        vec![By::NamePrefix("a".to_owned()), name()],
        vec![
            By::Custom(custom("a", "b")),
            By::CustomPrefix(custom("c", "d")),
        ],
        vec![service(), slot("a", 1)],
        vec![slot("a", 1), slot("a", 2)],
        vec![By::DesiredState(0), By::DesiredState(0)],
    ] {
        assert_eq!(
            refused(entry("task", CREATE, filters)),
            "conflicting filters specified"
        );
    }
    let both = vec![By::Role(0), By::Role(1)];
    assert_eq!(
        refused(entry("node", CREATE, both.clone())),
        "conflicting filters specified"
    );
    // What is ignored does not conflict either.
    assert!(matcher(vec![entry("task", CREATE, both)]).is_ok());
    let many = vec![entry("task", CREATE, vec![]); MAX_ENTRIES + 1];
    assert_eq!(matcher(many).unwrap_err(), BadRequest::TooManyEntries);
}

#[test]
fn every_selector_selects() {
    let cases: Vec<(&str, AnyObject, By, By)> = vec![
        (
            "task",
            task().into(),
            By::Id("task1".into()),
            By::Id("task".into()),
        ),
        (
            "task",
            task().into(),
            By::IdPrefix("task".into()),
            By::IdPrefix("task12".into()),
        ),
        (
            "node",
            node().into(),
            By::Name("Host".into()),
            By::Name("host".into()),
        ),
        (
            "node",
            node().into(),
            By::NamePrefix("Ho".into()),
            By::NamePrefix("label".into()),
        ),
        (
            "task",
            task().into(),
            By::Name("t".into()),
            By::Name("x".into()),
        ),
        (
            "task",
            task().into(),
            By::Custom(custom("zone", "north")),
            By::Custom(custom("zone", "nor")),
        ),
        (
            "node",
            node().into(),
            By::CustomPrefix(custom("zone", "nor")),
            By::CustomPrefix(custom("row", "nor")),
        ),
        (
            "task",
            task().into(),
            By::ServiceId("s1".into()),
            By::ServiceId("s2".into()),
        ),
        (
            "task",
            task().into(),
            By::NodeId("n1".into()),
            By::NodeId("n2".into()),
        ),
        ("task", task().into(), slot("s1", 3), slot("s1", 4)),
        ("task", task().into(), slot("s1", 3), slot("s2", 3)),
        (
            "task",
            task().into(),
            By::DesiredState(TaskState::Running.into()),
            By::DesiredState(TaskState::Shutdown.into()),
        ),
        ("node", node().into(), By::Role(1), By::Role(0)),
        ("node", node().into(), By::Membership(0), By::Membership(1)),
        (
            "thing",
            Resource {
                kind: "thing".into(),
                ..Default::default()
            }
            .into(),
            By::Kind("thing".into()),
            By::Kind("other".into()),
        ),
    ];
    for (kind, object, yes, no) in cases {
        assert!(selects(kind, vec![yes.clone()], object.clone()), "{yes:?}");
        assert!(!selects(kind, vec![no.clone()], object.clone()), "{no:?}");
        // All of several must hold.
        if !matches!(yes, By::Id(_) | By::IdPrefix(_)) {
            let filters = vec![yes, By::IdPrefix("x".into())];
            assert!(!selects(kind, filters, object));
        }
    }
}

#[test]
fn selectors_that_a_kind_does_not_have_are_ignored() {
    for by in [
        By::ServiceId("x".into()),
        By::NodeId("x".into()),
        slot("x", 1),
        By::DesiredState(64),
        By::Kind("x".into()),
        By::ReferencedNetworkId("x".into()),
        By::ReferencedSecretId("x".into()),
        By::ReferencedConfigId("x".into()),
    ] {
        assert!(selects("node", vec![by.clone()], node()), "{by:?}");
        assert!(selects("service", vec![by.clone()], service("s")), "{by:?}");
    }
    for by in [By::Role(0), By::Membership(1), By::Kind("x".into())] {
        assert!(selects("task", vec![by.clone()], task()), "{by:?}");
    }
    // A filter that selects by nothing.
    let nothing = WatchEntry {
        filters: vec![SelectBy::default()],
        ..entry("task", CREATE, vec![])
    };
    let matcher = matcher(vec![nothing]).unwrap();
    assert_eq!(matcher.live(1, &[Change::Create(task().into())]).len(), 1);
}

#[test]
fn any_other_kind_is_that_of_a_resource() {
    let thing = |kind: &str| Resource {
        kind: kind.to_owned(),
        ..Default::default()
    };
    assert!(selects("thing", vec![], thing("thing")));
    assert!(!selects("thing", vec![], thing("Thing")));
    assert!(selects("resource", vec![], thing("resource")));
    assert!(!selects("resource", vec![], thing("thing")));
    assert!(!selects("task", vec![], thing("task")));
    assert!(!selects("thing", vec![], task()));
    let all = "node service task network cluster secret config extension volume";
    for kind in all.split(' ') {
        assert_eq!(selects(kind, vec![], task()), kind == "task");
    }
}

#[test]
fn a_message_has_what_matches_any_entry_in_order() {
    let matcher = matcher(vec![
        entry("service", CREATE | REMOVE, vec![]),
        entry("task", UPDATE, vec![By::Id("task1".into())]),
        entry("task", UPDATE, vec![]),
    ])
    .unwrap();
    let update = |object: AnyObject| Change::Update {
        old: object.clone(),
        new: object,
    };
    let changes = [
        Change::Create(service("s1").into()),
        update(service("s2").into()),
        Change::Remove(service("s3").into()),
        Change::Create(task().into()),
        update(task().into()),
    ];
    let messages = matcher.live(7, &changes);
    assert_eq!(messages.len(), 1);
    assert_eq!(messages[0].version, Some(Version { index: 7 }));
    let told: Vec<_> = messages[0]
        .events
        .iter()
        .map(|event| match event.object.clone().unwrap().object {
            Some(Wire::Service(service)) => (event.action, service.id),
            Some(Wire::Task(task)) => (event.action, task.id),
            other => panic!("{other:?}"),
        })
        .collect();
    let told: Vec<_> = told.iter().map(|(a, id)| (*a, id.as_str())).collect();
    assert_eq!(told, [(CREATE, "s1"), (REMOVE, "s3"), (UPDATE, "task1")]);
    assert!(matcher.live(8, &changes[1..2]).is_empty());
}

#[test]
fn old_objects_come_with_updates_if_asked_for() {
    let mut new = task();
    new.slot = 4;
    let changes = [
        Change::Update {
            old: task().into(),
            new: new.into(),
        },
        Change::Remove(task().into()),
    ];
    for include_old_object in [true, false] {
        let matcher = Matcher::new(WatchRequest {
            entries: vec![entry("task", UPDATE | REMOVE, vec![])],
            include_old_object,
            ..Default::default()
        })
        .unwrap();
        let events = &matcher.live(1, &changes)[0].events;
        let old = include_old_object.then(|| Object {
            object: Some(Wire::Task(task())),
        });
        assert_eq!(events[0].old_object, old);
        assert_eq!(events[1].old_object, None);
    }
}

#[test]
fn a_message_that_would_be_too_large_is_cut_and_only_the_last_part_has_a_version() {
    let matcher = matcher(vec![entry("service", CREATE, vec![])]).unwrap();
    let large = |id: &str| {
        let mut service = service(id);
        service.spec_mut().annotations_mut().name = "x".repeat(MAX_MESSAGE_BYTES / 2);
        assert_eq!(Service::KIND, Kind::Service);
        Change::Create(service.into())
    };
    let messages = matcher.live(9, &[large("a"), large("b"), large("c")]);
    assert!(messages.len() > 1);
    let events: usize = messages.iter().map(|message| message.events.len()).sum();
    assert_eq!(events, 3);
    let (last, others) = messages.split_last().unwrap();
    assert_eq!(last.version, Some(Version { index: 9 }));
    assert!(others.iter().all(|message| message.version.is_none()));
}

#[test]
fn a_watch_hears_of_as_few_commits_as_possible() {
    let matcher = matcher(vec![
        entry("service", CREATE, vec![]),
        entry("service", UPDATE, vec![By::Id("a".into())]),
        entry("task", CREATE, vec![By::NodeId("n1".into())]),
        entry("node", CREATE, vec![By::Id("n1".into())]),
        entry("thing", CREATE, vec![]),
    ]);
    assert_eq!(
        matcher.unwrap().routes(),
        [
            Route::Kind(Kind::Service),
            Route::Node("n1".to_owned()),
            Route::Kind(Kind::Resource),
        ]
    );
    assert!(
        Matcher::new(WatchRequest::default())
            .unwrap()
            .routes()
            .is_empty()
    );
}
