//! Waiting for something to become of a container that runs.

use std::{
    pin::pin,
    time::{SystemTime, UNIX_EPOCH},
};

use bollard::models::HealthStatusEnum;
use futures_util::StreamExt as _;

use super::engine::{Engine, Seen};
use crate::executor::Failure;

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Became {
    Ended(Seen),
    Healthy,
    Unhealthy,
}

/// Waits until a container has ended, or its health has turned bad or, if that is waited for,
/// good. One whose health nobody checks is healthy.
pub(super) async fn watch(
    engine: &Engine,
    id: &str,
    until_healthy: bool,
) -> Result<Became, Failure> {
    // A second too early: what happens between the first look and the first event is among those
    // that the engine repeats.
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = now.unwrap_or_default().as_secs().saturating_sub(1);
    let mut health = engine.health(id, since);
    let mut ended = pin!(engine.ended(id));
    loop {
        let seen = engine.look(id).await?.ok_or_else(gone)?;
        let checked = seen.health.is_some();
        match seen.health {
            _ if !seen.running => return Ok(Became::Ended(seen)),
            Some(HealthStatusEnum::UNHEALTHY) => return Ok(Became::Unhealthy),
            None | Some(HealthStatusEnum::HEALTHY) if until_healthy => return Ok(Became::Healthy),
            _ => {}
        }
        tokio::select! {
            end = &mut ended => {
                end?;
                let seen = engine.look(id).await?.ok_or_else(gone)?;
                if seen.running {
                    let why = "the engine says that the container ended, and that it runs";
                    return Err(Failure::Temporary(why.to_owned()));
                }
                return Ok(Became::Ended(seen));
            }
            event = health.next(), if checked => match event {
                Some(event) => drop(event?),
                None => {
                    let why = "the engine tells no more of the container's health";
                    return Err(Failure::Temporary(why.to_owned()));
                }
            },
        }
    }
}

pub(super) fn gone() -> Failure {
    Failure::Fatal("the container was removed by somebody else".to_owned())
}
