//! The forms in which values are written on the command line.

use std::{net::IpAddr, time::Duration};

use skep_proto::v1::{DiscreteGenericResource, container_spec::Ulimit};

/// The limits that Linux has for processes, by their names in `--ulimit`.
const ULIMITS: [&str; 15] = [
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

/// Nanoseconds of CPU time per second in one CPU.
const NANO_CPUS: f64 = 1e9;

/// `KEY=VALUE`, kept as it is; the form of environment variables.
pub fn assignment(text: &str) -> Result<String, String> {
    match text.split_once('=') {
        Some((key, _)) if !key.is_empty() => Ok(text.to_owned()),
        _ => Err("expected KEY=VALUE".to_owned()),
    }
}

/// `KEY=VALUE`, or `KEY` for an empty value; the form of labels.
pub fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err("expected KEY=VALUE".to_owned());
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// A number of CPUs such as `0.5`, as billionths of a CPU.
pub fn cpus(text: &str) -> Result<i64, String> {
    let cpus: f64 = text
        .parse()
        .map_err(|_| "expected a number of CPUs such as 0.5".to_owned())?;
    let nano = (cpus * NANO_CPUS).round();
    // 2^53, the end of the exact integers of an f64, is nine million CPUs.
    if !(0.0..=9e15).contains(&nano) {
        return Err("expected a number of CPUs such as 0.5".to_owned());
    }
    Ok(nano as i64)
}

/// An amount of memory such as `64MiB`, `64m` or `67108864`, in bytes. Units are powers of 1024,
/// however they are written.
pub fn memory(text: &str) -> Result<i64, String> {
    let expected = || "expected an amount of memory such as 512M or 64MiB".to_owned();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit = unit.trim().to_ascii_lowercase();
    let prefix = unit.strip_suffix('b').unwrap_or(&unit);
    let shift = match prefix.strip_suffix('i').unwrap_or(prefix) {
        "" if prefix.is_empty() => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(expected()),
    };
    if let Ok(whole) = number.parse::<i64>() {
        return whole.checked_mul(1 << shift).ok_or_else(expected);
    }
    let bytes = number.parse::<f64>().map_err(|_| expected())? * (1_i64 << shift) as f64;
    // Fractions beyond what an f64 holds exactly make no sense here.
    if bytes <= 9e15 {
        Ok(bytes.round() as i64)
    } else {
        Err(expected())
    }
}

/// An amount of memory and swap together, -1 for no limit, in bytes.
pub fn swap(text: &str) -> Result<i64, String> {
    match text {
        "-1" => Ok(-1),
        text => memory(text).map_err(|error| format!("{error}, or -1 for no limit")),
    }
}

/// An octal number of which only `bits` may be set, such as `0444`.
pub fn octal(text: &str, bits: u32) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode & !bits == 0 && !text.starts_with('+') => Ok(mode),
        _ => Err(format!(
            "expected an octal number from 0 to {bits:o}, not {text:?}"
        )),
    }
}

/// An IP address, kept as it is.
pub fn address(text: &str) -> Result<String, String> {
    match text.parse::<IpAddr>() {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err("expected an IP address such as 10.0.0.53".to_owned()),
    }
}

/// `NAME:ADDRESS` as a line of a hosts file, `ADDRESS NAME`.
pub fn host(text: &str) -> Result<String, String> {
    let (name, ip) = text.split_once([':', '=']).unwrap_or_default();
    // IPv6 addresses may be in brackets.
    let ip = ip
        .strip_prefix('[')
        .and_then(|ip| ip.strip_suffix(']'))
        .unwrap_or(ip);
    if name.is_empty() || name.contains(char::is_whitespace) || ip.parse::<IpAddr>().is_err() {
        return Err("expected NAME:ADDRESS such as db:10.0.0.7".to_owned());
    }
    Ok(format!("{ip} {name}"))
}

/// `KEY=VALUE`, in its parts.
pub fn pair(text: &str) -> Result<(String, String), String> {
    assignment(text).and_then(|text| label(&text))
}

