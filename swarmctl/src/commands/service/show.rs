//! A service as fields for people.

mod container;

use std::time::Duration;

use skep_proto::v1::{
    ReplicatedService, Resources, Service, TaskSpec, UpdateConfig,
    generic_resource::Resource,
    restart_policy::RestartCondition,
    service_spec::Mode,
    task_spec::Runtime,
    update_config::{FailureAction, UpdateOrder},
    update_status::UpdateState,
};

use crate::{
    output::{Fields, enum_name, moment},
    spec::values,
};

/// What kind of service it is: `replicated`.
pub(super) fn mode(service: &Service) -> &'static str {
    match &service.spec().mode {
        Some(Mode::Replicated(_)) => "replicated",
        Some(Mode::Global(_)) => "global",
        Some(Mode::ReplicatedJob(_)) => "replicated job",
        Some(Mode::GlobalJob(_)) => "global job",
        None => "unknown",
    }
}

/// The fields of `service`; what its spec does not say is left out.
pub(super) fn fields(service: &Service) -> Fields {
    let spec = service.spec();
    let meta = service.meta();
    let mut fields = Fields::default();
    fields
        .add("ID", &service.id)
        .add("Name", &spec.annotations().name)
        .maybe("Created at", meta.created_at.as_ref().and_then(moment))
        .maybe("Updated at", meta.updated_at.as_ref().and_then(moment))
        .add("Version", meta.version().index)
        .section("Labels", |section| {
            section.entries(&spec.annotations().labels);
        })
        .add("Mode", mode(service));
    if let Some(Mode::Replicated(ReplicatedService { replicas })) = &spec.mode {
        fields.add("Replicas", replicas);
    }
    if let Some(status) = &service.update_status {
        fields.section("Update status", |section| {
            section
                .add("State", enum_name(status.state, UpdateState::as_str_name))
                .maybe("Started at", status.started_at.as_ref().and_then(moment))
                .maybe(
                    "Completed at",
                    status.completed_at.as_ref().and_then(moment),
                )
                .add("Message", &status.message);
        });
    }
    task(&mut fields, spec.task());
    for (name, config) in [("Update", &spec.update), ("Rollback", &spec.rollback)] {
        if let Some(config) = config {
            fields.section(name, |section| update(section, config));
        }
    }
    fields
}

/// The fields of the spec of a task.
pub(crate) fn task(fields: &mut Fields, task: &TaskSpec) {
    match &task.runtime {
        Some(Runtime::Container(spec)) => {
            fields.section("Container", |section| container::container(section, spec));
        }
        Some(Runtime::Attachment(_)) => drop(fields.add("Runtime", "attachment")),
        Some(Runtime::Generic(generic)) => drop(fields.add("Runtime", &generic.kind)),
        None => {}
    }
    if let Some(placement) = &task.placement {
        fields.section("Placement", |section| {
            section.add("Constraints", placement.constraints.join(", "));
            if placement.max_replicas > 0 {
                section.add("Max replicas per node", placement.max_replicas);
            }
        });
    }
    if let Some(wanted) = &task.resources {
        for (name, part) in [
            ("Reservations", &wanted.reservations),
            ("Limits", &wanted.limits),
        ] {
            if let Some(part) = part {
                fields.section(name, |section| resources(section, part));
            }
        }
        fields
            .maybe(
                "Memory and swap",
                wanted.swap_bytes.map(|swap| match swap {
                    -1 => "no limit".to_owned(),
                    swap => bytes(swap),
                }),
            )
            .maybe("Memory swappiness", wanted.memory_swappiness);
    }
    if let Some(driver) = &task.log_driver {
        fields.section("Log driver", |section| {
            section.add("Name", &driver.name).entries(&driver.options);
        });
    }
    if let Some(restart) = &task.restart {
        fields.section("Restart", |section| {
            section
                .add(
                    "Condition",
                    enum_name(restart.condition, RestartCondition::as_str_name),
                )
                .maybe("Delay", restart.delay.as_ref().map(span));
            if restart.max_attempts > 0 {
                section.add("Max attempts", restart.max_attempts);
            }
            section.maybe("Window", restart.window.as_ref().map(span));
        });
    }
}

