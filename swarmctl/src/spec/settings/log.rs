//! Where the output of tasks goes.

use clap::Args;
use skep_proto::v1::Driver;

use crate::spec::values;

/// The log driver of a service, or of all services that have none; `None` is "not said".
#[derive(Debug, Clone, Default, Args)]
pub struct LogFlags {
    /// Driver that takes the output of tasks; empty for the default
    #[arg(long, value_name = "NAME")]
    pub log_driver: Option<String>,
    /// Option of the log driver
    #[arg(long = "log-opt", value_name = "KEY=VALUE", value_parser = values::pair)]
    pub log_options: Vec<(String, String)>,
}

impl LogFlags {
    /// Whether anything was said.
    pub(crate) fn is_said(&self) -> bool {
        self.log_driver.is_some() || !self.log_options.is_empty()
    }

    /// Changes a driver. Its options belong to it: another one starts without.
    pub(crate) fn change(&self, driver: &mut Option<Driver>) {
        match self.log_driver.as_deref() {
            None => {}
            Some("") => *driver = None,
            Some(name) if driver.as_ref().is_some_and(|driver| driver.name == name) => {}
            Some(name) => {
                *driver = Some(Driver {
                    name: name.to_owned(),
                    ..Default::default()
                });
            }
        }
        if !self.log_options.is_empty() {
            let options = &mut driver.get_or_insert_default().options;
            options.extend(self.log_options.iter().cloned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_belong_to_their_driver() {
        let mut driver = None;
        let mut change = |name: Option<&str>, options: &[(&str, &str)], expected: &str| {
            LogFlags {
                log_driver: name.map(str::to_owned),
                log_options: options
                    .iter()
                    .map(|&(key, value)| (key.to_owned(), value.to_owned()))
                    .collect(),
            }
            .change(&mut driver);
            let text = driver.as_ref().map_or("none".to_owned(), |driver| {
                format!("{} {:?}", driver.name, driver.options)
            });
            assert_eq!(text, expected);
        };
        change(None, &[], "none");
        change(
            Some("json-file"),
            &[("max-size", "1m")],
            r#"json-file {"max-size": "1m"}"#,
        );
        change(Some("json-file"), &[], r#"json-file {"max-size": "1m"}"#);
        change(
            None,
            &[("max-file", "2")],
            r#"json-file {"max-file": "2", "max-size": "1m"}"#,
        );
        change(Some("syslog"), &[], "syslog {}");
        change(Some(""), &[], "none");
    }
}
