//! Fencing tokens and sessions.

use crate::support::client::{Client, executable};
use crate::support::sys::getxattr;
use crate::support::{Mount, Said};
use crate::{HANDLE, TAKE, acquire, entry, holder, token_of};

/// Takes and releases a lock; its token.
fn next_token(mount: &Mount) -> u64 {
    let mut client = mount.client();
    let fd = acquire(&mut client, mount, "locks=t.lock wait=10s\n").expect("it is free soon");
    let token = token_of(&mut client, fd);
    client.close(fd);
    token
}

/// `token` is a fencing token: it only ever grows … for every exclusive grant.
#[test]
fn each_exclusive_grant_has_a_larger_token() {
    let mount = Mount::new();
    let mut last = next_token(&mount);
    let mut grows = |token: u64, how: &str| {
        assert!(token > last, "{how}: {token} after {last}");
        last = token;
    };
    for round in 0..3 {
        let name = format!("{round}.lock");
        let (mut client, fd) = holder(&mount, &name);
        grows(mount.field_of(&name, "token").unwrap().parse().unwrap(), "open");
        client.close(fd);
        client.mkdir(mount.lock(&name)).unwrap();
        grows(entry(&mount, &name)["holders"][0]["token"].as_u64().unwrap(), "mkdir");
        client.rmdir(mount.lock(&name)).unwrap();
        let fd = client.open(mount.lock(&name), HANDLE).unwrap();
        client.flock(fd, libc::LOCK_EX).unwrap();
        grows(
            getxattr(mount.lock(&name), "user.lockfs.token")
                .unwrap()
                .trim()
                .parse()
                .unwrap(),
            "flock",
        );
        client.close(fd);
        grows(next_token(&mount), "acquire");
    }
}

/// The same fields are xattrs `user.lockfs.*`
#[test]
fn file_attribute_and_table_show_one_token() {
    let mount = Mount::new();
    let (_holder, _) = holder(&mount, "x.lock");
    let in_file = mount.field_of("x.lock", "token").unwrap();
    assert_eq!(
        getxattr(mount.lock("x.lock"), "user.lockfs.token").unwrap().trim(),
        in_file
    );
    assert_eq!(entry(&mount, "x.lock")["holders"][0]["token"].to_string(), in_file);
}

/// it only ever grows, across crashes and reboots
#[test]
fn tokens_grow_over_a_new_mount_and_a_killed_daemon() {
    let mount = Mount::new();
    let mut last = next_token(&mount);
    mount.kill_daemon();
    for round in 0..6 {
        mount.lockfs(&["mount"]).ok();
        let token = next_token(&mount);
        assert!(token > last, "mount {round}: {token} after {last}");
        last = next_token(&mount);
        if round % 2 == 0 {
            mount.lockfs(&["umount"]).ok();
        } else {
            mount.kill_daemon();
        }
    }
}

/// The session of a plain open is `GIT_LOCKFS_SESSION` from the holder's environment at its exec, else `sid-` and its
/// session id.
#[test]
fn a_plain_open_has_the_session_of_its_environment() {
    let mount = Mount::new();
    let mut command = mount.command(executable());
    command.env("GIT_LOCKFS_SESSION", "agent-7");
    let mut named = Client::start(command);
    let _fd = named.open(mount.lock("x.lock"), TAKE).unwrap();
    assert_eq!(entry(&mount, "x.lock")["holders"][0]["session"], "agent-7");
    assert_eq!(
        getxattr(mount.lock("x.lock"), "user.lockfs.session").unwrap().trim(),
        "agent-7"
    );

    let (_plain, _) = holder(&mount, "y.lock");
    // SAFETY: plain system call.
    let own = unsafe { libc::getsid(0) };
    assert_eq!(entry(&mount, "y.lock")["holders"][0]["session"], format!("sid-{own}"));
}

/// from the holder's environment at its exec
#[test]
fn the_environment_counts_as_it_was_at_exec() {
    let mount = Mount::new();
    let script = "exec 9> $L/a.lock; export GIT_LOCKFS_SESSION=late; exec 8> $L/b.lock; \
        cat $L/a.lock $L/b.lock | grep -c late; GIT_LOCKFS_SESSION=early bash -c 'exec 7> $L/c.lock; cat $L/c.lock'";
    let said = mount.sh(script).ok().text();
    let (late, child) = said.split_once('\n').unwrap();
    assert_eq!(late, "0");
    assert!(child.contains(":early"), "{child}");
}

/// A session that is malformed in the environment counts as none.
#[test]
fn a_malformed_session_is_not_taken_over() {
    let mount = Mount::new();
    let mut command = mount.command(executable());
    command.env("GIT_LOCKFS_SESSION", "a b:c\n");
    let mut client = Client::start(command);
    client.open(mount.lock("x.lock"), TAKE).unwrap();
    let session = entry(&mount, "x.lock")["holders"][0]["session"].clone();
    assert!(session.as_str().is_some_and(|s| s.starts_with("sid-")), "{session}");
}