/// `TYPE=SOFT[:HARD]`, a limit for processes; -1 is no limit.
pub fn ulimit(text: &str) -> Result<Ulimit, String> {
    let expected = || "expected TYPE=SOFT[:HARD] such as nofile=1024:2048".to_owned();
    let (name, limits) = text.split_once('=').ok_or_else(expected)?;
    if !ULIMITS.contains(&name) {
        return Err(format!(
            "unknown type {name:?}, expected one of {}",
            ULIMITS.join(", ")
        ));
    }
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let limit = |text: &str| match text.parse::<i64>() {
        Ok(limit) if limit >= -1 => Ok(limit),
        _ => Err(expected()),
    };
    let (soft, hard) = (limit(soft)?, limit(hard)?);
    if hard != -1 && (soft == -1 || soft > hard) {
        return Err(format!(
            "the soft limit of {name} is above its hard limit: {}",
            expected()
        ));
    }
    Ok(Ulimit {
        name: name.to_owned(),
        soft,
        hard,
    })
}

/// `KIND=COUNT`: how many user-defined resources of a kind.
pub fn generic_resource(text: &str) -> Result<DiscreteGenericResource, String> {
    match text.split_once('=') {
        Some((kind, count)) if !kind.is_empty() => match count.parse::<i64>() {
            Ok(value) if value > 0 => Ok(DiscreteGenericResource {
                kind: kind.to_owned(),
                value,
            }),
            _ => Err(format!(
                "{count:?} is no count: services reserve so many of a kind, such as gpu=2"
            )),
        },
        _ => Err("expected KIND=COUNT such as gpu=2".to_owned()),
    }
}

/// Words as a shell splits them.
pub fn words(text: &str) -> Result<Words, String> {
    shlex::split(text)
        .map(Words)
        .ok_or_else(|| "expected words as in a shell; a quote is not closed".to_owned())
}

/// What [`words`] yields. A type of its own: the command line takes it as one value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Words(pub Vec<String>);

/// A time span such as `10s`, `1m30s`, `500ms` or `1.5h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    // The wire format counts signed seconds; nothing here needs more than a century.
    const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
    let span = match fraction(text) {
        Some(span) => span,
        None => humantime::parse_duration(text)
            .map_err(|error| format!("expected a time span such as 10s or 1m30s: {error}"))?,
    };
    if span > LONGEST {
        Err("expected at most 100 years".to_owned())
    } else {
        Ok(span)
    }
}

/// A number with a decimal point and one unit, which docker takes, too.
fn fraction(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at(text.find(|c: char| c.is_ascii_alphabetic())?);
    if !number.contains('.') {
        return None;
    }
    let seconds = match unit {
        "h" => 3600.0,
        "m" => 60.0,
        "s" => 1.0,
        "ms" => 1e-3,
        _ => return None,
    };
    Duration::try_from_secs_f64(number.parse::<f64>().ok()? * seconds).ok()
}

/// A share from 0 to 1.
pub fn ratio(text: &str) -> Result<f32, String> {
    match text.parse::<f32>() {
        Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(ratio),
        _ => Err("expected a number from 0 to 1".to_owned()),
    }
}

/// `span` in the wire format.
pub(crate) fn wire(span: Duration) -> skep_proto::Duration {
    skep_proto::Duration {
        seconds: i64::try_from(span.as_secs()).unwrap_or(i64::MAX),
        // Below 1e9 by its contract.
        nanos: span.subsec_nanos() as i32,
    }
}

