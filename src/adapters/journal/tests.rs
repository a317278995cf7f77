//! What a journal is after a crash, a damaged byte, a full disk: on real files.

use super::format::{HEAD_BYTES, HEADER_BYTES, push_preamble};
use super::*;
use crate::ports::LogRefusal;

const BOOT: BootId = BootId(*b"\x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f");
const OTHER_BOOT: BootId = BootId([9; 16]);

/// A journal of version 1, written by hand: generation 7, a snapshot and two records. Later versions go on reading it.
const VERSION_1: &[u8] = b"LOCKFSJ\n\x01\x00\xa7\xf7\xae\xc1\
    \x07\x00\x00\x00\x00\x00\x00\x00\
    \x10\x11\x12\x13\x14\x15\x16\x17\x18\x19\x1a\x1b\x1c\x1d\x1e\x1f\xac\xf6\x74\xa9\
    \x05\x00\x00\x00\xb5\xfe\x49\x2b\x2d\x7f\x36\x14state\
    \x03\x00\x00\x00\xfa\x00\x9f\x99\xbb\xfe\x8f\xa2one\
    \x04\x00\x00\x00\xd8\xf5\xa7\xbb\x53\x91\xb1\xd7two!";

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

fn put(directory: &Path, bytes: &[u8]) {
    fs::write(directory.join(JOURNAL), bytes).expect("it is ours");
}

fn bytes_of(directory: &Path) -> Vec<u8> {
    fs::read(directory.join(JOURNAL)).expect("it is there")
}

fn open(directory: &Path) -> (Journal, Replay) {
    Journal::open_on(directory, BOOT)
        .expect("it is whole")
        .expect("it is there")
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).expect("it is ours");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn refusal_of(error: &io::Error) -> Option<LogRefusal> {
    error.get_ref()?.downcast_ref().copied()
}

#[test]
fn what_was_appended_is_read_again_and_appending_goes_on() {
    let guard = directory();
    let at = guard.path();
    assert!(Journal::open(at).expect("nothing is wrong").is_none());
    let mut journal = Journal::create(at, b"state").expect("there is room");
    let mut records = vec![b"one".to_vec(), Vec::new(), vec![0; 70_000]];
    for record in &records {
        journal.append(record).expect("there is room");
    }
    let size = journal.size();
    drop(journal);
    let (mut journal, replay) = Journal::open(at).expect("it is whole").expect("it is there");
    assert!(replay.same_boot);
    assert_eq!((&replay.snapshot[..], &replay.records), (&b"state"[..], &records));
    assert_eq!(journal.size(), size);
    journal.append(b"four").expect("there is room");
    records.push(b"four".to_vec());
    let (_, replay) = Journal::open(at).expect("it is whole").expect("it is there");
    assert_eq!(replay.records, records);
}

