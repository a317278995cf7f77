//! Processes as the outside of a lock: who called, who is an ancestor of whom, who is still alive.
//!
//! A PID is only a number that the kernel gives away again. So [`Processes`] pins each process that matters with a
//! pidfd and gives it a [`ProcessId`](crate::types::ProcessId) of our own; a later process with the same PID gets
//! another one. What makes this harder than it looks, and who answers it:
//!
//! 1. The kernel names a caller by its *thread*; the process must be found while the thread is known to be alive
//!    ([`Processes::pin`]).
//! 2. Between reading a PID somewhere and opening it, that PID can change hands; every such step is checked again
//!    after the pidfd is had (`registry`, `ancestry`, `owner`).
//! 3. A PID that was *written* means something in the writer's PID namespace only ([`Processes::check_owner`]).
//! 4. /proc can show a process's memory and files; a look at them must not wait for that process, and above all not
//!    for ourselves (`facts`, `open_files`).
//!
//! Linux 5.10 is enough; the ioctls of newer kernels (6.13, 6.15) are tried first and spare reads of /proc. Nothing
//! here knows locks, leases or requests.

mod ancestry;
mod confinement;
mod facts;
mod open_files;
mod owner;
pub(super) mod pidfd;
mod procfs;
mod registry;
#[cfg(test)]
pub(super) mod testing;

pub use confinement::Confinement;
pub use facts::{is_single_threaded, nice_of, operation_of, session_of, uid_of};
pub use open_files::{OpenFile, distinct_files, open_everywhere, open_files};
pub use owner::OwnerError;
pub use pidfd::ExitKind;
pub use registry::{PROCESSES_MAX, Pinned, Processes, Trail, raise_descriptor_limit};
