//! What a client knows of its objects, and what must therefore be found in the end.
//!
//! Every object has one writer, which has one call at a time under way. An acknowledged write must be
//! found and a refused one must not. After a write whose answer was lost either is right; the writer
//! then leaves the object alone, so that it stays clear what may be found.

use std::collections::BTreeMap;

use bytes::Bytes;
use skep_proto::v1::Config;

/// Label of a config that says how often it has been updated.
pub(super) const REVISION: &str = "revision";

/// What must not happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// An acknowledged write is not there.
    Lost,
    /// A write that was refused is there, or an object that was removed is back.
    Resurrected,
    /// A write was done twice, or one that cannot be right was accepted.
    Doubled,
    /// A read did not see a write that was acknowledged before it.
    Stale,
    /// A version did not grow.
    Version,
}

/// What may be found of an object: how often it was updated, or `None` if it is not there.
type State = Option<u64>;

/// What its writer knows of an object.
#[derive(Clone, Debug)]
pub struct Known {
    /// Empty if the answer with it was lost.
    pub id: String,
    /// Of the last write that was acknowledged; 0 if there was none.
    pub version: u64,
    /// One state if all is clear.
    pub states: Vec<State>,
    /// A write to it with a lost answer may still be on its way: not to be written any more.
    pub frozen: bool,
}

impl Known {
    /// How often it was updated, if that is clear.
    pub fn revision(&self) -> Option<u64> {
        match self.states[..] {
            [state] => state,
            _ => None,
        }
    }
}

/// What came of a write.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Done. The object as answered; none for a removal.
    Done(Option<Box<Config>>),
    /// It did not and will not happen.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// A kind of write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Create,
    Update,
    Remove,
}

/// All objects of one client, by name. What is certainly not there is not in it.
#[derive(Debug, Default)]
pub struct Ledger {
    objects: BTreeMap<String, Known>,
    /// What was found wrong: the kind, and in words.
    pub wrong: Vec<(Fault, String)>,
}

impl Ledger {
    /// What is known of an object.
    pub fn get(&self, name: &str) -> Option<&Known> {
        self.objects.get(name)
    }

    /// A creation whose answer was lost has turned out to have happened.
    pub fn exists(&mut self, name: &str) {
        if let Some(known) = self.objects.get_mut(name) {
            known.states = vec![Some(0)];
        }
    }

    /// An object is to be left alone, in the state in which it is.
    pub fn freeze(&mut self, name: &str) {
        if let Some(known) = self.objects.get_mut(name) {
            known.frozen = true;
        }
    }

    /// Records what came of a write to an object whose state was clear.
    pub fn record(&mut self, name: &str, write: Write, outcome: Outcome) {
        let before = self.objects.get(name).and_then(Known::revision);
        let after = match write {
            Write::Create => Some(0),
            Write::Update => before.map(|revision| revision + 1),
            Write::Remove => None,
        };
        match outcome {
            Outcome::Done(Some(config)) => {
                let version = config.meta().version().index;
                let last = self.objects.get(name).map_or(0, |known| known.version);
                if version <= last {
                    let text = format!("{name}: version {version} after {last}");
                    self.wrong.push((Fault::Version, text));
                }
                self.check(name, &config, after);
                let known = Known {
                    id: config.id.clone(),
                    version,
                    states: vec![after],
                    // One that was unclear before was created once more under its name.
                    frozen: self.objects.get(name).is_some_and(|known| known.frozen),
                };
                self.objects.insert(name.to_owned(), known);
            }
            Outcome::Done(None) => {
                self.objects.remove(name);
            }
            Outcome::Refused => {}
            Outcome::Unknown => {
                let known = self.objects.entry(name.to_owned()).or_insert(Known {
                    id: String::new(),
                    version: 0,
                    states: Vec::new(),
                    frozen: true,
                });
                known.frozen = true;
                known.states = vec![before, after];
            }
        }
    }

