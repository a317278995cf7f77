//! The system calls whose exact flags and errnos the contract is about, without a library's opinion in between.

use std::ffi::CString;
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

pub use nix::errno::Errno;

/// What a system call answered.
pub type Sys<T> = Result<T, Errno>;

/// What names a descriptor in these calls: its owner, a reference to it, or the bare number.
pub trait Descriptor {
    /// The number.
    fn number(&self) -> RawFd;
}

macro_rules! descriptor {
    ($($kind:ty),*) => {
        $(impl Descriptor for $kind {
            fn number(&self) -> RawFd {
                self.as_raw_fd()
            }
        })*
    };
}
descriptor!(RawFd, OwnedFd, &OwnedFd, BorrowedFd<'_>, File, &File);

fn c(path: impl AsRef<Path>) -> CString {
    CString::new(path.as_ref().as_os_str().as_bytes()).expect("no NUL in a path")
}

fn check(result: impl Into<i64>) -> Sys<i64> {
    match result.into() {
        -1 => Err(Errno::last()),
        value => Ok(value),
    }
}

/// open(2) with mode 0644; O_CLOEXEC is added, so that no other child of the test keeps a copy.
pub fn open(path: impl AsRef<Path>, flags: i32) -> Sys<OwnedFd> {
    let path = c(path);
    // SAFETY: the path is a C string that lives through the call; the new descriptor is owned by nobody else.
    unsafe {
        let fd = check(libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o644))?;
        Ok(OwnedFd::from_raw_fd(fd as RawFd))
    }
}

/// close(2) of a number.
pub fn close(fd: RawFd) -> Sys<()> {
    // SAFETY: only the caller's own number is closed.
    check(unsafe { libc::close(fd) }).map(drop)
}

/// dup(2).
pub fn dup(fd: RawFd) -> Sys<RawFd> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::dup(fd) }).map(|fd| fd as RawFd)
}

/// flock(2).
pub fn flock(fd: impl Descriptor, operation: i32) -> Sys<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::flock(fd.number(), operation) }).map(drop)
}

/// A lock as fcntl(2) describes it: type, start, length, PID.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// F_RDLCK, F_WRLCK or F_UNLCK.
    pub kind: i16,
    /// l_start, from the beginning of the file.
    pub start: i64,
    /// l_len; 0 reaches to the end.
    pub len: i64,
    /// l_pid, filled in by F_GETLK.
    pub pid: i32,
}

/// fcntl(2) with F_SETLK, F_SETLKW, F_GETLK, F_OFD_SETLK, F_OFD_SETLKW or F_OFD_GETLK; F_GETLK changes `range`.
pub fn fcntl(fd: impl Descriptor, command: i32, range: &mut Range) -> Sys<()> {
    // SAFETY: all zeroes is a valid struct flock.
    let mut raw: libc::flock = unsafe { MaybeUninit::zeroed().assume_init() };
    raw.l_type = range.kind;
    raw.l_whence = libc::SEEK_SET as i16;
    raw.l_start = range.start;
    raw.l_len = range.len;
    // SAFETY: the struct lives through the call.
    check(unsafe { libc::fcntl(fd.number(), command, &raw mut raw) })?;
    *range = Range {
        kind: raw.l_type,
        start: raw.l_start,
        len: raw.l_len,
        pid: raw.l_pid,
    };
    Ok(())
}

/// A range lock of one kind (F_WRLCK as i32 and so on).
pub fn range(kind: i32, start: i64, len: i64) -> Range {
    Range {
        kind: kind as i16,
        start,
        len,
        pid: 0,
    }
}

/// write(2).
pub fn write(fd: impl Descriptor, data: &[u8]) -> Sys<usize> {
    // SAFETY: pointer and length are of one slice.
    check(unsafe { libc::write(fd.number(), data.as_ptr().cast(), data.len()) } as i64).map(|n| n as usize)
}

/// pwrite(2).
pub fn pwrite(fd: impl Descriptor, data: &[u8], offset: i64) -> Sys<usize> {
    // SAFETY: pointer and length are of one slice.
    check(unsafe { libc::pwrite(fd.number(), data.as_ptr().cast(), data.len(), offset) } as i64).map(|n| n as usize)
}

/// read(2) of at most `max` bytes.
pub fn read(fd: impl Descriptor, max: usize) -> Sys<Vec<u8>> {
    let mut data = vec![0; max];
    // SAFETY: pointer and length are of one buffer.
    let count = check(unsafe { libc::read(fd.number(), data.as_mut_ptr().cast(), max) } as i64)?;
    data.truncate(count as usize);
    Ok(data)
}

/// mkdir(2) with mode 0755.
pub fn mkdir(path: impl AsRef<Path>) -> Sys<()> {
    // SAFETY: the path is a C string that lives through the call.
    check(unsafe { libc::mkdir(c(path).as_ptr(), 0o755) }).map(drop)
}

/// rmdir(2).
pub fn rmdir(path: impl AsRef<Path>) -> Sys<()> {
    // SAFETY: the path is a C string that lives through the call.
    check(unsafe { libc::rmdir(c(path).as_ptr()) }).map(drop)
}

