//! Every malformed name, text, key, option and config value is refused whole with its errno and a sentence, and the lock
//! table is unchanged after each.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::Value;

use crate::malformed::{NAMES_MIN, OPTIONS, REQUESTS, SCRATCH, SETTINGS, TEXTS, VERBS, names};
use crate::support::sys::{self, Errno, Sys};
use crate::support::{Client, Mount, Repository, Said, names_in, wait_until};
use crate::{HANDLE, TAKE, TRY, acquire, holder};

/// What there is of locks, without what grows by itself.
#[derive(Debug, PartialEq)]
struct Table {
    locks: Value,
    tickets: Value,
    drained: Value,
    listed: Vec<String>,
    in_use: Vec<String>,
}

fn table(mount: &Mount) -> Table {
    let mut json = mount.locks_json();
    drop_spans(&mut json);
    Table {
        locks: json["locks"].take(),
        tickets: json["tickets"].take(),
        drained: json["drained"].take(),
        listed: mount.listed(),
        in_use: names_in(&mount.flock()),
    }
}

fn drop_spans(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !key.ends_with("_ms"));
            fields.values_mut().for_each(drop_spans);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_spans),
        _ => {}
    }
}

/// A mount with something in its table, which must stay as it is.
struct Guarded {
    mount: Mount,
    before: Table,
    _holder: (Client, i32),
}

impl Guarded {
    fn new() -> Self {
        let mount = Mount::new();
        let mut other = holder(&mount, "held.lock");
        acquire(&mut other.0, &mount, "locks=also.lock mode=shared session=guard\n").expect("it is free");
        Self {
            before: table(&mount),
            mount,
            _holder: other,
        }
    }

    /// The table is as it was; a RELEASE may still be on its way.
    #[track_caller]
    fn assert_unchanged(&self, after: &str) {
        if table(&self.mount) != self.before {
            wait_until(&format!("the table is unchanged after {after}"), || {
                table(&self.mount) == self.before
            });
        }
    }
}

/// Does something that must not wait, in a thread that may be left behind if it does.
#[track_caller]
fn promptly<T: Send + 'static>(what: &str, act: impl FnOnce() -> T + Send + 'static) -> T {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || sender.send(act()));
    let result = receiver.recv_timeout(Duration::from_secs(10));
    result.unwrap_or_else(|_| panic!("it neither succeeded nor was refused: {what}"))
}

/// Opens, writes once and closes; the result of the write.
fn write_once(path: &Path, flags: i32, data: &[u8]) -> Sys<usize> {
    let (path, data) = (path.to_owned(), data.to_owned());
    promptly(
        &format!("{:?}", data.as_slice().escape_ascii().to_string()),
        move || {
            let fd = sys::open(path, flags).expect("only the write is refused");
            sys::write(fd, &data)
        },
    )
}

/// 1 to 255 bytes of printable characters without `/`, blank, comma, quote or control characters
#[test]
fn malformed_names_are_refused_in_every_dialect() {
    let guarded = Guarded::new();
    let cases = names();
    assert!(cases.len() >= NAMES_MIN, "{} names", cases.len());
    for name in cases {
        let shown = name.escape_ascii().to_string();
        for directory in [guarded.mount.locks(), guarded.mount.flock()] {
            let path = directory.join(OsStr::from_bytes(&name));
            for flags in [TAKE, TRY, HANDLE, TAKE | libc::O_EXCL] {
                let path = path.clone();
                let got = promptly(&shown, move || sys::open(path, flags));
                assert_eq!(
                    got.err(),
                    Some(Errno::EINVAL),
                    "open {flags:o} of {shown} in {directory:?}"
                );
            }
        }
        let path = guarded.mount.locks().join(OsStr::from_bytes(&name));
        assert_eq!(sys::mkdir(&path), Err(Errno::EINVAL), "mkdir of {shown}");
        assert_eq!(sys::symlink("1", &path), Err(Errno::EINVAL), "symlink of {shown}");
        guarded.assert_unchanged(&shown);
    }
}

/// Names are flat: 1 to 255 bytes
#[test]
fn names_that_are_too_long_are_refused() {
    let guarded = Guarded::new();
    for length in [256, 300, 1000, 4000] {
        let name = "n".repeat(length);
        for path in [guarded.mount.lock(&name), guarded.mount.door(&name)] {
            let got = promptly(&name, move || sys::open(path, TAKE));
            assert_eq!(got.err(), Some(Errno::ENAMETOOLONG), "{length} bytes");
        }
        guarded.assert_unchanged("a long name");
    }
    let longest = guarded.mount.lock(&"n".repeat(255));
    assert!(promptly("255 bytes", move || sys::open(longest, TRY)).is_ok());
}

