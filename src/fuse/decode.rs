//! Bytes of the kernel to a [`Call`]: what was asked, by whom, and what form the reply must have.
//!
//! Total: any bytes give a [`Request`] or `None`, never a panic. What needs no file to be answered is settled here (the
//! [`Todo::Here`] arm), each with the errno that users expect or that makes the kernel use its own way for good.
//! Names are bytes, not text. Knows nothing of locks, and not who may do what.

use zerocopy::FromBytes;

use super::wire::{self, fattr, opcode};
use crate::service::api::{Access, Call, Caller, Change, LockStyle, OpenMode, Stamp};
use crate::types::{HandleId, Mode, NodeId, Range, Unique};

/// One request of the kernel.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// The request's name among those that wait; the same when the kernel sends it again.
    pub unique: Unique,
    /// Whether the kernel sends it again: then the reply must carry the mark, too.
    pub resent: bool,
    /// The kernel's number of what it wants, for the log.
    pub opcode: u32,
    /// Who calls.
    pub caller: Caller,
    /// What to do.
    pub todo: Todo<'a>,
}

/// What to do with a request.
#[derive(Debug)]
pub(super) enum Todo<'a> {
    /// The service answers, in that form.
    Call(Call<'a>, Form),
    /// The service is told; the kernel wants no reply.
    Tell(Call<'a>),
    /// The service is told of many nodes; the kernel wants no reply.
    Forgets(Forgets<'a>),
    /// Answered without the service.
    Here(Here),
    /// Nothing to do, no reply.
    Nothing,
    /// The mount has ended; the kernel waits for the reply.
    Goodbye,
}

/// The form of a reply, as far as the answer alone does not tell.
///
/// Only calls about directories have another than [`Form::Plain`], and none of these is answered later: so a reply that
/// comes later needs nothing from its request but its `unique`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// The answer tells.
    Plain,
    /// An open of a directory.
    Directory,
    /// A listing of at most so many bytes.
    Listing(u32),
}

/// A reply that needs no service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Here {
    /// No, with this errno.
    Errno(i32),
    /// statfs(2).
    Statfs,
}

/// The nodes of a BATCH_FORGET, each as a [`Call::Forget`].
#[derive(Debug)]
pub(super) struct Forgets<'a> {
    rest: &'a [u8],
    count: u32,
}

impl Iterator for Forgets<'_> {
    type Item = Call<'static>;

    fn next(&mut self) -> Option<Self::Item> {
        self.count = self.count.checked_sub(1)?;
        let (one, rest) = wire::ForgetOne::read_from_prefix(self.rest).ok()?;
        self.rest = rest;
        Some(Call::Forget {
            node: NodeId(one.nodeid),
            count: one.nlookup,
        })
    }
}

/// Reads one request; `None` when not even its header is there.
pub(super) fn decode(bytes: &[u8]) -> Option<Request<'_>> {
    let (header, body) = wire::InHeader::read_from_prefix(bytes).ok()?;
    let complete = usize::try_from(header.len).is_ok_and(|len| len == bytes.len());
    let todo = complete.then(|| todo(&header, Body(body))).flatten();
    Some(Request {
        unique: Unique(header.unique & !wire::UNIQUE_RESEND),
        resent: header.unique & wire::UNIQUE_RESEND != 0,
        opcode: header.opcode,
        caller: Caller {
            tid: header.pid,
            uid: header.uid,
            gid: header.gid,
        },
        todo: todo.unwrap_or(if wants_no_reply(header.opcode) {
            Todo::Nothing
        } else {
            Todo::Here(Here::Errno(libc::EIO))
        }),
    })
}

fn wants_no_reply(opcode: u32) -> bool {
    matches!(
        opcode,
        opcode::FORGET | opcode::BATCH_FORGET | opcode::INTERRUPT | opcode::NOTIFY_REPLY
    )
}

