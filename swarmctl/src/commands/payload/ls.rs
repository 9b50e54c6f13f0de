//! The verb `ls` of secrets and configs.

use clap::Args;
use skep_proto::Timestamp;

use super::Payload;
use crate::{
    Error,
    commands::Context,
    output::{Format, Table, ago, natural, short_id},
};

/// Lists them by name.
#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Print IDs only
    #[arg(short, long)]
    quiet: bool,
}

impl Ls {
    pub(crate) async fn run<P: Payload>(self, context: &mut Context<'_>) -> Result<(), Error> {
        let client = context.connect().await?;
        let mut found = P::list(&client).await?;
        found.sort_by(|a, b| natural(&a.annotations().name, &b.annotations().name));
        if self.quiet {
            let ids: Vec<_> = found.iter().map(|one| one.id().to_owned()).collect();
            return context.print_ids(&ids);
        }
        if context.format == Format::Json {
            return context.print_lines(&found);
        }
        let now = jiff::Timestamp::now();
        let when = |then: Option<&Timestamp>| then.and_then(|then| ago(then, now));
        let mut table = Table::new(["ID", "NAME", "DRIVER", "CREATED", "UPDATED"]);
        for one in &found {
            let meta = one.meta();
            table.row([
                short_id(one.id()).to_owned(),
                one.annotations().name,
                one.driver()
                    .map_or_else(String::new, |driver| driver.name.clone()),
                when(meta.created_at.as_ref()).unwrap_or_default(),
                when(meta.updated_at.as_ref()).unwrap_or_default(),
            ]);
        }
        context.print_table(&table)
    }
}
