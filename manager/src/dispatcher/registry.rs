//! Which nodes have a session, and until when each is believed to be alive.
//!
//! A state machine with explicit time: it reads no clock, writes nothing and tells nobody. It knows
//! three kinds of nodes: those of which nothing was heard since the leader started, those with a
//! session, and those whose time has run out and whose fall is not stored yet.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

/// Time since the term began.
pub(super) type Moment = Duration;

/// Registrations that a node may make before [`RATE_PERIOD`] must pass (SwarmKit's number).
const RATE_COUNT: u32 = 3;

/// The count starts anew when more than this has passed since the last registration that counted
/// (SwarmKit's number).
const RATE_PERIOD: Duration = Duration::from_secs(8);

/// Why a node is not served. The texts are SwarmKit's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// It registers too often.
    #[error("node {0} exceeded rate limit count of registrations")]
    TooOften(String),
    /// It has no session.
    #[error("node not registered")]
    NotRegistered,
    /// It has a session, but not this one.
    #[error("session invalid")]
    InvalidSession,
}

/// A node whose time has run out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lapse {
    pub node_id: Arc<str>,
    /// Nothing was ever heard of it in this term.
    pub unknown: bool,
}

/// All nodes that the dispatcher keeps an eye on. `S` is what belongs to a session; it is dropped
/// the moment the session is over.
#[derive(Debug)]
pub(super) struct Registry<S> {
    nodes: HashMap<Arc<str>, Entry<S>>,
    /// One for every node that has not lapsed.
    deadlines: BTreeSet<(Moment, Arc<str>)>,
}

#[derive(Debug)]
struct Entry<S> {
    state: State<S>,
    /// Registrations that count towards the rate limit, and when the last one was.
    registrations: u32,
    counted_at: Moment,
}

#[derive(Debug)]
enum State<S> {
    Unknown {
        deadline: Moment,
    },
    Alive {
        deadline: Moment,
        id: String,
        session: S,
    },
    Lapsed,
}

impl<S> State<S> {
    fn deadline(&self) -> Option<Moment> {
        match self {
            Self::Unknown { deadline } | Self::Alive { deadline, .. } => Some(*deadline),
            Self::Lapsed => None,
        }
    }
}

impl<S> Default for Registry<S> {
    fn default() -> Self {
        Self {
            nodes: HashMap::new(),
            deadlines: BTreeSet::new(),
        }
    }
}

impl<S> Registry<S> {
    /// A node of an earlier term is expected to show up before `deadline`.
    pub fn expect(&mut self, node_id: &str, deadline: Moment) {
        if !self.nodes.contains_key(node_id) {
            let entry = Entry {
                state: State::Unknown { deadline },
                registrations: 0,
                counted_at: Moment::ZERO,
            };
            self.nodes.insert(node_id.into(), entry);
            self.deadlines.insert((deadline, node_id.into()));
        }
    }

    /// Opens a session. If `wanted` is the node's present session, that one goes on with a new
    /// `session`; otherwise `fresh` begins and takes the place of any other. Returns the ID.
    pub fn open(
        &mut self,
        node_id: &str,
        wanted: &str,
        fresh: String,
        session: S,
        now: Moment,
        ttl: Duration,
    ) -> Result<String, Refusal> {
        let deadline = now.saturating_add(ttl);
        let (key, mut entry) = self.nodes.remove_entry(node_id).unwrap_or_else(|| {
            let entry = Entry {
                state: State::Lapsed,
                registrations: 0,
                counted_at: now,
            };
            (node_id.into(), entry)
        });
        let resumed = matches!(&entry.state, State::Alive { id, .. } if id == wanted);
        if !resumed {
            if now.saturating_sub(entry.counted_at) > RATE_PERIOD {
                entry.registrations = 0;
            }
            if entry.registrations == RATE_COUNT {
                self.nodes.insert(key, entry);
                return Err(Refusal::TooOften(node_id.to_owned()));
            }
            entry.registrations += 1;
            entry.counted_at = now;
        }
        if let Some(old) = entry.state.deadline() {
            self.deadlines.remove(&(old, key.clone()));
        }
        let id = if resumed { wanted.to_owned() } else { fresh };
        entry.state = State::Alive {
            deadline,
            id: id.clone(),
            session,
        };
        self.deadlines.insert((deadline, key.clone()));
        self.nodes.insert(key, entry);
        Ok(id)
    }

    /// A sign of life.
    pub fn heartbeat(
        &mut self,
        node_id: &str,
        session_id: &str,
        now: Moment,
        ttl: Duration,
    ) -> Result<(), Refusal> {
        self.session(node_id, session_id)?;
        let (key, _) = self
            .nodes
            .get_key_value(node_id)
            .ok_or(Refusal::NotRegistered)?;
        let key = key.clone();
        if let Some(State::Alive { deadline, .. }) =
            self.nodes.get_mut(node_id).map(|entry| &mut entry.state)
        {
            self.deadlines.remove(&(*deadline, key.clone()));
            *deadline = now.saturating_add(ttl);
            self.deadlines.insert((*deadline, key));
        }
        Ok(())
    }

