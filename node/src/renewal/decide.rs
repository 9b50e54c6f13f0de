//! When the next certificate is asked for, and why.

use std::time::{Duration, SystemTime};

use skep_proto::v1;
use skep_security::Role;

/// Between these parts of its life a certificate is renewed (SwarmKit's numbers).
const EARLIEST: f64 = 0.5;
const LATEST: f64 = 0.8;

/// How long a reason that came up has to last before a manager is asked (SwarmKit's number).
const SETTLE: Duration = Duration::from_millis(500);

/// Bounds of the pause after failures: 5 s + 5 s * 2^(failures - 1), at most an hour.
const BACKOFF: Duration = Duration::from_secs(5);
const MAX_BACKOFF: Duration = Duration::from_secs(3600);

/// Why there should be another certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// The node is to have this role and has another.
    Role(Role),
    /// Its manager was removed from its cluster: the certificate does not count as a manager's any
    /// more, and another one is to say what the node is now.
    Removed(Role),
    /// A manager asks for it, with the version of the node object that says so.
    Rotation(u64),
    /// The private key may have been read.
    Exposed,
    /// The certificate is old.
    Age,
}

impl Cause {
    /// The role that the new certificate must have.
    pub(super) fn expects(self) -> Option<Role> {
        match self {
            Self::Role(role) | Self::Removed(role) => Some(role),
            Self::Rotation(_) | Self::Exposed | Self::Age => None,
        }
    }
}

/// What is known of this node.
#[derive(Clone, Debug)]
pub(super) struct Facts {
    pub(super) now: SystemTime,
    /// Of the certificate in use.
    pub(super) valid_from: SystemTime,
    pub(super) expires_at: SystemTime,
    pub(super) role: Role,
    /// The newest node object that a manager has sent.
    pub(super) told: Option<Told>,
    /// Whether its manager was removed while it had this certificate.
    pub(super) removed: bool,
    /// Whether the private key was on disk in plain before it was locked.
    pub(super) exposed: bool,
    /// From 0 to 1, chosen once for each certificate: where in its life it is renewed.
    pub(super) point: f64,
}

/// What a node object says of its node's certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) version: u64,
    pub(super) role: Role,
    pub(super) desired_role: Role,
    pub(super) rotate: bool,
}

impl Told {
    pub(super) fn of(node: &v1::Node) -> Option<Self> {
        let spec = node.spec.as_ref()?;
        let state = node.certificate().status().state();
        Some(Self {
            version: node.meta().version().index,
            role: node.role().into(),
            desired_role: spec.desired_role().into(),
            rotate: state == v1::issuance_status::State::Rotate,
        })
    }
}

/// Why to ask next, and after how long if nothing changes and nothing has failed. `done` is the
/// version of the node object that the last certificate was asked for with: a rotation that it asked
/// for is over.
pub(super) fn next(facts: &Facts, done: u64) -> (Cause, Duration) {
    match forced(facts, done) {
        Some(cause) => (cause, SETTLE),
        None => {
            let due = due(facts).duration_since(facts.now);
            (Cause::Age, due.unwrap_or_default())
        }
    }
}

fn forced(facts: &Facts, done: u64) -> Option<Cause> {
    if let Some(told) = facts.told {
        // The CA goes by the role that the node has, which follows the desired one when the cluster is
        // ready for it: asking before that would be in vain.
        let settled = told.role == told.desired_role;
        if settled && facts.removed {
            return Some(Cause::Removed(told.role));
        }
        if settled && told.role != facts.role {
            return Some(Cause::Role(told.role));
        }
        if told.rotate && told.version > done {
            return Some(Cause::Rotation(told.version));
        }
    }
    facts.exposed.then_some(Cause::Exposed)
}

/// The moment in a certificate's life when it is renewed, in whole minutes of its age.
fn due(facts: &Facts) -> SystemTime {
    let life = facts.expires_at.duration_since(facts.valid_from);
    let part = EARLIEST + (LATEST - EARLIEST) * facts.point.clamp(0.0, 1.0);
    let minutes = life.unwrap_or_default().mul_f64(part).as_secs() / 60;
    facts.valid_from + Duration::from_secs(minutes * 60)
}

