//! The two roles of a node, as certificates name them.

use std::fmt;

use skep_proto::v1;

/// What a node may do in its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Runs tasks.
    Worker,
    /// Runs tasks and manages the cluster.
    Manager,
}

impl Role {
    /// The organisational unit that stands for this role in a certificate.
    pub const fn as_ou(self) -> &'static str {
        match self {
            Self::Worker => "swarm-worker",
            Self::Manager => "swarm-manager",
        }
    }

    /// The role an organisational unit stands for, if any.
    pub fn from_ou(ou: &str) -> Option<Self> {
        [Self::Worker, Self::Manager]
            .into_iter()
            .find(|role| role.as_ou() == ou)
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_ou())
    }
}

impl From<v1::NodeRole> for Role {
    fn from(role: v1::NodeRole) -> Self {
        match role {
            v1::NodeRole::Worker => Self::Worker,
            v1::NodeRole::Manager => Self::Manager,
        }
    }
}

impl From<Role> for v1::NodeRole {
    fn from(role: Role) -> Self {
        match role {
            Role::Worker => Self::Worker,
            Role::Manager => Self::Manager,
        }
    }
}
