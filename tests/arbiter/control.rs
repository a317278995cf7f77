//! `control`: rare administrative verbs.

use std::os::unix::fs::PermissionsExt;

use crate::support::client::Op;
use crate::support::process::require;
use crate::support::sys::Errno;
use crate::support::{Mount, Said, client::Client, client::executable};
use crate::{EXCL, HANDLE, TAKE, TRY, acquire, control, entry, holder, waiter};

fn token(mount: &Mount, name: &str) -> u64 {
    entry(mount, name)["holders"][0]["token"]
        .as_u64()
        .expect("a holder with a token")
}

/// Breaking someone's lock is explicit: `echo 'break x.lock TOKEN REASON' > control`; the former holder's handle then
/// answers ESTALE.
#[test]
fn a_broken_lock_is_free_and_its_handle_is_stale() {
    let mount = Mount::new();
    let (mut holding, fd) = holder(&mount, "x.lock");
    let mut waiting = waiter(&mount, "x.lock", 1);
    let line = format!("break x.lock {} the build hangs\n", token(&mount, "x.lock"));
    assert!(control(&mount, &line).is_ok());
    assert!(waiting.finish().is_ok(), "the next one is served");
    assert_eq!(holding.write(fd, "1\n"), Err(Errno::ESTALE));
    assert_eq!(holding.flock(fd, libc::LOCK_EX | libc::LOCK_NB), Err(Errno::ESTALE));
    assert!(
        holding
            .cat(mount.path("last-error"))
            .unwrap()
            .contains("the build hangs"),
        "it is told why"
    );
    holding.close(fd);
    let mut third = mount.client();
    assert_eq!(
        third.open(mount.lock("x.lock"), TRY),
        Err(Errno::EAGAIN),
        "the stale close released nothing"
    );
}

/// the former holder's handle then answers ESTALE
#[test]
fn breaking_reaches_every_way_to_hold() {
    let mount = Mount::new();
    let mut client = mount.client();
    let by_flock = client.open(mount.lock("f.lock"), HANDLE).unwrap();
    assert_eq!(client.flock(by_flock, libc::LOCK_EX), Ok(0));
    let by_acquire = acquire(&mut client, &mount, "locks=a.lock,b.lock\n").unwrap();
    client.read(by_acquire, 256).expect("the grant");
    let lease = client.open(mount.lock("l.lock"), EXCL).unwrap();
    client.close(lease);
    client.mkdir(mount.lock("m.lock")).unwrap();
    mount.sh("echo $PPID > $L/o.lock").ok();
    for name in ["f.lock", "a.lock", "l.lock", "m.lock", "o.lock"] {
        let line = format!("break {name} {} test\n", token(&mount, name));
        assert!(control(&mount, &line).is_ok(), "{name}");
        mount.wait_until_free(name);
    }
    assert_eq!(
        client.flock(by_flock, libc::LOCK_SH | libc::LOCK_NB),
        Err(Errno::ESTALE)
    );
    assert_eq!(client.read(by_acquire, 256), Err(Errno::ESTALE));
}

/// (the token makes sure that it hits the holder that was meant)
#[test]
fn another_token_breaks_nothing() {
    let mount = Mount::new();
    let (mut former, fd) = holder(&mount, "x.lock");
    let old = token(&mount, "x.lock");
    former.close(fd);
    let (mut holding, fd) = holder(&mount, "x.lock");
    for wrong in [old, 0, u64::MAX] {
        assert!(
            control(&mount, &format!("break x.lock {wrong} test\n")).is_err(),
            "{wrong}"
        );
    }
    assert!(control(&mount, "break free.lock 1 test\n").is_err());
    assert_eq!(entry(&mount, "x.lock")["holders"][0]["pid"], holding.pid());
    assert!(
        holding.write(fd, &format!("{}\n", holding.pid())).is_ok(),
        "its handle is as good as before"
    );
}

/// `release-session S`
#[test]
fn a_session_is_released_at_once() {
    let mount = Mount::new();
    let mut agent = mount.client();
    acquire(&mut agent, &mount, "locks=a.lock,b.lock session=agent-7\n").unwrap();
    let fd = agent.open(mount.lock("o.lock"), TAKE).unwrap();
    agent.write(fd, &format!("{}:agent-7\n", agent.pid())).unwrap();
    agent.close(fd);
    let mut other = mount.client();
    acquire(&mut other, &mount, "locks=c.lock session=agent-8\n").unwrap();
    assert_eq!(mount.listed(), ["a.lock", "b.lock", "c.lock", "o.lock"]);
    assert!(control(&mount, "release-session agent-7\n").is_ok());
    assert_eq!(mount.listed(), ["c.lock"]);
}

