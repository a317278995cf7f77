//! The text of a lock: `PID[:SESSION[:TIMESTAMP]]`, a note, and what is refused.

use libc::{LOCK_EX, O_CREAT, O_EXCL, O_RDWR, O_WRONLY};

use crate::support::sys::{self, Errno};
use crate::support::{Mount, Running, Said, require};

/// "The first WRITE at offset 0 carries the first line, `PID[:SESSION[:TIMESTAMP]]`"
#[test]
fn every_form_of_the_first_line_is_taken_and_shown_as_written() {
    let mount = Mount::new();
    let pid = std::process::id();
    for line in [
        format!("{pid}"),
        format!("{pid}:agent-7"),
        format!("{pid}:agent-7:1763647200"),
    ] {
        let fd = sys::open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
        let written = format!("{line}\n");
        assert_eq!(sys::write(&fd, written.as_bytes()), Ok(written.len()));
        drop(fd);
        assert_eq!(mount.text_of("x.lock").unwrap().lines().next(), Some(line.as_str()));
        sys::unlink(mount.lock("x.lock")).unwrap();
    }
    let fd = sys::open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    sys::write(&fd, pid.to_string().as_bytes()).expect("a newline is not needed: printf %s $$");
    drop(fd);
    assert_eq!(mount.field_of("x.lock", "held").as_deref(), Some("owner"));
}

/// "what follows is a note (4 KiB in all, else EFBIG)"
#[test]
fn a_note_may_follow_up_to_4_kib_in_all() {
    let mount = Mount::new();
    let text = |size: usize| {
        let mut text = format!("{}\n", std::process::id());
        text.extend(std::iter::repeat_n('n', size - text.len()));
        text.into_bytes()
    };
    let fd = sys::open(mount.lock("fits"), O_WRONLY | O_CREAT).unwrap();
    assert_eq!(sys::write(&fd, &text(4096)), Ok(4096));
    assert_eq!(sys::write(&fd, b"n"), Err(Errno::EFBIG), "one more is too many");
    let fd = sys::open(mount.lock("too-long"), O_WRONLY | O_CREAT).unwrap();
    assert_eq!(sys::write(&fd, &text(4097)), Err(Errno::EFBIG));
    drop(fd);
    assert!(!mount.taken("too-long"), "a refused first write releases at the close");
    let fd = sys::open(mount.lock("in-two"), O_WRONLY | O_CREAT).unwrap();
    sys::write(&fd, &text(20)).unwrap();
    sys::write(&fd, b"more of the note\n").expect("a note may come in pieces");
}

/// "Anything else is EINVAL, and a handle whose first write was refused releases at its close, whatever the way it was
/// taken."
#[test]
fn malformed_text_is_refused_and_ends_the_lock_at_its_close() {
    let mount = Mount::new();
    let bad = [
        "x\n",
        "\n",
        "-1\n",
        "+1\n",
        "1:\n",
        "1::2\n",
        "1:a:\n",
        "1:a:b\n",
        "1:a:2:3\n",
        "4294967296\n",
        "1 2\n",
        "0x1\n",
        "1:a b\n",
        "hello world",
    ];
    for text in bad {
        for flags in [
            O_WRONLY | O_CREAT,
            O_WRONLY | O_CREAT | O_EXCL,
            O_RDWR | O_CREAT | O_EXCL,
        ] {
            let fd = sys::open(mount.lock("x.lock"), flags).unwrap();
            assert_eq!(sys::write(&fd, text.as_bytes()), Err(Errno::EINVAL), "{text:?}");
            assert!(mount.taken("x.lock"), "{text:?}: it goes at the close");
            drop(fd);
            assert!(!mount.taken("x.lock"), "{text:?}, flags {flags:o}");
        }
    }
}

/// "The first WRITE at offset 0"
#[test]
fn a_first_write_elsewhere_is_malformed() {
    let mount = Mount::new();
    let fd = sys::open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let text = format!("{}\n", std::process::id());
    assert_eq!(sys::pwrite(&fd, text.as_bytes(), 5), Err(Errno::EINVAL));
    drop(fd);
    assert!(!mount.taken("x.lock"));
}