    /// What belongs to the session, if it is the node's present one.
    pub fn session(&mut self, node_id: &str, session_id: &str) -> Result<&mut S, Refusal> {
        match self.nodes.get_mut(node_id).map(|entry| &mut entry.state) {
            Some(State::Alive { id, session, .. }) if id == session_id => Ok(session),
            Some(State::Alive { .. }) => Err(Refusal::InvalidSession),
            _ => Err(Refusal::NotRegistered),
        }
    }

    /// Ends the sessions of all nodes whose time has run out. They stay here as lapsed until they
    /// are [forgotten](Self::forget_lapsed) or register again.
    pub fn expire(&mut self, now: Moment) -> Vec<Lapse> {
        let mut lapses = Vec::new();
        while let Some((deadline, _)) = self.deadlines.first()
            && *deadline <= now
            && let Some((_, node_id)) = self.deadlines.pop_first()
        {
            if let Some(entry) = self.nodes.get_mut(&node_id) {
                let unknown = matches!(entry.state, State::Unknown { .. });
                entry.state = State::Lapsed;
                lapses.push(Lapse { node_id, unknown });
            }
        }
        lapses
    }

    /// When [`Self::expire`] next has something to do.
    pub fn next_deadline(&self) -> Option<Moment> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Whether nothing was heard of the node in this term, and its time has not run out.
    pub fn is_unknown(&self, node_id: &str) -> bool {
        self.nodes
            .get(node_id)
            .is_some_and(|entry| matches!(entry.state, State::Unknown { .. }))
    }

    /// Whether the node's time ran out and it has not registered again.
    pub fn is_lapsed(&self, node_id: &str) -> bool {
        self.nodes
            .get(node_id)
            .is_some_and(|entry| matches!(entry.state, State::Lapsed))
    }

    /// Forgets a node that has lapsed; any other stays.
    pub fn forget_lapsed(&mut self, node_id: &str) {
        if self.is_lapsed(node_id) {
            self.nodes.remove(node_id);
        }
    }

