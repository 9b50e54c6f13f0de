//! Faults that are planted on purpose, to prove that the simulator finds them. They sit in the
//! simulator's shell and disk, never in the code that ships.

use std::fmt;

/// One planted fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mutation {
    /// The disk says that something is durable before it is.
    SkipSync,
    /// Writes are acknowledged when they are proposed.
    AcknowledgeEarly,
    /// A write gives an object the version that it had before.
    ReuseVersion,
    /// One member loses a change of an entry that it applies.
    DropChange,
    /// A vote is forgotten in a restart.
    VoteTwice,
    /// Reads are answered without asking whether this member still leads.
    StaleRead,
    /// The disk says that it has dropped old entries, and keeps them.
    KeepDropped,
}

impl Mutation {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::SkipSync,
        Self::AcknowledgeEarly,
        Self::ReuseVersion,
        Self::DropChange,
        Self::VoteTwice,
        Self::StaleRead,
        Self::KeepDropped,
    ];

    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::SkipSync => "skip-sync",
            Self::AcknowledgeEarly => "acknowledge-early",
            Self::ReuseVersion => "reuse-version",
            Self::DropChange => "drop-change",
            Self::VoteTwice => "vote-twice",
            Self::StaleRead => "stale-read",
            Self::KeepDropped => "keep-dropped",
        }
    }
}

impl fmt::Display for Mutation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Mutation {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|known| known.name() == name);
        found.ok_or_else(|| {
            let names = Self::ALL.map(Self::name).join(", ");
            format!("there is no mutation {name:?}; there are {names}")
        })
    }
}
