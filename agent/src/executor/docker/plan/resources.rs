//! Limits in the engine's words.

use bollard::models::{HostConfig, ResourcesUlimits};
use skep_proto::v1;

use super::some;

pub(super) fn plan(
    task: &v1::Task,
    spec: &v1::ContainerSpec,
    host: &mut HostConfig,
) -> Result<(), String> {
    let set = |value: i64| (value != 0).then_some(value);
    host.pids_limit = set(spec.pids_limit);
    let ulimits = spec.ulimits.iter().map(|ulimit| ResourcesUlimits {
        name: Some(ulimit.name.clone()),
        soft: Some(ulimit.soft),
        hard: Some(ulimit.hard),
    });
    host.ulimits = some(ulimits.collect());
    let Some(resources) = &task.spec().resources else {
        return Ok(());
    };
    if let Some(limits) = &resources.limits {
        host.nano_cpus = set(limits.nano_cpus);
        host.memory = set(limits.memory_bytes);
    }
    // Processors that are kept for a task are the scheduler's business; memory is also the
    // kernel's, which takes from those first that have more than was kept for them.
    if let Some(kept) = &resources.reservations {
        host.memory_reservation = set(kept.memory_bytes);
    }
    host.memory_swappiness = resources.memory_swappiness;
    host.memory_swap = match (resources.swap_bytes, host.memory) {
        (None, _) => None,
        (Some(-1), _) => Some(-1),
        // The engine counts memory and swap together.
        (Some(swap), Some(memory)) if swap >= 0 => Some(memory.saturating_add(swap)),
        (Some(_), Some(_)) => return Err("the limit of swap is negative".to_owned()),
        (Some(_), None) => {
            return Err("a limit of swap needs a limit of memory: set one".to_owned());
        }
    };
    Ok(())
}
