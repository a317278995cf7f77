//! `flock/`: the same locks for programs that open first and lock later, also where nothing may be written.

use libc::{LOCK_EX, LOCK_NB, LOCK_SH, LOCK_UN, O_APPEND, O_CREAT, O_RDONLY, O_RDWR, O_TRUNC, O_WRONLY};

use crate::support::sys::{self, Errno};
use crate::support::{Mount, Said, names_in, require};

/// "In `flock/` the same names are the same locks, but no open takes them: only flock(2)/fcntl(2) do."
#[test]
fn no_open_of_the_door_takes_or_waits() {
    let mount = Mount::new();
    let (mut holder, mut other) = (mount.client(), mount.client());
    for flags in [
        O_RDONLY,
        O_RDWR,
        O_WRONLY,
        O_WRONLY | O_CREAT | O_TRUNC,
        O_WRONLY | O_CREAT | O_APPEND,
        O_RDONLY | O_CREAT,
    ] {
        let fd = other.open(mount.door("x.lock"), flags).unwrap();
        assert!(!mount.taken("x.lock"), "flags {flags:o}");
        other.close(fd);
    }
    let fd = holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let door = other
        .open(mount.door("x.lock"), O_WRONLY | O_CREAT | O_TRUNC)
        .expect("Rust's File::create does not wait");
    assert_eq!(other.flock(door, LOCK_EX | LOCK_NB), Err(Errno::EAGAIN));
    holder.close(fd);
    other.flock(door, LOCK_EX | LOCK_NB).unwrap();
    assert!(mount.taken("x.lock"));
}

/// "Here every valid name exists at once, so that `flock flock/x.lock cmd` needs only a read-only open"
#[test]
fn every_valid_name_exists_in_the_door() {
    let mount = Mount::new();
    for name in ["x.lock", "ref-refs%2Fheads%2Fmain.lock", "anything"] {
        assert!(mount.door(name).metadata().unwrap().is_file(), "{name}");
        let fd = sys::open(mount.door(name), O_RDONLY).unwrap();
        sys::flock(&fd, LOCK_EX | LOCK_NB).unwrap();
    }
    for name in ["a b", "ref-%2f", ".scratch", "a.tmp"] {
        assert!(mount.door(name).metadata().is_err(), "{name:?}");
    }
    assert_eq!(mount.listed(), [""; 0]);
}

/// "(`ls flock/` lists those in use.)"
#[test]
fn the_door_lists_the_locks_in_use() {
    let mount = Mount::new();
    let (mut one, mut two) = (mount.client(), mount.client());
    assert_eq!(names_in(&mount.flock()), [""; 0]);
    let fd = one.open(mount.door("x.lock"), O_RDONLY).unwrap();
    one.flock(fd, LOCK_SH).unwrap();
    two.open(mount.lock("y.lock"), O_WRONLY | O_CREAT).unwrap();
    assert_eq!(names_in(&mount.flock()), ["x.lock", "y.lock"]);
    assert_eq!(mount.listed(), ["x.lock", "y.lock"]);
    one.flock(fd, LOCK_UN).unwrap();
    assert_eq!(mount.listed(), ["y.lock"]);
}

/// "`exec 9>f; flock -n 9`, Rust's `File::create` + `lock`, Java's FileChannel and portalocker … open for writing first
/// and then try"
#[test]
fn open_for_writing_then_try_works_through_the_door() {
    let mount = Mount::new();
    let script = "exec 9>$F/x.lock; flock -n 9 && echo locked; exec 8>$F/x.lock; flock -n 8 || echo refused";
    assert_eq!(mount.sh(script).ok().text(), "locked\nrefused");
}

/// "it works through a read-only bind mount"
#[test]
fn the_door_excludes_through_a_read_only_bind_mount() {
    let mount = Mount::new();
    // The flags of the mount must be repeated: an ordinary user may not take them away.
    let script = "set -e
mkdir $T/ro
mount --rbind $R $T/ro
mount -o remount,bind,ro $T/ro
mount -o remount,bind,ro,nosuid,nodev,noexec $T/ro/.git/.git-locks
: 2>/dev/null >$T/ro/.git/.git-locks/locks/x.lock && echo writable
flock -n $T/ro/.git/.git-locks/flock/x.lock sh -c 'echo inside; flock -n $F/x.lock true || echo excluded outside'
flock -n $F/x.lock sh -c 'flock -n $T/ro/.git/.git-locks/flock/x.lock true || echo excluded inside'
";
    let mut command = mount.command(require("unshare"));
    // SAFETY: geteuid cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        command.arg("-r");
    }
    command.args(["-m", "bash", "-c", script]);
    let said = mount.run(command).ok().text();
    assert_eq!(said, "inside\nexcluded outside\nexcluded inside");
    assert_eq!(mount.listed(), [""; 0]);
}

/// "it works … inside sandboxes that forbid writing below `.git`"
#[test]
fn the_door_excludes_inside_bubblewrap() {
    let mount = Mount::new();
    let sandboxes: [&[&str]; 3] = [
        &["--ro-bind", "/", "/"],
        &["--ro-bind", "/", "/", "--unshare-pid", "--proc", "/proc"],
        &["--ro-bind", "/", "/", "--unshare-net", "--unshare-ipc", "--new-session"],
    ];
    for sandbox in sandboxes {
        let bwrap = |script: &str| {
            let mut command = mount.command(require("bwrap"));
            command
                .args(sandbox)
                .args(["--dev-bind", "/dev", "/dev", "--die-with-parent", "bash", "-c", script]);
            command
        };
        let mut holder = mount.spawn(bwrap("exec 9<$F/x.lock; flock -n 9 && echo locked && exec sleep 60"));
        holder.wait_for_line("locked");
        let (outside, inside) = (
            mount.sh("flock -n $F/x.lock true"),
            mount.run(bwrap("flock -n $F/x.lock true")),
        );
        assert_eq!((outside.code(), inside.code()), (1, 1), "{sandbox:?}");
        assert!(
            mount.run(bwrap(": >$L/y.lock")).code() != 0,
            "{sandbox:?} may not write"
        );
        holder.kill();
        mount.wait_until_free("x.lock");
    }
}
