//! Scratch names: small files that become a lock by link(2) or rename(2).

use std::os::unix::fs::MetadataExt;

use libc::{O_CREAT, O_EXCL, O_RDONLY, O_RDWR, O_WRONLY};

use crate::support::sys::{self, Errno};
use crate::support::{Mount, Op, wait_until};

/// "Scratch names come only from O_CREAT|O_EXCL (any other open, flock or mkdir of one is EINVAL)"
#[test]
fn a_scratch_name_comes_only_from_an_exclusive_open() {
    let mount = Mount::new();
    for name in [".x", "_x", "x.tmp", ".x.lock"] {
        let path = mount.lock(name);
        for flags in [O_WRONLY | O_CREAT, O_RDWR | O_CREAT, O_RDONLY | O_CREAT] {
            assert_eq!(
                sys::open(&path, flags).map(drop),
                Err(Errno::EINVAL),
                "{name}, flags {flags:o}"
            );
        }
        assert_eq!(sys::mkdir(&path), Err(Errno::EINVAL), "{name}");
        let fd = sys::open(&path, O_RDWR | O_CREAT | O_EXCL).unwrap();
        assert_eq!(
            sys::flock(&fd, libc::LOCK_EX | libc::LOCK_NB),
            Err(Errno::EINVAL),
            "{name}"
        );
        sys::unlink(&path).unwrap();
    }
}

/// "small in-memory files (4 KiB …), no locks"
#[test]
fn a_scratch_file_keeps_any_text_up_to_4_kib() {
    let mount = Mount::new();
    let fd = sys::open(mount.lock(".x"), O_RDWR | O_CREAT | O_EXCL).unwrap();
    sys::write(&fd, b"any text\n").expect("it is no lock's text yet");
    sys::lseek(&fd, 0, libc::SEEK_SET).unwrap();
    assert_eq!(sys::read(&fd, 100).unwrap(), b"any text\n");
    assert_eq!(sys::pwrite(&fd, &[b'n'; 4096], 0), Ok(4096));
    assert_eq!(sys::pwrite(&fd, b"n", 4096), Err(Errno::EFBIG));
    let locks = mount.locks_json();
    assert_eq!(locks["locks"].as_array().map(Vec::len), Some(0), "{locks}");
}

/// "256 of them"
#[test]
fn there_are_at_most_256_scratch_files() {
    let mount = Mount::new();
    let make = |number: u32| sys::open(mount.lock(&format!(".{number}")), O_WRONLY | O_CREAT | O_EXCL);
    let made: Vec<_> = (0..256).map(|number| make(number).unwrap()).collect();
    assert_eq!(make(256).map(drop), Err(Errno::ENOSPC));
    sys::unlink(mount.lock(".0")).unwrap();
    make(256).expect("one is gone, another fits");
    drop(made);
}

/// "gone with their maker"
#[test]
fn a_scratch_file_goes_with_its_maker() {
    let mount = Mount::new();
    let mut maker = mount.client();
    let fd = maker.open(mount.lock(".x"), O_WRONLY | O_CREAT | O_EXCL).unwrap();
    maker.close(fd);
    assert!(mount.taken(".x"), "it outlives its descriptor");
    maker.kill();
    wait_until("it is gone", || !mount.taken(".x"));
}

/// "dotlockfile(1) and lockfile(1) write one and link(2) it to the lock's name: its content then counts as written into
/// the lock, both report one st_ino and st_nlink 2 until the scratch name is removed"
#[test]
fn a_linked_scratch_file_and_its_lock_are_one_file_with_two_names() {
    let mount = Mount::new();
    let mut maker = mount.client();
    let (from, to) = (mount.lock(".lk71"), mount.lock("x.lock"));
    let pid = maker.pid();
    let fd = maker.open(&from, O_WRONLY | O_CREAT | O_EXCL).unwrap();
    maker.write(fd, &format!("{pid}\n")).unwrap();
    maker.close(fd);
    let link = Op::Link {
        from: from.clone(),
        to: to.clone(),
    };
    maker.call(link.clone()).unwrap();
    let (scratch, lock) = (from.metadata().unwrap(), to.metadata().unwrap());
    assert_eq!(scratch.ino(), lock.ino());
    assert_eq!((scratch.nlink(), lock.nlink()), (2, 2));
    assert_eq!(maker.call(link), Err(Errno::EEXIST));
    maker.unlink(&from).unwrap();
    assert_eq!(to.metadata().unwrap().nlink(), 1);
    assert_eq!(
        mount.text_of("x.lock").unwrap().lines().next(),
        Some(pid.to_string().as_str())
    );
    assert_eq!(mount.field_of("x.lock", "held").as_deref(), Some("owner"));
    maker.kill();
    mount.wait_until_free("x.lock");
}

/// "link or rename of a scratch file … to the lock's name: take it now or EEXIST, with that file's text"
#[test]
fn a_renamed_scratch_file_becomes_the_lock() {
    let mount = Mount::new();
    let (mut one, mut two) = (mount.client(), mount.client());
    let to = mount.lock("x.lock");
    let scratch = |client: &mut crate::support::Client, name: &str| {
        let from = mount.lock(name);
        let fd = client.open(&from, O_WRONLY | O_CREAT | O_EXCL).unwrap();
        let pid = client.pid();
        client.write(fd, &format!("{pid}:{}\n", &name[1..])).unwrap();
        client.close(fd);
        Op::Rename { from, to: to.clone() }
    };
    let (first, second) = (scratch(&mut one, ".one"), scratch(&mut two, ".two"));
    one.call(first).unwrap();
    assert!(!mount.taken(".one"), "it has the new name only");
    assert_eq!(two.call(second), Err(Errno::EEXIST), "no lock is ever replaced");
    let text = mount.text_of("x.lock").unwrap();
    assert_eq!(text.lines().next(), Some(format!("{}:one", one.pid()).as_str()));
}

/// "What is malformed is refused whole": a scratch file that is no lock's text does not become a lock.
#[test]
fn a_scratch_file_with_other_text_takes_nothing() {
    let mount = Mount::new();
    let mut client = mount.client();
    let (from, to) = (mount.lock(".x"), mount.lock("x.lock"));
    let fd = client.open(&from, O_WRONLY | O_CREAT | O_EXCL).unwrap();
    client.write(fd, "no pid\n").unwrap();
    client.close(fd);
    let (link, rename) = (
        Op::Link {
            from: from.clone(),
            to: to.clone(),
        },
        Op::Rename { from, to },
    );
    assert_eq!(client.call(link), Err(Errno::EINVAL));
    assert_eq!(client.call(rename), Err(Errno::EINVAL));
    assert!(!mount.taken("x.lock"));
}
