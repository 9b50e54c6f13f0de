//! Reservations: what a node has left, and what a task takes of it.

use std::collections::{BTreeMap, BTreeSet};

use skep_proto::v1::{
    DiscreteGenericResource, GenericResource, NamedGenericResource, Resources, Task,
    generic_resource::Resource,
};

/// What is left of a node. It can be negative: nodes shrink.
#[derive(Debug, Default)]
pub(super) struct Free {
    nano_cpus: i64,
    memory_bytes: i64,
    generic: BTreeMap<String, Kind>,
}

/// What is left of one kind of user-defined resource.
#[derive(Debug)]
enum Kind {
    Amount(i64),
    Named(BTreeSet<String>),
}

impl Kind {
    fn amount(&self) -> i64 {
        match self {
            Self::Amount(amount) => *amount,
            Self::Named(names) => i64::try_from(names.len()).unwrap_or(i64::MAX),
        }
    }
}

impl Free {
    /// All that a node has.
    pub fn of(resources: Option<&Resources>) -> Self {
        let Some(resources) = resources else {
            return Self::default();
        };
        let mut free = Self {
            nano_cpus: resources.nano_cpus,
            memory_bytes: resources.memory_bytes,
            generic: BTreeMap::new(),
        };
        for resource in resources.generic.iter().filter_map(|r| r.resource.as_ref()) {
            match resource {
                Resource::NamedResourceSpec(one) => {
                    let empty = || Kind::Named(BTreeSet::new());
                    let kind = free.generic.entry(one.kind.clone()).or_insert_with(empty);
                    if let Kind::Named(names) = kind {
                        names.insert(one.value.clone());
                    }
                }
                Resource::DiscreteResourceSpec(some) => {
                    let kind = free.generic.entry(some.kind.clone());
                    if let Kind::Amount(amount) = kind.or_insert(Kind::Amount(0)) {
                        *amount = amount.saturating_add(some.value);
                    }
                }
            }
        }
        free
    }

    /// Whether the task's reservations fit.
    pub fn fits(&self, task: &Task) -> bool {
        let Some(wanted) = reservations(task) else {
            return true;
        };
        let enough = |wanted: i64, free: i64| wanted <= 0 || wanted <= free;
        enough(wanted.nano_cpus, self.nano_cpus)
            && enough(wanted.memory_bytes, self.memory_bytes)
            && sums(wanted).into_iter().all(|(kind, wanted)| {
                let free = self.generic.get(kind).map_or(0, Kind::amount);
                enough(wanted, free)
            })
    }

    /// Subtracts what a task on the node has.
    pub fn take(&mut self, task: &Task) {
        self.take_basic(task);
        let assigned = task.assigned_generic_resources.iter();
        for resource in assigned.filter_map(|r| r.resource.as_ref()) {
            match resource {
                Resource::NamedResourceSpec(one) => {
                    if let Some(Kind::Named(names)) = self.generic.get_mut(&one.kind) {
                        names.remove(&one.value);
                    }
                }
                Resource::DiscreteResourceSpec(some) => {
                    if let Some(Kind::Amount(amount)) = self.generic.get_mut(&some.kind) {
                        *amount = amount.saturating_sub(some.value);
                    }
                }
            }
        }
    }

    /// Subtracts what a new task reserves, and returns which generic resources it gets.
    pub fn assign(&mut self, task: &Task) -> Vec<GenericResource> {
        self.take_basic(task);
        let mut assigned = Vec::new();
        let mut add = |resource| {
            assigned.push(GenericResource {
                resource: Some(resource),
            })
        };
        for wanted in reservations(task).into_iter().flat_map(amounts) {
            match self.generic.get_mut(&wanted.kind) {
                Some(Kind::Amount(amount)) => {
                    *amount = amount.saturating_sub(wanted.value);
                    add(Resource::DiscreteResourceSpec(wanted.clone()));
                }
                Some(Kind::Named(names)) => {
                    for _ in 0..wanted.value {
                        let Some(value) = names.pop_first() else {
                            break;
                        };
                        let kind = wanted.kind.clone();
                        add(Resource::NamedResourceSpec(NamedGenericResource {
                            kind,
                            value,
                        }));
                    }
                }
                None => {}
            }
        }
        assigned
    }

