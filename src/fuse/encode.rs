//! An [`Answer`] to the bytes of a reply.
//!
//! A [`Packet`] owns its body in the form in which it goes out, so that a reply needs no allocation of its own: structs
//! lie in the packet, data that the service made are sent from where they are. Knows nothing of what the answer means.

use std::io::IoSlice;

use zerocopy::{Immutable, IntoBytes};

use super::decode::{Form, Here};
use super::errno::errno;
use super::wire::{self, fopen};
use crate::service::api::{Answer, Attr, Conflict, DirEntry, Entry, Kind, Opened};
use crate::types::{Mode, Unique};

/// A reply or a notification, ready to go out.
#[derive(Debug)]
pub(super) struct Packet {
    header: wire::OutHeader,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Empty,
    Entry(wire::EntryOut),
    Attr(wire::AttrOut),
    Open(wire::OpenOut),
    Create(wire::CreateOut),
    Write(wire::WriteOut),
    Size(wire::GetxattrOut),
    Lock(wire::LkOut),
    Poll(wire::PollOut),
    Statfs(wire::StatfsOut),
    Wakeup(wire::NotifyPollWakeupOut),
    Bytes(Vec<u8>),
}

impl Packet {
    /// The reply to a call.
    pub fn answer(unique: Unique, answer: Answer, form: Form) -> Self {
        match body(answer, form) {
            Ok(body) => Self::new(unique.0, 0, body),
            Err(errno) => Self::errno(unique, errno),
        }
    }

    /// The reply to what needs no service.
    pub fn here(unique: Unique, here: Here) -> Self {
        match here {
            Here::Errno(errno) => Self::errno(unique, errno),
            Here::Statfs => Self::new(unique.0, 0, Body::Statfs(statfs())),
        }
    }

    /// A refusal.
    pub fn errno(unique: Unique, errno: i32) -> Self {
        Self::new(unique.0, -errno, Body::Empty)
    }

    /// Success, with nothing to say.
    pub fn done(unique: Unique) -> Self {
        Self::new(unique.0, 0, Body::Empty)
    }

    /// The notification that whoever polled under this handle should look again.
    pub fn poll_wakeup(poll_handle: u64) -> Self {
        Self::new(
            0,
            wire::NOTIFY_POLL,
            Body::Wakeup(wire::NotifyPollWakeupOut { kh: poll_handle }),
        )
    }

    /// The notification that has the kernel send again what is unanswered.
    pub fn resend() -> Self {
        Self::new(0, wire::NOTIFY_RESEND, Body::Empty)
    }

    /// The request that this answers; 0 for a notification.
    pub fn unique(&self) -> Unique {
        Unique(self.header.unique)
    }

    /// Marks this as the reply to a request that the kernel sent again: it looks for exactly what it sent.
    pub fn mark_resent(&mut self) {
        self.header.unique |= wire::UNIQUE_RESEND;
    }

    /// The bytes, in two pieces that must go out in one write.
    pub fn slices(&self) -> [IoSlice<'_>; 2] {
        [IoSlice::new(self.header.as_bytes()), IoSlice::new(self.body.bytes())]
    }

    fn new(unique: u64, error: i32, body: Body) -> Self {
        Self {
            header: wire::OutHeader {
                len: length(size_of::<wire::OutHeader>() + body.bytes().len()),
                error,
                unique,
            },
            body,
        }
    }
}

impl Body {
    fn bytes(&self) -> &[u8] {
        fn raw<T: IntoBytes + Immutable>(value: &T) -> &[u8] {
            value.as_bytes()
        }
        match self {
            Self::Empty => &[],
            Self::Entry(value) => raw(value),
            Self::Attr(value) => raw(value),
            Self::Open(value) => raw(value),
            Self::Create(value) => raw(value),
            Self::Write(value) => raw(value),
            Self::Size(value) => raw(value),
            Self::Lock(value) => raw(value),
            Self::Poll(value) => raw(value),
            Self::Statfs(value) => raw(value),
            Self::Wakeup(value) => raw(value),
            Self::Bytes(bytes) => bytes,
        }
    }
}

