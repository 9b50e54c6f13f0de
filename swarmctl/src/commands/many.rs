//! Verbs that take several objects: all are tried, whatever becomes of the others.

use super::Context;
use crate::{Error, Exit};

/// What became of several objects.
#[derive(Default)]
pub(crate) struct Many {
    failed: Vec<Error>,
}

impl Many {
    /// Says that something was done.
    pub(crate) fn done(&mut self, context: &mut Context<'_>, what: &str) -> Result<(), Error> {
        Ok(writeln!(context.io.out, "{what}")?)
    }

    /// Keeps an error for the end.
    pub(crate) fn failed(&mut self, error: Error) {
        self.failed.push(error);
    }

    /// The end of the command: an only error as it is, several after having been printed.
    pub(crate) fn finish(mut self, context: &mut Context<'_>) -> Result<(), Error> {
        if self.failed.len() <= 1 {
            return self.failed.pop().map_or(Ok(()), Err);
        }
        let mut exits: Vec<_> = self.failed.iter().map(Error::exit).collect();
        exits.dedup();
        let exit = if let [exit] = exits[..] {
            exit
        } else {
            Exit::Failed
        };
        for error in &self.failed {
            writeln!(context.io.err, "Error: {error}")?;
        }
        Err(Error::Several {
            count: self.failed.len(),
            exit,
        })
    }
}
