//! A request that was carried out but not answered gets the same answer when it comes again: nothing is granted twice,
//! nothing done twice. The worker dies at each place between a request and its answer, and in its own housekeeping.

use libc::{LOCK_EX, O_RDWR};

use crate::support::sys::{Errno, Sys};
use crate::support::{Client, Op, Said, wait_until};
use crate::{Crashing, EXCL, TAKE, assert_same};

/// Where a worker dies about a request.
const POINTS: [&str; 4] = ["before-journal", "after-journal", "before-reply", "after-reply"];

/// A call that changes something, and how it can be seen afterwards that it was done once.
struct Case {
    what: &'static str,
    prepare: fn(&Crashing, &mut Client) -> i32,
    call: fn(&Crashing, &mut Client, i32) -> Sys<i64>,
    /// Whether it takes the lock, which is free before.
    takes: bool,
    check: fn(&Crashing, &mut Client),
}

fn nothing(_: &Crashing, _: &mut Client) -> i32 {
    0
}

fn held(mount: &Crashing, _: &mut Client) {
    assert!(mount.taken("x.lock"));
}

fn free(mount: &Crashing, _: &mut Client) {
    mount.wait_until_free("x.lock");
}

fn taken_by_excl(mount: &Crashing, client: &mut Client) -> i32 {
    let fd = client.open(mount.lock("x.lock"), EXCL).expect("free");
    client.close(fd);
    fd
}

fn taken_by_open(mount: &Crashing, client: &mut Client) -> i32 {
    client.open(mount.lock("x.lock"), TAKE).expect("free")
}

const CASES: [Case; 14] = [
    Case {
        what: "open",
        prepare: nothing,
        call: |mount, client, _| client.open(mount.lock("x.lock"), TAKE).map(i64::from),
        takes: true,
        check: held,
    },
    Case {
        what: "O_EXCL",
        prepare: nothing,
        call: |mount, client, _| client.open(mount.lock("x.lock"), EXCL).map(i64::from),
        takes: true,
        check: held,
    },
    Case {
        what: "mkdir",
        prepare: nothing,
        call: |mount, client, _| client.mkdir(mount.lock("x.lock")),
        takes: true,
        check: held,
    },
    Case {
        what: "symlink",
        prepare: nothing,
        call: |mount, client, _| {
            let path = mount.lock("x.lock");
            let target = "0".to_owned();
            client.call(Op::Symlink { target, path })
        },
        takes: true,
        check: held,
    },
    Case {
        what: "link",
        prepare: |mount, client| {
            let fd = client.open(mount.lock(".s"), EXCL).expect("free");
            client.close(fd);
            0
        },
        call: |mount, client, _| {
            let (from, to) = (mount.lock(".s"), mount.lock("x.lock"));
            client.call(Op::Link { from, to })
        },
        takes: true,
        check: |mount, client| {
            held(mount, client);
            client.unlink(mount.lock(".s")).expect("it is there");
        },
    },
    Case {
        what: "rename",
        prepare: |mount, client| {
            let fd = client.open(mount.lock(".s"), EXCL).expect("free");
            client.close(fd);
            0
        },
        call: |mount, client, _| {
            let (from, to) = (mount.lock(".s"), mount.lock("x.lock"));
            client.call(Op::Rename { from, to })
        },
        takes: true,
        check: |mount, client| {
            held(mount, client);
            assert!(!mount.taken(".s"));
        },
    },
    Case {
        what: "unlink",
        prepare: taken_by_excl,
        call: |mount, client, _| client.unlink(mount.lock("x.lock")),
        takes: false,
        check: free,
    },
    Case {
        what: "rmdir",
        prepare: |mount, client| client.mkdir(mount.lock("x.lock")).expect("free") as i32,
        call: |mount, client, _| client.rmdir(mount.lock("x.lock")),
        takes: false,
        check: free,
    },
    Case {
        what: "close",
        prepare: taken_by_open,
        call: |_, client, fd| client.call(Op::Close { fd }),
        takes: false,
        check: free,
    },
    Case {
        what: "flock",
        prepare: |mount, client| client.open(mount.door("x.lock"), O_RDWR).expect("every name exists"),
        call: |_, client, fd| client.flock(fd, LOCK_EX),
        takes: true,
        check: held,
    },
    Case {
        what: "fcntl",
        prepare: |mount, client| client.open(mount.door("x.lock"), O_RDWR).expect("every name exists"),
        call: |_, client, fd| client.fcntl(fd, libc::F_SETLK, libc::F_WRLCK, 3, 4),
        takes: true,
        check: held,
    },
    Case {
        what: "acquire",
        prepare: |mount, client| client.open(mount.path("acquire"), O_RDWR).expect("it opens"),
        call: |_, client, fd| client.write(fd, "locks=x.lock mode=exclusive"),
        takes: true,
        check: held,
    },
    Case {
        what: "text",
        prepare: taken_by_open,
        call: |_, client, fd| client.write(fd, "0:agent-7\nnote\n"),
        takes: false,
        check: |mount, _| {
            let text = mount.text_of("x.lock").expect("it is held");
            assert!(text.starts_with("0:agent-7\n") && text.ends_with("\nnote\n"), "{text}");
        },
    },
    Case {
        what: "file in a directory",
        prepare: |mount, client| client.mkdir(mount.lock("x.lock")).expect("free") as i32,
        call: |mount, client, _| client.open(mount.lock("x.lock").join("a"), EXCL).map(i64::from),
        takes: false,
        check: |mount, client| {
            client
                .unlink(mount.lock("x.lock").join("a"))
                .map(|_| held(mount, client))
                .expect("once")
        },
    },
];

