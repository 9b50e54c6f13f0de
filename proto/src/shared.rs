//! A message inside of others that many of them have alike, such as the spec in all tasks of a
//! service: they can keep one copy. Neither the wire nor an equality tells whether they do.

use std::{fmt, ops::Deref, sync::Arc};

use bytes::{Buf, BufMut};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType},
};

/// A message that clones share until one of them is changed.
#[derive(Default)]
pub struct Shared<T>(Arc<T>);

impl<T: Clone> Shared<T> {
    /// The message to change; copied first if others have it too.
    pub fn make_mut(&mut self) -> &mut T {
        Arc::make_mut(&mut self.0)
    }
}

impl<T: PartialEq> Shared<T> {
    /// Gives up this copy for that of `other`, if they are equal. Whether they are.
    pub fn share(&mut self, other: &Self) -> bool {
        let equal = self == other;
        if equal {
            self.0 = other.0.clone();
        }
        equal
    }
}

impl<T> Shared<T> {
    /// Whether both are the same copy.
    pub fn is_shared_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> From<T> for Shared<T> {
    fn from(message: T) -> Self {
        Self(Arc::new(message))
    }
}

impl<T> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: PartialEq> PartialEq for Shared<T> {
    fn eq(&self, other: &Self) -> bool {
        self.is_shared_with(other) || *self.0 == *other.0
    }
}

impl<T: fmt::Debug> fmt::Debug for Shared<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T: Message + Clone + Default> Message for Shared<T> {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.0.encode_raw(buf);
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        self.make_mut().merge_field(tag, wire_type, buf, ctx)
    }

    fn encoded_len(&self) -> usize {
        self.0.encoded_len()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use prost::encoding;

    use super::*;
    use crate::v1::{ContainerSpec, Placement, Task, TaskSpec, task_spec::Runtime};

    fn spec(image: &str) -> TaskSpec {
        TaskSpec {
            runtime: Some(Runtime::Container(ContainerSpec {
                image: image.to_owned(),
                env: vec!["A=1".to_owned()],
                ..Default::default()
            })),
            force_update: 3,
            ..Default::default()
        }
    }

    #[test]
    fn it_is_on_the_wire_what_it_holds() {
        for plain in [TaskSpec::default(), spec("web")] {
            let shared = Shared::from(plain.clone());
            assert_eq!(shared.encode_to_vec(), plain.encode_to_vec());
            let task = Task {
                spec: Some(shared),
                ..Default::default()
            };
            let mut field = Vec::new();
            encoding::message::encode(3, &plain, &mut field);
            assert_eq!(task.encode_to_vec(), field, "also when it is empty");
            assert_eq!(Task::decode(&*field).unwrap(), task);
        }
    }

    #[test]
    fn a_field_that_comes_twice_is_merged() {
        let second = TaskSpec {
            placement: Some(Placement::default()),
            force_update: 4,
            ..Default::default()
        };
        let mut wire = Vec::new();
        encoding::message::encode(3, &spec("web"), &mut wire);
        encoding::message::encode(3, &second, &mut wire);
        let mut merged = spec("web");
        merged.merge(&*second.encode_to_vec()).unwrap();
        assert_eq!(Task::decode(&*wire).unwrap().spec(), &merged);
    }

    #[test]
    fn merging_and_clearing_one_leaves_the_others_alone() {
        let first = Shared::from(spec("web"));
        let mut changed = first.clone();
        assert!(changed.is_shared_with(&first));
        changed.merge(&*spec("db").encode_to_vec()).unwrap();
        changed.make_mut().force_update = 9;
        assert_eq!(*first, spec("web"));
        let mut cleared = first.clone();
        cleared.clear();
        assert_eq!((&*cleared, &*first), (&TaskSpec::default(), &spec("web")));
    }

    #[test]
    fn only_equals_are_shared() {
        let first = Shared::from(spec("web"));
        let mut equal = Shared::from(spec("web"));
        assert!(equal == first && !equal.is_shared_with(&first));
        assert!(equal.share(&first) && equal.is_shared_with(&first));
        let mut other = Shared::from(spec("db"));
        assert!(!other.share(&first));
        assert_eq!(*other, spec("db"));
    }
}
