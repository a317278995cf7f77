//! Every way a request can be refused, as facts; `fuse::errno` gives each its number.

use serde::{Deserialize, Serialize};

/// Why a request was refused. The sentence for the user is made where the refusal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// Nothing of that name: the lock is free, or there is no such file.
    Absent,
    /// O_EXCL, mkdir, symlink, link, rename: the lock is taken.
    Taken,
    /// O_NONBLOCK, LOCK_NB, `wait=0`: it cannot be had now.
    WouldBlock,
    /// The wait limit passed.
    TimedOut,
    /// A signal ended the wait.
    Interrupted,
    /// Waiting would close a circle.
    Deadlock,
    /// Malformed text, name, key, verb, configuration.
    Malformed,
    /// The PID written is no live process that the writer can see.
    NoSuchProcess,
    /// Not yours: another user's lock, PID 1, a kernel thread.
    NotYours,
    /// Not for this caller: not the mount's owner, or more confined than the daemon.
    Denied,
    /// Held by another process that lives.
    HeldByOther,
    /// Too much text.
    TooLong,
    /// A name longer than 255 bytes.
    NameTooLong,
    /// A table is at its bound.
    Full,
    /// Too many open files.
    TooManyHandles,
    /// The handle lost its lock, or the kernel must look the name up again.
    Stale,
    /// Not a directory.
    NotDirectory,
    /// A directory.
    IsDirectory,
    /// The directory is not empty.
    NotEmpty,
    /// The handle was not opened for that.
    BadHandle,
    /// A transaction or scratch file cannot do that.
    Unsupported,
    /// The call is unknown to this filesystem; the kernel falls back on its own.
    NoSuchCall,
    /// No extended attribute of that name.
    NoAttribute,
    /// The buffer is too small for the value.
    TooSmall,
    /// The filesystem is read-only there.
    ReadOnly,
    /// Something inside failed; the log says what.
    Internal,
}
