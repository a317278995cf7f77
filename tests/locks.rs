//! The contract of `locks/` and `flock/`, sentence by sentence, on a real mount.
//!
//! The comment over each test is the sentence of the contract that it proves. Who holds and who waits are processes of
//! their own: a test's process has threads and ancestors that the rules would see.

#[path = "support/mod.rs"]
mod support;

#[path = "locks/descriptor.rs"]
mod descriptor;
#[path = "locks/directories.rs"]
mod directories;
#[path = "locks/door.rs"]
mod door;
#[path = "locks/exclusion.rs"]
mod exclusion;
#[path = "locks/files.rs"]
mod files;
#[path = "locks/lease.rs"]
mod lease;
#[path = "locks/links.rs"]
mod links;
#[path = "locks/looking.rs"]
mod looking;
#[path = "locks/names.rs"]
mod names;
#[path = "locks/owner.rs"]
mod owner;
#[path = "locks/ranges.rs"]
mod ranges;
#[path = "locks/reading.rs"]
mod reading;
#[path = "locks/removing.rs"]
mod removing;
#[path = "locks/scratch.rs"]
mod scratch;
#[path = "locks/taking.rs"]
mod taking;
#[path = "locks/text.rs"]
mod text;
