//! Locks for git worktrees, as files.
//!
//! # The problem
//!
//! Programs that share a repository need to take turns, and the tools at hand each lack something. A lock file goes
//! stale when its maker dies. A kernel flock cannot, but nobody can see who waits for it, nobody can go first, and two
//! programs that lock in different dialects do not exclude each other. A lock server needs a client in every script and
//! a lease that is either too short or too long.
//!
//! Here a directory is the lock server: a FUSE filesystem at `$(git rev-parse --git-common-dir)/.git-locks`. The kernel
//! tells it of every open, write, flock and close, so one engine in memory arbitrates all dialects fairly, with
//! priorities, scopes, deadlock detection and fencing tokens, and shell tools need no client. A lock that a descriptor
//! holds cannot go stale: when a process dies, however it dies, the kernel closes its descriptors.
//!
//! What a user meets is written in the man page git-lockfs(5), which is the contract; `tests/manual.rs` holds page,
//! program and mounted tree together.
//!
//! # The way of a request
//!
//! The kernel writes a request; [`fuse`] decodes it into a [`service::api::Call`], plain data; the [`service`] stamps
//! the time, resolves the path through [`view`], turns the call into a command of the [`engine`] and carries out the
//! effects that come back. One call gets one answer, at once or, when it waits for a lock, later and under the same
//! name, so that a signal can end the wait. Between the two nothing blocks: no thread sleeps on behalf of a waiter.
//!
//! # The layers
//!
//! Imports go strictly downward; `tests/tidy.rs` refuses the others.
//!
//! | rank | module | holds |
//! | --- | --- | --- |
//! | 0 | [`types`] | names, modes, tokens, times: parsed once at the door, never re-checked |
//! | 1 | [`engine`] | the arbiter as a value: commands in, effects out |
//! | 1 | [`scopes`] | which locks a git command needs: the one table |
//! | 2 | [`metrics`] | what happened, folded into figures |
//! | 2 | [`ports`] | what the service needs from the outside, as traits |
//! | 3 | [`view`] | the tree: names, nodes, and the text of every file, written and parsed |
//! | 3 | [`adapters`] | the outside: clocks, processes, git, what must outlive the daemon |
//! | 4 | [`service`] | the driver: one mutex around the engine, one order of events, timers |
//! | 5 | [`fuse`] | the mount, the wire format, the request loop, the errno table |
//! | 6 | [`cli`] | the command line, one file a subcommand |
//!
//! * **Invariant of `types`:** a value that exists is valid.
//! * **Invariant of `engine`:** the same commands at the same ticks give the same effects. It knows no FUSE, file,
//!   clock, thread, git or errno; `now` is an argument. So it can be checked against a naive model, exhaustively in
//!   small worlds, and replayed.
//! * **Invariant of `scopes`:** a function of a command line and of what it is told about the repository. It runs no
//!   git, takes no lock, and orders its locks so that no two commands can wait for each other in a circle.
//! * **Invariant of `view`:** rendering changes nothing, and what is malformed is refused whole.
//! * **Invariant of `adapters`:** the only clock, and the only processes and files outside the mount. "Unknown" (a
//!   process that cannot be seen) counts as alive.
//! * **Invariant of `service`:** every effect leaves in the order in which the engine decided it, and nothing slow
//!   happens under the mutex.
//! * **Invariant of `fuse`:** it does not know how locks work. It sees the service only through [`service::api`], and
//!   its errno table is the only place with errno numbers.
//! * **Invariant of `cli`:** once a mount is up, subcommands speak to it only through its files, as any script would.
//!
//! # What shaped it
//!
//! * **Our own request loop.** A FUSE library that cannot deliver FUSE_INTERRUPT leaves a waiting process beyond the
//!   reach of SIGKILL. fuser mounts and negotiates; we read the requests ourselves.
//! * **Waiting happens in OPEN, never in LOOKUP or CREATE.** The kernel holds the directory's inode lock during the
//!   latter two, and one waiter would freeze the directory. So a name exists to LOOKUP whenever its lock cannot be
//!   granted at once; a CREATE that lost the race answers ESTALE, and the kernel comes back with OPEN.
//! * **A fresh node for each LOOKUP of a file that takes requests.** The kernel serialises write(2) by inode; many
//!   processes must be able to wait in `acquire` at once.
//! * **One reader.** RELEASE is asynchronous but reaches the queue before the same process's next request; a single
//!   reader keeps that order, so a try right after a close succeeds.
//! * **Two processes.** The supervisor mounts and keeps the kernel's device; the worker inherits it and does everything
//!   else. While no worker runs the kernel keeps the connection, the open files and the calls. The next worker replays
//!   the journal, to which each decision was written before anybody was told, and has the kernel send again what was
//!   not answered (FUSE_NOTIFY_RESEND, Linux 6.9). Before that it reads through a clone of the device, so that calls
//!   whose worker died end with an error instead of never.
//! * **The journal holds commands, not the engine.** The same commands at the same times give the same engine, so a unit
//!   of work writes the few bytes of what it was told, and what became of open files and waiting calls; node ids follow
//!   from names and need no bytes at all. That is one short write(2) for each call that changes something, and none for
//!   one that looks: a tenth of what taking and releasing a lock costs. Who is replaced on purpose leaves a snapshot
//!   alone, for another program may do otherwise with the same commands.
//! * **A worker that hangs is found by its heartbeat**, a page of memory in which its loop counts: one that stands still
//!   while requests lie unread, or within one, or whose watcher answers no question, or whose inspector comes no further
//!   with a piece of work, is ended and replaced.
//! * **Processes are pinned by pidfd** while their request is still unanswered, so that a reused PID is never
//!   mistaken for its former owner.

pub mod adapters;
pub mod cli;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod engine;
pub mod fuse;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod metrics;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod ports;
pub mod predict;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod scopes;
pub mod service;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod types;
#[deny(clippy::disallowed_methods, clippy::disallowed_types)]
pub mod view;
