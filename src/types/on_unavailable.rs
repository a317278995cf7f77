//! What the hook that guards refs does when no daemon answers.

use serde::{Deserialize, Serialize};

/// What becomes of a ref update when nobody can say who holds its lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnUnavailable {
    /// It goes on.
    Allow,
    /// It goes on, and standard error says so.
    Warn,
    /// It is refused.
    Deny,
}

impl OnUnavailable {
    /// Parses the word for it.
    pub fn parse(text: &str) -> Option<Self> {
        match text.to_ascii_lowercase().as_str() {
            "allow" => Some(Self::Allow),
            "warn" => Some(Self::Warn),
            "deny" => Some(Self::Deny),
            _ => None,
        }
    }
}