fn every_case_at(point: &str) {
    for case in CASES {
        let mount = Crashing::new();
        let what = format!("{} {point}", case.what);
        let mut client = mount.client();
        let fd = (case.prepare)(&mount, &mut client);
        let token = mount.field_of("x.lock", "token");
        let worker = mount.worker_pid();
        mount.die_at(point);
        let answer = (case.call)(&mount, &mut client, fd);
        assert!(answer.is_ok(), "{what}: {answer:?}");
        wait_until(&what, || mount.has_died_at(point));
        wait_until("another worker serves", || {
            mount.worker().is_some_and(|now| now != worker)
        });
        (case.check)(&mount, &mut client);
        if !case.takes && mount.taken("x.lock") {
            assert_eq!(mount.field_of("x.lock", "token"), token, "{what}: the same grant");
        }
        client.kill();
        mount.sh("rm -rf $L/x.lock");
        mount.wait_until_free("x.lock");
        assert_eq!(
            mount.locks_json()["locks"],
            serde_json::json!([]),
            "{what}: nothing is left"
        );
    }
}

#[test]
fn a_death_before_the_journal_has_done_nothing() {
    every_case_at(POINTS[0]);
}

#[test]
fn a_death_after_the_journal_is_answered_from_it() {
    every_case_at(POINTS[1]);
}

#[test]
fn a_death_before_the_reply_is_answered_from_the_journal() {
    every_case_at(POINTS[2]);
}

#[test]
fn a_death_after_the_reply_repeats_nothing() {
    every_case_at(POINTS[3]);
}

/// One request, one grant: what its client reads is the token of the grant that holds the lock.
#[test]
fn a_transaction_that_is_repeated_has_one_token() {
    let mount = Crashing::new();
    for point in POINTS {
        let mut client = mount.client();
        let fd = client.open(mount.path("acquire"), O_RDWR).expect("it opens");
        mount.die_at(point);
        client
            .write(fd, "locks=x.lock mode=exclusive")
            .unwrap_or_else(|errno| panic!("{point}: {errno}"));
        wait_until(point, || mount.has_died_at(point));
        mount.die_at(point);
        let line = client.read(fd, 100).unwrap_or_else(|errno| panic!("{point}: {errno}"));
        assert_eq!(line, format!("token={}\n", mount.token("x.lock")), "{point}");
        wait_until(point, || mount.taken("x.lock") && mount.has_died_at(point));
        client.close(fd);
        mount.wait_until_free("x.lock");
    }
}

