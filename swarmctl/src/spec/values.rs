//! The forms in which values are written on the command line.

use std::time::Duration;

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

/// An amount of memory such as `64MiB`, `64m` or `67108864`, in bytes. Units are powers of 1024.
pub fn memory(text: &str) -> Result<i64, String> {
    let expected = || "expected an amount of memory such as 64MiB".to_owned();
    let digits = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
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

/// A time span such as `10s`, `1m30s` or `500ms`.
pub fn duration(text: &str) -> Result<Duration, String> {
    // The wire format counts signed seconds; nothing here needs more than a century.
    const LONGEST: Duration = Duration::from_secs(100 * 366 * 24 * 3600);
    let span = humantime::parse_duration(text)
        .map_err(|error| format!("expected a time span such as 10s or 1m30s: {error}"))?;
    if span > LONGEST {
        Err("expected at most 100 years".to_owned())
    } else {
        Ok(span)
    }
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
        for wrong in [
            "",
            "MiB",
            "-1m",
            "1x",
            "1.2.3k",
            "9223372036854775807k",
            "999999999999999t",
        ] {
            assert!(memory(wrong).is_err(), "{wrong}");
        }
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
        assert!(duration("soon").is_err());
        assert!(duration("9999 years").is_err());
    }
}
