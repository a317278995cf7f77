//! What a lock's file does as a file: calls that change nothing, and times that stay exact.

use std::os::unix::fs::MetadataExt;

use libc::{O_CREAT, O_EXCL, O_RDWR, O_WRONLY, SEEK_CUR, SEEK_END, SEEK_SET};

use crate::support::Mount;
use crate::support::sys::{self, Errno};

/// "O_TRUNC, ftruncate, chmod, fchmod, fsync and lseek succeed and change nothing"
#[test]
fn calls_that_libraries_make_in_passing_change_nothing() {
    let mount = Mount::new();
    let path = mount.lock("x.lock");
    let fd = sys::open(&path, O_RDWR | O_CREAT | O_EXCL).unwrap();
    sys::write(&fd, format!("{}:agent-7\n", std::process::id()).as_bytes()).unwrap();
    let text = mount.text_of("x.lock").unwrap();
    let before = path.metadata().unwrap();
    sys::ftruncate(&fd, 0).unwrap();
    sys::ftruncate(&fd, 4000).unwrap();
    sys::fchmod(&fd, 0o777).unwrap();
    sys::fchmod(&fd, 0o000).unwrap();
    sys::chmod(&path, 0o444).unwrap();
    sys::fsync(&fd).unwrap();
    assert_eq!(sys::lseek(&fd, 3, SEEK_SET), Ok(3));
    assert_eq!(sys::lseek(&fd, 0, SEEK_CUR), Ok(3));
    sys::lseek(&fd, 0, SEEK_END).unwrap();
    drop(sys::open(&path, O_RDWR | libc::O_TRUNC).expect("a handle, no lock"));
    let after = path.metadata().unwrap();
    assert_eq!(mount.text_of("x.lock").unwrap(), text);
    assert_eq!(
        (after.mode(), after.len(), after.ino()),
        (before.mode(), before.len(), before.ino())
    );
}

/// "an mtime set by utimensat reads back exact, also one in the future"
#[test]
fn a_time_reads_back_to_the_nanosecond() {
    let mount = Mount::new();
    let path = mount.lock("x.lock");
    let fd = sys::open(&path, O_WRONLY | O_CREAT | O_EXCL).unwrap();
    for (seconds, nanoseconds) in [
        (4_102_444_800, 123_456_789),
        (1_000_000_000, 1),
        (0, 0),
        (1_763_647_200, 999_999_999),
    ] {
        sys::utimens(&path, Some((seconds, nanoseconds))).unwrap();
        let metadata = path.metadata().unwrap();
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (seconds, nanoseconds));
        sys::futimens(&fd, Some((seconds + 1, nanoseconds))).unwrap();
        assert_eq!(path.metadata().unwrap().mtime(), seconds + 1);
    }
}

/// A lock that was never touched shows when it was taken, as lock tools that look for old files expect.
#[test]
fn a_new_lock_has_the_current_time() {
    let mount = Mount::new();
    let now = || {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs() as i64
    };
    let before = now();
    let _held = sys::open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let time = mount.lock("x.lock").metadata().unwrap().mtime();
    assert!((before..=now()).contains(&time), "{before} <= {time}");
}

/// A lock belongs to who took it: lock tools compare st_uid with their own.
#[test]
fn a_lock_belongs_to_its_taker() {
    let mount = Mount::new();
    let _held = sys::open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let metadata = mount.lock("x.lock").metadata().unwrap();
    let own = std::fs::metadata("/proc/self").unwrap();
    assert_eq!((metadata.uid(), metadata.gid()), (own.uid(), own.gid()));
    assert!(metadata.is_file());
}

/// "flock never answers ENOSYS", and neither does any call that a shell or a library makes.
#[test]
fn no_flock_call_is_unknown() {
    let mount = Mount::new();
    let fd = sys::open(mount.lock("x.lock"), O_RDWR | O_CREAT).unwrap();
    for operation in [
        libc::LOCK_UN,
        libc::LOCK_SH,
        libc::LOCK_EX,
        libc::LOCK_SH,
        libc::LOCK_UN,
    ] {
        assert_eq!(sys::flock(&fd, operation), Ok(()), "operation {operation}");
        assert_eq!(
            sys::flock(&fd, operation | libc::LOCK_NB),
            Ok(()),
            "operation {operation}"
        );
    }
    assert_eq!(sys::flock(&fd, 64), Err(Errno::EINVAL), "the kernel's own refusal");
}
