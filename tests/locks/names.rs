//! Names, and when a file of a name exists.

use std::os::unix::fs::MetadataExt;

use libc::{LOCK_EX, LOCK_NB, LOCK_UN, O_CREAT, O_EXCL, O_NONBLOCK, O_RDONLY, O_RDWR, O_WRONLY};

use crate::support::sys::{self, Errno};
use crate::support::{Mount, names_in};

/// "the root lists only what works"
#[test]
fn the_root_lists_what_works_and_nothing_else() {
    let mount = Mount::new();
    assert_eq!(
        names_in(&mount.mountpoint()),
        [
            "README",
            "acquire",
            "control",
            "flock",
            "last-error",
            "locks",
            "metrics"
        ]
    );
    assert!(
        std::fs::read_to_string(mount.path("README")).unwrap().len() > 200,
        "half a page"
    );
}

/// "A name exists while its lock is held … Otherwise ENOENT. So `test -e` asks "is it taken?" and `ls` lists what is
/// taken."
#[test]
fn a_name_exists_exactly_while_its_lock_is_held() {
    let mount = Mount::new();
    let lock = mount.lock("x.lock");
    assert_eq!(sys::open(&lock, O_RDONLY).unwrap_err(), Errno::ENOENT);
    assert_eq!(mount.listed(), [""; 0]);
    let mut holder = mount.client();
    let fd = holder.open(&lock, O_WRONLY | O_CREAT).unwrap();
    assert!(mount.taken("x.lock"));
    assert_eq!(mount.listed(), ["x.lock"]);
    holder.close(fd);
    assert!(!mount.taken("x.lock"));
    assert_eq!(mount.listed(), [""; 0]);
}

/// "A name exists while its lock is held, leased or waited for"
#[test]
fn a_name_stays_while_the_lock_passes_from_holder_to_waiter() {
    let mount = Mount::new();
    let (mut first, mut second) = (mount.client(), mount.client());
    let fd = first.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    second.begin_open(mount.lock("x.lock"), O_WRONLY | O_CREAT);
    mount.wait_for_waiters("x.lock", 1);
    first.close(fd);
    assert!(mount.taken("x.lock"), "the waiter has it now");
    second.finish().unwrap();
}

/// "Idle handles … do not make it exist."
#[test]
fn an_idle_handle_does_not_make_a_name_exist() {
    let mount = Mount::new();
    let mut client = mount.client();
    let fd = client.open(mount.lock("x.lock"), O_RDWR | O_CREAT).unwrap();
    let door = client.open(mount.door("y.lock"), O_RDWR | O_CREAT).unwrap();
    assert!(!mount.taken("x.lock") && !mount.taken("y.lock"));
    client.flock(fd, LOCK_EX | LOCK_NB).unwrap();
    client.flock(door, LOCK_EX | LOCK_NB).unwrap();
    assert_eq!(mount.listed(), ["x.lock", "y.lock"]);
    client.flock(fd, LOCK_UN).unwrap();
    client.flock(door, LOCK_UN).unwrap();
    assert!(!mount.taken("x.lock") && !mount.taken("y.lock"));
}

/// "While a name exists, st_nlink is at least 1; its st_ino is the same each time it returns."
#[test]
fn a_name_returns_with_the_same_inode_number() {
    let mount = Mount::new();
    let mut inodes = Vec::new();
    for _ in 0..3 {
        let mut holder = mount.client();
        let fd = holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
        let metadata = mount.lock("x.lock").metadata().unwrap();
        assert!(metadata.nlink() >= 1);
        inodes.push(metadata.ino());
        holder.close(fd);
        let other = holder.open(mount.lock("y.lock"), O_WRONLY | O_CREAT).unwrap();
        assert_ne!(mount.lock("y.lock").metadata().unwrap().ino(), inodes[0]);
        holder.close(other);
    }
    assert!(inodes.iter().all(|&ino| ino == inodes[0]), "{inodes:?}");
}

