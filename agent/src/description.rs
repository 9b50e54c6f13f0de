//! What a node tells about itself when it registers.

use std::{collections::BTreeMap, fs, path::Path, thread};

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
    generic: &[v1::GenericResource],
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
            generic: generic.to_vec(),
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

/// Processors this process may use, in billionths, by its affinity and its control group.
fn nano_cpus() -> i64 {
    let processors = thread::available_parallelism().map_or(1, usize::from);
    i64::try_from(processors)
        .unwrap_or(i64::MAX)
        .saturating_mul(1_000_000_000)
}

/// Memory that there is for tasks in bytes, 0 if the kernel does not tell: that of the machine, or
/// less if the daemon's control group is limited.
fn memory_bytes() -> i64 {
    let machine = fs::read_to_string("/proc/meminfo")
        .ok()
        .and_then(|text| total(&text));
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = memory_limit(Path::new("/sys/fs/cgroup"), &own);
    match (machine, limit) {
        (Some(machine), Some(limit)) => machine.min(limit),
        (machine, _) => machine.unwrap_or_default(),
    }
}

/// The least limit of memory on the way from our control group to the root; `own` is
/// `/proc/self/cgroup`.
fn memory_limit(root: &Path, own: &str) -> Option<i64> {
    own.lines()
        .filter_map(|line| {
            // hierarchy:controllers:path
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            let (root, file) = match controllers {
                "" => (root.to_owned(), "memory.max"),
                "memory" => (root.join("memory"), "memory.limit_in_bytes"),
                _ => return None,
            };
            let dir = root.join(path.trim_start_matches('/'));
            dir.ancestors()
                .take_while(|dir| dir.starts_with(&root))
                // No number means no limit.
                .filter_map(|dir| fs::read_to_string(dir.join(file)).ok()?.trim().parse().ok())
                .min()
        })
        .filter(|limit: &i64| *limit > 0)
        .min()
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
            &[],
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
    fn the_least_limit_of_memory_above_us_counts() {
        let root = tempfile::tempdir().unwrap();
        let limit = |dir: &str, file: &str, text: &str| {
            let dir = root.path().join(dir);
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(file), text).unwrap();
        };
        let of = |own: &str| memory_limit(root.path(), own);
        assert_eq!(of("0::/a/b\n"), None);
        limit("a", "memory.max", "5000\n");
        limit("a/b", "memory.max", "max\n");
        assert_eq!(of("1:cpu:/x\n0::/a/b\n"), Some(5000));
        limit("memory", "memory.limit_in_bytes", "9223372036854771712\n");
        limit("memory/c", "memory.limit_in_bytes", "700\n");
        assert_eq!(of("4:memory:/c\n0::/\n"), Some(700));
        assert_eq!(of("garbage\n0\n"), None);
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
