//! Locks for git worktrees, as files.

pub mod adapters;
pub mod cli;
pub mod engine;
pub mod fuse;
pub mod predict;
pub mod service;
pub mod types;
pub mod view;
