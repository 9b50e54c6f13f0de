use skep_proto::v1::{Annotations, ConfigSpec, Meta, Version};

use super::*;

fn config(name: &str, revision: u64, version: u64) -> Config {
    let annotations = Annotations {
        name: name.to_owned(),
        labels: [(REVISION.to_owned(), revision.to_string())].into(),
        ..Default::default()
    };
    let spec = ConfigSpec {
        annotations: Some(annotations),
        data: data(name),
        ..Default::default()
    };
    Config {
        id: format!("id-{name}"),
        spec: Some(spec),
        meta: Some(Meta {
            version: Some(Version { index: version }),
            ..Default::default()
        }),
    }
}

fn done(name: &str, revision: u64, version: u64) -> Outcome {
    Outcome::Done(Some(Box::new(config(name, revision, version))))
}

/// A ledger with the object `a`, updated once.
fn ledger() -> Ledger {
    let mut ledger = Ledger::default();
    ledger.record("a", Write::Create, done("a", 0, 3));
    ledger.record("a", Write::Update, done("a", 1, 5));
    ledger
}

fn faults(ledger: Ledger, stored: &[Config]) -> Vec<Fault> {
    ledger
        .settle(stored)
        .into_iter()
        .map(|(fault, _)| fault)
        .collect()
}

#[test]
fn what_is_as_acknowledged_is_right_and_all_else_is_named() {
    assert_eq!(faults(ledger(), &[config("a", 1, 5)]), []);
    assert_eq!(faults(ledger(), &[]), [Fault::Lost]);
    assert_eq!(faults(ledger(), &[config("a", 0, 3)]), [Fault::Lost]);
    assert_eq!(faults(ledger(), &[config("a", 2, 7)]), [Fault::Resurrected]);
    assert_eq!(faults(ledger(), &[config("a", 1, 6)]), [Fault::Version]);
    let mut other = config("a", 1, 5);
    other.spec_mut().data = data("b");
    assert_eq!(faults(ledger(), &[other]), [Fault::Lost]);
    let mut other = config("a", 1, 5);
    other.id = "another".to_owned();
    assert_eq!(faults(ledger(), &[other]), [Fault::Lost]);
    let twice = [config("a", 1, 5), config("a", 1, 5)];
    assert_eq!(faults(ledger(), &twice), [Fault::Doubled]);
    let with_stranger = [config("a", 1, 5), config("b", 0, 9)];
    assert_eq!(faults(ledger(), &with_stranger), [Fault::Resurrected]);
}

#[test]
fn what_was_removed_or_refused_must_not_be_there() {
    let mut removed = ledger();
    removed.record("a", Write::Remove, Outcome::Done(None));
    assert_eq!(faults(removed, &[config("a", 1, 5)]), [Fault::Resurrected]);
    let mut refused = ledger();
    refused.record("a", Write::Update, Outcome::Refused);
    refused.record("b", Write::Create, Outcome::Refused);
    let stored = [config("a", 2, 7), config("b", 0, 8)];
    assert_eq!(
        faults(refused, &stored),
        [Fault::Resurrected, Fault::Resurrected]
    );
    let mut refused = ledger();
    refused.record("a", Write::Remove, Outcome::Refused);
    assert_eq!(faults(refused, &[]), [Fault::Lost]);
}

#[test]
fn a_write_without_an_answer_may_be_there_or_not_but_nothing_else() {
    let unknown = |write| {
        let mut ledger = ledger();
        ledger.record("a", write, Outcome::Unknown);
        assert!(ledger.get("a").unwrap().frozen);
        ledger
    };
    assert_eq!(faults(unknown(Write::Update), &[config("a", 1, 5)]), []);
    assert_eq!(faults(unknown(Write::Update), &[config("a", 2, 8)]), []);
    assert_eq!(faults(unknown(Write::Update), &[]), [Fault::Lost]);
    assert_eq!(
        faults(unknown(Write::Update), &[config("a", 2, 4)]),
        [Fault::Version]
    );
    assert_eq!(
        faults(unknown(Write::Update), &[config("a", 3, 9)]),
        [Fault::Resurrected]
    );
    assert_eq!(faults(unknown(Write::Remove), &[config("a", 1, 5)]), []);
    assert_eq!(faults(unknown(Write::Remove), &[]), []);
    assert_eq!(
        faults(unknown(Write::Remove), &[config("a", 0, 3)]),
        [Fault::Lost]
    );

    let mut ledger = Ledger::default();
    ledger.record("b", Write::Create, Outcome::Unknown);
    ledger.exists("b");
    assert_eq!(faults(ledger, &[]), [Fault::Lost]);
    let mut ledger = Ledger::default();
    ledger.record("b", Write::Create, Outcome::Unknown);
    ledger.record("b", Write::Create, done("b", 0, 9));
    assert!(ledger.get("b").unwrap().frozen);
    let twice = [config("b", 0, 9), config("b", 0, 12)];
    assert!(faults(ledger, &twice).contains(&Fault::Doubled));
}

#[test]
fn answers_are_held_against_what_is_known() {
    let mut older = ledger();
    older.record("a", Write::Update, done("a", 2, 5));
    assert_eq!(faults(older, &[config("a", 2, 5)]), [Fault::Version]);
    let mut other = ledger();
    other.record("a", Write::Update, done("a", 3, 7));
    assert_eq!(faults(other, &[config("a", 2, 7)]), [Fault::Doubled]);

    let read = |found: Option<Config>| {
        let mut ledger = ledger();
        ledger.read("a", found.as_ref());
        faults(ledger, &[config("a", 1, 5)])
    };
    assert_eq!(read(Some(config("a", 1, 5))), []);
    assert_eq!(read(Some(config("a", 0, 3))), [Fault::Stale]);
    assert_eq!(read(None), [Fault::Stale]);
    let mut removed = ledger();
    removed.record("a", Write::Remove, Outcome::Done(None));
    removed.read("a", None);
    removed.read("a", Some(&config("a", 1, 5)));
    assert_eq!(faults(removed, &[]), [Fault::Stale]);
}

#[test]
fn contents_are_unique_and_of_many_sizes() {
    let all: std::collections::BTreeSet<_> = (0..2000).map(|n| data(&format!("c-{n}"))).collect();
    assert_eq!(all.len(), 2000);
    assert!(all.iter().any(|data| data.len() == 100_000));
}