/// What a whole request asks for; `None` when its body is not what the opcode promises.
fn todo<'a>(header: &wire::InHeader, mut body: Body<'a>) -> Option<Todo<'a>> {
    let node = NodeId(header.nodeid);
    let plain = |call| Todo::Call(call, Form::Plain);
    let errno = |number| Todo::Here(Here::Errno(number));
    Some(match header.opcode {
        opcode::LOOKUP => plain(Call::Lookup {
            parent: node,
            name: body.name()?,
        }),
        opcode::FORGET => Todo::Tell(Call::Forget {
            node,
            count: body.read::<wire::ForgetIn>()?.nlookup,
        }),
        opcode::BATCH_FORGET => Todo::Forgets(Forgets {
            count: body.read::<wire::BatchForgetIn>()?.count,
            rest: body.0,
        }),
        opcode::INTERRUPT => Todo::Tell(Call::Interrupt {
            // A request that was sent again is named with its mark.
            target: Unique(body.read::<wire::InterruptIn>()?.unique & !wire::UNIQUE_RESEND),
        }),
        opcode::NOTIFY_REPLY => Todo::Nothing,
        opcode::DESTROY => Todo::Goodbye,
        opcode::GETATTR => plain(Call::GetAttr { node }),
        opcode::SETATTR => plain(set_attr(node, &body.read()?)),
        opcode::READLINK => plain(Call::ReadLink { node }),
        opcode::SYMLINK => plain(Call::Symlink {
            parent: node,
            name: body.name()?,
            target: body.name()?,
        }),
        opcode::MKDIR => {
            body.read::<wire::MkdirIn>()?;
            plain(Call::Mkdir {
                parent: node,
                name: body.name()?,
            })
        }
        opcode::UNLINK => plain(Call::Unlink {
            parent: node,
            name: body.name()?,
        }),
        opcode::RMDIR => plain(Call::Rmdir {
            parent: node,
            name: body.name()?,
        }),
        opcode::RENAME => plain(rename(node, body.read::<wire::RenameIn>()?.newdir, body)?),
        opcode::RENAME2 => {
            let rename_in = body.read::<wire::Rename2In>()?;
            if rename_in.flags & !libc::RENAME_NOREPLACE != 0 {
                errno(libc::EINVAL)
            } else {
                plain(rename(node, rename_in.newdir, body)?)
            }
        }
        opcode::LINK => plain(Call::Link {
            node: NodeId(body.read::<wire::LinkIn>()?.oldnodeid),
            parent: node,
            name: body.name()?,
        }),
        opcode::OPEN => match open_mode(body.read::<wire::OpenIn>()?.flags) {
            Some(mode) => plain(Call::Open { node, mode }),
            None => errno(libc::EINVAL),
        },
        opcode::CREATE => match open_mode(body.read::<wire::CreateIn>()?.flags) {
            Some(mode) => plain(Call::Create {
                parent: node,
                name: body.name()?,
                mode,
            }),
            None => errno(libc::EINVAL),
        },
        opcode::READ => {
            let read = body.read::<wire::ReadIn>()?;
            plain(Call::Read {
                handle: HandleId(read.fh),
                offset: read.offset,
                size: read.size,
            })
        }
        opcode::WRITE => {
            let write = body.read::<wire::WriteIn>()?;
            plain(Call::Write {
                handle: HandleId(write.fh),
                offset: write.offset,
                data: body.0.get(..usize::try_from(write.size).ok()?)?,
            })
        }
        opcode::FLUSH => {
            let flush = body.read::<wire::FlushIn>()?;
            plain(Call::Flush {
                handle: HandleId(flush.fh),
                owner: flush.lock_owner,
            })
        }
        opcode::RELEASE => plain(Call::Release {
            handle: HandleId(body.read::<wire::ReleaseIn>()?.fh),
        }),
        opcode::OPENDIR => Todo::Call(Call::OpenDir { node }, Form::Directory),
        opcode::READDIR => {
            let read = body.read::<wire::ReadIn>()?;
            Todo::Call(
                Call::ReadDir {
                    handle: HandleId(read.fh),
                    offset: read.offset,
                },
                Form::Listing(read.size),
            )
        }
        opcode::RELEASEDIR => plain(Call::ReleaseDir {
            handle: HandleId(body.read::<wire::ReleaseIn>()?.fh),
        }),
        opcode::GETXATTR => {
            let room = body.read::<wire::GetxattrIn>()?.size;
            plain(Call::GetXattr {
                node,
                name: body.name()?,
                room,
            })
        }
        opcode::LISTXATTR => plain(Call::ListXattr {
            node,
            room: body.read::<wire::GetxattrIn>()?.size,
        }),
        opcode::GETLK => get_lock(node, &body.read()?).map_or(errno(libc::EINVAL), plain),
        opcode::SETLK => set_lock(node, &body.read()?, false).map_or(errno(libc::EINVAL), plain),
        opcode::SETLKW => set_lock(node, &body.read()?, true).map_or(errno(libc::EINVAL), plain),
        opcode::POLL => {
            let poll = body.read::<wire::PollIn>()?;
            plain(Call::Poll {
                handle: HandleId(poll.fh),
                notify: (poll.flags & wire::POLL_SCHEDULE_NOTIFY != 0).then_some(poll.kh),
                events: poll.events,
            })
        }
        opcode::STATFS => Todo::Here(Here::Statfs),
        // A node, a pipe or a socket is no lock.
        opcode::MKNOD => errno(libc::EPERM),
        // isatty(3) asks this of every file that a script opens.
        opcode::IOCTL => errno(libc::ENOTTY),
        opcode::SETXATTR => {
            body.read::<wire::SetxattrIn>()?;
            errno(fixed_xattr(body.name()?))
        }
        opcode::REMOVEXATTR => errno(fixed_xattr(body.name()?)),
        opcode::FALLOCATE => errno(libc::EOPNOTSUPP),
        // ENOSYS tells the kernel never to ask again. It then lets fsync(2) and access(2) succeed, since nothing is
        // buffered and each call is checked when it comes; goes its ordinary way for lseek(2), statx(2) and
        // copy_file_range(2); and refuses the rest as unsupported.
        opcode::FSYNC
        | opcode::FSYNCDIR
        | opcode::SYNCFS
        | opcode::ACCESS
        | opcode::LSEEK
        | opcode::STATX
        | opcode::COPY_FILE_RANGE
        | opcode::BMAP
        | opcode::TMPFILE => errno(libc::ENOSYS),
        // What we did not ask for at INIT, or what later kernels know.
        _ => errno(libc::ENOSYS),
    })
}