/// A span of the wire format, `None` if it is negative or out of range.
pub(crate) fn from_wire(span: &skep_proto::Duration) -> Option<Duration> {
    Duration::try_from(*span).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_are_counted_in_billionths() {
        assert_eq!(cpus("0.5"), Ok(500_000_000));
        assert_eq!(cpus("2"), Ok(2_000_000_000));
        assert_eq!(cpus("0.001"), Ok(1_000_000));
        for wrong in ["", "-1", "x", "NaN", "inf", "1e300"] {
            assert!(cpus(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn memory_units_are_powers_of_1024() {
        assert_eq!(memory("67108864"), Ok(64 << 20));
        assert_eq!(memory("64MiB"), Ok(64 << 20));
        assert_eq!(memory("64m"), Ok(64 << 20));
        assert_eq!(memory("1.5g"), Ok(3 << 29));
        assert_eq!(memory("7b"), Ok(7));
        assert_eq!(memory("512M"), Ok(512 << 20));
        assert_eq!(memory("512 Mi"), Ok(512 << 20));
        assert_eq!(memory("1P"), Ok(1 << 50));
        for wrong in [
            "",
            "MiB",
            "-1m",
            "1x",
            "1i",
            "1ib",
            "1.2.3k",
            "9223372036854775807k",
            "999999999999999t",
        ] {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn swap_can_be_without_limit() {
        assert_eq!(swap("-1"), Ok(-1));
        assert_eq!(swap("1g"), Ok(1 << 30));
        assert!(swap("-2").unwrap_err().contains("-1 for no limit"));
    }

    #[test]
    fn hosts_become_lines_of_a_hosts_file() {
        assert_eq!(host("db:10.0.0.7"), Ok("10.0.0.7 db".to_owned()));
        assert_eq!(host("db:::1"), Ok("::1 db".to_owned()));
        assert_eq!(host("db=[fd00::1]"), Ok("fd00::1 db".to_owned()));
        for wrong in ["db", "db:", ":10.0.0.7", "db:host", "a b:10.0.0.7"] {
            assert!(host(wrong).unwrap_err().contains("NAME:ADDRESS"), "{wrong}");
        }
        assert!(address("10.0.0.1").is_ok());
        assert!(address("resolver").is_err());
    }

    #[test]
    fn ulimits_have_a_soft_and_a_hard_limit() {
        let limit = |soft, hard| {
            Ok(Ulimit {
                name: "nofile".to_owned(),
                soft,
                hard,
            })
        };
        assert_eq!(ulimit("nofile=10:20"), limit(10, 20));
        assert_eq!(ulimit("nofile=10"), limit(10, 10));
        assert_eq!(ulimit("nofile=10:-1"), limit(10, -1));
        assert_eq!(ulimit("nofile=-1"), limit(-1, -1));
        for (wrong, problem) in [
            ("nofile", "SOFT[:HARD]"),
            ("nofile=x", "SOFT[:HARD]"),
            ("nofile=-2", "SOFT[:HARD]"),
            ("files=3", "unknown type"),
            ("nofile=20:10", "above its hard limit"),
            ("nofile=-1:10", "above its hard limit"),
        ] {
            assert!(ulimit(wrong).unwrap_err().contains(problem), "{wrong}");
        }
    }

    #[test]
    fn resources_are_counted() {
        let gpu = generic_resource("gpu=2").unwrap();
        assert_eq!((gpu.kind.as_str(), gpu.value), ("gpu", 2));
        for wrong in ["gpu", "=2", "gpu=0", "gpu=-1", "gpu=uuid"] {
            assert!(generic_resource(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn words_are_split_as_by_a_shell() {
        let split = words("sh -c 'echo a  b'").unwrap().0;
        assert_eq!(split, ["sh", "-c", "echo a  b"]);
        assert!(words("sh 'x").is_err());
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(octal("0444", 0o777), Ok(0o444));
        assert_eq!(octal("1777", 0o7777), Ok(0o1777));
        assert!(octal("1777", 0o777).is_err());
        assert!(octal("+7", 0o777).is_err() && octal("9", 0o777).is_err());
    }

    #[test]
    fn labels_may_lack_a_value_and_variables_may_not() {
        assert_eq!(label("a=b=c"), Ok(("a".to_owned(), "b=c".to_owned())));
        assert_eq!(label("a"), Ok(("a".to_owned(), String::new())));
        assert!(label("=b").is_err());
        assert_eq!(assignment("A="), Ok("A=".to_owned()));
        assert!(assignment("A").is_err());
        assert!(assignment("=A").is_err());
    }

    #[test]
    fn durations_cross_the_wire() {
        let span = duration("1m30s 5ms").unwrap();
        assert_eq!(
            wire(span),
            skep_proto::Duration {
                seconds: 90,
                nanos: 5_000_000
            }
        );
        assert_eq!(from_wire(&wire(span)), Some(span));
        assert_eq!(
            from_wire(&skep_proto::Duration {
                seconds: -1,
                nanos: 0
            }),
            None
        );
        assert_eq!(duration("1.5h"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("0.5ms"), Ok(Duration::from_micros(500)));
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        for wrong in ["soon", "-1.5s", "1.5", "1.5x", "1.5.5s", "1e400.0h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
        assert!(duration("9999 years").is_err());
    }
}