/// "LOOKUP … may answer ENOENT while a handle is open: a second O_EXCL open then works, with the same st_ino."
#[test]
fn a_removed_lock_can_be_made_anew_while_its_old_handle_is_open() {
    let mount = Mount::new();
    let (mut first, mut second) = (mount.client(), mount.client());
    first.open(mount.lock("x.lock"), O_WRONLY | O_CREAT | O_EXCL).unwrap();
    let ino = mount.lock("x.lock").metadata().unwrap().ino();
    first.unlink(mount.lock("x.lock")).unwrap();
    assert!(!mount.taken("x.lock"));
    second.open(mount.lock("x.lock"), O_WRONLY | O_CREAT | O_EXCL).unwrap();
    assert_eq!(mount.lock("x.lock").metadata().unwrap().ino(), ino);
}

/// "Names are flat: 1 to 255 bytes of printable characters"
#[test]
fn a_name_may_have_255_bytes_and_no_more() {
    let mount = Mount::new();
    let mut client = mount.client();
    let longest = "n".repeat(255);
    client.open(mount.lock(&longest), O_WRONLY | O_CREAT).unwrap();
    assert_eq!(mount.listed(), [longest.as_str()]);
    let too_long = client.open(mount.lock(&"n".repeat(256)), O_WRONLY | O_CREAT | O_NONBLOCK);
    assert_eq!(too_long, Err(Errno::ENAMETOOLONG));
    client.open(mount.lock("größe-Ω"), O_WRONLY | O_CREAT).unwrap();
    assert!(mount.taken("größe-Ω"));
}

/// "without `/`, blank, comma, quote or control characters"
#[test]
fn a_name_with_a_forbidden_character_is_refused_by_every_dialect() {
    let mount = Mount::new();
    for name in [
        "a b",
        "a,b",
        "a\"b",
        "a'b",
        "a\tb",
        "a\nb",
        "a\u{7f}b",
        "a\u{200b}b",
        "a\u{a0}b",
    ] {
        let lock = mount.lock(name);
        let opened = sys::open(&lock, O_WRONLY | O_CREAT | O_NONBLOCK).map(drop);
        assert_eq!(opened, Err(Errno::EINVAL), "{name:?}");
        let made = sys::open(&lock, O_WRONLY | O_CREAT | O_EXCL).map(drop);
        assert_eq!(made, Err(Errno::EINVAL), "{name:?}");
        let handle = sys::open(&lock, O_RDWR | O_CREAT).map(drop);
        assert_eq!(handle, Err(Errno::EINVAL), "{name:?}");
        assert_eq!(sys::mkdir(&lock), Err(Errno::EINVAL), "{name:?}");
        assert_eq!(sys::symlink("0", &lock), Err(Errno::EINVAL), "{name:?}");
    }
    assert_eq!(mount.listed(), [""; 0], "nothing was taken");
}

/// "A git ref is written whole with `/` as `%2F` and `%` as `%25`, upper case, no other escapes, so that no two
/// spellings name one ref."
#[test]
fn a_ref_has_exactly_one_spelling() {
    let mount = Mount::new();
    let mut client = mount.client();
    for good in ["ref-refs%2Fheads%2Fmain.lock", "ref-refs%2Ftags%2F100%25.lock"] {
        client.open(mount.lock(good), O_WRONLY | O_CREAT).unwrap();
    }
    for bad in ["ref-refs%2fheads.lock", "ref-a%41.lock", "ref-100%", "ref-%2", "ref-%%"] {
        let opened = client.open(mount.lock(bad), O_WRONLY | O_CREAT | O_NONBLOCK);
        assert_eq!(opened, Err(Errno::EINVAL), "{bad}");
    }
}

/// "Names are flat"
#[test]
fn there_is_nothing_below_a_lock() {
    let mount = Mount::new();
    let mut client = mount.client();
    client.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let below = client.open(mount.lock("x.lock/y"), O_WRONLY | O_CREAT);
    assert_eq!(below, Err(Errno::ENOTDIR));
    let nowhere = client.open(mount.lock("no-such/y"), O_WRONLY | O_CREAT);
    assert_eq!(nowhere, Err(Errno::ENOENT));
}