#[test]
fn a_journal_of_version_1_is_read_as_it_was_written() {
    let guard = directory();
    put(guard.path(), VERSION_1);
    let (mut journal, replay) = open(guard.path());
    let expected = Replay {
        same_boot: true,
        snapshot: b"state".to_vec(),
        records: vec![b"one".to_vec(), b"two!".to_vec()],
    };
    assert_eq!(replay, expected);
    journal.append(b"three").expect("there is room");
    assert!(bytes_of(guard.path()).starts_with(VERSION_1));
    assert_eq!(open(guard.path()).1.records.len(), 3);
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_off_and_appending_goes_on_there() {
    let last = VERSION_1.len() - HEAD_BYTES - b"two!".len();
    for length in last..VERSION_1.len() {
        let guard = directory();
        put(guard.path(), &VERSION_1[..length]);
        let (mut journal, replay) = open(guard.path());
        assert_eq!(replay.records, [b"one".to_vec()], "torn at {length}");
        assert_eq!(bytes_of(guard.path()).len(), last, "torn at {length}");
        journal.append(b"next").expect("there is room");
        assert_eq!(open(guard.path()).1.records, [b"one".to_vec(), b"next".to_vec()]);
    }
}

#[test]
fn a_damaged_byte_anywhere_sets_the_file_aside() {
    for at in 0..VERSION_1.len() {
        for flip in [0x01, 0x80, 0xff] {
            let guard = directory();
            let mut bytes = VERSION_1.to_vec();
            bytes[at] ^= flip;
            put(guard.path(), &bytes);
            let error = Journal::open_on(guard.path(), BOOT).expect_err("it is damaged");
            let JournalError::Corrupt {
                offset,
                set_aside,
                legible,
                ..
            } = &error
            else {
                panic!("byte {at}: {error}");
            };
            assert!(*offset <= at as u64, "byte {at}: {error}");
            assert_eq!(fs::read(set_aside).expect("it is kept"), bytes);
            assert!(error.to_string().contains(&set_aside.display().to_string()), "{error}");
            let known = legible.as_ref().map(|replay| replay.records.len());
            let expected = match at {
                0..59 => None,
                59..74 => Some(0),
                _ => Some(1),
            };
            assert_eq!(known, expected, "byte {at}: what precedes the damage");
            assert!(Journal::open_on(guard.path(), BOOT).expect("it is away").is_none());
        }
    }
}

#[test]
fn damaged_files_are_all_kept() {
    let guard = directory();
    for count in 1..=3 {
        put(guard.path(), b"nonsense");
        Journal::open(guard.path()).expect_err("it is no journal");
        assert_eq!(names(guard.path()).len(), count);
    }
}

#[test]
fn whole_frames_in_the_wrong_place_are_damage() {
    let (head, frames) = VERSION_1.split_at(HEADER_BYTES + HEAD_BYTES + b"state".len());
    let (one, two) = frames.split_at(HEAD_BYTES + b"one".len());
    for wrong in [[two, one].concat(), [one, one, two].concat(), two.to_vec()] {
        let guard = directory();
        put(guard.path(), &[head, &wrong].concat());
        let error = Journal::open_on(guard.path(), BOOT).expect_err("frames count in their place only");
        assert!(matches!(error, JournalError::Corrupt { .. }), "{error}");
    }
}

#[test]
fn half_a_header_or_half_a_snapshot_is_damage() {
    for length in 0..HEADER_BYTES + HEAD_BYTES + b"state".len() {
        let guard = directory();
        put(guard.path(), &VERSION_1[..length]);
        let error = Journal::open_on(guard.path(), BOOT).expect_err("a journal gets its name when it is whole");
        assert!(matches!(error, JournalError::Corrupt { .. }), "{length}: {error}");
    }
}

#[test]
fn after_a_power_cut_only_what_lies_between_whole_frames_is_damage() {
    // The last frame never reached the disk: zeros.
    let last = VERSION_1.len() - HEAD_BYTES - b"two!".len();
    let mut zeros_last = VERSION_1.to_vec();
    zeros_last[last..].fill(0);
    // The one before it did not.
    let mut zeros_between = VERSION_1.to_vec();
    zeros_between[last - 15..last].fill(0);

    let guard = directory();
    put(guard.path(), &zeros_last);
    let (_, replay) = Journal::open_on(guard.path(), OTHER_BOOT)
        .expect("whole")
        .expect("there");
    assert_eq!((replay.same_boot, &replay.records[..]), (false, &[b"one".to_vec()][..]));
    put(guard.path(), &zeros_between);
    let error = Journal::open_on(guard.path(), OTHER_BOOT).expect_err("a whole frame follows");
    assert!(matches!(error, JournalError::Corrupt { offset: 59, .. }), "{error:?}");
    put(guard.path(), &zeros_last);
    let error = Journal::open_on(guard.path(), BOOT).expect_err("no program's death leaves zeros");
    assert!(matches!(error, JournalError::Corrupt { offset: 74, .. }), "{error:?}");
}

#[test]
fn a_journal_from_before_the_machine_started_must_be_compacted_first() {
    let guard = directory();
    put(guard.path(), VERSION_1);
    let (mut journal, replay) = Journal::open_on(guard.path(), OTHER_BOOT)
        .expect("whole")
        .expect("there");
    assert!(!replay.same_boot);
    let error = journal.append(b"three").expect_err("it would count as old");
    assert_eq!(refusal_of(&error), Some(LogRefusal::OtherBoot));
    journal.compact(b"anew").expect("there is room");
    journal.append(b"three").expect("there is room");
    let (_, replay) = Journal::open_on(guard.path(), OTHER_BOOT)
        .expect("whole")
        .expect("there");
    assert!(replay.same_boot);
    assert_eq!(
        (&replay.snapshot[..], &replay.records[..]),
        (&b"anew"[..], &[b"three".to_vec()][..])
    );
}

#[test]
fn a_newer_version_is_refused_and_left_alone() {
    let guard = directory();
    let mut bytes = Vec::new();
    push_preamble(&mut bytes, VERSION + 1);
    bytes.extend_from_slice(b"whatever comes then");
    put(guard.path(), &bytes);
    let error = Journal::open(guard.path()).expect_err("it is newer");
    assert!(
        matches!(error, JournalError::Newer { found, known, .. } if (found, known) == (VERSION + 1, VERSION)),
        "{error:?}"
    );
    assert!(error.to_string().contains("use the newer version"), "{error}");
    assert_eq!(bytes_of(guard.path()), bytes);
    assert_eq!(names(guard.path()), [JOURNAL]);
}

#[test]
fn a_version_that_never_was_is_damage() {
    let guard = directory();
    let mut bytes = Vec::new();
    push_preamble(&mut bytes, 0);
    put(guard.path(), &bytes);
    let error = Journal::open(guard.path()).expect_err("versions begin with 1");
    assert!(matches!(error, JournalError::Corrupt { offset: 0, .. }), "{error:?}");
}

#[test]
fn compacting_begins_anew_with_the_snapshot() {
    let guard = directory();
    let mut journal = Journal::create(guard.path(), b"state").expect("there is room");
    journal.append(b"one").expect("there is room");
    let before = bytes_of(guard.path());
    journal.compact(b"later").expect("there is room");
    assert_eq!(journal.size(), 0);
    journal.append(b"two").expect("there is room");
    let (_, replay) = Journal::open(guard.path()).expect("whole").expect("there");
    assert_eq!(
        (&replay.snapshot[..], &replay.records[..]),
        (&b"later"[..], &[b"two".to_vec()][..])
    );
    assert_eq!(names(guard.path()), [JOURNAL]);
    // The frame of the old generation at the same offset is as long, and yet it does not count here.
    let mut mixed = bytes_of(guard.path());
    let frame = before.len() - HEAD_BYTES - b"one".len();
    mixed.truncate(frame);
    mixed.extend_from_slice(&before[frame..]);
    put(guard.path(), &mixed);
    Journal::open(guard.path()).expect_err("bytes of another generation never match");
}

#[test]
fn a_crash_at_any_byte_of_a_compaction_leaves_the_old_journal() {
    let guard = directory();
    let mut journal = Journal::create(guard.path(), b"state").expect("there is room");
    journal.append(b"one").expect("there is room");
    let old = bytes_of(guard.path());
    journal.compact(b"later").expect("there is room");
    let new = bytes_of(guard.path());
    drop(journal);
    // Up to the last byte the new file lies beside the old one; after the rename the old one is gone.
    for length in 0..=new.len() {
        put(guard.path(), &old);
        fs::write(guard.path().join(JOURNAL_NEW), &new[..length]).expect("it is ours");
        let (mut journal, replay) = Journal::open(guard.path()).expect("whole").expect("there");
        assert_eq!((&replay.snapshot[..], replay.records.len()), (&b"state"[..], 1));
        journal.compact(b"again").expect("what the crash left is no hindrance");
        assert_eq!(
            Journal::open(guard.path()).expect("whole").expect("there").1.snapshot,
            b"again"
        );
        assert_eq!(names(guard.path()), [JOURNAL]);
    }
}

#[test]
fn a_compaction_that_fails_leaves_the_old_journal_in_use() {
    let guard = directory();
    let mut journal = Journal::create(guard.path(), b"state").expect("there is room");
    // Not even root removes a directory with remove_file.
    fs::create_dir(guard.path().join(JOURNAL_NEW)).expect("it is ours");
    journal.compact(b"later").expect_err("its place is taken");
    journal.append(b"one").expect("the old one goes on");
    let (_, replay) = Journal::open(guard.path()).expect("whole").expect("there");
    assert_eq!(
        (&replay.snapshot[..], &replay.records[..]),
        (&b"state"[..], &[b"one".to_vec()][..])
    );
}

#[test]
fn what_a_failed_write_left_is_cut_off_before_the_next() {
    let guard = directory();
    let mut journal = Journal::create(guard.path(), b"state").expect("there is room");
    let whole = journal.file;
    // Writing through a descriptor that only reads fails.
    journal.file = File::open(guard.path().join(JOURNAL)).expect("it is there");
    journal
        .append(b"a long record that a full disk cuts off")
        .expect_err("it cannot be written");
    whole
        .write_all_at(b"half of it, longer than what follows", journal.extent.end())
        .expect("it is ours");
    journal.file = whole;
    journal.append(b"one").expect("the disk has room again");
    assert_eq!(
        Journal::open(guard.path()).expect("whole").expect("there").1.records,
        [b"one".to_vec()]
    );
}

#[test]
fn the_file_is_private_also_when_it_was_not() {
    let guard = directory();
    let mode = || {
        fs::metadata(guard.path().join(JOURNAL))
            .expect("it is there")
            .permissions()
            .mode()
            & 0o7777
    };
    let mut journal = Journal::create(guard.path(), b"").expect("there is room");
    assert_eq!(mode(), 0o600);
    journal.compact(b"").expect("there is room");
    assert_eq!(mode(), 0o600);
    fs::set_permissions(guard.path().join(JOURNAL), Permissions::from_mode(0o644)).expect("it is ours");
    Journal::open(guard.path()).expect("whole").expect("there");
    assert_eq!(mode(), 0o600);
}

#[test]
fn links_and_other_things_are_not_followed() {
    let guard = directory();
    let elsewhere = guard.path().join("elsewhere");
    fs::write(&elsewhere, VERSION_1).expect("it is ours");
    let path = guard.path().join(JOURNAL);
    std::os::unix::fs::symlink(&elsewhere, &path).expect("it is ours");
    let error = Journal::open_on(guard.path(), BOOT).expect_err("a link is refused");
    assert!(matches!(error, JournalError::File { .. }), "{error:?}");
    std::os::unix::fs::symlink(&elsewhere, guard.path().join(JOURNAL_NEW)).expect("it is ours");
    Journal::create(guard.path(), b"state").expect("links are replaced");
    assert_eq!(
        fs::read(&elsewhere).expect("it is ours"),
        VERSION_1,
        "and never written through"
    );
    fs::remove_file(&path).expect("it is ours");
    nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).expect("it is ours");
    let error = Journal::open(guard.path()).expect_err("a pipe is refused, without waiting for its other end");
    assert!(matches!(error, JournalError::File { .. }), "{error:?}");
}

