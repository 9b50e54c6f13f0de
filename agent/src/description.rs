//! What a node tells about itself when it registers.

use std::{collections::BTreeMap, fs, thread};

use skep_proto::v1;

use crate::executor::Executor;

/// The version managers and users see as this node's engine version.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The operating system, as Go names it.
pub(crate) const OS: &str = "linux";

/// The description of this machine; `executor` adds what it brings.
pub(crate) fn describe(
    hostname: &str,
    labels: &BTreeMap<String, String>,
    tls_info: v1::NodeTlsInfo,
    executor: &dyn Executor,
) -> v1::NodeDescription {
    let mut description = v1::NodeDescription {
        hostname: hostname.to_owned(),
        platform: Some(v1::Platform {
            architecture: architecture(),
            os: OS.to_owned(),
        }),
        resources: Some(v1::Resources {
            nano_cpus: nano_cpus(),
            memory_bytes: memory_bytes(),
            generic: Vec::new(),
        }),
        engine: Some(v1::EngineDescription {
            engine_version: VERSION.to_owned(),
            labels: labels.clone(),
            plugins: Vec::new(),
        }),
        tls_info: Some(tls_info),
        fips: false,
        csi_info: Vec::new(),
    };
    executor.describe(&mut description);
    description
}

/// The machine's architecture in the form of `uname -m`, which is what stock engines send.
pub(crate) fn architecture() -> String {
    let uname = rustix::system::uname();
    uname.machine().to_string_lossy().into_owned()
}

/// Processors this process may use, in billionths.
fn nano_cpus() -> i64 {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    i64::try_from(processors)
        .unwrap_or(i64::MAX)
        .saturating_mul(1_000_000_000)
}

/// Memory of the machine in bytes, 0 if the kernel does not tell.
fn memory_bytes() -> i64 {
    fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total(&text))
        .unwrap_or_default()
}

/// `MemTotal` of `/proc/meminfo` in bytes.
fn total(meminfo: &str) -> Option<i64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kilobytes: i64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executor::null::NullExecutor;

    #[test]
    fn this_machine_has_a_processor_and_memory() {
        let description = describe(
            "host",
            &BTreeMap::new(),
            v1::NodeTlsInfo::default(),
            &NullExecutor,
        );
        let resources = description.resources.unwrap();
        assert!(resources.nano_cpus >= 1_000_000_000);
        assert!(resources.memory_bytes > 1 << 20);
        let platform = description.platform.unwrap();
        assert_eq!(platform.os, "linux");
        assert_eq!(platform.architecture, std::env::consts::ARCH);
    }

    #[test]
    fn memory_is_read_in_kilobytes() {
        assert_eq!(
            total("MemFree: 1 kB\nMemTotal:       2048 kB\n"),
            Some(2 << 20)
        );
        assert_eq!(total("MemTotal: many kB\n"), None);
        assert_eq!(total(""), None);
    }
}
