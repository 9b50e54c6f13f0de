//! Values of a container that are neither lists nor have a part of their own.

use std::time::Duration;

use clap::{Args, value_parser};
use skep_proto::v1::ContainerSpec;

use super::capabilities;
use crate::{
    Error,
    spec::{PROCESS_IMAGE, values},
};

/// Values of a container; `None` is "not said".
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct ContainerFlags {
    /// Image to run [default: none; the command runs as a process of the host]
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<String>,
    /// Entry point in place of the image's, as words of a shell
    #[arg(long, value_name = "COMMAND", value_parser = values::words)]
    pub entrypoint: Option<values::Words>,
    /// Working directory of the command
    #[arg(short, long, value_name = "DIR")]
    pub workdir: Option<String>,
    /// User to run as: <name|uid>[:<group|gid>]
    #[arg(short, long, value_name = "USER")]
    pub user: Option<String>,
    /// Host name of the containers
    #[arg(long, value_name = "NAME")]
    pub hostname: Option<String>,
    /// How long a task may take to stop before it is killed [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = values::duration)]
    pub stop_grace_period: Option<Duration>,
    /// Signal that asks a task to stop [default: SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    pub stop_signal: Option<String>,
    /// Give the command a terminal
    #[arg(short, long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pub tty: Option<bool>,
    /// Let nobody write to the root file system
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pub read_only: Option<bool>,
    /// Run an init that forwards signals and reaps processes [default: the engine's setting]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true,
        default_missing_value = "true")]
    pub init: Option<bool>,
    /// Most processes of a task, 0 for no limit
    #[arg(long, value_name = "N", value_parser = value_parser!(i64).range(0..))]
    pub limit_pids: Option<i64>,
    /// How willingly the kernel kills a task when memory runs out
    #[arg(long, value_name = "-1000..1000", allow_negative_numbers = true,
        value_parser = value_parser!(i64).range(-1000..=1000))]
    pub oom_score_adj: Option<i64>,
    /// Give a capability, or take back that it was dropped
    #[arg(long, value_name = "CAPABILITY", value_parser = capabilities::name)]
    pub cap_add: Vec<String>,
    /// Drop a capability, or take back that it was given
    #[arg(long, value_name = "CAPABILITY", value_parser = capabilities::name)]
    pub cap_drop: Vec<String>,
}

impl ContainerFlags {
    /// Whether nothing was said.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn apply(&self, container: &mut ContainerSpec) -> Result<(), Error> {
        set(&mut container.image, self.image.as_ref());
        if let Some(words) = &self.entrypoint {
            if container.image == PROCESS_IMAGE {
                return Err(Error::Usage(
                    "--entrypoint is for images; a process is given after --".to_owned(),
                ));
            }
            container.command.clone_from(&words.0);
        }
        set(&mut container.dir, self.workdir.as_ref());
        set(&mut container.user, self.user.as_ref());
        set(&mut container.hostname, self.hostname.as_ref());
        set(&mut container.stop_signal, self.stop_signal.as_ref());
        if let Some(period) = self.stop_grace_period {
            container.stop_grace_period = Some(values::wire(period));
        }
        set(&mut container.tty, self.tty.as_ref());
        set(&mut container.read_only, self.read_only.as_ref());
        container.init = self.init.or(container.init);
        set(&mut container.pids_limit, self.limit_pids.as_ref());
        set(&mut container.oom_score_adj, self.oom_score_adj.as_ref());
        if !self.cap_add.is_empty() || !self.cap_drop.is_empty() {
            capabilities::change(container, &self.cap_add, &self.cap_drop);
        }
        Ok(())
    }
}

fn set<T: Clone>(place: &mut T, said: Option<&T>) {
    if let Some(said) = said {
        place.clone_from(said);
    }
}
