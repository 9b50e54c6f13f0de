//! The spec of a container as fields for people.

use skep_proto::v1::{
    ConfigReference, ContainerSpec, FileTarget, HealthConfig, Mount, SecretReference,
    config_reference, mount, secret_reference,
};

use super::{bytes, span};
use crate::output::Fields;

/// The fields of `container`; what it does not say is left out.
pub(super) fn container(section: &mut Fields, container: &ContainerSpec) {
    section
        .add("Image", &container.image)
        .add("Command", container.command.join(" "))
        .add("Args", container.args.join(" "))
        .add("Env", container.env.join(" "))
        .add("Dir", &container.dir)
        .add("User", &container.user)
        .add("Groups", container.groups.join(", "))
        .add("Hostname", &container.hostname)
        .section("Labels", |section| {
            section.entries(&container.labels);
        })
        .add("Stop signal", &container.stop_signal)
        .maybe(
            "Stop grace period",
            container.stop_grace_period.as_ref().map(span),
        )
        .maybe("TTY", container.tty.then_some(true))
        .maybe("Read-only", container.read_only.then_some(true))
        .maybe("Init", container.init)
        .maybe("Most processes", said(container.pids_limit))
        .maybe("OOM score adjustment", said(container.oom_score_adj))
        .add("Capabilities added", container.capability_add.join(", "))
        .add("Capabilities dropped", container.capability_drop.join(", "))
        .section("Secrets", |section| {
            for reference in &container.secrets {
                section.add(&reference.secret_name, secret(reference));
            }
        })
        .section("Configs", |section| {
            for reference in &container.configs {
                section.add(&reference.config_name, config(reference));
            }
        })
        .section("Mounts", |section| {
            for mount in &container.mounts {
                section.add(&mount.target, mounted(mount));
            }
        })
        .add("Hosts", container.hosts.join(", "));
    if let Some(dns) = &container.dns_config {
        section.section("DNS", |section| {
            section
                .add("Servers", dns.nameservers.join(", "))
                .add("Search", dns.search.join(", "))
                .add("Options", dns.options.join(", "));
        });
    }
    section
        .section("Sysctls", |section| {
            section.entries(&container.sysctls);
        })
        .section("Ulimits", |section| {
            for ulimit in &container.ulimits {
                section.add(&ulimit.name, format!("{}:{}", ulimit.soft, ulimit.hard));
            }
        });
    if let Some(config) = &container.healthcheck {
        section.section("Health check", |section| health(section, config));
    }
}

/// A number of which 0 means that it was not said.
fn said(number: i64) -> Option<i64> {
    (number != 0).then_some(number)
}

fn secret(reference: &SecretReference) -> String {
    match &reference.target {
        Some(secret_reference::Target::File(target)) => file(target),
        None => String::new(),
    }
}

fn config(reference: &ConfigReference) -> String {
    match &reference.target {
        Some(config_reference::Target::File(target)) => file(target),
        Some(config_reference::Target::Runtime(_)) => "for the runtime".to_owned(),
        None => String::new(),
    }
}

fn file(target: &FileTarget) -> String {
    format!(
        "{} ({}:{} {:04o})",
        target.name, target.uid, target.gid, target.mode
    )
}

fn mounted(mount: &Mount) -> String {
    let kind = mount::Type::try_from(mount.r#type).map_or_else(
        |_| mount.r#type.to_string(),
        |kind| kind.as_str_name().to_ascii_lowercase(),
    );
    let mut text = kind;
    if !mount.source.is_empty() {
        text = format!("{text} {}", mount.source);
    }
    if mount.readonly {
        text.push_str(", read-only");
    }
    let driver = mount
        .volume_options
        .as_ref()
        .and_then(|options| options.driver_config.as_ref());
    if let Some(driver) = driver.filter(|driver| !driver.name.is_empty()) {
        text = format!("{text}, driver {}", driver.name);
    }
    let size = mount
        .tmpfs_options
        .as_ref()
        .map_or(0, |options| options.size_bytes);
    if size > 0 {
        text = format!("{text}, {}", bytes(size));
    }
    text
}

fn health(section: &mut Fields, config: &HealthConfig) {
    section
        .add("Test", config.test.join(" "))
        .maybe("Interval", config.interval.as_ref().map(span))
        .maybe("Timeout", config.timeout.as_ref().map(span))
        .maybe("Retries", said(config.retries.into()))
        .maybe("Start period", config.start_period.as_ref().map(span))
        .maybe("Start interval", config.start_interval.as_ref().map(span));
}
