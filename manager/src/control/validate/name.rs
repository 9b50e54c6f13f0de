//! Names of objects.

use crate::control::ApiError;

/// Longest name of a service or network: that of a DNS label.
const MAX_DNS_LABEL: usize = 63;

/// Longest name of a secret or config.
const MAX_PAYLOAD_NAME: usize = 64;

/// The name of a service or network: `^[a-zA-Z0-9](?:[-_]*[A-Za-z0-9]+)*$`, at most 63 characters.
pub fn dns(name: &str) -> Result<(), ApiError> {
    if name.is_empty() {
        return Err(ApiError::invalid("meta: name must be provided"));
    }
    if !made_of(name, "-_") {
        return Err(ApiError::invalid(
            "name must be valid as a DNS name component",
        ));
    }
    if name.len() > MAX_DNS_LABEL {
        return Err(ApiError::invalid("name must be 63 characters or fewer"));
    }
    Ok(())
}

/// The name of a secret or config: `^[a-zA-Z0-9]+(?:[a-zA-Z0-9-_.]*[a-zA-Z0-9])?$`, at most 64
/// characters.
pub fn of_payload(name: &str) -> Result<(), ApiError> {
    if name.is_empty() {
        return Err(ApiError::invalid("name must be provided"));
    }
    if name.len() > MAX_PAYLOAD_NAME || !made_of(name, "-_.") {
        return Err(ApiError::invalid(
            "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end \
             character must be [a-zA-Z0-9]",
        ));
    }
    Ok(())
}

/// Whether all is ASCII letters, digits and `between`, the latter neither first nor last.
fn made_of(name: &str, between: &str) -> bool {
    let alphanumeric = |byte: Option<u8>| byte.is_some_and(|b| b.is_ascii_alphanumeric());
    alphanumeric(name.bytes().next())
        && alphanumeric(name.bytes().next_back())
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || between.contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::testing::text;

    #[test]
    fn dns_names() {
        let check = |name: &str, expected: &str| assert_eq!(text(dns(name)), expected, "{name:?}");
        let invalid = "name must be valid as a DNS name component";
        check("", "meta: name must be provided");
        check("a", "");
        check("Web-1_x", "");
        check("a--b__c-_d", "");
        check("-a", invalid);
        check("a-", invalid);
        check("a_", invalid);
        check("a.b", invalid);
        check("a b", invalid);
        check("é", invalid);
        check("a\n", invalid);
        check(&"a".repeat(63), "");
        check(&"a".repeat(64), "name must be 63 characters or fewer");
        check(&"-".repeat(64), invalid);
    }

    #[test]
    fn payload_names() {
        let check =
            |name: &str, expected: &str| assert_eq!(text(of_payload(name)), expected, "{name:?}");
        let invalid = "invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and \
                       end character must be [a-zA-Z0-9]";
        check("", "name must be provided");
        check("a", "");
        check("a.b-c_D", "");
        check(".a", invalid);
        check("a.", invalid);
        check("a/b", invalid);
        check(&"a".repeat(64), "");
        check(&"a".repeat(65), invalid);
    }
}
