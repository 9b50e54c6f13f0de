//! Generic runtimes.

use skep_proto::v1::GenericRuntimeSpec;

use crate::control::ApiError;

/// Shortest name of a runtime, in bytes.
const MIN_NAME: usize = 3;

/// Names of runtimes that are not generic.
const RESERVED: [&str; 2] = ["container", "attachment"];

pub fn check(spec: &GenericRuntimeSpec) -> Result<(), ApiError> {
    let kind = &spec.kind;
    if kind.len() < MIN_NAME {
        return Err(ApiError::invalid(format!(
            "Generic runtime: Invalid name {kind:?}"
        )));
    }
    if RESERVED.contains(&kind.to_lowercase().as_str()) {
        return Err(ApiError::invalid(format!(
            "Generic runtime: {kind:?} is a reserved name"
        )));
    }
    match &spec.payload {
        None => Err(ApiError::invalid("Generic runtime is missing payload")),
        Some(payload) if payload.type_url.is_empty() => {
            Err(ApiError::invalid("Generic runtime is missing payload type"))
        }
        Some(payload) if payload.value.is_empty() => {
            Err(ApiError::invalid("Generic runtime has an empty payload"))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use skep_proto::Any;

    use super::*;
    use crate::control::testing::text;

    #[test]
    fn names_and_payloads() {
        let check_one = |kind: &str, payload: Option<(&str, &[u8])>, expected: &str| {
            let spec = GenericRuntimeSpec {
                kind: kind.into(),
                payload: payload.map(|(type_url, value)| Any {
                    type_url: type_url.into(),
                    value: value.to_vec(),
                }),
            };
            assert_eq!(text(check(&spec)), expected);
        };
        check_one("job", Some(("t", b"v")), "");
        check_one(
            "jo",
            Some(("t", b"v")),
            "Generic runtime: Invalid name \"jo\"",
        );
        check_one("", None, "Generic runtime: Invalid name \"\"");
        check_one(
            "container",
            None,
            "Generic runtime: \"container\" is a reserved name",
        );
        check_one(
            "Attachment",
            None,
            "Generic runtime: \"Attachment\" is a reserved name",
        );
        check_one("job", None, "Generic runtime is missing payload");
        check_one(
            "job",
            Some(("", b"v")),
            "Generic runtime is missing payload type",
        );
        check_one(
            "job",
            Some(("t", b"")),
            "Generic runtime has an empty payload",
        );
    }
}