/// Scratch names come only from O_CREAT|O_EXCL (any other open, flock or mkdir of one is EINVAL)
#[test]
fn scratch_names_are_no_locks() {
    let guarded = Guarded::new();
    for name in SCRATCH {
        for flags in [TAKE, TRY, HANDLE] {
            let path = guarded.mount.lock(name);
            let got = promptly(name, move || sys::open(path, flags));
            assert_eq!(got.err(), Some(Errno::EINVAL), "open {flags:o} of {name}");
        }
        assert_eq!(
            sys::mkdir(guarded.mount.lock(name)),
            Err(Errno::EINVAL),
            "mkdir of {name}"
        );
        guarded.assert_unchanged(name);
    }
}

/// Anything else is EINVAL, and a handle whose first write was refused releases at its close, whatever the way it was
/// taken.
#[test]
fn malformed_texts_are_refused_and_hold_nothing() {
    let guarded = Guarded::new();
    let own = std::process::id().to_string();
    for text in TEXTS {
        let text = text.replace('@', &own);
        for flags in [TAKE, TAKE | libc::O_EXCL] {
            let refused = write_once(&guarded.mount.lock("x.lock"), flags, text.as_bytes());
            assert_eq!(refused, Err(Errno::EINVAL), "{text:?}");
            guarded.assert_unchanged(&text);
        }
    }
    let long = format!("{own}\n{}", "n".repeat(4096));
    assert_eq!(
        write_once(&guarded.mount.lock("x.lock"), TAKE, long.as_bytes()),
        Err(Errno::EFBIG)
    );
    guarded.assert_unchanged("a long text");
}

/// it must be alive and visible (ESRCH), of the caller's own user, not PID 1 and no kernel thread (EPERM)
#[test]
fn pids_that_cannot_own_are_refused() {
    let guarded = Guarded::new();
    let mut gone = guarded.mount.spawn_sh("true");
    let dead = gone.id();
    wait_until("it is gone", || gone.status().is_some());
    let mut cases = vec![
        (dead, Errno::ESRCH),
        (4_194_305, Errno::ESRCH),
        (u32::MAX, Errno::ESRCH),
        (1, Errno::EPERM),
    ];
    let kthreadd = std::fs::read_to_string("/proc/2/comm");
    if kthreadd.is_ok_and(|name| name.trim() == "kthreadd") {
        cases.push((2, Errno::EPERM));
    }
    for (pid, errno) in cases {
        let refused = write_once(&guarded.mount.lock("x.lock"), TAKE, format!("{pid}\n").as_bytes());
        assert_eq!(refused, Err(errno), "{pid}");
        guarded.assert_unchanged(&pid.to_string());
    }
}

/// What is malformed is refused whole, at the write
#[test]
fn malformed_requests_take_nothing() {
    let guarded = Guarded::new();
    let acquire = guarded.mount.path("acquire");
    for request in REQUESTS {
        let refused = write_once(&acquire, libc::O_RDWR, request.as_bytes());
        assert_eq!(refused, Err(Errno::EINVAL), "{request:?}");
        guarded.assert_unchanged(request);
    }
    let name = "n".repeat(256);
    let refused = write_once(&acquire, libc::O_RDWR, format!("locks={name}\n").as_bytes());
    assert!(
        matches!(refused, Err(Errno::EINVAL | Errno::ENAMETOOLONG)),
        "{refused:?}"
    );
    guarded.assert_unchanged("a long name");
    // The kernel cuts a longer write in pieces: a piece of exactly that size is never one request.
    let huge = "locks=a.lock ".to_owned() + &" ".repeat(256 * 1024);
    assert!(write_once(&acquire, libc::O_RDWR, huge.as_bytes()).is_err());
    guarded.assert_unchanged("a huge request");
}

/// Unknown verb: EINVAL.
#[test]
fn malformed_verbs_change_nothing() {
    let guarded = Guarded::new();
    for verb in VERBS {
        let refused = write_once(&guarded.mount.path("control"), libc::O_WRONLY, verb.as_bytes());
        assert_eq!(refused, Err(Errno::EINVAL), "{verb:?}");
        guarded.assert_unchanged(verb);
    }
}

