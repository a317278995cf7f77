//! How long it is held: by a lease, which its keeper keeps.
//!
//! No test sleeps until a lease has passed. Where time must pass, a second lock is the clock: its keeper was killed, so
//! it goes exactly when the time of both is over.

use libc::{O_CREAT, O_EXCL, O_NONBLOCK, O_WRONLY, SIGKILL};

use crate::support::sys::{self, Errno};
use crate::support::{Client, Mount, Op, Running, Said, wait_until};

/// Long enough for a test to look in between, short enough to wait for.
const LEASE: &[(&str, &str)] = &[("lease", "2s")];

fn make(mount: &Mount, client: &mut Client, name: &str) {
    let fd = client.open(mount.lock(name), O_WRONLY | O_CREAT | O_EXCL).unwrap();
    client.close(fd);
}

/// Leaves `clock` held by nobody's keeping and returns when its lease has passed.
fn let_a_lease_pass(mount: &Mount) {
    let mut gone = mount.client();
    make(mount, &mut gone, "clock");
    gone.kill();
    mount.wait_until_free("clock");
}

fn staying(mount: &Mount, script: &str) -> Running {
    let shell = mount.spawn_sh(&format!("{script}\necho ready\nwhile :; do sleep 60; done"));
    shell.wait_for_line("ready");
    shell
}

/// "lease: O_EXCL, mkdir, symlink, link, touch(1), with no PID written (or PID 0) | at `rm`/`rmdir`"
#[test]
fn a_lease_outlives_its_descriptor() {
    let mount = Mount::new();
    let mut client = mount.client();
    let locks = mount.locks();
    make(&mount, &mut client, "open");
    client.mkdir(locks.join("mkdir")).unwrap();
    client
        .call(Op::Symlink {
            target: "0".to_owned(),
            path: locks.join("symlink"),
        })
        .unwrap();
    let fd = client
        .open(locks.join(".scratch"), O_WRONLY | O_CREAT | O_EXCL)
        .unwrap();
    client.write(fd, "0\n").unwrap();
    client.close(fd);
    client
        .call(Op::Link {
            from: locks.join(".scratch"),
            to: locks.join("link"),
        })
        .unwrap();
    let fd = client
        .open(locks.join("touch"), O_WRONLY | O_CREAT | O_NONBLOCK)
        .unwrap();
    client.call(Op::Futimens { fd, time: None }).unwrap();
    client.close(fd);
    let fd = client.open(locks.join("zero"), O_WRONLY | O_CREAT | O_EXCL).unwrap();
    client.write(fd, "0\n").unwrap();
    client.close(fd);
    for name in ["open", "mkdir", "symlink", "link", "touch", "zero"] {
        assert_eq!(mount.field_of(name, "held").as_deref(), Some("lease"), "{name}");
        let path = mount.lock(name);
        if name == "mkdir" {
            client.rmdir(path)
        } else {
            client.unlink(path)
        }
        .unwrap();
        assert!(!mount.taken(name), "{name}");
    }
}

/// "or when its keeper is gone and 5 minutes (configurable) have passed since it was made or renewed"
#[test]
fn a_lease_without_keeper_ends_when_its_time_has_passed() {
    let mount = Mount::with(LEASE);
    let (mut keeper, mut waiter) = (mount.client(), mount.client());
    make(&mount, &mut keeper, "x.lock");
    keeper.kill();
    assert!(mount.taken("x.lock"), "its time has not passed");
    waiter.begin_open(mount.lock("x.lock"), O_WRONLY | O_CREAT);
    mount.wait_for_waiters("x.lock", 1);
    waiter.finish().expect("the lease goes to who waits");
}

/// "and nobody alive is robbed by age"
#[test]
fn a_lease_with_a_living_keeper_stays_past_its_time() {
    let mount = Mount::with(LEASE);
    let mut keeper = mount.client();
    make(&mount, &mut keeper, "x.lock");
    keeper.mkdir(mount.lock("y.lock")).unwrap();
    let_a_lease_pass(&mount);
    assert!(mount.taken("x.lock") && mount.taken("y.lock"));
    keeper.signal(SIGKILL);
    mount.wait_until_free("x.lock");
    mount.wait_until_free("y.lock");
}

