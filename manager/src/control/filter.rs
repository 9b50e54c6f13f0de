//! Filters of the list calls.
//!
//! All filters of a request must hold, and of the values of one filter any; an empty filter holds
//! for everything. Names are compared with regard to case. For secrets, configs and resources names,
//! name prefixes and ID prefixes count as one filter, and names are compared without regard to case.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use skep_proto::v1;
use skep_store::{By, Object, Snapshot};

/// The filters that the lists of all kinds have.
#[derive(Clone, Copy, Debug)]
pub(super) struct Common<'a> {
    pub names: &'a [String],
    pub name_prefixes: &'a [String],
    pub id_prefixes: &'a [String],
    pub labels: &'a BTreeMap<String, String>,
}

macro_rules! common {
    ($($request:ident),*) => {$(
        impl<'a> From<&'a v1::$request::Filters> for Common<'a> {
            fn from(filters: &'a v1::$request::Filters) -> Self {
                Self {
                    names: &filters.names,
                    name_prefixes: &filters.name_prefixes,
                    id_prefixes: &filters.id_prefixes,
                    labels: &filters.labels,
                }
            }
        }
    )*};
}

common!(
    list_nodes_request,
    list_services_request,
    list_tasks_request,
    list_networks_request,
    list_clusters_request,
    list_secrets_request,
    list_configs_request,
    list_resources_request,
    list_volumes_request
);

impl<'a> Common<'a> {
    /// Whether an object passes all filters.
    pub fn pass<T: Object>(&self, object: &T) -> bool {
        self.pass_as(object.id(), object.name(), &object.annotations().labels)
    }

    /// The same for an object whose users see another name or other labels than its own.
    pub fn pass_as(&self, id: &str, name: &str, labels: &BTreeMap<String, String>) -> bool {
        any(self.names, |wanted| wanted == name)
            && any(self.name_prefixes, |prefix| {
                name.starts_with(prefix.as_str())
            })
            && any(self.id_prefixes, |prefix| id.starts_with(prefix.as_str()))
            && has_labels(labels, self.labels)
    }

    /// A look-up that yields at least all objects that [`Self::pass`].
    pub fn candidates(&self) -> Vec<By<'a>> {
        if !self.names.is_empty() {
            self.names.iter().map(|name| By::name(name)).collect()
        } else if !self.name_prefixes.is_empty() {
            name_prefixes(self.name_prefixes).collect()
        } else {
            id_prefixes(self.id_prefixes).collect()
        }
    }

    /// The look-up of the kinds whose names and ID prefixes count as one filter.
    pub fn named(&self) -> Vec<By<'a>> {
        self.names
            .iter()
            .map(|name| By::name(name))
            .chain(name_prefixes(self.name_prefixes))
            .chain(id_prefixes(self.id_prefixes))
            .collect()
    }
}

fn name_prefixes<'a>(prefixes: &'a [String]) -> impl Iterator<Item = By<'a>> {
    prefixes.iter().map(|prefix| By::name_prefix(prefix))
}

fn id_prefixes<'a>(prefixes: &'a [String]) -> impl Iterator<Item = By<'a>> {
    prefixes.iter().map(|prefix| By::IdPrefix(prefix))
}

/// The objects that any of `selections` selects, each once; all of them if there is no selection.
pub(super) fn select<'s, T: Object>(
    snapshot: &'s Snapshot,
    selections: Vec<By<'s>>,
) -> Vec<&'s Arc<T>> {
    if selections.is_empty() {
        return snapshot.all().collect();
    }
    let mut seen = BTreeSet::new();
    selections
        .into_iter()
        .flat_map(|by| snapshot.find::<T>(by))
        .filter(|object| seen.insert(object.id()))
        .collect()
}

/// Whether `test` holds for any of the values, or there are none.
pub(super) fn any<T>(values: &[T], test: impl FnMut(&T) -> bool) -> bool {
    values.is_empty() || values.iter().any(test)
}

/// Whether all `wanted` labels are there. An empty value stands for any.
pub(super) fn has_labels(
    labels: &BTreeMap<String, String>,
    wanted: &BTreeMap<String, String>,
) -> bool {
    wanted.iter().all(|(key, value)| {
        labels
            .get(key)
            .is_some_and(|label| value.is_empty() || label == value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strings(values: &[&str]) -> Vec<String> {
        values.iter().map(|&value| value.to_owned()).collect()
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|&(k, v)| (k.to_owned(), v.to_owned()))
            .collect()
    }

    #[test]
    fn filters_are_anded_and_their_values_ored() {
        let check = |names: &[&str], name_prefixes: &[&str], ids: &[&str], expected: bool| {
            let (names, name_prefixes) = (strings(names), strings(name_prefixes));
            let (id_prefixes, labels) = (strings(ids), BTreeMap::new());
            let common = Common {
                names: &names,
                name_prefixes: &name_prefixes,
                id_prefixes: &id_prefixes,
                labels: &labels,
            };
            assert_eq!(
                common.pass_as("id1", "web", &BTreeMap::new()),
                expected,
                "{names:?} {name_prefixes:?} {id_prefixes:?}"
            );
        };
        check(&[], &[], &[], true);
        check(&["web"], &[], &[], true);
        check(&["db", "web"], &[], &[], true);
        check(&["db"], &[], &[], false);
        check(&["Web"], &[], &[], false);
        check(&["we"], &[], &[], false);
        check(&[], &["we"], &[], true);
        check(&[], &["We"], &[], false);
        check(&[], &["x", "w"], &["y", "id"], true);
        check(&["web"], &["x"], &[], false);
        check(&["web"], &["we"], &["id2"], false);
        check(&[], &[], &["id1"], true);
    }

    #[test]
    fn labels_must_all_be_there_and_an_empty_value_matches_any() {
        let have = labels(&[("a", "1"), ("b", "2"), ("e", "")]);
        let check = |wanted: &[(&str, &str)], expected| {
            assert_eq!(has_labels(&have, &labels(wanted)), expected, "{wanted:?}");
        };
        check(&[], true);
        check(&[("a", "1")], true);
        check(&[("a", "")], true);
        check(&[("e", "")], true);
        check(&[("e", "1")], false);
        check(&[("a", "1"), ("b", "2")], true);
        check(&[("a", "1"), ("b", "3")], false);
        check(&[("c", "")], false);
        check(&[("A", "1")], false);
    }
}