/// A shell sees the refusal: "Never a silent success that protects nothing."
#[test]
fn a_shell_sees_that_its_text_was_refused() {
    let mount = Mount::new();
    let said = mount.sh("echo hello 2>$T/err >$L/x.lock || echo refused; test -e $L/x.lock || echo free; cat $T/err");
    let text = said.text();
    assert!(
        text.starts_with("refused\nfree\n") && text.contains("Invalid argument"),
        "{text}"
    );
}

/// "it must be alive and visible (ESRCH)"
#[test]
fn the_pid_must_be_of_a_living_process() {
    let mount = Mount::new();
    let mut dead = mount.spawn_sh("exec sleep 60");
    dead.kill();
    // 2^22 is the highest pid_max that Linux allows, so no process has that number.
    for pid in [dead.id(), 1 << 22, u32::MAX] {
        let fd = sys::open(mount.lock("x.lock"), O_WRONLY | O_CREAT | O_EXCL).unwrap();
        assert_eq!(
            sys::write(&fd, format!("{pid}\n").as_bytes()),
            Err(Errno::ESRCH),
            "{pid}"
        );
        drop(fd);
        assert!(!mount.taken("x.lock"));
    }
}

/// "of the caller's own user, not PID 1 and no kernel thread (EPERM)"
#[test]
fn the_pid_must_be_of_ones_own_process() {
    let mount = Mount::new();
    let foreign = Foreign::find(&mount);
    let mut refused = vec![1, foreign.pid];
    match kernel_thread() {
        Some(pid) => refused.push(pid),
        None => eprintln!("not tested here: no kernel thread is visible in this PID namespace"),
    }
    for pid in refused {
        let fd = sys::open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
        assert_eq!(
            sys::write(&fd, format!("{pid}\n").as_bytes()),
            Err(Errno::EPERM),
            "{pid}"
        );
        drop(fd);
        assert!(!mount.taken("x.lock"));
    }
}

/// "On a handle that holds by flock or fcntl any text is a note, and flock's rules decide when it ends."
#[test]
fn on_a_flocked_handle_any_text_is_a_note() {
    let mount = Mount::new();
    for text in ["not a pid at all\n", "1\n", &format!("{}\n", std::process::id())] {
        let fd = sys::open(mount.lock("x.lock"), O_RDWR | O_CREAT).unwrap();
        sys::flock(&fd, LOCK_EX).unwrap();
        assert_eq!(sys::write(&fd, text.as_bytes()), Ok(text.len()), "{text:?}");
        assert_eq!(mount.field_of("x.lock", "held").as_deref(), Some("descriptor"));
        drop(fd);
        assert!(!mount.taken("x.lock"), "{text:?} made no owner");
    }
}

/// A process of another user.
struct Foreign {
    pid: u32,
    _started: Option<Running>,
}

impl Foreign {
    /// Starts one where root may, else looks for one.
    fn find(mount: &Mount) -> Self {
        // SAFETY: geteuid cannot fail.
        if unsafe { libc::geteuid() } == 0 {
            let mut command = mount.command(require("setpriv"));
            command
                .args(["--reuid=65534", "--regid=65534", "--clear-groups", "sleep", "60"])
                .current_dir("/");
            let started = mount.spawn(command);
            crate::support::wait_until("it runs as another user", || uid_of(started.id()) == Some(65534));
            return Self {
                pid: started.id(),
                _started: Some(started),
            };
        }
        let own = uid_of(std::process::id());
        let mut others =
            pids().filter(|&pid| pid > 1 && !is_kernel_thread(pid) && uid_of(pid).is_some_and(|u| Some(u) != own));
        let pid = others.next().expect("some process of another user is visible");
        Self { pid, _started: None }
    }
}

fn pids() -> impl Iterator<Item = u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

fn uid_of(pid: u32) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    Some(std::fs::metadata(format!("/proc/{pid}")).ok()?.uid())
}

/// PF_KTHREAD in the flags of /proc/PID/stat.
fn is_kernel_thread(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let flags = fields
        .split_whitespace()
        .nth(6)
        .and_then(|flags| flags.parse::<u32>().ok());
    flags.is_some_and(|flags| flags & 0x0020_0000 != 0)
}

fn kernel_thread() -> Option<u32> {
    pids().find(|&pid| is_kernel_thread(pid))
}
