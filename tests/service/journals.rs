//! Journals of every version, written once and kept: each program reads those of all programs before it.
//!
//! `journals/N-records` ends with records, as after a crash, `journals/N-snapshot` with the snapshot of a planned
//! restart. What a next life makes of them is held against what it makes of the same story when this program tells it.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use git_lockfs::adapters::Journal;
use git_lockfs::ports::{Log, Replay};
use git_lockfs::service::api::{Answer, Call, Change, Files, LockStyle, Stamp};
use git_lockfs::service::check_replay;
use git_lockfs::types::{HandleId, Mode, NodeId, Range, Settings};

use crate::parked::waiters;
use crate::world::{BOTH, EXCL, LOCKS, Program, READ, ROOT, WRITE, World, by};

/// What every kind of record tells of: each way to hold, to wait and to have something open.
///
/// Those who can be seen have ended when the next life begins, as the callers in the kept journals have.
fn story(world: &World, ending: &Program) {
    let seen = by(ending.pid());
    // Held by a descriptor, waited for in three ways.
    world.take(by(0), "x.lock");
    waiters(world);
    // One who waits no more.
    let node = world.node(LOCKS, "x.lock");
    let waits = world.park(by(0), Call::Open { node, mode: WRITE });
    world.interrupt(waits);
    // A taker who is told that it lost the race.
    assert!(world.create(by(2_000_000_001), "x.lock", WRITE).is_err());
    // flock(2), shared, and a range by fcntl(2).
    let (node, handle) = world.lockable(by(0), "shared");
    assert_eq!(
        world.call(by(0), world.flock(node, handle, Some(Mode::Shared), false)),
        Answer::Done
    );
    let (node, handle) = world.lockable(by(0), "ranges");
    let call = range(node, handle, Some(Mode::Exclusive));
    assert_eq!(world.call(by(0), call), Answer::Done);
    // The same two, given back.
    let (node, handle) = world.lockable(by(0), "given-back");
    for mode in [Some(Mode::Exclusive), None] {
        assert_eq!(world.call(by(0), world.flock(node, handle, mode, false)), Answer::Done);
        assert_eq!(world.call(by(0), range(node, handle, mode)), Answer::Done);
    }
    world.call(by(0), Call::Flush { handle, owner: 77 });
    // A directory with a file in it, which stays open.
    let (parent, name) = (LOCKS, b"directory.lock");
    let Answer::Entry(directory) = world.call(by(0), Call::Mkdir { parent, name }) else {
        panic!("a directory")
    };
    create(world, directory.node, b"file", b"text");
    // A lock linked from a file that was none, and another such file; those live for a minute, so none stays open.
    let (_, scratch) = create(world, LOCKS, b".scratch", b"0\n");
    world.close(scratch);
    let (linked, scratch) = create(world, LOCKS, b".linked", b"0\n");
    let name = b"linked.lock";
    let link = world.call(
        by(0),
        Call::Link {
            node: linked,
            parent,
            name,
        },
    );
    assert!(matches!(link, Answer::Entry(_)), "{link:?}");
    world.close(scratch);
    // An owner who has ended when it is read, with a note; a descriptor of one who is seen.
    let handle = world.take(seen, "owner.lock");
    let text = format!("{}:a-session\na note", ending.pid());
    written_whole(world.write(seen, handle, 0, text.as_bytes()));
    written_whole(world.write(seen, handle, text.len() as u64, b", and more"));
    world.close(handle);
    world.take(seen, "seen.lock");
    // One that was removed while it was held.
    world.take(seen, "removed.lock");
    let (parent, name) = (LOCKS, &b"removed.lock"[..]);
    assert_eq!(world.call(seen, Call::Unlink { parent, name }), Answer::Done);
    // Leases: one by its modification time, one that is renewed.
    for taker in [seen, by(0)] {
        let name = if taker == seen { "touched.lock" } else { "lease.lock" };
        let handle = world.take(taker, name);
        let node = world.node(LOCKS, name);
        for handle in [Some(handle), None] {
            let change = Change {
                mtime: Some(Stamp::At(1_000_000_000, 5)),
                ..Change::default()
            };
            world.call(taker, Call::SetAttr { node, handle, change });
        }
    }
    // A transaction that has what it asked for, is read in part and polled; one lock of it was broken.
    let handle = world.open_root(by(0), "acquire", BOTH);
    let wanted = b"locks=a.lock,b.lock session=another priority=8 op=merge";
    written_whole(world.write(by(0), handle, 0, wanted));
    let (offset, size) = (0, 6);
    world.call(by(0), Call::Read { handle, offset, size });
    let (notify, events) = (Some(5), 1);
    world.call(by(0), Call::Poll { handle, notify, events });
    // Texts and listings that were rendered at the open.
    world.open_root(by(0), "README", READ);
    world.open_root(by(0), "control", WRITE);
    world.call(by(0), Call::OpenDir { node: LOCKS });
    world.call(by(0), Call::OpenDir { node: ROOT });
    world.service.attend_deadline();
}