#[test]
fn nothing_grows_beyond_its_bound() {
    let guard = directory();
    let mut journal = Journal::create(guard.path(), b"").expect("there is room");
    let record = vec![0; FRAME_BYTES_MAX + 1];
    let error = journal.append(&record).expect_err("too long");
    assert!(
        matches!(refusal_of(&error), Some(LogRefusal::RecordTooLong { .. })),
        "{error}"
    );
    let error = loop {
        if let Err(error) = journal.append(&record[1..]) {
            break error;
        }
        assert!(journal.size() <= JOURNAL_BYTES_MAX);
    };
    assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
    let bytes_max = JOURNAL_BYTES_MAX;
    assert_eq!(refusal_of(&error), Some(LogRefusal::Full { bytes_max }));
    journal.compact(b"").expect("there is room");
    journal.append(&record[1..]).expect("and now there is room for records");
    // Pages that are never touched cost nothing.
    let error = journal.compact(&vec![0; SNAPSHOT_BYTES_MAX + 1]).expect_err("too long");
    assert!(
        matches!(refusal_of(&error), Some(LogRefusal::SnapshotTooLong { .. })),
        "{error}"
    );
    assert!(journal.size() > 0, "the old one goes on");
    journal.file.set_len(FILE_BYTES_MAX + 1).expect("a hole costs nothing");
    let error = Journal::open(guard.path()).expect_err("no journal is as long");
    assert!(
        matches!(
            error,
            JournalError::Corrupt {
                offset: FILE_BYTES_MAX,
                ..
            }
        ),
        "{error:?}"
    );
}

#[test]
fn a_boot_id_is_read_as_the_kernel_writes_it() {
    let text = "10111213-1415-1617-1819-1a1b1c1d1e1f\n";
    assert_eq!(BootId::parse(text), Some(BOOT));
    for wrong in [
        "",
        "\n",
        "10111213-1415-1617-1819-1a1b1c1d1e",
        "z0111213-1415-1617-1819-1a1b1c1d1e1f",
    ] {
        assert_eq!(BootId::parse(wrong), None, "{wrong:?}");
    }
    assert_eq!(this_boot().expect("Linux has one"), this_boot().expect("Linux has one"));
}
