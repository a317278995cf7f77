//! Every input of the engine, as plain data that a journal could keep.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::dir::FileChange;
use super::event::Event;
use crate::types::{
    Declared, GrantId, HandleId, LockName, Mode, Priority, ProcessId, Range, Refusal, SessionName, Settings, Text,
    Tick, TicketName, Token, Unique,
};

/// One lock that a request wants.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Claim {
    /// Which lock.
    pub lock: LockName,
    /// Shared or exclusive.
    pub mode: Mode,
    /// Which bytes of it.
    pub range: Range,
}

impl Claim {
    /// The whole lock in that mode.
    pub fn whole(lock: LockName, mode: Mode) -> Self {
        Self {
            lock,
            mode,
            range: Range::WHOLE,
        }
    }
}

/// Who asks or holds, as far as it is known. What is unknown counts as alive and as nobody else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Party {
    /// The thread that called; 0 when it cannot be seen from here.
    pub tid: u32,
    /// Its process; 0 until identified.
    pub pid: u32,
    /// The user it acts as.
    pub uid: u32,
    /// The process, pinned; `None` until identified or when it cannot be seen.
    pub process: Option<ProcessId>,
    /// The session it belongs to.
    pub session: Option<SessionName>,
    /// What it does, for people: `git merge`.
    pub op: Option<Arc<str>>,
    /// Whether the process has only the waiting thread, so that its wait stops all of it.
    pub solo: bool,
}

/// How a lock is taken, which decides how it ends and with what it never conflicts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Taking {
    /// open(2) for writing: ends with the handle.
    Open(HandleId),
    /// flock(2): belongs to the handle.
    Flock(HandleId),
    /// fcntl(2): belongs to the kernel's lock owner, set through a handle.
    Posix {
        /// The kernel's lock owner.
        owner: u64,
        /// The handle it came through.
        handle: HandleId,
    },
    /// A request written to `acquire`: ends with the handle.
    Transaction(HandleId),
    /// O_EXCL, mkdir, symlink, link, rename: outlives its maker's descriptor.
    Make(Make),
}

/// A lock made as a directory entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Make {
    /// The handle of an O_EXCL open.
    pub handle: Option<HandleId>,
    /// The maker and its ancestors, nearest first.
    pub keepers: Vec<ProcessId>,
    /// What it looks like to its keeper.
    pub shape: Shape,
    /// The text it comes with (symlink, link, rename).
    pub text: Option<Text>,
    /// The process that the text names as owner, pinned.
    pub owner: Option<ProcessId>,
    /// The inode number of the scratch file it was linked from.
    pub ino: Option<u64>,
}

/// What a lock looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// A regular file.
    File,
    /// A directory (mkdir).
    Directory,
    /// A symbolic link, to its maker only.
    Link,
}

/// How long a request waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until this tick of the monotonic clock.
    Until(Tick),
    /// As long as the caller does.
    Forever,
}

/// A request for locks: all together or none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acquire {
    /// The request's name while it waits.
    pub id: Unique,
    /// What it wants; at least one, no lock twice.
    pub claims: Vec<Claim>,
    /// How.
    pub taking: Taking,
    /// Who asks.
    pub party: Party,
    /// From where in the line it starts.
    pub priority: Priority,
    /// How long it waits.
    pub wait: Wait,
    /// A place that outlives the wait.
    pub ticket: Option<TicketName>,
    /// The caller and its ancestors, as far as pinned; may be empty (see [`Command::Promote`]).
    pub lineage: Vec<ProcessId>,
}

/// Who wants to remove, touch or rename a lock.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Actor {
    /// The calling thread; 0 when it cannot be seen.
    pub tid: u32,
    /// The user.
    pub uid: u32,
    /// The caller and its ancestors, as far as pinned.
    pub lineage: Vec<ProcessId>,
}

/// Which open handle's lock, or which lock by name, a text belongs to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Target {
    /// What the handle holds.
    Handle(HandleId),
    /// The lock made as a directory entry.
    Name(LockName),
}