/// "If the keeper exits within 2 s of creation and not by a signal, as mkdir(1) and lockfile(1) do, the next ancestor
/// keeps it … So a script's `mkdir` holds for the script"
#[test]
fn a_scripts_mkdir_holds_for_the_script() {
    let mount = Mount::with(LEASE);
    let script = staying(&mount, "mkdir $L/x.lock; bash -c 'mkdir $L/y.lock; :'");
    let_a_lease_pass(&mount);
    assert!(mount.taken("x.lock") && mount.taken("y.lock"), "the script lives");
    script.signal(SIGKILL);
    mount.wait_until_free("x.lock");
    mount.wait_until_free("y.lock");
}

/// "… and not by a signal": a killed keeper passes nothing on, though its ancestors live.
#[test]
fn a_killed_keeper_passes_nothing_on_and_one_that_exits_does() {
    let mount = Mount::with(LEASE);
    let (mut killed, mut exits) = (mount.client(), mount.client());
    make(&mount, &mut exits, "exits");
    exits.exit();
    make(&mount, &mut killed, "killed");
    killed.kill();
    mount.wait_until_free("killed");
    assert!(mount.taken("exits"), "this test is the next ancestor and lives");
    sys::unlink(mount.lock("exits")).expect("its keeper may remove it");
}

/// "never PID 1, a subreaper, the daemon or a process we cannot see: then time alone counts"
#[test]
fn a_lease_of_an_orphan_has_time_alone() {
    let mount = Mount::with(LEASE);
    let script = "import os, time
parent = os.getpid()
if os.fork() == 0:
    while os.getppid() == parent: time.sleep(0.001)
    os.mkdir(os.environ['L'] + '/x.lock')
";
    mount.python(script).ok();
    wait_until("the orphan has made it", || mount.taken("x.lock"));
    mount.wait_until_free("x.lock");
}

/// "since it was made or renewed … Renewal is touch(1)/utimes"
#[test]
fn a_renewed_lease_has_its_whole_time_again() {
    let mount = Mount::with(LEASE);
    let mut keeper = mount.client();
    make(&mount, &mut keeper, "old");
    make(&mount, &mut keeper, "renewed");
    let_a_lease_pass(&mount);
    let path = mount.lock("renewed");
    keeper.call(Op::Utimens { path, time: None }).unwrap();
    keeper.kill();
    mount.wait_until_free("old");
    assert!(mount.taken("renewed"), "its time began anew");
    mount.wait_until_free("renewed");
}

/// "Renewal … by those who may remove it (others: EBUSY)"
#[test]
fn a_stranger_cannot_renew() {
    let mount = Mount::new();
    let (mut keeper, mut stranger) = (mount.client(), mount.client());
    make(&mount, &mut keeper, "x.lock");
    let touch = Op::Utimens {
        path: mount.lock("x.lock"),
        time: None,
    };
    assert_eq!(stranger.call(touch.clone()), Err(Errno::EBUSY));
    assert_eq!(keeper.call(touch), Ok(0));
}

/// "futimens on a handle that took its lock by open makes it a lease (that is what touch sends)"
#[test]
fn touch_takes_a_lease_and_renews_it() {
    let mount = Mount::new();
    let said = mount.sh("touch $L/x.lock && grep held $L/x.lock && touch $L/x.lock && echo renewed && rm $L/x.lock");
    assert_eq!(said.ok().text(), "held=lease\nrenewed");
    let _holder = staying(&mount, "touch $L/x.lock");
    assert_ne!(mount.sh("touch $L/x.lock").code(), 0, "a stranger's");
}

/// "A lock made in an agent's tool call holds for the agent": the keeper is found however many short-lived shells lie
/// between, each gone within 2 s.
#[test]
fn a_lease_climbs_past_every_shell_that_ends() {
    let mount = Mount::with(LEASE);
    let agent = staying(&mount, "bash -c 'bash -c \"sh -c \\\"ln -s 0 $L/x.lock; :\\\"; :\"; :'");
    let_a_lease_pass(&mount);
    assert!(mount.taken("x.lock"));
    agent.signal(SIGKILL);
    mount.wait_until_free("x.lock");
}

