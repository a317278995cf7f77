//! Locks for git worktrees, as files.

pub mod service;
pub mod types;
