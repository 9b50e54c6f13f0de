//! Limits and reservations.

use skep_proto::v1::Resources;

use crate::control::ApiError;

/// Least CPU time, in billionths of a CPU.
const MIN_NANO_CPUS: i64 = 1_000_000;

/// Least memory, in bytes.
const MIN_MEMORY: i64 = 4 * 1024 * 1024;

pub fn check(resources: Option<&Resources>) -> Result<(), ApiError> {
    let Some(resources) = resources else {
        return Ok(());
    };
    let (cpus, memory) = (resources.nano_cpus, resources.memory_bytes);
    if cpus != 0 && cpus < MIN_NANO_CPUS {
        return Err(ApiError::invalid(format!(
            "invalid cpu value {}: Must be at least 0.001",
            shortest(cpus as f64 / 1e9)
        )));
    }
    if memory != 0 && memory < MIN_MEMORY {
        return Err(ApiError::invalid(format!(
            "invalid memory value {memory}: Must be at least 4MiB"
        )));
    }
    Ok(())
}

/// A number in the fewest digits, with an exponent below 0.0001 and from 1,000,000 on, as Go's `%g`
/// has it.
fn shortest(number: f64) -> String {
    let scientific = format!("{number:e}");
    let exponent = scientific
        .split_once('e')
        .and_then(|(mantissa, exponent)| Some((mantissa, exponent.parse::<i32>().ok()?)));
    match exponent {
        Some((mantissa, exponent)) if !(-4..6).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{mantissa}e{sign}{:02}", exponent.abs())
        }
        _ => format!("{number}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::text;

    #[test]
    fn least_amounts() {
        let check_one = |nano_cpus: i64, memory_bytes: i64, expected: &str| {
            let resources = Resources {
                nano_cpus,
                memory_bytes,
                ..Default::default()
            };
            assert_eq!(text(check(Some(&resources))), expected);
        };
        assert_eq!(text(check(None)), "");
        check_one(0, 0, "");
        check_one(1_000_000, 4 << 20, "");
        check_one(
            999_999,
            0,
            "invalid cpu value 0.000999999: Must be at least 0.001",
        );
        check_one(
            100_000,
            0,
            "invalid cpu value 0.0001: Must be at least 0.001",
        );
        check_one(
            12_000,
            0,
            "invalid cpu value 1.2e-05: Must be at least 0.001",
        );
        check_one(1, 0, "invalid cpu value 1e-09: Must be at least 0.001");
        check_one(
            -1_500_000_000,
            0,
            "invalid cpu value -1.5: Must be at least 0.001",
        );
        check_one(
            -1_234_567_000_000_000,
            0,
            "invalid cpu value -1.234567e+06: Must be at least 0.001",
        );
        check_one(
            0,
            (4 << 20) - 1,
            "invalid memory value 4194303: Must be at least 4MiB",
        );
        check_one(0, -1, "invalid memory value -1: Must be at least 4MiB");
    }
}