/// An input of the engine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Asks for locks.
    Acquire(Acquire),
    /// A signal ended the wait of a request.
    Cancel(Unique),
    /// The driver found that a waiting request must not wait on.
    Deny(Unique, Refusal),
    /// The waiting request's ancestors, pinned: it goes ahead of waiters for a scope that one of them holds.
    Promote { request: Unique, lineage: Vec<ProcessId> },
    /// LOCK_UN of flock(2).
    Unflock { lock: LockName, handle: HandleId },
    /// F_UNLCK of fcntl(2).
    Unlock {
        lock: LockName,
        owner: u64,
        handle: HandleId,
        range: Range,
    },
    /// One copy of a descriptor was closed: the POSIX locks of that owner on that lock go.
    Flush { lock: LockName, owner: u64 },
    /// The last copy was closed: what was set through the handle goes, unless it outlives it.
    Close(HandleId),
    /// A text that declares an owner (or none: a lease kept by `keepers`).
    Declare {
        target: Target,
        text: Text,
        owner: Option<ProcessId>,
        keepers: Vec<ProcessId>,
    },
    /// Free text behind what was declared.
    Note {
        target: Target,
        #[serde(with = "serde_bytes")]
        note: Vec<u8>,
    },
    /// The first text was refused: the handle's lock ends with the handle, whatever the way it was taken.
    Spoil(HandleId),
    /// futimens(2) on a handle that took its lock by open makes it a lease.
    Touch {
        handle: HandleId,
        keepers: Vec<ProcessId>,
        mtime: Option<(i64, u32)>,
    },
    /// utimensat(2) by name: renews.
    Renew {
        lock: LockName,
        actor: Actor,
        mtime: Option<(i64, u32)>,
    },
    /// A file in a lock made by mkdir.
    ChangeFile {
        lock: LockName,
        file: LockName,
        change: FileChange,
        actor: Actor,
    },
    /// unlink(2), rmdir(2).
    Remove { lock: LockName, actor: Actor },
    /// `break` in `control`.
    Break { lock: LockName, token: Token },
    /// `release-session` in `control`.
    ReleaseSession(SessionName),
    /// `withdraw` in `control`.
    Withdraw(TicketName),
    /// `drain` and `resume` in `control`.
    Drain(bool),
    /// New settings.
    Configure(Settings),
    /// Tokens up to this one are reserved where they outlive a crash; who waited for one is granted.
    ExtendTokens(Token),
    /// A pinned process is gone.
    Exited { process: ProcessId, cleanly: bool },
    /// Who a holder turned out to be.
    IdentifyGrant(GrantId, Party),
    /// The process that has a grant in its taker's place: the owner that a text declared, the keeper of a lease, who
    /// opened the descriptor.
    OwnedBy(GrantId, Party),
    /// Who took a lock could not be identified, because it is gone.
    TakerGone(GrantId),
    /// Who a waiter turned out to be.
    IdentifyRequest(Unique, Party),
    /// Time passed.
    Advance,
}

/// What a command can leave behind, for whoever keeps the commands to carry them out again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// It must be kept.
    Always,
    /// When it is refused and nothing follows from it for others, it was as if it had never been given.
    IfDone,
    /// When nothing follows from it for others, it was as if it had never been given.
    IfFelt,
}

impl Command {
    /// What it can leave behind.
    ///
    /// Time that passes with a command passes with the next one as well, so it alone is no reason to keep one.
    pub fn trace(&self) -> Trace {
        match self {
            // A wait that was refused may have used up the place of an interrupted one, and a ticket is kept.
            Self::Acquire(acquire) if acquire.wait != Wait::No || acquire.ticket.is_some() => Trace::Always,
            Self::Acquire(_)
            | Self::Unlock { .. }
            | Self::Declare { .. }
            | Self::Note { .. }
            | Self::Renew { .. }
            | Self::ChangeFile { .. }
            | Self::Remove { .. }
            | Self::Break { .. } => Trace::IfDone,
            // What a flush takes away is always whole, and each end of a lock is told.
            Self::Flush { .. } | Self::Unflock { .. } | Self::Advance => Trace::IfFelt,
            _ => Trace::Always,
        }
    }
}

/// What a command that was not refused gets at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It is done.
    Done,
    /// The locks are held.
    Granted(Token),
    /// The request waits; an effect will tell.
    Waiting,
    /// So many were released.
    Released(usize),
}

/// What follows from a command for others than its caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// A waiting request was granted.
    Granted { request: Unique, token: Token },
    /// A waiting request was refused.
    Refused { request: Unique, refusal: Refusal },
    /// A handle lost a lock that it held: broken, or its lease ended.
    Lost { handle: HandleId, lock: LockName },
    /// Someone waits for what the transaction behind this handle holds.
    Wanted { handle: HandleId, request: Unique },
    /// Who had a grant is gone, and another process has it now: who that is, is to be found out and told with
    /// [`Command::OwnedBy`] or [`Command::TakerGone`].
    Passed(GrantId),
    /// For observers.
    Event(Event),
}

/// The declared owner of a grant and the note behind it, for reading.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderText {
    /// The first line, if one was written.
    pub declared: Option<Declared>,
    /// What follows.
    #[serde(with = "serde_bytes")]
    pub note: Vec<u8>,
}
