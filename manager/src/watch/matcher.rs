//! What a watch asks for, and which messages a commit makes of it: pure functions.

use prost::Message as _;
use skep_proto::v1::{
    Object, Version, WatchActionKind, WatchMessage, WatchRequest, object::Object as Wire,
    watch_message::Event, watch_request::WatchEntry,
};
use skep_store::{Action, AnyObject, Change, Entry, Kind, Route};

use super::condition::Condition;

/// Entries of one request. Each costs time with every change that passes.
const MAX_ENTRIES: usize = 1024;

/// Events in one message, in bytes; a larger one travels alone. Clients of gRPC take 4 MiB.
const MAX_MESSAGE_BYTES: usize = 1024 * 1024;

/// All bits of an action mask that stand for something.
const ACTIONS: i32 = WatchActionKind::WatchActionCreate as i32
    | WatchActionKind::WatchActionUpdate as i32
    | WatchActionKind::WatchActionRemove as i32;

/// Why a request makes no sense. The texts are SwarmKit's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum BadRequest {
    #[error("no kind of object specified")]
    NoKind,
    #[error("conflicting filters specified")]
    ConflictingFilters,
    #[error("unrecognized action")]
    UnrecognizedAction,
    #[error("a watch takes at most {MAX_ENTRIES} entries; open several")]
    TooManyEntries,
}

/// A request that makes sense.
#[derive(Debug)]
pub(super) struct Matcher {
    wanted: Vec<Wanted>,
    include_old: bool,
}

/// One entry of it.
#[derive(Debug)]
struct Wanted {
    kind: Kind,
    /// Bits of [`WatchActionKind`].
    actions: i32,
    /// All must hold.
    conditions: Vec<Condition>,
    /// Of resources.
    resource: Option<String>,
}

impl Matcher {
    pub(super) fn new(request: WatchRequest) -> Result<Self, BadRequest> {
        if request.entries.len() > MAX_ENTRIES {
            return Err(BadRequest::TooManyEntries);
        }
        let wanted = request.entries.into_iter().map(Wanted::new);
        Ok(Self {
            wanted: wanted.collect::<Result<_, _>>()?,
            include_old: request.include_old_object,
        })
    }

    /// Commits that may contain something for this watch, and as few others as possible.
    pub(super) fn routes(&self) -> Vec<Route> {
        let mut routes = Vec::new();
        for route in self.wanted.iter().map(Wanted::route) {
            if !routes.contains(&route) {
                routes.push(route);
            }
        }
        routes
    }

    /// The messages that a committed entry makes while it is published.
    pub(super) fn live(&self, index: u64, changes: &[Change]) -> Vec<WatchMessage> {
        let events = changes.iter().filter_map(|change| {
            let (action, old) = match change {
                Change::Create(_) => (WatchActionKind::WatchActionCreate, None),
                Change::Update { old, .. } => (WatchActionKind::WatchActionUpdate, Some(old)),
                Change::Remove(_) => (WatchActionKind::WatchActionRemove, None),
            };
            self.event(action, change.object(), old)
        });
        messages(index, events)
    }

    /// The messages that an entry of the log makes afterwards. Nobody knows any more what the objects
    /// were before.
    pub(super) fn replayed(&self, entry: &Entry) -> Result<Vec<WatchMessage>, skep_store::Error> {
        let actions = entry.actions()?;
        let events = actions.iter().filter_map(|action| {
            let (action, object) = match action {
                Action::Create(object) => (WatchActionKind::WatchActionCreate, object),
                Action::Update(object) => (WatchActionKind::WatchActionUpdate, object),
                Action::Remove(object) => (WatchActionKind::WatchActionRemove, object),
            };
            self.event(action, object, None)
        });
        Ok(messages(entry.index, events))
    }

