//! How objects are shown: tables that read like docker's, or canonical proto3 JSON.

mod ago;
mod fields;
mod json;
mod table;
mod tasks;
mod text;

pub(crate) use ago::{ago, moment};
pub(crate) use fields::Fields;
pub(crate) use json::{Described, write_line, write_pretty};
pub(crate) use table::Table;
pub(crate) use tasks::{NodeNames, node_name, published_ports, task_name, task_table};
pub(crate) use text::{enum_name, image_name, natural, one_line, short_id};

use clap::ValueEnum;

/// The forms of output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Columns or fields for people
    Table,
    /// Canonical proto3 JSON: one object per line for lists
    Json,
}
