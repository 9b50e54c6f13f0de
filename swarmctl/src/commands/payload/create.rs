//! What is said of a new secret or config.

use std::{fs::File, io::Read as _, path::PathBuf};

use clap::{Args, builder::NonEmptyStringValueParser};
use skep_proto::v1::{Annotations, Driver};

use super::Payload;
use crate::{
    Error, Io,
    commands::Context,
    output::{Format, write_pretty},
    spec::values,
};

/// So much is read; that much is more than servers take of either, so that they refuse it.
const MAX_BYTES: u64 = 1_024_000;

/// A secret or config to create.
#[derive(Debug, Args)]
pub(crate) struct NewPayload {
    /// Label to find it by
    #[arg(short, long = "label", value_name = "KEY=VALUE", value_parser = values::label)]
    labels: Vec<(String, String)>,
    /// What expands the data on the nodes, such as golang
    #[arg(long, value_name = "NAME")]
    template_driver: Option<String>,
    /// Its name, unique in the cluster
    #[arg(value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    name: String,
    /// File with the data, - for standard input
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Whether there must be data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Data {
    Needed,
    /// A plugin has it.
    Elsewhere,
}

impl NewPayload {
    pub(crate) fn annotations(&self) -> Annotations {
        Annotations {
            name: self.name.clone(),
            labels: self.labels.iter().cloned().collect(),
            ..Default::default()
        }
    }

    pub(crate) fn templating(&self) -> Option<Driver> {
        self.template_driver.clone().map(named)
    }

    /// Reads the data.
    pub(crate) fn data(&self, io: &mut Io, data: Data) -> Result<Vec<u8>, Error> {
        let Some(path) = &self.file else {
            return match data {
                Data::Needed => Err(Error::Usage(
                    "name the file with the data after the name, or - for standard input"
                        .to_owned(),
                )),
                Data::Elsewhere => Ok(Vec::new()),
            };
        };
        if path.as_os_str() == "-" {
            return io.read_all(MAX_BYTES);
        }
        let mut bytes = Vec::new();
        File::open(path)
            .and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes))
            .map_err(|error| Error::Input(format!("{}: {error}", path.display())))?;
        Ok(bytes)
    }
}

/// A driver without options.
pub(crate) fn named(name: String) -> Driver {
    Driver {
        name,
        ..Default::default()
    }
}

/// Prints what was created.
pub(crate) fn print<P: Payload>(context: &mut Context<'_>, created: &P) -> Result<(), Error> {
    match context.format {
        Format::Json => write_pretty(&mut context.io.out, created),
        Format::Table => context.print_ids([&created.id().to_owned()]),
    }
}