/// fcntl(2) on some bytes.
fn range(node: NodeId, handle: HandleId, mode: Option<Mode>) -> Call<'static> {
    Call::SetLock {
        node,
        handle,
        style: LockStyle::Posix(77),
        mode,
        range: Range::new(10, 14).expect("a range"),
        wait: false,
    }
}

fn written_whole(answer: Answer) {
    assert!(matches!(answer, Answer::Written(_)), "{answer:?}");
}

/// Makes a small file and writes it; it stays open.
fn create(world: &World, parent: NodeId, name: &[u8], text: &[u8]) -> (NodeId, HandleId) {
    let mode = EXCL;
    let created = world.call(by(0), Call::Create { parent, name, mode });
    let Answer::Created(entry, opened) = created else {
        panic!("{created:?}")
    };
    written_whole(world.write(by(0), opened.handle, 0, text));
    (entry.node, opened.handle)
}

/// What can be seen of it in the next life, and what it answers to those who were at it.
fn seen(mut world: World) -> String {
    world.inspect();
    world.service.all_came_again();
    let mut seen = String::new();
    for name in [
        "x.lock",
        "shared",
        "ranges",
        "directory.lock",
        "linked.lock",
        "owner.lock",
        "seen.lock",
        "removed.lock",
        "touched.lock",
        "lease.lock",
        "a.lock",
        "b.lock",
    ] {
        let text = world.text(name);
        let mut lines = text.lines();
        // PID:SESSION:TIMESTAMP, and the times differ from one telling to the next.
        let session = lines.next().map(|line| line.split(':').nth(1));
        let lines: Vec<&str> = lines.filter(|line| !line.starts_with("since=")).collect();
        writeln!(seen, "{name}: {session:?} {lines:?}").expect("memory");
    }
    for handle in 1..24 {
        let (handle, offset, size) = (HandleId(handle), 0, 40);
        let (unique, answer) = world.send(by(0), Call::Read { handle, offset, size });
        let kind = answer.map(|answer| match answer {
            Answer::Data(data) => format!("{} bytes", data.len()),
            other => format!("{other:?}"),
        });
        if kind.is_none() {
            world.interrupt(unique);
        }
        writeln!(seen, "{handle:?}: {kind:?}").expect("memory");
    }
    seen
}

/// A journal that this program writes: of the records, or of one who retires.
fn written(retired: bool) -> (World, Program) {
    let mut settings = Settings::default();
    // Longer than any time between writing and reading.
    settings.lease = Duration::from_secs(100 * 365 * 24 * 60 * 60);
    let world = World::bare(settings, true);
    let ending = Program::sleeping();
    story(&world, &ending);
    if retired {
        world.service.retire();
    }
    (world, ending)
}

fn kept(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/service/journals")
        .join(name)
}

/// Writes the journal of a new version; gives its name.
fn keep(replay: &Replay, path: &Path) -> String {
    let dir = tempfile::tempdir().expect("a directory");
    let mut journal = Journal::create(dir.path(), &replay.snapshot).expect("a journal");
    for record in &replay.records {
        journal.append(record).expect("there is room");
    }
    fs::copy(dir.path().join("journal"), path).expect("it can be kept");
    path.display().to_string()
}

fn read(path: &Path) -> Replay {
    let dir = tempfile::tempdir().expect("a directory");
    fs::copy(path, dir.path().join("journal")).expect("it can be copied");
    Journal::examine(dir.path()).expect("it is whole").expect("it is there")
}

#[test]
fn a_journal_of_each_version_is_read() {
    for (form, retired) in [("records", false), ("snapshot", true)] {
        let (world, mut ending) = written(retired);
        let (next, replay) = world.next_life_and_replay(|| ending.end());
        let ours = seen(next);
        let newest = u16::from_le_bytes([replay.snapshot[0], replay.snapshot[1]]);
        for version in 1..=newest {
            let path = kept(&format!("{version}-{form}"));
            assert!(
                path.exists() || version < newest,
                "a new version: {} is written now, and is kept as it is from here on",
                keep(&replay, &path)
            );
            let replay = read(&path);
            assert_eq!(check_replay(&replay), Ok(()));
            let theirs = seen(World::after(&replay));
            assert_eq!(theirs, ours, "{form} of version {version}");
        }
    }
}

#[test]
fn who_retires_leaves_a_snapshot_alone() {
    let (world, mut ending) = written(true);
    let (_, replay) = world.next_life_and_replay(|| ending.end());
    assert!(
        replay.records.is_empty(),
        "another program need not do what this one did"
    );
    let (world, mut ending) = written(false);
    let (_, replay) = world.next_life_and_replay(|| ending.end());
    assert!(!replay.records.is_empty());
}
