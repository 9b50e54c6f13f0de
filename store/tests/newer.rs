//! What a newer version has written is taken whole or refused: an object that lost a field here would
//! differ from the leader's, and be written back without it.
#![allow(clippy::unwrap_used)] // A test that cannot go on should stop.

use prost::{Message as _, encoding};
use skep_proto::{
    Timestamp,
    v1::{InternalRaftRequest, Node, StoreAction, StoreActionKind, StoreSnapshot, store_action},
};
use skep_store::{Entry, Error, Image, Store};

fn node(id: &str) -> Node {
    let mut node = Node {
        id: id.to_owned(),
        ..Default::default()
    };
    node.spec_mut().annotations_mut().name = "name".to_owned();
    node
}

fn bytes(tag: u32, data: &[u8]) -> Vec<u8> {
    let mut field = Vec::new();
    encoding::bytes::encode(tag, &data.to_vec(), &mut field);
    field
}

/// A field that no message here has.
fn later() -> Vec<u8> {
    bytes(90, b"later")
}

/// A node with a field of a newer version in it, and with one in the annotations of its spec.
fn newer_nodes() -> [(Vec<u8>, &'static str); 2] {
    let top = [node("a").encode_to_vec(), later()].concat();
    let annotations = [node("a").spec().annotations().encode_to_vec(), later()].concat();
    let nested = [bytes(1, b"a"), bytes(3, &bytes(1, &annotations))].concat();
    [
        (top, "field 90 of docker.swarmkit.v1.Node"),
        (nested, "field 90 of docker.swarmkit.v1.Annotations"),
    ]
}

/// An entry with an action of this kind on an object of this table.
fn entry(index: u64, kind: u8, tag: u32, object: &[u8]) -> Entry {
    let action = [vec![0x08, kind], bytes(tag, object)].concat();
    let data = [vec![0x08, 7], bytes(2, &action)].concat();
    Entry {
        index,
        data: data.into(),
    }
}

/// Node is the second field of an action.
const NODE: u32 = 2;

fn store() -> Store {
    let store = Store::new(Timestamp::default);
    let known = entry(3, 1, NODE, &node("known").encode_to_vec());
    store.apply(&[known]).unwrap();
    store
}

fn refused(result: Result<impl std::fmt::Debug, Error>) -> (String, String) {
    match result.unwrap_err() {
        Error::Newer { place, what } => (place, what),
        other => panic!("{other}"),
    }
}

#[test]
fn these_entries_are_what_a_leader_writes() {
    let ours = InternalRaftRequest {
        id: 7,
        action: vec![StoreAction {
            action: StoreActionKind::StoreActionCreate.into(),
            target: Some(store_action::Target::Node(node("known"))),
        }],
    };
    let entry = entry(3, 1, NODE, &node("known").encode_to_vec());
    assert_eq!(entry.data, ours.encode_to_vec());
}

#[test]
fn r22_an_entry_with_unknown_fields_is_refused_before_anything_is_lost() {
    for (object, what) in newer_nodes() {
        let store = store();
        for kind in 1..=3 {
            let fine = entry(4, 1, NODE, &node("b").encode_to_vec());
            let newer = entry(5, kind, NODE, &object);
            let told = ("entry 5 of the log".to_owned(), what.to_owned());
            assert_eq!(refused(newer.actions()), told, "a watch that resumes");
            assert_eq!(refused(store.apply(&[fine, newer])), told);
        }
        let snapshot = store.snapshot();
        assert_eq!(snapshot.index(), 3, "nothing of the batch is published");
        assert_eq!(snapshot.count::<Node>(), 1);
    }
}

#[test]
fn r22_an_unknown_kind_of_object_or_action_is_refused_and_not_skipped() {
    let object = node("a").encode_to_vec();
    let store = store();
    let (_, what) = refused(store.apply(&[entry(4, 1, 80, &object)]));
    assert_eq!(what, "field 80 of docker.swarmkit.v1.StoreAction");
    let (_, what) = refused(store.apply(&[entry(4, 9, NODE, &object)]));
    assert_eq!(what, "an action of kind 9");
    let text = store.apply(&[entry(4, 9, NODE, &object)]).unwrap_err();
    assert_eq!(
        text.to_string(),
        "entry 4 of the log holds what this version does not know (an action of kind 9): a newer \
         version has written it; start that one, or a later one, on this manager"
    );
    assert_eq!(store.snapshot().index(), 3);
}

#[test]
fn r22_a_snapshot_with_unknown_fields_or_tables_is_refused() {
    for (object, what) in newer_nodes() {
        let fine = bytes(1, &node("b").encode_to_vec());
        for data in [bytes(1, &object), [fine, bytes(1, &object)].concat()] {
            let told = ("the snapshot".to_owned(), what.to_owned());
            assert_eq!(refused(Image::decode(&data)), told);
        }
    }
    let (_, what) = refused(Image::decode(&later()));
    assert_eq!(what, "field 90 of docker.swarmkit.v1.StoreSnapshot");
}

#[test]
fn another_way_to_write_what_is_known_is_taken() {
    // An empty hostname, said outright.
    let object = [bytes(1, b"a"), bytes(4, &bytes(1, b""))].concat();
    let store = store();
    store.apply(&[entry(4, 1, NODE, &object)]).unwrap();
    assert!(
        store
            .snapshot()
            .get::<Node>("a")
            .unwrap()
            .description
            .is_some()
    );
    Image::decode(&bytes(1, &object)).unwrap();
}

#[test]
fn what_an_older_version_wrote_goes_through_a_snapshot_and_back_unchanged() {
    let store = store();
    let bytes = store.snapshot().to_bytes();
    let again = Store::new(Timestamp::default);
    again.restore(3, Image::decode(&bytes).unwrap());
    assert_eq!(again.snapshot().to_bytes(), bytes);
    assert!(StoreSnapshot::decode(&*bytes).is_ok());
}