    /// Forgets a node, whatever its state: it was removed from the cluster.
    pub fn remove(&mut self, node_id: &str) {
        if let Some((key, entry)) = self.nodes.remove_entry(node_id)
            && let Some(deadline) = entry.state.deadline()
        {
            self.deadlines.remove(&(deadline, key));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    const TTL: Duration = Duration::from_secs(15);

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    fn open(
        registry: &mut Registry<()>,
        wanted: &str,
        fresh: &str,
        now: u64,
    ) -> Result<String, Refusal> {
        registry.open("n1", wanted, fresh.to_owned(), (), at(now), TTL)
    }

    #[test]
    fn a_session_is_registered_resumed_and_replaced() {
        let mut registry = Registry::default();
        assert_eq!(registry.session("n1", "a"), Err(Refusal::NotRegistered));
        assert_eq!(open(&mut registry, "", "a", 0).as_deref(), Ok("a"));
        assert_eq!(registry.session("n1", "a"), Ok(&mut ()));
        assert_eq!(registry.session("n1", ""), Err(Refusal::InvalidSession));
        assert_eq!(open(&mut registry, "a", "b", 1).as_deref(), Ok("a"));
        assert_eq!(open(&mut registry, "stale", "c", 2).as_deref(), Ok("c"));
        assert_eq!(registry.session("n1", "a"), Err(Refusal::InvalidSession));
        assert_eq!(registry.session("n1", "c"), Ok(&mut ()));
    }

    #[test]
    fn the_fourth_registration_in_a_row_is_refused() {
        let mut registry = Registry::default();
        for now in [0, 1, 2] {
            open(&mut registry, "", &format!("s{now}"), now).unwrap();
        }
        assert_eq!(
            open(&mut registry, "", "x", 10),
            Err(Refusal::TooOften("n1".to_owned()))
        );
        assert_eq!(
            registry.session("n1", "s2"),
            Ok(&mut ()),
            "a refusal changes nothing"
        );
        assert!(
            open(&mut registry, "s2", "x", 10).is_ok(),
            "resuming is free"
        );
        assert!(
            open(&mut registry, "", "y", 11).is_ok(),
            "more than 8 s since the third"
        );
    }

    #[test]
    fn a_node_without_heartbeats_lapses_once() {
        let mut registry = Registry::default();
        registry.expect("n0", at(30));
        open(&mut registry, "", "a", 0).unwrap();
        registry.heartbeat("n1", "a", at(5), TTL).unwrap();
        assert_eq!(registry.next_deadline(), Some(at(20)));
        assert_eq!(registry.expire(at(19)), vec![]);
        let lapse = |node_id: &str, unknown| Lapse {
            node_id: node_id.into(),
            unknown,
        };
        assert_eq!(registry.expire(at(20)), vec![lapse("n1", false)]);
        assert_eq!(registry.expire(at(29)), vec![]);
        assert_eq!(
            registry.heartbeat("n1", "a", at(29), TTL),
            Err(Refusal::NotRegistered)
        );
        assert!(registry.is_unknown("n0") && registry.is_lapsed("n1"));
        assert_eq!(registry.expire(at(30)), vec![lapse("n0", true)]);
        assert_eq!(open(&mut registry, "a", "b", 31).as_deref(), Ok("b"));
        registry.forget_lapsed("n1");
        assert!(registry.session("n1", "b").is_ok(), "it came back in time");
    }

    #[test]
    fn what_belongs_to_a_session_is_dropped_with_it() {
        let mut registry = Registry::default();
        let session = Arc::new(());
        let mut open = |now| {
            registry
                .open("n1", "", format!("s{now}"), session.clone(), at(now), TTL)
                .unwrap();
            Arc::strong_count(&session)
        };
        assert_eq!(open(0), 2);
        assert_eq!(open(1), 2);
        registry.expire(at(100));
        assert_eq!(Arc::strong_count(&session), 1);
    }

    #[derive(Clone, Debug)]
    enum Op {
        Wait(u64),
        Expect(u8),
        Register(u8),
        Resume(u8),
        Heartbeat(u8),
        Forget(u8),
        Remove(u8),
    }

    fn op() -> impl Strategy<Value = Op> {
        let node = 0..4_u8;
        prop_oneof![
            (0..10_u64).prop_map(Op::Wait),
            node.clone().prop_map(Op::Expect),
            node.clone().prop_map(Op::Register),
            node.clone().prop_map(Op::Resume),
            node.clone().prop_map(Op::Heartbeat),
            node.clone().prop_map(Op::Forget),
            node.prop_map(Op::Remove),
        ]
    }

    proptest! {
        /// Against a model that only knows who is alive with what session until when.
        #[test]
        fn only_the_latest_session_lives_until_its_deadline(
            ops in proptest::collection::vec(op(), 0..120)
        ) {
            let mut registry = Registry::<()>::default();
            // None: expected, never seen.
            let mut model = BTreeMap::<String, (Option<String>, Moment)>::new();
            let mut now = at(0);
            for (step, op) in ops.into_iter().enumerate() {
                let name = |node: u8| format!("n{node}");
                match op {
                    Op::Wait(seconds) => now += at(seconds),
                    Op::Expect(node) => {
                        if !registry.nodes.contains_key(&*name(node)) {
                            model.insert(name(node), (None, now + TTL * 2));
                        }
                        registry.expect(&name(node), now + TTL * 2);
                    }
                    Op::Register(node) => {
                        let fresh = format!("s{step}");
                        if registry.open(&name(node), "", fresh.clone(), (), now, TTL).is_ok() {
                            model.insert(name(node), (Some(fresh), now + TTL));
                        }
                    }
                    Op::Resume(node) => {
                        if let Some((Some(id), deadline)) = model.get_mut(&name(node)) {
                            let opened = registry.open(&name(node), id, "x".into(), (), now, TTL);
                            prop_assert_eq!(opened.as_ref(), Ok(&*id));
                            *deadline = now + TTL;
                        }
                    }
                    Op::Heartbeat(node) => {
                        let beat = |registry: &mut Registry<()>, id: &str| {
                            registry.heartbeat(&name(node), id, now, TTL)
                        };
                        match model.get_mut(&name(node)) {
                            Some((Some(id), deadline)) => {
                                prop_assert_eq!(beat(&mut registry, id), Ok(()));
                                *deadline = now + TTL;
                                let other = beat(&mut registry, "other");
                                prop_assert_eq!(other, Err(Refusal::InvalidSession));
                            }
                            _ => prop_assert_eq!(
                                beat(&mut registry, "any"), Err(Refusal::NotRegistered)
                            ),
                        }
                    }
                    Op::Forget(node) => registry.forget_lapsed(&name(node)),
                    Op::Remove(node) => {
                        registry.remove(&name(node));
                        model.remove(&name(node));
                    }
                }
                let lapsed: BTreeSet<_> = registry
                    .expire(now)
                    .into_iter()
                    .map(|lapse| (lapse.node_id.to_string(), lapse.unknown))
                    .collect();
                let due: BTreeSet<_> = model
                    .extract_if(.., |_, (_, deadline)| *deadline <= now)
                    .map(|(node_id, (id, _))| (node_id, id.is_none()))
                    .collect();
                prop_assert_eq!(lapsed, due);
                let next = model.values().map(|(_, deadline)| *deadline).min();
                prop_assert_eq!(registry.next_deadline(), next);
                prop_assert_eq!(registry.deadlines.len(), model.len());
            }
        }
    }
}
