//! The programs that people really use, on a real mount: each takes, is refused, waits and gives back as it does on any
//! other filesystem. A program that is missing fails its test with the name of its package.

#[path = "support/mod.rs"]
mod support;

#[path = "clients/counter.rs"]
mod counter;
#[path = "clients/lockfile_tools.rs"]
mod lockfile_tools;
#[path = "clients/python.rs"]
mod python;
#[path = "clients/shells.rs"]
mod shells;
#[path = "clients/stress.rs"]
mod stress;
#[path = "clients/util_linux.rs"]
mod util_linux;