/// Replies are bounded by what the kernel asks for, far below 4 GiB; one that is not fails in the kernel, loudly.
fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

fn body(answer: Answer, form: Form) -> Result<Body, i32> {
    Ok(match answer {
        Answer::Done => Body::Empty,
        Answer::Entry(entry) => Body::Entry(entry_out(&entry)),
        Answer::Attr(attr) => Body::Attr(wire::AttrOut {
            attr_valid: attr.ttl.as_secs(),
            attr_valid_nsec: attr.ttl.subsec_nanos(),
            dummy: 0,
            attr: attr_out(&attr),
        }),
        Answer::Opened(opened) => Body::Open(open_out(opened, form)),
        Answer::Created(entry, opened) => Body::Create(wire::CreateOut {
            entry: entry_out(&entry),
            open: open_out(opened, form),
        }),
        Answer::Data(bytes) => Body::Bytes(bytes),
        Answer::Size(size) => Body::Size(wire::GetxattrOut { size, padding: 0 }),
        Answer::Written(size) => Body::Write(wire::WriteOut { size, padding: 0 }),
        Answer::Entries { offset, entries } => Body::Bytes(listing(
            offset,
            &entries,
            match form {
                Form::Listing(size) => size,
                _ => 0,
            },
        )),
        Answer::Conflict(conflict) => Body::Lock(wire::LkOut {
            lk: file_lock(conflict),
        }),
        Answer::Ready(revents) => Body::Poll(wire::PollOut { revents, padding: 0 }),
        Answer::Refused(refusal) => return Err(errno(refusal)),
    })
}

fn entry_out(entry: &Entry) -> wire::EntryOut {
    wire::EntryOut {
        nodeid: entry.node.0,
        // Node ids are never given twice, so one generation is enough.
        generation: 0,
        entry_valid: entry.attr.ttl.as_secs(),
        attr_valid: entry.attr.ttl.as_secs(),
        entry_valid_nsec: entry.attr.ttl.subsec_nanos(),
        attr_valid_nsec: entry.attr.ttl.subsec_nanos(),
        attr: attr_out(&entry.attr),
    }
}

fn attr_out(attr: &Attr) -> wire::Attr {
    let (seconds, nanos) = attr.mtime;
    wire::Attr {
        ino: attr.ino,
        size: attr.size,
        blocks: attr.size.div_ceil(512),
        atime: seconds,
        mtime: seconds,
        ctime: seconds,
        atimensec: nanos,
        mtimensec: nanos,
        ctimensec: nanos,
        mode: file_type(attr.kind) | u32::from(attr.perm),
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: 0,
        blksize: BLOCK_BYTES,
        flags: 0,
    }
}

const BLOCK_BYTES: u32 = 4096;

/// The bits of a mode that tell the file type.
fn file_type(kind: Kind) -> u32 {
    match kind {
        Kind::File => libc::S_IFREG,
        Kind::Directory => libc::S_IFDIR,
        Kind::Link => libc::S_IFLNK,
    }
}

/// Files are rendered at open and change without the kernel's knowledge, so their pages are never cached (DIRECT_IO);
/// a stream has no file position, so that a read that waits does not keep the same descriptor from writing.
fn open_out(opened: Opened, form: Form) -> wire::OpenOut {
    let mut open_flags = 0;
    if form != Form::Directory {
        open_flags |= fopen::DIRECT_IO;
        if opened.stream {
            open_flags |= fopen::STREAM | fopen::NONSEEKABLE;
        }
        if opened.quiet_close {
            open_flags |= fopen::NOFLUSH;
        }
    }
    wire::OpenOut {
        fh: opened.handle.0,
        open_flags,
        backing_id: 0,
    }
}