    fn take_basic(&mut self, task: &Task) {
        if let Some(taken) = reservations(task) {
            self.nano_cpus = self.nano_cpus.saturating_sub(taken.nano_cpus);
            self.memory_bytes = self.memory_bytes.saturating_sub(taken.memory_bytes);
        }
    }
}

fn reservations(task: &Task) -> Option<&Resources> {
    task.spec().resources.as_ref()?.reservations.as_ref()
}

fn amounts(resources: &Resources) -> impl Iterator<Item = &DiscreteGenericResource> {
    resources
        .generic
        .iter()
        .filter_map(|resource| match &resource.resource {
            // What is not positive asks for nothing.
            Some(Resource::DiscreteResourceSpec(some)) if some.value > 0 => Some(some),
            _ => None,
        })
}

/// How much is reserved of each kind; one may be named more than once.
fn sums(resources: &Resources) -> BTreeMap<&str, i64> {
    let mut sums = BTreeMap::<_, i64>::new();
    for wanted in amounts(resources) {
        let sum = sums.entry(wanted.kind.as_str()).or_default();
        *sum = sum.saturating_add(wanted.value);
    }
    sums
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::ResourceRequirements;

    use super::*;

    fn gpus(n: i64) -> GenericResource {
        GenericResource {
            resource: Some(Resource::DiscreteResourceSpec(DiscreteGenericResource {
                kind: "gpu".to_owned(),
                value: n,
            })),
        }
    }

    fn gpu(name: &str) -> GenericResource {
        GenericResource {
            resource: Some(Resource::NamedResourceSpec(NamedGenericResource {
                kind: "gpu".to_owned(),
                value: name.to_owned(),
            })),
        }
    }

    fn task(nano_cpus: i64, memory_bytes: i64, generic: Vec<GenericResource>) -> Task {
        let mut task = Task::default();
        task.spec_mut().resources = Some(ResourceRequirements {
            reservations: Some(Resources {
                nano_cpus,
                memory_bytes,
                generic,
            }),
            ..ResourceRequirements::default()
        });
        task
    }

    fn node(generic: Vec<GenericResource>) -> Free {
        Free::of(Some(&Resources {
            nano_cpus: 2,
            memory_bytes: 100,
            generic,
        }))
    }

    #[test]
    fn cpus_and_memory_run_out() {
        let mut free = node(Vec::new());
        assert!(free.fits(&Task::default()));
        assert!(free.fits(&task(2, 100, Vec::new())));
        assert!(!free.fits(&task(3, 0, Vec::new())));
        assert!(!free.fits(&task(0, 101, Vec::new())));
        free.take(&task(2, 60, Vec::new()));
        assert!(free.fits(&task(0, 40, Vec::new())));
        assert!(!free.fits(&task(1, 40, Vec::new())));
        assert!(!Free::of(None).fits(&task(1, 0, Vec::new())));
    }

    #[test]
    fn amounts_and_named_things_are_assigned_and_taken() {
        for offered in [vec![gpus(2)], vec![gpu("a"), gpu("b")]] {
            let named = offered.len() == 2;
            let mut free = node(offered.clone());
            assert!(free.fits(&task(0, 0, vec![gpus(2)])));
            assert!(!free.fits(&task(0, 0, vec![gpus(3)])));
            assert!(!free.fits(&task(0, 0, vec![gpus(2), gpus(1)])), "together");
            let mut first = task(0, 0, vec![gpus(1)]);
            first.assigned_generic_resources = free.assign(&first);
            let expected = if named { gpu("a") } else { gpus(1) };
            assert_eq!(first.assigned_generic_resources, [expected]);
            assert!(!free.fits(&task(0, 0, vec![gpus(2)])));

            let mut again = node(offered);
            again.take(&first);
            let second = again.assign(&task(0, 0, vec![gpus(1)]));
            assert_eq!(second, [if named { gpu("b") } else { gpus(1) }]);
            assert!(!again.fits(&task(0, 0, vec![gpus(1)])));
        }
    }
}
