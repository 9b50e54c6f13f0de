//! What every command has: the socket, the form of output, the streams.

use std::path::PathBuf;

use crate::{
    Error, Io,
    client::Client,
    output::{Described, Fields, Format, Table, write_line, write_pretty},
};

/// The surroundings of a command.
pub(crate) struct Context<'a> {
    socket: PathBuf,
    pub format: Format,
    pub io: &'a mut Io,
}

impl<'a> Context<'a> {
    pub(crate) fn new(socket: PathBuf, format: Format, io: &'a mut Io) -> Self {
        Self { socket, format, io }
    }

    /// A connection to the socket; made by the command when it has something to ask.
    pub(crate) async fn connect(&self) -> Result<Client, Error> {
        Client::connect(&self.socket).await
    }

    /// Prints IDs.
    pub(crate) fn print_ids<'i>(
        &mut self,
        ids: impl IntoIterator<Item = &'i String>,
    ) -> Result<(), Error> {
        for id in ids {
            writeln!(self.io.out, "{id}")?;
        }
        Ok(())
    }

    /// Prints a list of objects as JSON, one per line.
    pub(crate) fn print_lines<M: Described>(&mut self, objects: &[M]) -> Result<(), Error> {
        objects
            .iter()
            .try_for_each(|object| write_line(&mut self.io.out, object))
    }

    /// Prints a table.
    pub(crate) fn print_table(&mut self, table: &Table) -> Result<(), Error> {
        Ok(table.write(&mut self.io.out)?)
    }

    /// Prints one object: as JSON, or as the fields that `fields` picks.
    pub(crate) fn print_object<M: Described>(
        &mut self,
        object: &M,
        fields: impl FnOnce(&M) -> Fields,
    ) -> Result<(), Error> {
        match self.format {
            Format::Json => write_pretty(&mut self.io.out, object),
            Format::Table => Ok(fields(object).write(&mut self.io.out)?),
        }
    }
}
