//! Who uses a secret or config.

use skep_proto::v1::Service;
use skep_store::{By, Tx};

/// The names of the services whose current spec `by` selects, as a text for an error: `service: a`
/// or `services: a, b`. `None` if there are none.
pub(super) fn services(tx: &Tx, by: By<'_>) -> Option<String> {
    let mut names: Vec<_> = tx
        .find::<Service>(by)
        .map(|service| service.spec().annotations().name.as_str())
        .collect();
    names.sort_unstable();
    match names.as_slice() {
        [] => None,
        [name] => Some(format!("service: {name}")),
        names => Some(format!("services: {}", names.join(", "))),
    }
}