    fn event(
        &self,
        action: WatchActionKind,
        object: &AnyObject,
        old: Option<&AnyObject>,
    ) -> Option<Event> {
        let mut wanted = self.wanted.iter();
        if !wanted.any(|wanted| wanted.matches(action, object)) {
            return None;
        }
        Some(Event {
            action: action.into(),
            object: Some(wire(object)),
            old_object: old.filter(|_| self.include_old).map(wire),
        })
    }
}

impl Wanted {
    fn new(entry: WatchEntry) -> Result<Self, BadRequest> {
        let (kind, resource) = match entry.kind.as_str() {
            "" => return Err(BadRequest::NoKind),
            "node" => (Kind::Node, None),
            "service" => (Kind::Service, None),
            "task" => (Kind::Task, None),
            "network" => (Kind::Network, None),
            "cluster" => (Kind::Cluster, None),
            "secret" => (Kind::Secret, None),
            "config" => (Kind::Config, None),
            "extension" => (Kind::Extension, None),
            "volume" => (Kind::Volume, None),
            _ => (Kind::Resource, Some(entry.kind)),
        };
        let mut conditions = Vec::new();
        let mut taken = Vec::new();
        let selectors = entry.filters.into_iter().filter_map(|filter| filter.by);
        for condition in selectors.filter_map(|by| Condition::new(by, kind)) {
            if condition.fields().iter().any(|f| taken.contains(f)) {
                return Err(BadRequest::ConflictingFilters);
            }
            taken.extend(condition.fields());
            conditions.push(condition);
        }
        if entry.action & ACTIONS == 0 {
            return Err(BadRequest::UnrecognizedAction);
        }
        Ok(Self {
            kind,
            actions: entry.action,
            conditions,
            resource,
        })
    }

    fn route(&self) -> Route {
        let node = self
            .conditions
            .iter()
            .find_map(|condition| match (self.kind, condition) {
                (Kind::Task, Condition::Node(id)) | (Kind::Node, Condition::Id(id)) => Some(id),
                _ => None,
            });
        match node {
            Some(id) => Route::Node(id.clone()),
            None => Route::Kind(self.kind),
        }
    }

    fn matches(&self, action: WatchActionKind, object: &AnyObject) -> bool {
        let is_of_kind = match (&self.resource, object) {
            (Some(kind), AnyObject::Resource(resource)) => resource.kind == *kind,
            _ => object.kind() == self.kind,
        };
        is_of_kind
            && self.actions & action as i32 != 0
            && self.conditions.iter().all(|c| c.holds(object))
    }
}

/// The events of the entry at `index`, usually as one message: none if there are no events, and
/// several if they would be too large for a client.
///
/// The version of a message is the log index of the entry, which is the same on every manager: a
/// client that resumes from it, anywhere, gets what was committed after this entry and nothing else.
/// (The versions in the objects are smaller: they are counted by transaction and never pass the index
/// of their entry. To resume from one of them may repeat events, but skips none.) Of several messages
/// only the last one has a version, for a client that has not seen all of them must not resume
/// behind them.
fn messages(index: u64, events: impl Iterator<Item = Event>) -> Vec<WatchMessage> {
    let mut messages = Vec::new();
    let mut message = WatchMessage::default();
    let mut size = 0;
    for event in events {
        let more = event.encoded_len();
        if size > 0 && size + more > MAX_MESSAGE_BYTES {
            messages.push(std::mem::take(&mut message));
            size = 0;
        }
        size += more;
        message.events.push(event);
    }
    if !message.events.is_empty() {
        message.version = Some(Version { index });
        messages.push(message);
    }
    messages
}

/// A copy of an object for the wire.
fn wire(object: &AnyObject) -> Object {
    macro_rules! copy {
        ($($kind:ident),*) => {
            match object { $(AnyObject::$kind(object) => Wire::$kind((**object).clone()),)* }
        };
    }
    let object = copy!(
        Node, Service, Task, Network, Cluster, Secret, Config, Resource, Extension, Volume
    );
    Object {
        object: Some(object),
    }
}

#[cfg(test)]
mod tests;
