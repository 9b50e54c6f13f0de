//! Cluster specs.

use skep_proto::v1::ClusterSpec;
use skep_raft::Ticks;

use super::nanos;
use crate::control::ApiError;

/// The name of every cluster.
pub const NAME: &str = "default";

/// Shortest life of a node certificate, in nanoseconds: 1 h.
const MIN_NODE_CERT_EXPIRY: i128 = 3600 * 1_000_000_000;

pub fn check(spec: &ClusterSpec) -> Result<(), ApiError> {
    if spec.annotations().name != NAME {
        return Err(ApiError::invalid(
            "modification of cluster name is not allowed",
        ));
    }
    let ca = spec.ca_config();
    if ca.node_cert_expiry.is_some() && nanos(ca.node_cert_expiry.as_ref()) < MIN_NODE_CERT_EXPIRY {
        return Err(ApiError::invalid(
            "minimum certificate expiry time is: 1h0m0s",
        ));
    }
    if ca.signing_ca_cert.is_empty() && !ca.signing_ca_key.is_empty() {
        return Err(ApiError::invalid(
            "if a signing CA key is provided, the signing CA cert must also be provided",
        ));
    }
    if let Some(algorithm) = unsupported_hash(spec) {
        return Err(ApiError::invalid(format!(
            "hashing algorithm is not supported: {algorithm}"
        )));
    }
    if nanos(spec.dispatcher().heartbeat_period.as_ref()) < 0 {
        return Err(ApiError::invalid(
            "heartbeat time period cannot be a negative duration",
        ));
    }
    if let Some(raft) = &spec.raft {
        Ticks::of(raft).map_err(ApiError::invalid)?;
    }
    Ok(())
}

/// The algorithm of an admission secret that is not hashed with bcrypt. Nobody uses these secrets
/// since there are join tokens, but clients may still send them.
#[allow(deprecated)]
fn unsupported_hash(spec: &ClusterSpec) -> Option<&str> {
    spec.acceptance_policy
        .iter()
        .flat_map(|policy| &policy.policies)
        .filter_map(|policy| policy.secret.as_ref())
        .map(|secret| secret.alg.as_str())
        .find(|algorithm| !algorithm.eq_ignore_ascii_case("bcrypt"))
}

#[cfg(test)]
mod tests {
    use skep_proto::{
        Duration,
        v1::{
            AcceptancePolicy, Annotations,
            acceptance_policy::{RoleAdmissionPolicy, role_admission_policy::Secret},
        },
    };

    use super::*;
    use crate::control::testing::text;

    fn check_changed(change: impl FnOnce(&mut ClusterSpec), expected: &str) {
        let mut spec = ClusterSpec {
            annotations: Some(Annotations {
                name: NAME.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        change(&mut spec);
        assert_eq!(text(check(&spec)), expected);
    }

    fn seconds(seconds: i64) -> Option<Duration> {
        Some(Duration { seconds, nanos: 0 })
    }

    #[test]
    fn specs() {
        check_changed(|_| {}, "");
        check_changed(
            |spec| spec.annotations_mut().name = "other".into(),
            "modification of cluster name is not allowed",
        );
        check_changed(
            |spec| spec.ca_config_mut().node_cert_expiry = seconds(3600),
            "",
        );
        for short in [3599, 0, -1] {
            check_changed(
                |spec| spec.ca_config_mut().node_cert_expiry = seconds(short),
                "minimum certificate expiry time is: 1h0m0s",
            );
        }
        check_changed(
            |spec| spec.dispatcher_mut().heartbeat_period = seconds(0),
            "",
        );
        check_changed(
            |spec| spec.dispatcher_mut().heartbeat_period = seconds(-1),
            "heartbeat time period cannot be a negative duration",
        );
        check_changed(
            |spec| spec.ca_config_mut().signing_ca_key = "key".into(),
            "if a signing CA key is provided, the signing CA cert must also be provided",
        );
    }

    #[test]
    fn raft_ticks() {
        check_changed(|spec| spec.raft = Some(Default::default()), "");
        check_changed(
            |spec| spec.raft_mut().election_tick = 10,
            "raft heartbeat tick and election tick must not be 0",
        );
        let ticks = |heartbeat, election| {
            move |spec: &mut ClusterSpec| {
                spec.raft_mut().heartbeat_tick = heartbeat;
                spec.raft_mut().election_tick = election;
            }
        };
        check_changed(ticks(1, 3), "");
        check_changed(
            ticks(10, 10),
            "raft election tick must be greater than heartbeat tick, and 10 is not greater than 10",
        );
        check_changed(
            ticks(1, 10_000),
            "raft election tick must be at most 6000, and 10000 is greater",
        );
    }

    #[test]
    #[allow(deprecated)]
    fn admission_secrets() {
        let policy = |algorithm: &str| {
            Some(AcceptancePolicy {
                policies: vec![
                    RoleAdmissionPolicy::default(),
                    RoleAdmissionPolicy {
                        secret: Some(Secret {
                            alg: algorithm.into(),
                            ..Default::default()
                        }),
                        ..Default::default()
                    },
                ],
            })
        };
        check_changed(|spec| spec.acceptance_policy = policy("bcrypt"), "");
        check_changed(|spec| spec.acceptance_policy = policy("BCrypt"), "");
        check_changed(
            |spec| spec.acceptance_policy = policy("md5"),
            "hashing algorithm is not supported: md5",
        );
        check_changed(
            |spec| spec.acceptance_policy = policy(""),
            "hashing algorithm is not supported: ",
        );
    }
}