/// An unknown key or a bad value: mount refuses with the key's name; `reload` keeps the old one and says so.
#[test]
fn bad_settings_are_refused_by_mount_and_by_reload() {
    let guarded = Guarded::new();
    let bare = Repository::new();
    for (key, value) in SETTINGS {
        let full = format!("lockfs.{key}");
        bare.git(&["config", "--", &full, value]);
        let output = bare.lockfs(&["mount"]);
        assert_ne!(output.code(), 0, "{key}={value:?}");
        let name = key.split('.').next().unwrap().to_lowercase();
        assert!(
            output.error().to_lowercase().contains(&name),
            "{key}={value:?}: {}",
            output.error()
        );
        assert!(!bare.is_mounted(), "{key}={value:?}");
        bare.git(&["config", "--unset-all", &full]);

        guarded.mount.git(&["config", "--", &full, value]);
        let refused = write_once(&guarded.mount.path("control"), libc::O_WRONLY, b"reload\n");
        assert_eq!(refused, Err(Errno::EINVAL), "{key}={value:?}");
        guarded.mount.git(&["config", "--unset-all", &full]);
        guarded.assert_unchanged(&full);
    }
}

/// each with an environment variable and, for mount, an option
#[test]
fn bad_options_and_variables_are_refused_by_name() {
    let bare = Repository::new();
    for (arguments, word) in OPTIONS {
        let output = bare.lockfs(&[&["mount"], arguments].concat());
        assert_ne!(output.code(), 0, "{arguments:?}");
        assert!(output.error().contains(word), "{arguments:?}: {}", output.error());
        assert!(!bare.is_mounted(), "{arguments:?}");
    }
    for (variable, value) in [
        ("GIT_LOCKFS_WAIT", "5"),
        ("GIT_LOCKFS_WAIT_FOR", "x.lock"),
        ("GIT_LOCKFS_LEASE", "forever"),
        ("GIT_LOCKFS_AGING", "0"),
        ("GIT_LOCKFS_TICKET_GRACE", "x"),
        ("GIT_LOCKFS_PARENTS", "a"),
        ("GIT_LOCKFS_WIAT", "5s"),
        ("GIT_LOCKFS_SCOPES", "fine"),
        ("GIT_LOCKFS_SCOPE", "commit=work-tree"),
        ("GIT_LOCKFS_REQUIRE", "maybe"),
    ] {
        let mut command = bare.command(env!("CARGO_BIN_EXE_git-lockfs"));
        command.arg("mount").env(variable, value);
        let output = bare.run(command);
        assert_ne!(output.code(), 0, "{variable}={value}");
        let key = variable
            .trim_start_matches("GIT_LOCKFS_")
            .replace('_', "")
            .to_lowercase();
        let said = output.error().to_lowercase().replace('_', "");
        assert!(said.contains(&key), "{variable}={value}: {said}");
        assert!(!bare.is_mounted());
    }
}

/// a test feeds … random bytes, and the lock table is unchanged after each
#[test]
fn random_bytes_change_nothing() {
    let guarded = Guarded::new();
    let mut random = Random(0x6c6f_636b_6673);
    for _ in 0..150 {
        // A control character makes sure that no chance makes it well-formed.
        let mut bytes = random.bytes(1, 300);
        let at = random.below(bytes.len());
        bytes[at] = 0x01 + random.below(8) as u8;
        let shown = bytes.escape_ascii().to_string();
        for (file, flags) in [
            ("acquire", libc::O_RDWR),
            ("control", libc::O_WRONLY),
            ("locks/x.lock", TAKE),
        ] {
            let refused = write_once(&guarded.mount.path(file), flags, &bytes);
            let errno = refused.expect_err("nothing of it can be accepted");
            // Digits may come before the control character, but never a valid first line.
            assert_eq!(errno, Errno::EINVAL, "{shown} in {file}");
        }
        guarded.assert_unchanged(&shown);

        let mut name = random.bytes(1, 200);
        name.retain(|&b| b != 0 && b != b'/');
        name.push(0x02);
        let path = guarded.mount.locks().join(OsStr::from_bytes(&name));
        let shown = name.escape_ascii().to_string();
        let got = promptly(&shown, move || sys::open(path, TAKE));
        assert_eq!(got.err(), Some(Errno::EINVAL), "{shown}");
        guarded.assert_unchanged(&shown);
    }
}

/// Numbers that need to look random, and be the same each time (xorshift).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 11).expect("53 bits fit") % bound
    }

    fn bytes(&mut self, min: usize, max: usize) -> Vec<u8> {
        let length = min + self.below(max - min);
        (0..length).map(|_| self.below(256) as u8).collect()
    }
}

/// The size of it all: at least 200 different things are refused.
#[test]
fn there_are_enough_cases() {
    let count =
        names().len() + SCRATCH.len() + TEXTS.len() + REQUESTS.len() + VERBS.len() + SETTINGS.len() + OPTIONS.len();
    assert!(count >= 200, "{count} malformed inputs");
}
