//! The contract of `locks/` and `flock/`, sentence by sentence, on a real mount.
//!
//! The comment over each test is the sentence of the contract that it proves.

#[path = "support/mod.rs"]
mod support;