/// As many entries as fit; each carries the index of the next, which is where the kernel goes on.
fn listing(offset: u64, entries: &[DirEntry], bytes_max: u32) -> Vec<u8> {
    let bytes_max = usize::try_from(bytes_max).unwrap_or(usize::MAX);
    let mut out = Vec::new();
    for (next, entry) in (offset.saturating_add(1)..).zip(entries) {
        let name = entry.name.as_bytes();
        let padded = (size_of::<wire::Dirent>() + name.len()).next_multiple_of(8);
        if out.len() + padded > bytes_max {
            break;
        }
        let end = out.len() + padded;
        let head = wire::Dirent {
            ino: entry.ino,
            off: next,
            namelen: length(name.len()),
            typ: file_type(entry.kind) >> 12,
        };
        out.extend_from_slice(head.as_bytes());
        out.extend_from_slice(name);
        out.resize(end, 0);
    }
    out
}

fn file_lock(conflict: Option<Conflict>) -> wire::FileLock {
    match conflict {
        Some(conflict) => wire::FileLock {
            start: conflict.range.start(),
            end: conflict.range.end(),
            typ: match conflict.mode {
                Mode::Shared => libc::F_RDLCK,
                Mode::Exclusive => libc::F_WRLCK,
            },
            pid: conflict.pid,
        },
        None => wire::FileLock {
            start: 0,
            end: 0,
            typ: libc::F_UNLCK,
            pid: 0,
        },
    }
}