/// unlink(2).
pub fn unlink(path: impl AsRef<Path>) -> Sys<()> {
    // SAFETY: the path is a C string that lives through the call.
    check(unsafe { libc::unlink(c(path).as_ptr()) }).map(drop)
}

/// symlink(2).
pub fn symlink(target: impl AsRef<Path>, path: impl AsRef<Path>) -> Sys<()> {
    // SAFETY: both are C strings that live through the call.
    check(unsafe { libc::symlink(c(target).as_ptr(), c(path).as_ptr()) }).map(drop)
}

/// link(2).
pub fn link(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Sys<()> {
    // SAFETY: both are C strings that live through the call.
    check(unsafe { libc::link(c(from).as_ptr(), c(to).as_ptr()) }).map(drop)
}

/// rename(2).
pub fn rename(from: impl AsRef<Path>, to: impl AsRef<Path>) -> Sys<()> {
    // SAFETY: both are C strings that live through the call.
    check(unsafe { libc::rename(c(from).as_ptr(), c(to).as_ptr()) }).map(drop)
}

/// ftruncate(2).
pub fn ftruncate(fd: impl Descriptor, size: i64) -> Sys<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::ftruncate(fd.number(), size) }).map(drop)
}

/// fchmod(2).
pub fn fchmod(fd: impl Descriptor, mode: u32) -> Sys<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::fchmod(fd.number(), mode) }).map(drop)
}

/// chmod(2).
pub fn chmod(path: impl AsRef<Path>, mode: u32) -> Sys<()> {
    // SAFETY: the path is a C string that lives through the call.
    check(unsafe { libc::chmod(c(path).as_ptr(), mode) }).map(drop)
}

/// fsync(2).
pub fn fsync(fd: impl Descriptor) -> Sys<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::fsync(fd.number()) }).map(drop)
}

/// lseek(2).
pub fn lseek(fd: impl Descriptor, offset: i64, whence: i32) -> Sys<i64> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::lseek(fd.number(), offset, whence) })
}

/// utimensat(2) of a path: both times to (seconds, nanoseconds), or to the current time.
pub fn utimens(path: impl AsRef<Path>, time: Option<(i64, i64)>) -> Sys<()> {
    // SAFETY: the path and the times live through the call.
    check(unsafe { libc::utimensat(libc::AT_FDCWD, c(path).as_ptr(), times(time).as_ptr(), 0) }).map(drop)
}

/// futimens(3) of a descriptor.
pub fn futimens(fd: impl Descriptor, time: Option<(i64, i64)>) -> Sys<()> {
    // SAFETY: the times live through the call.
    check(unsafe { libc::futimens(fd.number(), times(time).as_ptr()) }).map(drop)
}

fn times(time: Option<(i64, i64)>) -> [libc::timespec; 2] {
    let (tv_sec, tv_nsec) = time.unwrap_or((0, libc::UTIME_NOW));
    [libc::timespec { tv_sec, tv_nsec }; 2]
}

/// poll(2) of one descriptor: the events that are ready, 0 after the timeout.
pub fn poll(fd: impl Descriptor, events: i16, timeout_ms: i32) -> Sys<i16> {
    let mut entry = libc::pollfd {
        fd: fd.number(),
        events,
        revents: 0,
    };
    // SAFETY: one entry, which lives through the call.
    check(unsafe { libc::poll(&raw mut entry, 1, timeout_ms) })?;
    Ok(entry.revents)
}

/// getxattr(2) as text.
pub fn getxattr(path: impl AsRef<Path>, name: &str) -> Sys<String> {
    let name = CString::new(name).expect("no NUL in a name");
    let mut value = vec![0u8; 4096];
    // SAFETY: pointer and length are of one buffer; path and name are C strings that live through the call.
    let size = check(
        unsafe { libc::getxattr(c(path).as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) } as i64,
    )?;
    value.truncate(size as usize);
    Ok(String::from_utf8(value).expect("our xattrs are text"))
}

/// listxattr(2).
pub fn listxattr(path: impl AsRef<Path>) -> Sys<Vec<String>> {
    let mut value = vec![0u8; 4096];
    // SAFETY: pointer and length are of one buffer; the path is a C string that lives through the call.
    let size = check(unsafe { libc::listxattr(c(path).as_ptr(), value.as_mut_ptr().cast(), value.len()) } as i64)?;
    let names = value[..size as usize]
        .split(|&b| b == 0)
        .filter(|name| !name.is_empty());
    Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
}

/// kill(2).
pub fn kill(pid: u32, signal: i32) -> Sys<()> {
    let pid = i32::try_from(pid).expect("a PID fits");
    // SAFETY: no memory is involved.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// fork(2) of a single-threaded process; the child sleeps until it is killed, with a copy of every descriptor.
pub fn fork_sleeper() -> Sys<u32> {
    // SAFETY: the child makes only async-signal-safe calls.
    unsafe {
        let pid = check(libc::fork())?;
        if pid == 0 {
            // The request socket must stay with the parent alone, else its end would go unseen.
            libc::close(0);
            loop {
                libc::pause();
            }
        }
        Ok(pid as u32)
    }
}

/// setpriority(2) of the calling process.
pub fn nice(level: i32) -> Sys<()> {
    // SAFETY: no memory is involved.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, level) }).map(drop)
}