/// Whoever looks is shown the process that keeps the lock now, with its session and what it does.
#[test]
fn a_lease_shows_who_keeps_it_now() {
    let mount = Mount::new();
    let script = "touch $L/touch.lock; mkdir $L/mkdir.lock; ln -s 0 $L/link.lock
echo 0 > $L/zero.lock; (set -C; : > $L/excl.lock); bash -c 'mkdir $L/below.lock; :'
head -q -n 1 $L/touch.lock $L/excl.lock; echo ready; while :; do sleep 60; done";
    let mut command = mount.script("bash", script);
    command.env("GIT_LOCKFS_SESSION", "agent-7");
    let shell = mount.spawn(command);
    shell.wait_for_line("ready");
    let line = format!("{}:agent-7:", shell.id());
    let said = shell.said();
    assert_eq!(
        said.lines().filter(|said| said.starts_with(&line)).count(),
        2,
        "at once: {said}"
    );
    // A line that was written is shown as it was written: `0` of ln(1) and echo.
    let written = ["zero.lock", "link.lock"];
    wait_until("the table agrees", || {
        let table = mount.locks_json();
        let locks = table["locks"].as_array().expect("locks is an array");
        let agrees = |lock: &serde_json::Value| {
            let (name, holder) = (lock["name"].as_str().expect("a name"), &lock["holders"][0]);
            let pid = if written.contains(&name) { 0 } else { shell.id() };
            holder["pid"] == pid && holder["session"] == "agent-7" && holder["op"] == "bash"
        };
        locks.len() == 6 && locks.iter().all(agrees)
    });
    let release = "echo release-session agent-7 > $M/control && test -z \"$(ls $L)\"";
    mount.sh(release).ok();
}

/// The session that was written counts more than that of whoever keeps it.
#[test]
fn a_written_session_stays_with_the_lease() {
    let mount = Mount::new();
    let shell = staying(&mount, "dash -c 'echo 0:agent-9 > $L/x.lock; sleep 0.05'");
    let holder = || mount.locks_json()["locks"][0]["holders"][0].clone();
    wait_until("the shell keeps it", || {
        holder()["op"] == "bash" && holder()["session"] == "agent-9"
    });
    drop(shell);
}

/// What a holder does is known also when it has written the rest itself.
#[test]
fn a_written_line_does_not_hide_what_its_owner_does() {
    let mount = Mount::new();
    let _owner = staying(
        &mount,
        "echo $$:agent-7 > $L/x.lock; (set -C; echo 0:agent-8 > $L/y.lock)",
    );
    for name in ["x.lock", "y.lock"] {
        assert_eq!(mount.field_of(name, "op").as_deref(), Some("bash"), "{name}");
    }
}

/// "an mtime set by utimensat reads back exact": and nothing else changes it, as tar(1) looks twice.
#[test]
fn the_time_of_a_lock_is_the_same_at_every_look() {
    let mount = Mount::new();
    let mut holder = mount.client();
    holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    holder.mkdir(mount.lock("dir.lock")).unwrap();
    for name in ["x.lock", "dir.lock"] {
        let mtime = || {
            let attr = mount.lock(name).symlink_metadata().expect("it is held");
            attr.modified().expect("a time")
        };
        let first = mtime();
        assert!((0..200).all(|_| mtime() == first), "{name}");
    }
}

/// touch -a asks for another time of access only; it renews all the same.
#[test]
fn a_time_of_access_is_no_time_of_change() {
    let mount = Mount::with(LEASE);
    let mut keeper = mount.client();
    make(&mount, &mut keeper, "old");
    let said = mount.sh(
        "mkdir $L/x.lock; touch -d @1000 $L/x.lock; touch -a -d @2000 $L/x.lock; stat -c %Y $L/x.lock
mkdir $L/y.lock; a=$(stat -c %Y $L/y.lock); touch -a -d @2000 $L/y.lock; test $a = $(stat -c %Y $L/y.lock) && echo kept
touch -a $L/z.lock && stat -c %F $L/z.lock",
    );
    assert_eq!(said.ok().text(), "1000\nkept\nregular file");
}
