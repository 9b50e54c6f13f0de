//! Hashes of objects and of whole stores. That of a store is the sum of those of its objects, so it
//! can be kept up to date change by change.

use std::hash::{DefaultHasher, Hasher};

use skep_proto::v1::{
    Cluster, Config, Extension, Network, Node, Resource, Secret, Service, Task, Volume,
};
use skep_store::{AnyObject, Kind, Object, Snapshot};

/// Which object.
pub(super) type Key = (Kind, String);

pub(super) fn of<T: Object>(object: &T) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write_u8(T::KIND as u8);
    hasher.write(&object.encode_to_vec());
    hasher.finish()
}

macro_rules! all_kinds {
    ($($kind:ident),*) => {
        pub(super) fn of_any(object: &AnyObject) -> u64 {
            match object { $(AnyObject::$kind(object) => of(&**object),)* }
        }

        /// Calls `each` with every object.
        pub(super) fn for_each(snapshot: &Snapshot, mut each: impl FnMut(AnyObject)) {
            $(snapshot.all::<$kind>().for_each(|object| each(object.clone().wrap()));)*
        }
    };
}

all_kinds!(
    Node, Service, Task, Network, Cluster, Secret, Config, Resource, Extension, Volume
);

pub(super) fn key(object: &AnyObject) -> Key {
    (object.kind(), object.id().to_owned())
}

/// The nodes whose watchers an object concerns.
pub(super) fn node(object: &AnyObject) -> Option<&str> {
    match object {
        AnyObject::Task(task) => Some(&*task.node_id).filter(|node| !node.is_empty()),
        AnyObject::Node(node) => Some(&node.id),
        _ => None,
    }
}

pub(super) fn of_store(snapshot: &Snapshot) -> u64 {
    let mut sum = 0u64;
    for_each(snapshot, |object| sum = sum.wrapping_add(of_any(&object)));
    sum
}