/// The pause after so many failures in a row; `random` is from 0 to 1.
pub(super) fn backoff(failures: u32, random: f64) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let doubled = BACKOFF.saturating_mul(2_u32.saturating_pow(failures - 1));
    let limit = BACKOFF.saturating_add(doubled).min(MAX_BACKOFF);
    limit.mul_f64(random.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use Role::{Manager, Worker};

    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn facts(role: Role) -> Facts {
        let now = SystemTime::UNIX_EPOCH + 1_000_000 * HOUR;
        Facts {
            now,
            valid_from: now - HOUR,
            expires_at: now + 2160 * HOUR,
            role,
            told: None,
            removed: false,
            exposed: false,
            point: 0.0,
        }
    }

    fn told(version: u64, role: Role, desired_role: Role) -> Option<Told> {
        Some(Told {
            version,
            role,
            desired_role,
            rotate: false,
        })
    }

    #[test]
    fn a_certificate_is_renewed_between_half_and_four_fifths_of_its_life() {
        let mut facts = facts(Worker);
        let life = 2161 * HOUR;
        let (cause, first) = next(&facts, 0);
        assert_eq!((cause, first), (Cause::Age, life / 2 - HOUR));
        facts.point = 1.0;
        let (_, last) = next(&facts, 0);
        let exact = life.mul_f64(0.8) - HOUR;
        assert!(
            last <= exact && exact - last < Duration::from_secs(60),
            "{last:?}"
        );
        assert_eq!(last.as_secs() % 60, 0, "whole minutes");
        // Past that, and when it has expired, at once.
        facts.now = facts.valid_from + 2000 * HOUR;
        assert_eq!(next(&facts, 0), (Cause::Age, Duration::ZERO));
        facts.now = facts.expires_at + HOUR;
        assert_eq!(next(&facts, 0), (Cause::Age, Duration::ZERO));
    }

    #[test]
    fn a_role_that_the_cluster_has_settled_on_forces_a_renewal() {
        let mut facts = facts(Worker);
        facts.told = told(5, Worker, Manager);
        assert_eq!(
            next(&facts, 0).0,
            Cause::Age,
            "the CA would issue a worker's"
        );
        facts.told = told(6, Manager, Manager);
        assert_eq!(next(&facts, 0), (Cause::Role(Manager), SETTLE));
        assert_eq!(Cause::Role(Manager).expects(), Some(Manager));
        // Also if something was issued for an older object meanwhile.
        assert_eq!(next(&facts, 6).0, Cause::Role(Manager));
        facts.role = Manager;
        assert_eq!(next(&facts, 6).0, Cause::Age);
        // Demoted: a worker once it has left.
        facts.told = told(7, Manager, Worker);
        assert_eq!(next(&facts, 6).0, Cause::Age);
        facts.told = told(8, Worker, Worker);
        assert_eq!(next(&facts, 6).0, Cause::Role(Worker));
    }

    #[test]
    fn a_removed_manager_asks_what_it_is_now() {
        let mut facts = facts(Manager);
        facts.removed = true;
        assert_eq!(next(&facts, 0).0, Cause::Age, "nobody has told yet");
        facts.told = told(7, Manager, Worker);
        assert_eq!(next(&facts, 0).0, Cause::Age);
        facts.told = told(8, Worker, Worker);
        assert_eq!(next(&facts, 0).0, Cause::Removed(Worker));
        // Promoted again before it heard of its demotion.
        facts.told = told(9, Manager, Manager);
        assert_eq!(next(&facts, 0).0, Cause::Removed(Manager));
    }

    #[test]
    fn a_rotation_is_answered_once_for_each_time_it_is_asked_for() {
        let mut facts = facts(Worker);
        let rotating = |version| {
            told(version, Worker, Worker).map(|told| Told {
                rotate: true,
                ..told
            })
        };
        facts.told = rotating(5);
        assert_eq!(next(&facts, 0), (Cause::Rotation(5), SETTLE));
        assert_eq!(next(&facts, 5).0, Cause::Age, "that is the old news");
        // It was set again while the last certificate was fetched.
        facts.told = rotating(7);
        assert_eq!(next(&facts, 5).0, Cause::Rotation(7));
        facts.exposed = true;
        assert_eq!(next(&facts, 7).0, Cause::Exposed);
    }

    #[test]
    fn pauses_grow_to_an_hour() {
        assert_eq!(backoff(0, 1.0), Duration::ZERO);
        let limits = [1, 2, 3, 4].map(|failures| backoff(failures, 1.0).as_secs());
        assert_eq!(limits, [10, 15, 25, 45]);
        assert_eq!(backoff(3, 0.5), Duration::from_millis(12_500));
        assert_eq!(backoff(u32::MAX, 1.0), MAX_BACKOFF);
    }
}