/// No blocks and no files, as /proc says it, so that df(1) leaves the mount out.
fn statfs() -> wire::StatfsOut {
    wire::StatfsOut {
        blocks: 0,
        bfree: 0,
        bavail: 0,
        files: 0,
        ffree: 0,
        bsize: BLOCK_BYTES,
        namelen: 255,
        frsize: BLOCK_BYTES,
        padding: 0,
        spare: [0; 6],
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::types::{HandleId, NodeId, Range, Refusal};

    const UNIQUE: Unique = Unique(0x42);

    fn bytes(packet: &Packet) -> Vec<u8> {
        packet.slices().iter().flat_map(|slice| slice.to_vec()).collect()
    }

    fn body_of(answer: Answer, form: Form) -> Vec<u8> {
        let all = bytes(&Packet::answer(UNIQUE, answer, form));
        assert_eq!(all[..4], u32::try_from(all.len()).expect("small").to_ne_bytes());
        assert_eq!(all[4..8], [0; 4], "no error");
        assert_eq!(all[8..16], UNIQUE.0.to_ne_bytes());
        all[16..].to_vec()
    }

    fn error_of(answer: Answer, form: Form) -> i32 {
        let all = bytes(&Packet::answer(UNIQUE, answer, form));
        assert_eq!(all.len(), 16, "a refusal has no body");
        i32::from_ne_bytes(all[4..8].try_into().expect("four bytes"))
    }

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_ne_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_ne_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    }

    fn attr(kind: Kind) -> Attr {
        Attr {
            ino: 5,
            kind,
            perm: 0o644,
            nlink: 1,
            uid: 1000,
            gid: 100,
            size: 513,
            mtime: (-1, 7),
            ttl: Duration::new(3, 4),
        }
    }

    #[test]
    fn attributes_show_the_true_size_and_one_time() {
        let out = body_of(Answer::Attr(attr(Kind::Directory)), Form::Plain);
        assert_eq!((u64_at(&out, 0), u32_at(&out, 8)), (3, 4), "how long they may be kept");
        let attr = &out[16..];
        assert_eq!([u64_at(attr, 0), u64_at(attr, 8), u64_at(attr, 16)], [5, 513, 2]);
        assert_eq!([24, 32, 40].map(|at| u64_at(attr, at)), [u64::MAX; 3]);
        assert_eq!([48, 52, 56].map(|at| u32_at(attr, at)), [7; 3]);
        assert_eq!(u32_at(attr, 60), 0o040_644);
    }

    #[test]
    fn an_entry_is_its_node_and_its_attributes() {
        let entry = Entry {
            node: NodeId(9),
            attr: attr(Kind::File),
        };
        let out = body_of(Answer::Entry(entry), Form::Plain);
        assert_eq!([0, 16, 24].map(|at| u64_at(&out, at)), [9, 3, 3]);
        assert_eq!([32, 36].map(|at| u32_at(&out, at)), [4, 4]);
        assert_eq!(u32_at(&out[40..], 60), 0o100_644);
    }

    #[test]
    fn files_are_never_cached_and_streams_have_no_position() {
        let flags = |stream, quiet_close, form| {
            let opened = Opened {
                handle: HandleId(3),
                stream,
                quiet_close,
            };
            u32_at(&body_of(Answer::Opened(opened), form), 8)
        };
        assert_eq!(flags(false, false, Form::Plain), fopen::DIRECT_IO);
        assert_eq!(flags(false, true, Form::Plain), fopen::DIRECT_IO | fopen::NOFLUSH);
        assert_eq!(
            flags(true, false, Form::Plain),
            fopen::DIRECT_IO | fopen::STREAM | fopen::NONSEEKABLE
        );
        assert_eq!(flags(false, false, Form::Directory), 0);
    }

    #[test]
    fn a_listing_stops_where_the_buffer_does_and_says_where_to_go_on() {
        let entry = |name: &str| DirEntry {
            ino: 5,
            kind: Kind::File,
            name: name.to_owned(),
        };
        let entries = vec![entry("a"), entry("ninebytes"), entry("c")];
        let list = |size| {
            let entries = entries.clone();
            body_of(Answer::Entries { offset: 10, entries }, Form::Listing(size))
        };
        assert_eq!(list(31), b"");
        assert_eq!(list(32).len(), 32);
        assert_eq!(list(32 + 40 + 31).len(), 72, "the third entry does not fit");
        let all = list(4096);
        assert_eq!(all.len(), 32 + 40 + 32);
        assert_eq!(
            (u64_at(&all, 8), u64_at(&all, 32 + 8), u64_at(&all, 72 + 8)),
            (11, 12, 13)
        );
        assert_eq!(u32_at(&all, 20), 8, "DT_REG");
        assert_eq!(&all[32 + 24..32 + 24 + 16], b"ninebytes\0\0\0\0\0\0\0");
    }

    #[test]
    fn a_value_is_measured_before_it_is_sent() {
        let value = |room| Answer::value(b"918".to_vec(), room);
        assert_eq!(body_of(value(0), Form::Plain), [3, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(error_of(value(2), Form::Plain), -libc::ERANGE);
        assert_eq!(body_of(value(3), Form::Plain), b"918");
    }

    #[test]
    fn a_conflict_names_the_bytes_and_the_holder() {
        let range = Range::new(10, 19).expect("ten bytes");
        let conflict = Conflict {
            mode: Mode::Exclusive,
            range,
            pid: 4242,
        };
        let out = body_of(Answer::Conflict(Some(conflict)), Form::Plain);
        assert_eq!((u64_at(&out, 0), u64_at(&out, 8)), (10, 19));
        assert_eq!((u32_at(&out, 16), u32_at(&out, 20)), (1, 4242));
        let free = body_of(Answer::Conflict(None), Form::Plain);
        assert_eq!(u32_at(&free, 16), 2, "F_UNLCK: nobody is in the way");
    }

    #[test]
    fn a_refusal_is_a_negative_errno() {
        assert_eq!(
            error_of(Answer::Refused(Refusal::TimedOut), Form::Plain),
            -libc::ETIMEDOUT
        );
    }

    #[test]
    fn the_reply_to_a_resent_request_carries_its_mark() {
        let mut packet = Packet::done(UNIQUE);
        packet.mark_resent();
        assert_eq!(u64_at(&bytes(&packet), 8), UNIQUE.0 | wire::UNIQUE_RESEND);
    }

    #[test]
    fn a_wakeup_is_a_notification() {
        let all = bytes(&Packet::poll_wakeup(77));
        assert_eq!((u32_at(&all, 4), u64_at(&all, 8), u64_at(&all, 16)), (1, 0, 77));
    }
}
