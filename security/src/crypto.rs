//! The one crypto provider.
