//! Changes as they rest in the log: SwarmKit's `InternalRaftRequest`.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use prost::{
    Message as _,
    encoding::{self, WireType},
};
use skep_proto::{
    unknown_field,
    v1::{InternalRaftRequest, StoreAction, StoreActionKind, store_action::Target},
};

use crate::{AnyObject, Change, Entry, Error, Object, change::with_object, table::Tables};

/// Field numbers of `InternalRaftRequest` and `StoreAction`.
const REQUEST_ID: u32 = 1;
const REQUEST_ACTION: u32 = 2;
const ACTION_KIND: u32 = 1;

/// The bytes of `InternalRaftRequest{id, action[]}`, written without copying the objects first.
pub(crate) fn encode(id: u64, changes: &[Change]) -> Bytes {
    let lengths: Vec<_> = changes.iter().map(action_len).collect();
    let total = encoding::uint64::encoded_len(REQUEST_ID, &id)
        + lengths
            .iter()
            .map(|&len| {
                encoding::key_len(REQUEST_ACTION) + encoding::encoded_len_varint(len as u64) + len
            })
            .sum::<usize>();
    let mut buf = BytesMut::with_capacity(total);
    encoding::uint64::encode(REQUEST_ID, &id, &mut buf);
    for (change, len) in changes.iter().zip(lengths) {
        encoding::encode_key(REQUEST_ACTION, WireType::LengthDelimited, &mut buf);
        encoding::encode_varint(len as u64, &mut buf);
        encoding::int32::encode(ACTION_KIND, &(action_kind(change) as i32), &mut buf);
        with_object!(change.object(), object => encode_target(object, &mut buf));
    }
    buf.freeze()
}

fn encode_target<T: Object>(object: &Arc<T>, buf: &mut BytesMut) {
    encoding::message::encode(T::ACTION_TAG, &**object, buf);
}

fn target_len<T: Object>(object: &Arc<T>) -> usize {
    encoding::message::encoded_len(T::ACTION_TAG, &**object)
}

fn action_len(change: &Change) -> usize {
    encoding::int32::encoded_len(ACTION_KIND, &(action_kind(change) as i32))
        + with_object!(change.object(), object => target_len(object))
}

fn action_kind(change: &Change) -> StoreActionKind {
    match change {
        Change::Create(_) => StoreActionKind::StoreActionCreate,
        Change::Update { .. } => StoreActionKind::StoreActionUpdate,
        Change::Remove(_) => StoreActionKind::StoreActionRemove,
    }
}

/// The request ID of an entry, without decoding the rest; 0 if there is none.
pub(crate) fn request_id(mut data: &[u8]) -> u64 {
    match encoding::decode_key(&mut data) {
        Ok((REQUEST_ID, WireType::Varint)) => encoding::decode_varint(&mut data).unwrap_or(0),
        _ => 0,
    }
}

/// Applies the actions of a committed entry to `tables` and returns what changed.
///
/// The versions and times in the objects are those that the leader gave them. An action that does
/// not fit (a removal of what is not there) changes nothing: entries are applied after they were
/// checked on the leader, and a snapshot may already contain them.
pub(crate) fn replay(index: u64, data: &[u8], tables: &mut Tables) -> Result<Vec<Change>, Error> {
    let actions = actions(index, data)?;
    let mut changes = Vec::with_capacity(actions.len());
    for action in actions {
        let change = match action {
            Action::Create(object) | Action::Update(object) => {
                Some(with_object!(object, object => put(tables, object)))
            }
            Action::Remove(object) => with_object!(object, object => take(tables, &object)),
        };
        changes.extend(change);
    }
    Ok(changes)
}

/// One change of one object as it rests in the log, where nothing tells what was there before.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// The object is new.
    Create(AnyObject),
    /// The object replaces an older version of itself.
    Update(AnyObject),
    /// The object is gone; this is what it was.
    Remove(AnyObject),
}

/// What the committed entry at `index` of the log does.
fn actions(index: u64, data: &[u8]) -> Result<Vec<Action>, Error> {
    let corrupt = |reason: String| Error::Corrupt { index, reason };
    let newer = |what| Error::Newer {
        place: format!("entry {index} of the log"),
        what,
    };
    let request = InternalRaftRequest::decode(data).map_err(|err| corrupt(err.to_string()))?;
    // What was written by this version, or an older one, is as long again.
    if request.encoded_len() != data.len()
        && let Some(field) = unknown_field("InternalRaftRequest", data)
    {
        return Err(newer(field));
    }
    let mut actions = Vec::with_capacity(request.action.len());
    for action in request.action {
        let (kind, number) = (action.action(), action.action);
        let object = target(action).ok_or_else(|| corrupt("action without a target".to_owned()))?;
        actions.push(match kind {
            StoreActionKind::StoreActionCreate => Action::Create(object),
            StoreActionKind::StoreActionUpdate => Action::Update(object),
            StoreActionKind::StoreActionRemove => Action::Remove(object),
            StoreActionKind::Unknown => {
                return Err(newer(format!("an action of kind {number}")));
            }
        });
    }
    Ok(actions)
}

impl Entry {
    /// What this entry does, without applying it. Fails with [`Error::Corrupt`] if it does not
    /// decode, and with [`Error::Newer`] if this version does not know all of it.
    pub fn actions(&self) -> Result<Vec<Action>, Error> {
        actions(self.index, &self.data)
    }
}

fn put<T: Object>(tables: &mut Tables, mut object: Arc<T>) -> Change {
    if let Some(own) = Arc::get_mut(&mut object) {
        T::table(tables).share(own);
    }
    match T::table_mut(tables).put(object.clone()) {
        Some(old) => Change::Update {
            old: old.wrap(),
            new: object.wrap(),
        },
        None => Change::Create(object.wrap()),
    }
}

fn take<T: Object>(tables: &mut Tables, object: &Arc<T>) -> Option<Change> {
    T::table_mut(tables)
        .remove(object.id())
        .map(|old| Change::Remove(old.wrap()))
}

fn target(action: StoreAction) -> Option<AnyObject> {
    Some(match action.target? {
        Target::Node(object) => object.into(),
        Target::Service(object) => object.into(),
        Target::Task(object) => object.into(),
        Target::Network(object) => object.into(),
        Target::Cluster(object) => object.into(),
        Target::Secret(object) => object.into(),
        Target::Resource(object) => object.into(),
        Target::Extension(object) => object.into(),
        Target::Config(object) => object.into(),
        Target::Volume(object) => object.into(),
    })
}