/// `drain` (nothing new is granted: waits go on, O_NONBLOCK is EAGAIN, O_EXCL is EEXIST), `resume`
#[test]
fn while_drained_nothing_new_is_granted() {
    let mount = Mount::new();
    let (mut holding, fd) = holder(&mount, "x.lock");
    let mut waiting = waiter(&mount, "x.lock", 1);
    assert!(control(&mount, "drain\n").is_ok());
    assert_eq!(mount.locks_json()["drained"], true);
    holding.close(fd);
    let mut other = mount.client();
    assert_eq!(other.open(mount.lock("y.lock"), TRY), Err(Errno::EAGAIN));
    assert_eq!(other.open(mount.lock("y.lock"), EXCL), Err(Errno::EEXIST));
    assert_eq!(other.mkdir(mount.lock("y.lock")), Err(Errno::EEXIST));
    let handle = other
        .open(mount.lock("y.lock"), HANDLE)
        .expect("a handle takes no lock");
    assert_eq!(other.flock(handle, libc::LOCK_EX | libc::LOCK_NB), Err(Errno::EAGAIN));
    assert_eq!(acquire(&mut other, &mount, "locks=y.lock wait=0\n"), Err(Errno::EAGAIN));
    let mut new = mount.client();
    new.begin_open(mount.lock("y.lock"), TAKE);
    mount.wait_for_waiters("y.lock", 1);
    assert!(!waiting.answered() && !new.answered(), "waits go on");

    assert!(control(&mount, "resume\n").is_ok());
    assert_eq!(mount.locks_json()["drained"], false);
    assert!(waiting.finish().is_ok());
    assert!(new.finish().is_ok());
}

/// `drain`: what is held stays held, and can be released.
#[test]
fn holders_go_on_while_drained() {
    let mount = Mount::new();
    let (mut holding, fd) = holder(&mount, "x.lock");
    assert!(control(&mount, "drain\n").is_ok());
    assert!(holding.write(fd, &format!("{}\n", holding.pid())).is_ok());
    holding.close(fd);
    assert!(holding.unlink(mount.lock("x.lock")).is_ok());
    assert!(control(&mount, "resume\n").is_ok());
    mount.wait_until_free("x.lock");
}

/// `reload`
#[test]
fn reload_reads_the_configuration_again() {
    let mount = Mount::with(&[("wait", "60s")]);
    let (_holder, _) = holder(&mount, "x.lock");
    mount.git(&["config", "lockfs.wait", "100ms"]);
    assert!(control(&mount, "reload\n").is_ok());
    let mut client = mount.client();
    assert_eq!(client.open(mount.lock("x.lock"), TAKE), Err(Errno::ETIMEDOUT));
}

/// An unknown key or a bad value: `reload` keeps the old one and says so.
#[test]
fn reload_keeps_the_old_when_the_new_is_bad() {
    let mount = Mount::with(&[("wait", "100ms")]);
    let (_holder, _) = holder(&mount, "x.lock");
    for (key, value) in [("lockfs.wait", "soon"), ("lockfs.wiat", "5s")] {
        mount.git(&["config", key, value]);
        let mut admin = mount.client();
        let fd = admin.open(mount.path("control"), libc::O_WRONLY).unwrap();
        assert_eq!(admin.write(fd, "reload\n"), Err(Errno::EINVAL), "{key}={value}");
        let reason = admin.ask(Op::Cat {
            path: mount.path("last-error"),
        });
        let reason = reason.expect("last-error can be read").to_lowercase();
        assert!(reason.contains(key), "it names {key}: {reason}");
        let mut client = mount.client();
        assert_eq!(
            client.open(mount.lock("x.lock"), TAKE),
            Err(Errno::ETIMEDOUT),
            "the old limit holds"
        );
        mount.git(&["config", "--unset", key]);
    }
}

/// One verb a line
#[test]
fn several_verbs_can_come_at_once() {
    let mount = Mount::new();
    assert!(control(&mount, "drain\nflush-metrics\nresume\n").is_ok());
    assert_eq!(mount.locks_json()["drained"], false);
    assert!(
        control(&mount, "flush-metrics").is_ok(),
        "the end of the line may be missing"
    );
}

/// Unknown verb: EINVAL.
#[test]
fn an_unknown_verb_is_refused_with_a_sentence() {
    let mount = Mount::new();
    assert_eq!(control(&mount, "explode\n"), Err(Errno::EINVAL));
    let said = mount.sh("echo explode > $M/control; cat $M/last-error").text();
    assert!(said.contains("explode"), "{said}");
    let refused = control(&mount, "drain\nexplode\n");
    assert_eq!(refused, Err(Errno::EINVAL));
    assert_eq!(
        mount.locks_json()["drained"],
        false,
        "what is malformed is refused whole"
    );
}

