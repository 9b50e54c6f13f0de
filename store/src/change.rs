//! One change of one object, as it travels to watchers and into the log.

use std::sync::Arc;

use skep_proto::v1::{
    Annotations, Cluster, Config, Extension, Network, Node, Resource, Secret, Service, Task, Volume,
};

use crate::{Kind, Object, table::Tables};

macro_rules! any_object {
    ($($kind:ident),*) => {
        /// An object of any table, shared.
        #[derive(Clone, Debug, PartialEq)]
        #[allow(missing_docs)]
        pub enum AnyObject { $($kind(Arc<$kind>),)* }

        impl AnyObject {
            /// The table the object belongs to.
            pub fn kind(&self) -> Kind {
                match self { $(Self::$kind(_) => Kind::$kind,)* }
            }

            /// The object's ID.
            pub fn id(&self) -> &str {
                match self { $(Self::$kind(object) => &object.id,)* }
            }

            /// The name under which users know it; empty when it has none.
            pub fn name(&self) -> &str {
                match self { $(Self::$kind(object) => Object::name(&**object),)* }
            }

            /// `annotations` of the object or of its spec.
            pub fn annotations(&self) -> &Annotations {
                match self { $(Self::$kind(object) => Object::annotations(&**object),)* }
            }

            /// `meta.version.index`, 0 when absent.
            pub fn version(&self) -> u64 {
                match self { $(Self::$kind(object) => object.version(),)* }
            }
        }

        $(impl From<$kind> for AnyObject {
            fn from(object: $kind) -> Self { Self::$kind(Arc::new(object)) }
        })*

        /// Runs `$body` with `$object` bound to the `Arc` inside of any variant.
        macro_rules! with_object {
            ($any:expr, $object:ident => $body:expr) => {
                match $any { $($crate::AnyObject::$kind($object) => $body,)* }
            };
        }
        pub(crate) use with_object;
    };
}

any_object!(
    Node, Service, Task, Network, Cluster, Secret, Config, Resource, Extension, Volume
);

impl AnyObject {
    /// The object, if it is a `T`.
    pub fn get<T: Object>(&self) -> Option<&Arc<T>> {
        T::peel(self)
    }
}

/// One change of one object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// The object is new.
    Create(AnyObject),
    /// The object replaces an older version of itself.
    Update {
        /// What it was.
        old: AnyObject,
        /// What it is.
        new: AnyObject,
    },
    /// The object is gone.
    Remove(AnyObject),
}

impl Change {
    /// The object as it is after the change, or as it was before its removal.
    pub fn object(&self) -> &AnyObject {
        match self {
            Self::Create(object) | Self::Update { new: object, .. } | Self::Remove(object) => {
                object
            }
        }
    }

    /// The object before the change.
    pub fn old(&self) -> Option<&AnyObject> {
        match self {
            Self::Create(_) => None,
            Self::Update { old, .. } | Self::Remove(old) => Some(old),
        }
    }

    /// The object as it is now, if it is a `T` and still there.
    pub fn current<T: Object>(&self) -> Option<&Arc<T>> {
        match self {
            Self::Create(object) | Self::Update { new: object, .. } => object.get(),
            Self::Remove(_) => None,
        }
    }

    /// Makes the change in tables that are as they were before it.
    pub(crate) fn make(&self, tables: &mut Tables) {
        match self {
            Self::Create(object) | Self::Update { new: object, .. } => put(tables, object),
            Self::Remove(object) => remove(tables, object),
        }
    }

    /// Makes tables that have the change in the last place what they were before it.
    pub(crate) fn take_back(&self, tables: &mut Tables) {
        match self {
            Self::Create(object) => remove(tables, object),
            Self::Update { old: object, .. } | Self::Remove(object) => put(tables, object),
        }
    }
}

fn put(tables: &mut Tables, object: &AnyObject) {
    fn put<T: Object>(tables: &mut Tables, object: &Arc<T>) {
        T::table_mut(tables).put(object.clone());
    }
    with_object!(object, object => put(tables, object));
}

fn remove(tables: &mut Tables, object: &AnyObject) {
    fn remove<T: Object>(tables: &mut Tables, object: &Arc<T>) {
        T::table_mut(tables).remove(object.id());
    }
    with_object!(object, object => remove(tables, object));
}