/// Our attributes cannot be set; of others we know nothing, which cp(1) -p takes as it should (EPERM would fail it).
fn fixed_xattr(name: &[u8]) -> i32 {
    if name.starts_with(b"user.") {
        libc::EPERM
    } else {
        libc::EOPNOTSUPP
    }
}

/// The flags of open(2); `None` for the access mode 3, which gives neither reading nor writing.
fn open_mode(flags: i32) -> Option<OpenMode> {
    Some(OpenMode {
        access: match flags & libc::O_ACCMODE {
            libc::O_RDONLY => Access::Read,
            libc::O_WRONLY => Access::Write,
            libc::O_RDWR => Access::Both,
            _ => return None,
        },
        nonblock: flags & libc::O_NONBLOCK != 0,
        exclusive: flags & libc::O_EXCL != 0,
        append: flags & libc::O_APPEND != 0,
        truncate: flags & libc::O_TRUNC != 0,
    })
}

fn rename<'a>(parent: NodeId, new_parent: u64, mut body: Body<'a>) -> Option<Call<'a>> {
    Some(Call::Rename {
        parent,
        name: body.name()?,
        new_parent: NodeId(new_parent),
        new_name: body.name()?,
    })
}

/// The mode and the change time are not ours to keep: they are dropped, so that chmod(1) succeeds and changes nothing.
fn set_attr(node: NodeId, set: &wire::SetattrIn) -> Call<'static> {
    let has = |flag| set.valid & flag != 0;
    let stamp =
        |valid, now, secs, nanos| has(valid).then(|| if has(now) { Stamp::Now } else { Stamp::At(secs, nanos) });
    Call::SetAttr {
        node,
        handle: has(fattr::FH).then_some(HandleId(set.fh)),
        change: Change {
            size: has(fattr::SIZE).then_some(set.size),
            uid: has(fattr::UID).then_some(set.uid),
            gid: has(fattr::GID).then_some(set.gid),
            mtime: stamp(fattr::MTIME, fattr::MTIME_NOW, set.mtime, set.mtimensec),
            atime: stamp(fattr::ATIME, fattr::ATIME_NOW, set.atime, set.atimensec),
        },
    }
}

/// F_RDLCK, F_WRLCK and F_UNLCK, the last as no mode; anything else is `None`.
fn lock_mode(typ: i32) -> Option<Option<Mode>> {
    match typ {
        libc::F_RDLCK => Some(Some(Mode::Shared)),
        libc::F_WRLCK => Some(Some(Mode::Exclusive)),
        libc::F_UNLCK => Some(None),
        _ => None,
    }
}

fn get_lock(node: NodeId, lk: &wire::LkIn) -> Option<Call<'static>> {
    Some(Call::GetLock {
        node,
        handle: HandleId(lk.fh),
        owner: lk.owner,
        mode: lock_mode(lk.lk.typ)??,
        range: Range::new(lk.lk.start, lk.lk.end)?,
    })
}

fn set_lock(node: NodeId, lk: &wire::LkIn, wait: bool) -> Option<Call<'static>> {
    let (style, range) = if lk.lk_flags & wire::LK_FLOCK != 0 {
        (LockStyle::Flock, Range::WHOLE)
    } else {
        (LockStyle::Posix(lk.owner), Range::new(lk.lk.start, lk.lk.end)?)
    };
    Some(Call::SetLock {
        node,
        handle: HandleId(lk.fh),
        style,
        mode: lock_mode(lk.lk.typ)?,
        range,
        wait,
    })
}

/// What is left of a request after what was read.
struct Body<'a>(&'a [u8]);

impl<'a> Body<'a> {
    /// The next struct.
    fn read<T: FromBytes>(&mut self) -> Option<T> {
        let (value, rest) = T::read_from_prefix(self.0).ok()?;
        self.0 = rest;
        Some(value)
    }

    /// The next string, without the NUL at its end.
    fn name(&mut self) -> Option<&'a [u8]> {
        let end = self.0.iter().position(|&byte| byte == 0)?;
        let (name, rest) = self.0.split_at(end);
        self.0 = &rest[1..];
        Some(name)
    }
}

#[cfg(test)]
mod tests;
