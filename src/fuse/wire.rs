//! The kernel's side of the wire: the structs, opcodes and flags of `include/uapi/linux/fuse.h` that we meet.
//!
//! Facts only, in the kernel's order and with the kernel's meaning; nothing here decides anything. Structs that we read
//! are `FromBytes`, structs that we write are `IntoBytes`, so that no cast is unsafe.

use crate::service::api::WRITE_BYTES_MAX;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// The largest WRITE, in bytes.
pub(super) const MAX_WRITE: usize = WRITE_BYTES_MAX;

/// What a read from the device must have room for: the largest WRITE and the headers before it.
pub(super) const REQUEST_BYTES_MAX: usize = MAX_WRITE + 4096;

/// Set in `unique` by the kernel when it sends a request again (FUSE_UNIQUE_RESEND).
pub(super) const UNIQUE_RESEND: u64 = 1 << 63;

/// The notification that something polled has changed (FUSE_NOTIFY_POLL).
pub(super) const NOTIFY_POLL: i32 = 1;

/// The notification that asks for everything unanswered once more (FUSE_NOTIFY_RESEND, Linux 6.9).
pub(super) const NOTIFY_RESEND: i32 = 7;

/// FUSE_LK_FLOCK in `LkIn::lk_flags`.
pub(super) const LK_FLOCK: u32 = 1;
/// FUSE_POLL_SCHEDULE_NOTIFY in `PollIn::flags`.
pub(super) const POLL_SCHEDULE_NOTIFY: u32 = 1;

/// FOPEN_*: how the kernel treats an open file.
pub(super) mod fopen {
    pub const DIRECT_IO: u32 = 1 << 0;
    pub const NONSEEKABLE: u32 = 1 << 2;
    pub const STREAM: u32 = 1 << 4;
    pub const NOFLUSH: u32 = 1 << 5;
}

/// FATTR_*: which fields of `SetattrIn` count.
pub(super) mod fattr {
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const FH: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
}

macro_rules! opcodes {
    ($($name:ident = $value:literal,)*) => {
        /// The requests of the kernel by number.
        pub(super) mod opcode {
            $(pub const $name: u32 = $value;)*

            /// The kernel's name of an opcode, for the log.
            pub fn name(opcode: u32) -> &'static str {
                match opcode {
                    $($value => stringify!($name),)*
                    _ => "unknown",
                }
            }
        }
    };
}

opcodes! {
    LOOKUP = 1,
    FORGET = 2,
    GETATTR = 3,
    SETATTR = 4,
    READLINK = 5,
    SYMLINK = 6,
    MKNOD = 8,
    MKDIR = 9,
    UNLINK = 10,
    RMDIR = 11,
    RENAME = 12,
    LINK = 13,
    OPEN = 14,
    READ = 15,
    WRITE = 16,
    STATFS = 17,
    RELEASE = 18,
    FSYNC = 20,
    SETXATTR = 21,
    GETXATTR = 22,
    LISTXATTR = 23,
    REMOVEXATTR = 24,
    FLUSH = 25,
    OPENDIR = 27,
    READDIR = 28,
    RELEASEDIR = 29,
    FSYNCDIR = 30,
    GETLK = 31,
    SETLK = 32,
    SETLKW = 33,
    ACCESS = 34,
    CREATE = 35,
    INTERRUPT = 36,
    BMAP = 37,
    DESTROY = 38,
    IOCTL = 39,
    POLL = 40,
    NOTIFY_REPLY = 41,
    BATCH_FORGET = 42,
    FALLOCATE = 43,
    RENAME2 = 45,
    LSEEK = 46,
    COPY_FILE_RANGE = 47,
    SYNCFS = 50,
    TMPFILE = 51,
    STATX = 52,
}

