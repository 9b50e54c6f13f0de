//! Waiting for convergence after a service was created or changed.

use std::time::Duration;

use clap::Args;
use skep_proto::v1::Service;

use crate::{
    Error,
    client::Client,
    commands::Context,
    progress::{Bars, Lines, Quiet, Report, Wait},
    spec::values,
};

/// Whether and how to wait.
#[derive(Debug, Clone, Args)]
pub(crate) struct WaitFlags {
    /// Do not wait for the service to converge
    #[arg(short, long)]
    pub detach: bool,
    /// Do not show progress
    #[arg(short, long)]
    pub quiet: bool,
    /// Give up waiting after this time
    #[arg(long, value_name = "TIME", value_parser = values::duration, conflicts_with = "detach")]
    pub timeout: Option<Duration>,
}

impl WaitFlags {
    /// Waits until `service` converged, unless the user does not want to.
    pub(crate) async fn wait(
        &self,
        context: &mut Context<'_>,
        client: &Client,
        service: &Service,
        rollback: bool,
    ) -> Result<(), Error> {
        if self.detach {
            return Ok(());
        }
        // The ID is of use while waiting.
        context.io.out.flush()?;
        let mut report: Box<dyn Report + '_> = if self.quiet {
            Box::new(Quiet)
        } else if context.io.bars {
            Box::new(Bars::new())
        } else {
            Box::new(Lines::new(&mut context.io.err))
        };
        let wait = Wait {
            timeout: self.timeout,
            rollback,
        };
        let interrupted = tokio::select! {
            result = wait.run(client, &service.id, report.as_mut()) => return Ok(result?),
            signal = tokio::signal::ctrl_c() => signal,
        };
        report.finish();
        drop(report);
        interrupted?;
        let name = &service.spec().annotations().name;
        writeln!(
            context.io.err,
            "Operation continuing in background.\n\
             Use `swarmctl service ps {name}` to check progress."
        )?;
        Err(Error::Interrupted)
    }
}
