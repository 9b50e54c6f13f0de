//! Capabilities of the kernel: what a container has beyond the usual ones, and what it lacks.

use std::collections::BTreeSet;

use skep_proto::v1::ContainerSpec;

/// All of them; nothing else is named beside it.
const ALL: &str = "ALL";

/// As docker has it: forget what was added or dropped before.
const RESET: &str = "RESET";

/// A capability as the kernel names it, `CAP_NET_ADMIN`, from any usual spelling.
pub(super) fn name(text: &str) -> Result<String, String> {
    let text = text.trim().to_ascii_uppercase();
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err("expected a capability such as CAP_NET_ADMIN, or ALL".to_owned());
    }
    if text == ALL || text == RESET || text.starts_with("CAP_") {
        return Ok(text);
    }
    Ok(format!("CAP_{text}"))
}

/// Adds and drops capabilities. One that had been dropped is first of all no longer dropped, and
/// one that had been added no longer added. What is to be both is added.
pub(super) fn change(container: &mut ContainerSpec, add: &[String], drop: &[String]) {
    let add = add.iter().cloned().collect::<BTreeSet<_>>();
    let drop = drop
        .iter()
        .filter(|name| !add.contains(*name))
        .cloned()
        .collect::<BTreeSet<_>>();
    let old = |names: &[String], wanted: &BTreeSet<String>| {
        let mut old = names.iter().cloned().collect::<BTreeSet<_>>();
        if wanted.contains(RESET) {
            old.clear();
        }
        old
    };
    let (mut added, mut dropped) = (
        old(&container.capability_add, &add),
        old(&container.capability_drop, &drop),
    );
    // Each is decided by what was there before; `add` and `drop` have nothing in common.
    added.extend(add.iter().filter(|name| !dropped.remove(*name)).cloned());
    dropped.extend(drop.iter().filter(|name| !added.remove(*name)).cloned());
    container.capability_add = names(added);
    container.capability_drop = names(dropped);
}

fn names(mut names: BTreeSet<String>) -> Vec<String> {
    names.remove(RESET);
    if names.contains(ALL) {
        return vec![ALL.to_owned()];
    }
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_one_spelling() {
        for text in ["net_admin", "CAP_NET_ADMIN", "Cap_Net_Admin"] {
            assert_eq!(name(text).as_deref(), Ok("CAP_NET_ADMIN"));
        }
        assert_eq!(name("all").as_deref(), Ok("ALL"));
        assert!(name("").is_err());
        assert!(name("net admin").is_err());
    }

    #[test]
    fn adding_and_dropping_take_each_other_back() {
        let mut container = ContainerSpec::default();
        let mut check = |add: &[&str], drop: &[&str], expected: (&[&str], &[&str])| {
            let read = |names: &[&str]| names.iter().map(|n| name(n).unwrap()).collect::<Vec<_>>();
            change(&mut container, &read(add), &read(drop));
            assert_eq!(container.capability_add, expected.0, "{add:?} {drop:?}");
            assert_eq!(container.capability_drop, expected.1, "{add:?} {drop:?}");
        };
        check(&["b", "a", "a"], &["c"], (&["CAP_A", "CAP_B"], &["CAP_C"]));
        // Back to what containers usually have.
        check(&["c"], &["a"], (&["CAP_B"], &[]));
        // The second time it is more than that.
        check(&["c"], &["a"], (&["CAP_B", "CAP_C"], &["CAP_A"]));
        check(&["d"], &["d"], (&["CAP_B", "CAP_C", "CAP_D"], &["CAP_A"]));
        check(&["all"], &["reset"], (&["ALL"], &[]));
        check(&["reset", "e"], &[], (&["CAP_E"], &[]));
    }
}