/// The grant of one who waits, decided by the release of another: neither is lost.
#[test]
fn a_death_about_a_grant_of_a_waiter_grants_it_once() {
    let mount = Crashing::new();
    for point in POINTS {
        let (mut holder, fd) = mount.holder("x.lock");
        let mut first = mount.waiter("x.lock", 1);
        let mut second = mount.waiter("x.lock", 2);
        mount.die_at(point);
        holder.close(fd);
        let granted = first.finish().unwrap_or_else(|errno| panic!("{point}: {errno}"));
        wait_until(point, || mount.has_died_at(point) || mount.waiters("x.lock") == 1);
        assert!(!second.answered(), "{point}");
        first.close(granted as i32);
        second.finish().unwrap_or_else(|errno| panic!("{point}: {errno}"));
        second.kill();
        mount.wait_until_free("x.lock");
    }
}

/// A refusal is an answer, too.
#[test]
fn a_refusal_is_the_same_when_it_comes_again() {
    let mount = Crashing::new();
    let (_holder, _) = mount.holder("x.lock");
    let mut client = mount.client();
    for point in ["before-reply", "after-reply"] {
        for (flags, errno) in [(TAKE | libc::O_NONBLOCK, Errno::EAGAIN), (EXCL, Errno::EEXIST)] {
            mount.die_at(point);
            assert_eq!(client.open(mount.lock("x.lock"), flags), Err(errno), "{point}");
            wait_until(point, || mount.has_died_at(point));
        }
    }
}

/// The worker dies while it writes its journal anew: everything is as it was.
#[test]
fn a_death_in_compaction_loses_nothing() {
    let mount = Crashing::new();
    let (_a, _) = mount.holder("a.lock");
    let _waits = mount.waiter("a.lock", 1);
    let mut keeper = mount.client();
    keeper.mkdir(mount.lock("b.lock")).unwrap();
    let fd = keeper.open(mount.lock("c.lock"), TAKE).unwrap();
    keeper.write(fd, "0:s\n").unwrap();
    wait_until("all are known", || {
        !mount.locks_json().to_string().contains("\"session\":null")
    });
    let before = mount.picture();
    for _ in 0..3 {
        mount.die_at("in-compaction");
        mount.die_at("compact-soon");
        wait_until("it died in compaction", || {
            let (client, _) = mount.holder("x.lock");
            client.kill();
            mount.wait_until_free("x.lock");
            mount.has_died_at("in-compaction")
        });
        let _ = std::fs::remove_file(mount.faults.join("compact-soon"));
        assert_same(&mount.picture(), &before);
    }
}

/// The worker that reads the journal dies as well, again and again.
#[test]
fn a_death_in_replay_loses_nothing() {
    let mount = Crashing::new();
    let (mut holder, fd) = mount.holder("a.lock");
    let mut waits = mount.waiter("a.lock", 1);
    for _ in 0..3 {
        mount.die_at("in-replay");
        mount.kill_worker();
        wait_until("it died in replay", || mount.has_died_at("in-replay"));
        assert_eq!(mount.waiters("a.lock"), 1);
    }
    holder.close(fd);
    waits.finish().unwrap();
}

/// Compaction again and again while clients are at work.
#[test]
fn compaction_goes_on_beside_the_work() {
    let mount = Crashing::new();
    mount.die_at("compact-soon");
    let script = "for i in $(seq 50); do echo $$ > $L/x.lock && rm $L/x.lock || exit; done; echo done";
    let shells: Vec<_> = (0..4).map(|_| mount.spawn_sh(script)).collect();
    for _ in 0..3 {
        mount.kill_worker();
        wait_until("the next worker serves", || mount.worker().is_some());
    }
    for shell in shells {
        assert_eq!(shell.finish().ok().text(), "done");
    }
}
