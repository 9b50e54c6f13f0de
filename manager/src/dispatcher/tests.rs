//! The service as agents see it, on a store that commits at once.

mod assignments;
mod reports;
mod sessions;
mod tasks;
mod terms;
mod volumes;
