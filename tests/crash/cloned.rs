//! Without FUSE_NOTIFY_RESEND a worker's death ends the calls that it had read, and nobody hangs. A close among them
//! never comes again: what nobody has open is released.

use libc::{LOCK_EX, O_RDWR};

use crate::support::sys::Errno;
use crate::support::wait_until;
use crate::{Crashing, EXCL, HANDLE, TAKE, TRY};

fn cloned() -> Crashing {
    let mount = Crashing::new();
    mount.sh("git lockfs umount || \"$LOCKFS\" umount");
    wait_until("it is unmounted", || !mount.is_mounted());
    mount.mount(&["-o", "no_resend"]);
    assert_eq!(mount.locks_json()["recovery"], "clone");
    mount
}

#[test]
fn a_close_that_was_read_and_not_finished_is_made_up_for() {
    let mount = cloned();
    for point in ["before-journal", "after-journal"] {
        let (mut holder, fd) = mount.holder("x.lock");
        let mut flocks = mount.client();
        let other = flocks.open(mount.door("y.lock"), O_RDWR).unwrap();
        flocks.flock(other, LOCK_EX).unwrap();
        mount.die_at(point);
        holder.close(fd);
        wait_until(point, || mount.has_died_at(point));
        mount.wait_until_free("x.lock");
        assert!(mount.taken("y.lock"), "{point}: it is open");
        flocks.close(other);
        mount.wait_until_free("y.lock");
    }
}

/// A lock that was granted to a call that ended without its answer is nobody's.
#[test]
fn a_grant_that_nobody_heard_of_is_taken_back() {
    let mount = cloned();
    for point in ["after-journal", "before-reply"] {
        let mut client = mount.client();
        // What was closed before has been carried out by the time this is answered.
        assert!(!mount.taken("x.lock"));
        mount.die_at(point);
        assert_eq!(
            client.open(mount.lock("x.lock"), TAKE),
            Err(Errno::ECONNABORTED),
            "{point}"
        );
        mount.wait_until_free("x.lock");
        client.open(mount.lock("x.lock"), TRY).unwrap();
        client.kill();
        mount.wait_until_free("x.lock");
    }
}

/// Holders keep what they have open, owners and keepers what they have.
#[test]
fn those_who_have_it_open_keep_it() {
    let mount = cloned();
    let (mut client, mut other) = (mount.client(), mount.client());
    let open = client.open(mount.lock("open.lock"), TAKE).unwrap();
    let flock = client.open(mount.lock("flock.lock"), HANDLE).unwrap();
    client.flock(flock, LOCK_EX).unwrap();
    let acquire = mount.acquire(&mut client, "locks=a.lock,b.lock").unwrap();
    let excl = client.open(mount.lock("excl.lock"), EXCL).unwrap();
    client.close(excl);
    client.mkdir(mount.lock("dir.lock")).unwrap();
    let names = ["open.lock", "flock.lock", "a.lock", "b.lock", "excl.lock", "dir.lock"];
    let tokens = names.map(|name| mount.token(name));
    for _ in 0..2 {
        mount.kill_worker();
        wait_until("another worker serves", || mount.worker().is_some());
        assert_eq!(names.map(|name| mount.token(name)), tokens);
    }
    for name in names {
        assert_eq!(other.open(mount.lock(name), TRY), Err(Errno::EAGAIN), "{name}");
    }
    for fd in [open, flock, acquire] {
        client.close(fd);
    }
    for name in &names[..4] {
        mount.wait_until_free(name);
    }
}
