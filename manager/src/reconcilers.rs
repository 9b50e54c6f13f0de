//! Everything that the leader decides.