    /// Records what was read of an object whose state is clear; `None` if it was not found.
    pub fn read(&mut self, name: &str, found: Option<&Config>) {
        let Some(known) = self.objects.get(name) else {
            if found.is_some() {
                let text = format!("{name}: read after its removal");
                self.wrong.push((Fault::Stale, text));
            }
            return;
        };
        let expected = known.revision().map(|revision| (revision, known.version));
        let seen = found.map(|config| (revision(config), config.meta().version().index));
        if expected != seen {
            let text = format!("{name}: (revision, version) {seen:?} read for {expected:?}");
            self.wrong.push((Fault::Stale, text));
        }
    }

    /// A write was accepted that contradicts what is committed.
    pub fn accepted(&mut self, what: String) {
        self.wrong.push((Fault::Doubled, what));
    }

    fn check(&mut self, name: &str, config: &Config, state: State) {
        if config.spec().data != data(name) || Some(revision(config)) != state {
            let text = format!("{name}: another config than the one written was answered");
            self.wrong.push((Fault::Doubled, text));
        }
    }

    /// Compares with all objects of this client that are stored in the end, and returns all that was
    /// found wrong.
    pub fn settle(mut self, stored: &[Config]) -> Vec<(Fault, String)> {
        let mut found: BTreeMap<&str, &Config> = BTreeMap::new();
        for config in stored {
            let name = config.spec().annotations().name.as_str();
            if found.insert(name, config).is_some() {
                self.wrong
                    .push((Fault::Doubled, format!("{name}: there are two")));
            }
        }
        for (name, config) in &found {
            match self.objects.get(*name) {
                None => self.wrong.push((
                    Fault::Resurrected,
                    format!("{name}: was removed, or refused, and is there"),
                )),
                Some(known) => self.wrong.extend(judge(name, known, config)),
            }
        }
        for (name, known) in &self.objects {
            if !found.contains_key(name.as_str()) && !known.states.contains(&None) {
                self.wrong.push((
                    Fault::Lost,
                    format!("{name}: not there, should be {known:?}"),
                ));
            }
        }
        self.wrong
    }
}

/// What is wrong with an object that is there.
fn judge(name: &str, known: &Known, config: &Config) -> Option<(Fault, String)> {
    let (revision, version) = (revision(config), config.meta().version().index);
    let text = format!("{name}: revision {revision} version {version}, should be {known:?}");
    if !known.states.contains(&Some(revision)) {
        let highest = known.states.iter().flatten().max();
        let fault = match highest {
            Some(&highest) if revision < highest => Fault::Lost,
            _ => Fault::Resurrected,
        };
        return Some((fault, text));
    }
    let same_id = known.id.is_empty() || known.id == config.id;
    if !same_id || config.spec().data != data(name) {
        return Some((Fault::Lost, text));
    }
    // With a write of which nobody knows, it may be the last one known or a later one.
    let clear = known.revision().is_some() && known.version != 0;
    let version_fits = version == known.version || !clear && version > known.version;
    (!version_fits).then_some((Fault::Version, text))
}

fn revision(config: &Config) -> u64 {
    let label = config.spec().annotations().labels.get(REVISION);
    // No number is one that nobody wrote.
    label
        .and_then(|label| label.parse().ok())
        .unwrap_or(u64::MAX)
}

/// The contents of the config with this name: different for every one, of different sizes.
pub fn data(name: &str) -> Bytes {
    let mark = name.bytes().fold(17_usize, |mark, byte| {
        mark.wrapping_mul(31).wrapping_add(usize::from(byte))
    });
    // Now and then one that is large, so that messages are of all sizes.
    let length = match mark % 200 {
        0 => 100_000,
        rest => 50 + rest * 4,
    };
    let words = format!("{name} {mark:x} ");
    words.bytes().cycle().take(length).collect()
}

#[cfg(test)]
mod tests;
