//! What the front asks of the service and what it gets back: file calls as plain data.
//!
//! One [`Call`] gets one [`Answer`], now or later; nothing here knows the wire format, an errno, or
//! how a lock works. A waiting call is named by its [`Unique`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::types::{HandleId, Mode, NodeId, Range, Refusal, Unique};

/// The most that one write(2) brings in one [`Call::Write`], in bytes; a longer one comes in pieces of exactly that size.
///
/// 31 pages: the kernel sends at most 32 pages at a time, and a buffer that does not begin at a page's start lies on one
/// more. With 32 it would cut such a buffer somewhere below the limit, and a piece could pass for a whole.
pub const WRITE_BYTES_MAX: usize = 31 * 4096;

/// Who calls, as the kernel tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The calling thread in our PID namespace; 0 when it cannot be seen from here.
    pub tid: u32,
    /// The filesystem user id.
    pub uid: u32,
    /// The filesystem group id.
    pub gid: u32,
}

/// What an open asks for, from its flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenMode {
    /// Read, write or both.
    pub access: Access,
    /// O_NONBLOCK.
    pub nonblock: bool,
    /// O_EXCL.
    pub exclusive: bool,
    /// O_APPEND.
    pub append: bool,
    /// O_TRUNC: empties small files; locks ignore it.
    pub truncate: bool,
}

/// The access mode of an open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// O_RDONLY.
    Read,
    /// O_WRONLY.
    Write,
    /// O_RDWR.
    Both,
}

/// Who owns a lock set through a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockStyle {
    /// flock(2): the open file description owns it.
    Flock,
    /// fcntl(2): the kernel's lock owner (a process, or a description for OFD locks).
    Posix(u64),
}

/// A time to set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// The current time.
    Now,
    /// Seconds and nanoseconds since 1970.
    At(i64, u32),
}

/// What SETATTR changes; everything not listed changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// truncate(2).
    pub size: Option<u64>,
    /// chown(2).
    pub uid: Option<u32>,
    /// chgrp(2).
    pub gid: Option<u32>,
    /// The modification time of utimensat(2).
    pub mtime: Option<Stamp>,
    /// The access time of utimensat(2); kept nowhere, but touch(1) sends both.
    pub atime: Option<Stamp>,
}

/// A file call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call<'a> {
    /// A name in a directory. Never waits.
    Lookup { parent: NodeId, name: &'a [u8] },
    /// The kernel drops `count` references to a node. No answer.
    Forget { node: NodeId, count: u64 },
    /// stat(2).
    GetAttr { node: NodeId },
    /// truncate(2), chmod(2), utimensat(2).
    SetAttr {
        node: NodeId,
        handle: Option<HandleId>,
        change: Change,
    },
    /// readlink(2).
    ReadLink { node: NodeId },
    /// symlink(2).
    Symlink {
        parent: NodeId,
        name: &'a [u8],
        target: &'a [u8],
    },
    /// mkdir(2).
    Mkdir { parent: NodeId, name: &'a [u8] },
    /// unlink(2).
    Unlink { parent: NodeId, name: &'a [u8] },
    /// rmdir(2).
    Rmdir { parent: NodeId, name: &'a [u8] },
    /// rename(2); `replace` is false for RENAME_NOREPLACE, exchanges are refused before.
    Rename {
        parent: NodeId,
        name: &'a [u8],
        new_parent: NodeId,
        new_name: &'a [u8],
    },
    /// link(2).
    Link {
        node: NodeId,
        parent: NodeId,
        name: &'a [u8],
    },
    /// open(2) of an existing name. May wait.
    Open { node: NodeId, mode: OpenMode },
    /// open(2) with O_CREAT of a name that did not exist. Never waits.
    Create {
        parent: NodeId,
        name: &'a [u8],
        mode: OpenMode,
    },
    /// read(2). Waits only on transaction files and `wait`.
    Read { handle: HandleId, offset: u64, size: u32 },
    /// write(2). Waits only on transaction files.
    Write {
        handle: HandleId,
        offset: u64,
        data: &'a [u8],
    },
    /// close(2) of one copy of a descriptor: drops the POSIX locks of that owner.
    Flush { handle: HandleId, owner: u64 },
    /// The last close of a handle.
    Release { handle: HandleId },
    /// opendir(3); the listing is taken here.
    OpenDir { node: NodeId },
    /// getdents(2): entries from index `offset` on.
    ReadDir { handle: HandleId, offset: u64 },
    /// closedir(3).
    ReleaseDir { handle: HandleId },
    /// getxattr(2): the value, if it fits into `room` bytes; with no room only its size.
    GetXattr { node: NodeId, name: &'a [u8], room: u32 },
    /// listxattr(2), in the same way.
    ListXattr { node: NodeId, room: u32 },
    /// F_GETLK.
    GetLock {
        node: NodeId,
        handle: HandleId,
        owner: u64,
        mode: Mode,
        range: Range,
    },
    /// flock(2), F_SETLK, F_SETLKW. `mode` None unlocks.
    SetLock {
        node: NodeId,
        handle: HandleId,
        style: LockStyle,
        mode: Option<Mode>,
        range: Range,
        wait: bool,
    },
    /// poll(2): `notify` carries the kernel's poll handle when it wants to be told of changes.
    Poll {
        handle: HandleId,
        notify: Option<u64>,
        events: u32,
    },
    /// A signal for a call that waits. No answer.
    Interrupt { target: Unique },
}

/// What kind of file a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Link,
}

/// What stat(2) shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attr {
    /// st_ino.
    pub ino: u64,
    /// The file type.
    pub kind: Kind,
    /// Permission bits.
    pub perm: u16,
    /// st_nlink, at least 1.
    pub nlink: u32,
    /// st_uid.
    pub uid: u32,
    /// st_gid.
    pub gid: u32,
    /// The true rendered length, in bytes.
    pub size: u64,
    /// mtime (also shown as atime and ctime): seconds and nanoseconds since 1970.
    pub mtime: (i64, u32),
    /// How long the kernel may keep name and attributes.
    pub ttl: Duration,
}

/// A name that resolved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// The node.
    pub node: NodeId,
    /// Its attributes.
    pub attr: Attr,
}

/// How the kernel should treat a handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The handle.
    pub handle: HandleId,
    /// A stream: no file position, reads and writes do not block each other.
    pub stream: bool,
    /// No FLUSH at close: nothing depends on it.
    pub quiet_close: bool,
}