macro_rules! read {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => {
        $($(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
        pub(super) struct $name { $(pub $field: $type,)* })*
    };
}

read! {
    /// Before every request.
    InHeader {
        len: u32,
        opcode: u32,
        unique: u64,
        nodeid: u64,
        uid: u32,
        gid: u32,
        pid: u32,
        total_extlen: u16,
        padding: u16,
    }
    ForgetIn {
        nlookup: u64,
    }
    BatchForgetIn {
        count: u32,
        dummy: u32,
    }
    ForgetOne {
        nodeid: u64,
        nlookup: u64,
    }
    SetattrIn {
        valid: u32,
        padding: u32,
        fh: u64,
        size: u64,
        lock_owner: u64,
        atime: i64,
        mtime: i64,
        ctime: i64,
        atimensec: u32,
        mtimensec: u32,
        ctimensec: u32,
        mode: u32,
        unused4: u32,
        uid: u32,
        gid: u32,
        unused5: u32,
    }
    /// The name follows.
    MkdirIn {
        mode: u32,
        umask: u32,
    }
    /// Both names follow.
    RenameIn {
        newdir: u64,
    }
    /// Both names follow.
    Rename2In {
        newdir: u64,
        flags: u32,
        padding: u32,
    }
    /// The new name follows.
    LinkIn {
        oldnodeid: u64,
    }
    OpenIn {
        flags: i32,
        open_flags: u32,
    }
    /// The name follows.
    CreateIn {
        flags: i32,
        mode: u32,
        umask: u32,
        open_flags: u32,
    }
    ReleaseIn {
        fh: u64,
        flags: u32,
        release_flags: u32,
        lock_owner: u64,
    }
    FlushIn {
        fh: u64,
        unused: u32,
        padding: u32,
        lock_owner: u64,
    }
    /// READ and READDIR.
    ReadIn {
        fh: u64,
        offset: u64,
        size: u32,
        read_flags: u32,
        lock_owner: u64,
        flags: u32,
        padding: u32,
    }
    /// The data follow.
    WriteIn {
        fh: u64,
        offset: u64,
        size: u32,
        write_flags: u32,
        lock_owner: u64,
        flags: u32,
        padding: u32,
    }
    /// The name follows (without FUSE_SETXATTR_EXT, which we do not ask for).
    SetxattrIn {
        size: u32,
        flags: u32,
    }
    /// GETXATTR, where the name follows, and LISTXATTR.
    GetxattrIn {
        size: u32,
        padding: u32,
    }
    FileLock {
        start: u64,
        end: u64,
        typ: i32,
        pid: u32,
    }
    LkIn {
        fh: u64,
        owner: u64,
        lk: FileLock,
        lk_flags: u32,
        padding: u32,
    }
    InterruptIn {
        unique: u64,
    }
    PollIn {
        fh: u64,
        kh: u64,
        flags: u32,
        events: u32,
    }
}

macro_rules! write {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => {
        $($(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, IntoBytes, Immutable, KnownLayout)]
        pub(super) struct $name { $(pub $field: $type,)* })*
    };
}

write! {
    /// Before every reply; with `unique` 0, before every notification.
    OutHeader {
        len: u32,
        error: i32,
        unique: u64,
    }
    Attr {
        ino: u64,
        size: u64,
        blocks: u64,
        atime: i64,
        mtime: i64,
        ctime: i64,
        atimensec: u32,
        mtimensec: u32,
        ctimensec: u32,
        mode: u32,
        nlink: u32,
        uid: u32,
        gid: u32,
        rdev: u32,
        blksize: u32,
        flags: u32,
    }
    EntryOut {
        nodeid: u64,
        generation: u64,
        entry_valid: u64,
        attr_valid: u64,
        entry_valid_nsec: u32,
        attr_valid_nsec: u32,
        attr: Attr,
    }
    AttrOut {
        attr_valid: u64,
        attr_valid_nsec: u32,
        dummy: u32,
        attr: Attr,
    }
    OpenOut {
        fh: u64,
        open_flags: u32,
        backing_id: u32,
    }
    /// CREATE.
    CreateOut {
        entry: EntryOut,
        open: OpenOut,
    }
    WriteOut {
        size: u32,
        padding: u32,
    }
    /// GETXATTR and LISTXATTR of size 0.
    GetxattrOut {
        size: u32,
        padding: u32,
    }
    LkOut {
        lk: FileLock,
    }
    PollOut {
        revents: u32,
        padding: u32,
    }
    NotifyPollWakeupOut {
        kh: u64,
    }
    StatfsOut {
        blocks: u64,
        bfree: u64,
        bavail: u64,
        files: u64,
        ffree: u64,
        bsize: u32,
        namelen: u32,
        frsize: u32,
        padding: u32,
        spare: [u32; 6],
    }
    /// The name follows, padded to 8 bytes.
    Dirent {
        ino: u64,
        off: u64,
        namelen: u32,
        typ: u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_structs_have_the_sizes_that_the_kernel_expects() {
        let sizes = [
            ("fuse_in_header", size_of::<InHeader>(), 40),
            ("fuse_setattr_in", size_of::<SetattrIn>(), 88),
            ("fuse_rename2_in", size_of::<Rename2In>(), 16),
            ("fuse_create_in", size_of::<CreateIn>(), 16),
            ("fuse_release_in", size_of::<ReleaseIn>(), 24),
            ("fuse_flush_in", size_of::<FlushIn>(), 24),
            ("fuse_read_in", size_of::<ReadIn>(), 40),
            ("fuse_write_in", size_of::<WriteIn>(), 40),
            ("fuse_lk_in", size_of::<LkIn>(), 48),
            ("fuse_poll_in", size_of::<PollIn>(), 24),
            ("fuse_out_header", size_of::<OutHeader>(), 16),
            ("fuse_attr", size_of::<Attr>(), 88),
            ("fuse_entry_out", size_of::<EntryOut>(), 128),
            ("fuse_attr_out", size_of::<AttrOut>(), 104),
            ("fuse_open_out", size_of::<OpenOut>(), 16),
            ("fuse_entry_out and fuse_open_out", size_of::<CreateOut>(), 144),
            ("fuse_lk_out", size_of::<LkOut>(), 24),
            ("fuse_kstatfs", size_of::<StatfsOut>(), 80),
            ("fuse_dirent", size_of::<Dirent>(), 24),
        ];
        for (name, ours, kernels) in sizes {
            assert_eq!(ours, kernels, "{name}");
        }
    }

    #[test]
    fn opcodes_are_known_by_name() {
        assert_eq!(opcode::name(opcode::SETLKW), "SETLKW");
        assert_eq!(opcode::name(4096), "unknown");
    }
}
