//! Supervisor and worker are both killed, and somebody mounts again: owners and leases are as they were, what a descriptor
//! held is kept until its opener has exited, and tokens never go back.

use libc::{LOCK_EX, O_RDWR};

use crate::support::sys::Errno;
use crate::support::{Client, Op, Said, wait_until};
use crate::{Crashing, EXCL, HANDLE, TAKE, TRY};

impl Crashing {
    /// Kills all of the daemon and mounts again.
    #[track_caller]
    fn kill_all_and_mount(&self) {
        self.kill_daemon();
        self.mount(&[]);
    }
}

/// Takes `x.lock` in a way that belongs to a descriptor.
type Take = fn(&Crashing, &mut Client) -> i32;

const BY_DESCRIPTOR: [(&str, Take); 4] = [
    ("open", |mount, client| client.open(mount.lock("x.lock"), TAKE).unwrap()),
    ("flock", |mount, client| {
        let fd = client.open(mount.door("x.lock"), O_RDWR).unwrap();
        client.flock(fd, LOCK_EX).unwrap();
        fd
    }),
    ("fcntl", |mount, client| {
        let fd = client.open(mount.lock("x.lock"), HANDLE).unwrap();
        client.fcntl(fd, libc::F_SETLK, libc::F_WRLCK, 0, 0).unwrap();
        fd
    }),
    ("acquire", |mount, client| {
        mount.acquire(client, "locks=x.lock mode=exclusive").unwrap()
    }),
];

/// keeps each descriptor lock until its opener has exited
#[test]
fn what_a_descriptor_held_is_kept_until_its_opener_has_exited() {
    for (how, take) in BY_DESCRIPTOR {
        let mount = Crashing::new();
        let mut opener = mount.client();
        let fd = take(&mount, &mut opener);
        let token = mount.token("x.lock");
        mount.kill_all_and_mount();
        assert_eq!(mount.token("x.lock"), token, "{how}");
        let mut other = mount.client();
        assert_eq!(other.open(mount.lock("x.lock"), TRY), Err(Errno::EAGAIN), "{how}");
        assert_eq!(other.unlink(mount.lock("x.lock")), Err(Errno::EBUSY), "{how}");
        // The descriptor is of a mount that is no more, and some closes say so.
        let closed = opener.call(Op::Close { fd });
        assert!(matches!(closed, Ok(_) | Err(Errno::ENOTCONN)), "{how}: {closed:?}");
        assert!(mount.taken("x.lock"), "{how}: it lives");
        other.begin_open(mount.lock("x.lock"), TAKE);
        mount.wait_for_waiters("x.lock", 1);
        mount.kill_worker();
        assert!(!other.answered(), "{how}");
        opener.kill();
        other.finish().unwrap_or_else(|errno| panic!("{how}: {errno}"));
        assert!(mount.token("x.lock") > token, "{how}");
    }
}

#[test]
fn owners_and_leases_are_as_they_were() {
    let mount = Crashing::new();
    let (mut owner, mut keeper, mut stranger) = (mount.client(), mount.client(), mount.client());
    let pid = owner.pid();
    let fd = owner.open(mount.lock("owner.lock"), TAKE).unwrap();
    owner.write(fd, &format!("{pid}:agent-7\na note\n")).unwrap();
    owner.close(fd);
    keeper.mkdir(mount.lock("dir.lock")).unwrap();
    let fd = keeper.open(mount.lock("dir.lock").join("a"), EXCL).unwrap();
    keeper.write(fd, "some words\n").unwrap();
    let fd = keeper.open(mount.lock("excl.lock"), EXCL).unwrap();
    keeper.close(fd);
    let path = mount.lock("excl.lock");
    keeper
        .call(Op::Utimens {
            path,
            time: Some((1000, 5)),
        })
        .unwrap();
    let names = ["owner.lock", "dir.lock", "excl.lock"];
    let tokens = names.map(|name| mount.token(name));
    mount.kill_all_and_mount();
    assert_eq!(names.map(|name| mount.token(name)), tokens);
    let text = mount.text_of("owner.lock").expect("it is held");
    assert!(
        text.starts_with(&format!("{pid}:agent-7\n")) && text.ends_with("\na note\n"),
        "{text}"
    );
    assert_eq!(
        keeper.cat(mount.lock("dir.lock").join("a")),
        Ok("some words\n".to_owned())
    );
    assert_eq!(mount.sh("stat -c %Y $L/excl.lock").text(), "1000");
    for name in names {
        assert_eq!(stranger.unlink(mount.lock(name)), Err(Errno::EBUSY), "{name}");
    }
    keeper.unlink(mount.lock("excl.lock")).unwrap();
    keeper.unlink(mount.lock("dir.lock").join("a")).unwrap();
    keeper.rmdir(mount.lock("dir.lock")).unwrap();
    owner.exit();
    mount.wait_until_free("owner.lock");
    assert_eq!(mount.listed(), [""; 0]);
}

/// Nobody waits for what is no more, and who asks again gets an answer.
#[test]
fn who_waited_hears_of_the_end_and_can_ask_again() {
    let mount = Crashing::new();
    let (holder, _) = mount.holder("x.lock");
    let mut waits = mount.waiter("x.lock", 1);
    mount.kill_all_and_mount();
    waits.finish().expect_err("its mount is gone");
    assert_eq!(mount.waiters("x.lock"), 0);
    waits.begin_open(mount.lock("x.lock"), TAKE);
    mount.wait_for_waiters("x.lock", 1);
    holder.kill();
    waits.finish().unwrap();
}

/// Those who died while there was no daemon hold nothing.
#[test]
fn what_the_dead_held_is_free() {
    let mount = Crashing::new();
    let (opener, _) = mount.holder("x.lock");
    let mut owner = mount.client();
    let pid = owner.pid();
    let fd = owner.open(mount.lock("y.lock"), TAKE).unwrap();
    owner.write(fd, &format!("{pid}\n")).unwrap();
    mount.kill_daemon();
    opener.kill();
    owner.kill();
    mount.mount(&[]);
    mount.wait_until_free("x.lock");
    mount.wait_until_free("y.lock");
}

/// Someone's lock can be broken, also one whose descriptor leads nowhere.
#[test]
fn a_lock_that_was_kept_can_be_broken() {
    let mount = Crashing::new();
    let (_opener, _) = mount.holder("x.lock");
    mount.kill_all_and_mount();
    let token = mount.token("x.lock");
    mount
        .sh(&format!("echo 'break x.lock {token} testing' > $M/control"))
        .ok();
    assert!(!mount.taken("x.lock"));
}

/// fencing tokens never go back
#[test]
fn tokens_grow_from_mount_to_mount() {
    let mount = Crashing::new();
    let mut last = 0;
    for _ in 0..3 {
        let (client, _) = mount.holder("x.lock");
        let token = mount.token("x.lock");
        assert!(token > last, "{token} after {last}");
        last = token;
        client.kill();
        mount.wait_until_free("x.lock");
        mount.kill_all_and_mount();
    }
}

/// An orderly end leaves nothing behind that a next mount would take for held.
#[test]
fn after_an_orderly_end_nothing_is_held() {
    let mount = Crashing::new();
    let (holder, _) = mount.holder("x.lock");
    mount.kill_all_and_mount();
    assert_ne!(mount.lockfs(&["umount"]).code(), 0, "x.lock is held");
    mount.lockfs(&["umount", "--force"]).ok();
    wait_until("it is unmounted", || !mount.is_mounted());
    mount.mount(&[]);
    assert_eq!(mount.listed(), [""; 0]);
    holder.kill();
}
