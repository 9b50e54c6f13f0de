//! Secrets and configs.

use skep_proto::v1::{ConfigSpec, SecretSpec};

use super::name;
use crate::control::ApiError;

/// A secret must be shorter than this, in bytes (SwarmKit's limit).
const SECRET_LIMIT: usize = 512_000;

/// A config must be shorter than this, in bytes (SwarmKit's limit).
const CONFIG_LIMIT: usize = 1_024_000;

pub fn secret_id(id: &str) -> Result<(), ApiError> {
    if id.is_empty() {
        return Err(ApiError::invalid("secret ID must be provided"));
    }
    Ok(())
}

pub fn config_id(id: &str) -> Result<(), ApiError> {
    if id.is_empty() {
        return Err(ApiError::invalid("config ID must be provided"));
    }
    Ok(())
}

pub fn secret(spec: &SecretSpec) -> Result<(), ApiError> {
    name::of_payload(&spec.annotations().name)?;
    match &spec.driver {
        Some(driver) if driver.name.is_empty() => {
            Err(ApiError::invalid("secret driver must have a name"))
        }
        // The driver has the data.
        Some(_) => Ok(()),
        None => secret_size(&spec.data),
    }
}

/// Also for data that does not come from a client.
pub(crate) fn secret_size(data: &[u8]) -> Result<(), ApiError> {
    size("secret", data.len(), SECRET_LIMIT)
}

pub fn config(spec: &ConfigSpec) -> Result<(), ApiError> {
    name::of_payload(&spec.annotations().name)?;
    size("config", spec.data.len(), CONFIG_LIMIT)
}

pub fn labels_only() -> ApiError {
    ApiError::invalid("only updates to Labels are allowed")
}

/// Whether two secrets are the same, in a time that does not tell where they differ.
pub fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

fn size(what: &str, bytes: usize, limit: usize) -> Result<(), ApiError> {
    if (1..limit).contains(&bytes) {
        return Ok(());
    }
    Err(ApiError::invalid(format!(
        "{what} data must be larger than 0 and less than {limit} bytes"
    )))
}

#[cfg(test)]
mod tests {
    use skep_proto::v1::{Annotations, Driver};

    use super::*;
    use crate::control::testing::text;

    #[test]
    fn secrets() {
        let check = |name: &str, size: usize, driver: Option<&str>, expected: &str| {
            let spec = SecretSpec {
                annotations: Some(Annotations {
                    name: name.into(),
                    ..Default::default()
                }),
                data: vec![1; size].into(),
                driver: driver.map(|name| Driver {
                    name: name.into(),
                    ..Default::default()
                }),
                ..Default::default()
            };
            assert_eq!(text(secret(&spec)), expected, "{name:?} {size} {driver:?}");
        };
        let size = "secret data must be larger than 0 and less than 512000 bytes";
        check("s", 1, None, "");
        check("s", 511_999, None, "");
        check("s", 512_000, None, size);
        check("s", 0, None, size);
        check("s", 0, Some("vault"), "");
        check("s", 0, Some(""), "secret driver must have a name");
        check("", 1, None, "name must be provided");
    }

    #[test]
    fn configs() {
        let check = |name: &str, size: usize, expected: &str| {
            let spec = ConfigSpec {
                annotations: Some(Annotations {
                    name: name.into(),
                    ..Default::default()
                }),
                data: vec![1; size].into(),
                ..Default::default()
            };
            assert_eq!(text(config(&spec)), expected, "{name:?} {size}");
        };
        let size = "config data must be larger than 0 and less than 1024000 bytes";
        check("c", 1, "");
        check("c", 1_023_999, "");
        check("c", 1_024_000, size);
        check("c", 0, size);
        check("", 1, "name must be provided");
    }

    #[test]
    fn sameness() {
        assert!(same(b"abc", b"abc"));
        assert!(!same(b"abc", b"abd"));
        assert!(!same(b"abc", b"ab"));
        assert!(same(b"", b""));
    }
}