fn update(section: &mut Fields, config: &UpdateConfig) {
    section
        .add("Parallelism", config.parallelism)
        .maybe("Delay", config.delay.as_ref().map(span))
        .add("Order", enum_name(config.order, UpdateOrder::as_str_name))
        .add(
            "On failure",
            enum_name(config.failure_action, FailureAction::as_str_name),
        )
        .maybe("Monitor", config.monitor.as_ref().map(span))
        .add("Max failure ratio", config.max_failure_ratio);
}

/// The fields of an amount of resources.
pub(crate) fn resources(section: &mut Fields, resources: &Resources) {
    if resources.nano_cpus != 0 {
        section.add("CPUs", resources.nano_cpus as f64 / 1e9);
    }
    if resources.memory_bytes != 0 {
        section.add("Memory", bytes(resources.memory_bytes));
    }
    for resource in resources.generic.iter().filter_map(|r| r.resource.as_ref()) {
        match resource {
            Resource::DiscreteResourceSpec(some) => section.add(&some.kind, some.value),
            Resource::NamedResourceSpec(one) => section.add(&one.kind, &one.value),
        };
    }
}

/// `bytes` in the largest unit of which it is a whole number; rounded where that number is too long
/// to read, as what a machine has is.
fn bytes(bytes: i64) -> String {
    const READABLE: i64 = 10_000;
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB"), (0, "B")];
    let whole = units
        .iter()
        .find(|(shift, _)| bytes % (1_i64 << shift) == 0)
        .filter(|(shift, _)| bytes >> shift < READABLE);
    if let Some((shift, name)) = whole {
        return format!("{} {name}", bytes >> shift);
    }
    let (shift, name) = units
        .into_iter()
        .find(|(shift, _)| bytes >> shift > 0)
        .unwrap_or((0, "B"));
    format!("{:.1} {name}", bytes as f64 / (1_i64 << shift) as f64)
}

/// A time span as it is written on the command line. Days are the largest unit: months and years
/// have no fixed length.
pub(crate) fn span(span: &skep_proto::Duration) -> String {
    const DAY: u64 = 24 * 3600;
    let span = values::from_wire(span).unwrap_or(Duration::ZERO);
    let (days, rest) = (
        span.as_secs() / DAY,
        Duration::new(span.as_secs() % DAY, span.subsec_nanos()),
    );
    let rest_text = || humantime::format_duration(rest).to_string();
    match (days, rest.is_zero()) {
        (0, _) => rest_text(),
        (1, true) => "1 day".to_owned(),
        (1, false) => format!("1day {}", rest_text()),
        (_, true) => format!("{days} days"),
        (_, false) => format!("{days}days {}", rest_text()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shown_in_its_largest_whole_unit() {
        assert_eq!(bytes(64 << 20), "64 MiB");
        assert_eq!(bytes(3 << 29), "1536 MiB");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(24_684_084 << 10), "23.5 GiB");
    }

    #[test]
    fn spans_are_days_at_most_and_can_be_written_back() {
        for (seconds, nanos, shown) in [
            (5, 0, "5s"),
            (0, 500_000_000, "500ms"),
            (90 * 60, 0, "1h 30m"),
            (24 * 3600, 0, "1 day"),
            (90 * 24 * 3600, 0, "90 days"),
            (400 * 24 * 3600 + 1, 0, "400days 1s"),
        ] {
            let text = span(&skep_proto::Duration { seconds, nanos });
            assert_eq!(text, shown);
            let back = values::duration(&text).unwrap();
            assert_eq!(values::wire(back).seconds, seconds, "{text}");
        }
    }
}
