//! How much of a task's output is kept: the options of its log driver.

use skep_proto::v1;

/// Kept by default: two files of 5 MiB.
const MAX_SIZE: u64 = 5 << 20;
const MAX_FILES: usize = 2;
/// More files would only make turning them over slow.
const MOST_FILES: usize = 1000;

/// The bounds of what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Options {
    /// Bytes after which a new file is begun.
    pub(super) max_size: u64,
    /// How many files there are at most, with the one that is written.
    pub(super) max_files: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            max_size: MAX_SIZE,
            max_files: MAX_FILES,
        }
    }
}

impl Options {
    /// What the task asks for, `None` for no logs at all. An error says what cannot be had.
    pub(in super::super) fn of(task: &v1::Task) -> Result<Option<Self>, String> {
        let driver = task.spec().log_driver.as_ref();
        let Some(driver) = driver.or(task.log_driver.as_ref()) else {
            return Ok(Some(Self::default()));
        };
        match driver.name.as_str() {
            "" | "json-file" | "local" => {}
            "none" => return Ok(None),
            other => {
                return Err(format!(
                    "log driver {other:?} is not known by the process executor: use json-file, local \
                     or none"
                ));
            }
        }
        let mut options = Self::default();
        for (name, value) in &driver.options {
            let wrong = || format!("log option {name}={value} makes no sense");
            match name.as_str() {
                "max-size" => {
                    options.max_size = size(value).filter(|&it| it > 0).ok_or_else(wrong)?;
                }
                "max-file" => {
                    let files = value.parse().ok();
                    let files = files.filter(|files| (1..=MOST_FILES).contains(files));
                    options.max_files = files.ok_or_else(wrong)?;
                }
                _ => {
                    return Err(format!(
                        "log option {name:?} is not known by the process executor: use max-size and \
                         max-file"
                    ));
                }
            }
        }
        Ok(Some(options))
    }
}

/// A size as users write it: `1000`, `512k`, `10m`, `1g`, in powers of 1024.
fn size(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let text = text.strip_suffix('b').unwrap_or(&text);
    let (number, shift) = match text.as_bytes().last()? {
        b'k' => (&text[..text.len() - 1], 10),
        b'm' => (&text[..text.len() - 1], 20),
        b'g' => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, options: &[(&str, &str)]) -> Result<Option<Options>, String> {
        let pair = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        let mut task = v1::Task::default();
        task.spec_mut().log_driver = Some(v1::Driver {
            name: name.to_owned(),
            options: options.iter().map(pair).collect(),
        });
        Options::of(&task)
    }

    #[test]
    fn sizes_and_files_are_bounded() {
        let default = Options::of(&v1::Task::default()).unwrap().unwrap();
        assert_eq!(default, Options::default());
        let options = of("json-file", &[("max-size", "10m"), ("max-file", "3")]);
        assert_eq!(
            options.unwrap().unwrap(),
            Options {
                max_size: 10 << 20,
                max_files: 3
            }
        );
        assert_eq!(of("none", &[]), Ok(None));
        for (name, options) in [
            ("syslog", &[][..]),
            ("json-file", &[("max-size", "0")]),
            ("json-file", &[("max-size", "-1")]),
            ("json-file", &[("max-size", "99999999999999g")]),
            ("json-file", &[("max-file", "0")]),
            ("", &[("max-file", "1000000000")]),
            ("json-file", &[("compress", "true")]),
        ] {
            assert!(of(name, options).is_err(), "{name} {options:?}");
        }
    }

    #[test]
    fn sizes_are_read_as_users_write_them() {
        for (text, bytes) in [("7", 7), ("2k", 2048), ("2KB", 2048), ("1g", 1 << 30)] {
            assert_eq!(size(text), Some(bytes), "{text}");
        }
        for text in ["", "k", "b", "1.5m", "m1", "é"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