/// no process more confined than the daemon: any namespace, …, seccomp mode, no_new_privs or capability set that differs
#[test]
fn a_confined_writer_is_refused() {
    let mount = Mount::new();
    let write = "echo drain > $M/control";
    let confinements: [&[&str]; 6] = [
        &["setpriv", "--no-new-privs"],
        &["unshare", "--mount"],
        &["unshare", "--net"],
        &["unshare", "--uts"],
        &["unshare", "--ipc"],
        &["bwrap", "--bind", "/", "/", "--dev-bind", "/dev", "/dev"],
    ];
    for confinement in confinements {
        let mut command = mount.command(require(confinement[0]));
        // An ordinary user needs a user namespace for the others; that confines as well.
        if confinement[0] == "unshare" && !nix::unistd::geteuid().is_root() {
            command.args(["--user", "--map-root-user"]);
        }
        command.args(&confinement[1..]).args(["bash", "-c", write]);
        let output = mount.run(command);
        assert!(
            output.error().contains("Permission denied"),
            "{confinement:?}: {}",
            output.error()
        );
        assert_eq!(mount.locks_json()["drained"], false, "{confinement:?}");
    }
    mount.sh(write).ok();
    assert_eq!(mount.locks_json()["drained"], true, "the same write from outside works");
}

/// Everybody who can open `control` may note, in a sandbox too: it adds a line and a figure, and does nothing else.
#[test]
fn a_note_is_for_everybody_who_takes_locks() {
    let mount = Mount::new();
    let facts = |missing: u32| format!("commit={} missing={missing} foreign=0", "0123456789".repeat(4));
    let note = |missing: u32| format!("note git_commit_validation_warning {}\\n", facts(missing));
    let confined = |text: String| {
        let mut command = mount.command(require("setpriv"));
        command.args([
            "--no-new-privs",
            "bash",
            "-c",
            &format!("env printf '{text}' >$M/control"),
        ]);
        mount.run(command)
    };
    mount
        .sh(&format!("env printf '{}' >$M/control", note(1) + &note(2)))
        .ok();
    confined(note(3)).ok();
    let refused = confined(note(4) + "drain\\n");
    assert!(refused.error().contains("Permission denied"), "{}", refused.error());
    assert_eq!(mount.locks_json()["drained"], false);
    let events = mount.sh("cat $M/metrics/events.csv").text();
    let told: Vec<&str> = events
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(','))
        .map(|(_, rest)| rest)
        .collect();
    let expected = [1, 2, 3].map(|missing| format!("git_commit_validation_warning,,0.000,{}", facts(missing)));
    assert_eq!(told, expected, "and none of the write that was refused");
    let counter = mount.sh("grep ^lockfs_git_commit_validation_warnings_total $M/metrics/metrics.prom");
    assert_eq!(counter.text(), "lockfs_git_commit_validation_warnings_total 3");
    let summary = mount.sh("cat $M/metrics/summary.json").text();
    assert!(!summary.contains("commit="), "it is no operation: {summary}");
}

/// The bounding set counts: without it a setuid program could not do what the daemon can.
#[test]
fn a_writer_with_other_capabilities_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        // Only a process that has capabilities can differ in them; the other confinements are tested for everybody.
        return;
    }
    let mount = Mount::new();
    let mut command = mount.command(require("setpriv"));
    command.args(["--bounding-set=-sys_boot", "bash", "-c", "echo drain > $M/control"]);
    let output = mount.run(command);
    assert!(output.error().contains("Permission denied"), "{}", output.error());
    assert_eq!(mount.locks_json()["drained"], false);
}

/// Owner or root only. (EACCES), also under allow_other
#[test]
fn another_user_is_refused() {
    if !nix::unistd::geteuid().is_root() {
        // Without root there is no second user to be; the kernel itself keeps others out of an ordinary mount.
        return;
    }
    let mount = Mount::start(crate::support::Repository::new(), &[], &["--allow-other"]);
    // So that the other user reaches the mountpoint at all.
    for directory in [mount.dir(), mount.repo()] {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let mut command = mount.command(require("setpriv"));
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args(["bash", "-c", "ls $L; echo drain > $M/control; echo drained $?"]);
    let output = mount.run(command);
    assert!(
        output.text().contains("drained 1"),
        "{}{}",
        output.text(),
        output.error()
    );
    assert!(
        output.error().contains("control: Permission denied") || output.error().contains("write error: Permission")
    );
    assert_eq!(mount.locks_json()["drained"], false);
}

/// One writer never freezes another: each has an inode of its own behind the same st_ino.
#[test]
fn two_descriptors_of_control_are_one_file_to_stat() {
    let mount = Mount::new();
    let inode = |path: &str| mount.sh(&format!("stat -c %i {path}; stat -c %i {path}")).ok().text();
    for path in ["$M/control", "$M/acquire"] {
        let said = inode(path);
        let (first, second) = said.split_once('\n').unwrap();
        assert_eq!(first, second, "{path}");
    }
}

/// The holder that was broken may be this very client, started anew: a fresh handle is good.
#[test]
fn a_fresh_handle_after_a_break_is_good() {
    let mount = Mount::new();
    let mut client = Client::start(mount.command(executable()));
    let fd = client.open(mount.lock("x.lock"), TAKE).unwrap();
    let line = format!("break x.lock {} test\n", token(&mount, "x.lock"));
    assert!(control(&mount, &line).is_ok());
    assert!(client.open(mount.lock("x.lock"), TAKE).is_ok(), "beside the stale one");
    client.close(fd);
    assert!(mount.taken("x.lock"));
}