/// One line of a directory listing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirEntry {
    /// d_ino.
    pub ino: u64,
    /// d_type.
    pub kind: Kind,
    /// d_name.
    pub name: String,
}

/// A lock in the way, as F_GETLK tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conflict {
    /// Its mode.
    pub mode: Mode,
    /// Its bytes.
    pub range: Range,
    /// Its holder's PID in our namespace; 0 when unknown.
    pub pid: u32,
}

/// What a call gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// It is done.
    Done,
    /// Lookup, mkdir, symlink, link.
    Entry(Entry),
    /// GetAttr, SetAttr.
    Attr(Attr),
    /// Open, opendir.
    Opened(Opened),
    /// Create.
    Created(Entry, Opened),
    /// Read, readlink, getxattr, listxattr.
    Data(#[serde(with = "serde_bytes")] Vec<u8>),
    /// Getxattr, listxattr: so long it is.
    Size(u32),
    /// Write: so many bytes were taken.
    Written(u32),
    /// ReadDir: these entries, the first at index `offset` of the listing.
    Entries { offset: u64, entries: Vec<DirEntry> },
    /// GetLock.
    Conflict(Option<Conflict>),
    /// Poll: the events that are ready.
    Ready(u32),
    /// No.
    Refused(Refusal),
}

impl Answer {
    /// A value for a buffer with so much room: whole, or only its size when there is none.
    pub fn value(bytes: Vec<u8>, room: u32) -> Self {
        match (u32::try_from(bytes.len()), room) {
            (Ok(size), 0) => Self::Size(size),
            (Ok(size), room) if size <= room => Self::Data(bytes),
            _ => Self::Refused(Refusal::TooSmall),
        }
    }
}

/// Where answers that come later go: the front's side of a parked call.
pub trait Replies: Send + Sync {
    /// Answers a call that was parked.
    fn answer(&self, unique: Unique, answer: Answer);
    /// Tells the kernel that something polled with this handle has changed.
    fn wake_poll(&self, poll_handle: u64);
}

/// What a front serves: one call, one answer.
pub trait Files: Send + Sync {
    /// Carries out a call. `None` means that there is no answer (forget, interrupt), or that it comes later through
    /// [`Replies`] under the same `unique`.
    fn call(&self, unique: Unique, caller: Caller, call: Call<'_>) -> Option<Answer>;

    /// All calls that the kernel sends again, because a former life of the daemon died before it answered them, have
    /// been made. Those that it did not send again were given up by their callers meanwhile.
    fn all_came_again(&self) {}
}
