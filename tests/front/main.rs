//! The front on a real mount, before a toy of a service: what the kernel makes of our replies, and how a wait ends.
//!
//! The daemon is this binary again, as a child process (the `daemon` test with an environment variable set), for the
//! loop refuses calls of its own process. A watchdog kills it after [`PATIENCE`], which fails whatever still waits.

mod toy;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Write};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use git_lockfs::adapters::Heartbeat;
use git_lockfs::fuse::{Mounted, serve};
use nix::fcntl::{FcntlArg, Flock, FlockArg, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use toy::Toy;

/// How long anything may take; far more than it does.
const PATIENCE: Duration = Duration::from_secs(20);
/// What a signal must do "at once", on a busy machine.
const AT_ONCE: Duration = Duration::from_secs(3);
/// Tells the child process where to mount.
const MOUNT_AT: &str = "FRONT_TEST_MOUNT_AT";

/// FUSE_NOTIFY_RESEND as the kernel takes it: 16 bytes, code 7, no `unique`.
const RESEND: [u8; 16] = [16, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The daemon: does nothing unless it was started as one.
#[test]
fn daemon() {
    let Some(mountpoint) = std::env::var_os(MOUNT_AT).map(PathBuf::from) else {
        return;
    };
    let mounted = Mounted::mount(&mountpoint, false).unwrap_or_else(|error| panic!("{error}"));
    let toy = Toy::new(&mounted, mountpoint);
    println!("mounted {:?}", mounted.negotiated());
    let replies = mounted.replies();
    // A word on stdin, for a request that asked for this would be sent again, too.
    thread::spawn(move || {
        for _ in io::stdin().lines() {
            nix::unistd::write(replies.as_fd(), &RESEND).expect("the kernel sends again what is unanswered");
        }
    });
    serve(&mounted, &toy, &Heartbeat::new().expect("a page")).expect("the loop reads until the mount has ended");
}

struct Front {
    dir: tempfile::TempDir,
    negotiated: String,
    daemon: Child,
    said: mpsc::Receiver<String>,
    _watchdog: mpsc::Sender<()>,
}

impl Front {
    fn mount() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut daemon = Command::new(std::env::current_exe().expect("this binary"))
            .args(["--exact", "daemon", "--nocapture"])
            .env(MOUNT_AT, dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the daemon starts");
        let (say, said) = mpsc::channel();
        let stdout = BufReader::new(daemon.stdout.take().expect("piped"));
        thread::spawn(move || stdout.lines().map_while(Result::ok).try_for_each(|line| say.send(line)));
        let (watchdog, ended) = mpsc::channel();
        let pid = pid_of(&daemon);
        thread::spawn(move || {
            if ended.recv_timeout(PATIENCE) == Err(RecvTimeoutError::Timeout) {
                let _ = kill(pid, Signal::SIGKILL);
            }
        });
        let mut front = Self {
            dir,
            negotiated: String::new(),
            daemon,
            said,
            _watchdog: watchdog,
        };
        front.negotiated = front.hears("mounted");
        front
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits for a line of the daemon.
    fn hears(&self, start: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self
                .said
                .recv_timeout(left)
                .unwrap_or_else(|_| panic!("the daemon never said {start:?}"));
            if let Some(at) = line.find(start) {
                return line[at..].to_owned();
            }
        }
    }

    fn control(&self, verb: &str) {
        fs::write(self.path("control"), verb).expect("control takes the verb");
    }

    /// Waits until the daemon has seen such calls.
    fn saw(&self, call: &str, times: usize) {
        until(&format!("{times} times {call}"), PATIENCE, || {
            fs::read_to_string(self.path("calls"))
                .expect("calls")
                .matches(call)
                .count()
                >= times
        });
    }

    /// A process that opens the lock for writing, once its OPEN waits.
    fn waiter(&self, nth: usize) -> Child {
        let child = shell("echo > lock", self.dir.path());
        self.saw("Open { node: NodeId(4), mode: OpenMode { access: Write", nth);
        child
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        // Gone in most tests; a dead mount would keep the directory from being removed.
        let unmount = ["-u", "-q", "-z", "--"].iter().map(Path::new).chain([self.dir.path()]);
        let _ = Command::new("fusermount3").args(unmount).stderr(Stdio::null()).status();
    }
}

fn shell(script: &str, dir: &Path) -> Child {
    Command::new("sh")
        .args(["-c", script])
        .current_dir(dir)
        .spawn()
        .expect("sh")
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a PID"))
}

fn until(what: &str, limit: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while !holds() {
        assert!(Instant::now() < deadline, "never: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

fn ends(child: &mut Child, limit: Duration) -> ExitStatus {
    until("the process ends", limit, || {
        child.try_wait().expect("a child").is_some()
    });
    child.wait().expect("a child")
}

/// The letter of /proc/PID/stat.
fn state_of(child: &Child) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", child.id())).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

fn xattr(path: &Path, name: &str, room: usize) -> io::Result<Vec<u8>> {
    let path = CString::new(path.as_os_str().as_bytes()).expect("no NUL");
    let name = CString::new(name).expect("no NUL");
    let mut value = vec![0_u8; room];
    // SAFETY: both strings end with a NUL, and `value` has `room` bytes.
    let size = unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), room) };
    value.resize(usize::try_from(size).map_err(|_| io::Error::last_os_error())?, 0);
    Ok(value)
}

#[test]
fn files_are_stated_listed_read_and_written() {
    let front = Front::mount();
    let hello = fs::metadata(front.path("hello")).expect("stat");
    assert_eq!((hello.len(), hello.ino(), hello.nlink()), (12, 102, 1));
    assert_eq!(
        (hello.mtime(), hello.mtime_nsec(), hello.blocks()),
        (1_763_647_200, 5, 1)
    );
    assert_eq!(fs::read(front.path("hello")).expect("read"), b"hello, lock\n");

    let mut names: Vec<_> = fs::read_dir(front.dir.path())
        .expect("list")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    assert_eq!(names, ["calls", "control", "hello", "lock", "note"]);

    fs::write(front.path("note"), "4242:me").expect("write");
    assert_eq!(fs::read(front.path("note")).expect("read"), b"4242:me");
    let error = fs::read(front.path("absent")).expect_err("no such name");
    assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    File::open(front.path("note"))
        .expect("open")
        .sync_all()
        .expect("fsync succeeds");

    let token = |room| xattr(&front.path("lock"), "user.lockfs.token", room);
    assert_eq!(token(64).expect("a value"), b"918");
    assert_eq!(token(0).expect("its length").len(), 3);
    assert_eq!(token(2).expect_err("too small").raw_os_error(), Some(libc::ERANGE));
}

#[test]
fn a_waiting_open_sleeps_and_delays_nobody_until_the_lock_is_free() {
    let front = Front::mount();
    let held = File::options().write(true).open(front.path("lock")).expect("free");
    let mut waiter = front.waiter(2);
    until("it sleeps interruptibly", PATIENCE, || state_of(&waiter) == Some('S'));
    assert_eq!(fs::read(front.path("hello")).expect("read"), b"hello, lock\n");
    fs::metadata(front.path("lock")).expect("the lock itself can be looked at");
    assert!(waiter.try_wait().expect("a child").is_none(), "it still waits");
    drop(held);
    assert!(ends(&mut waiter, PATIENCE).success(), "it was granted the lock");
}

#[test]
fn a_signal_ends_a_waiting_open_at_once() {
    let front = Front::mount();
    let _held = File::options().write(true).open(front.path("lock")).expect("free");
    for (nth, signal) in (2..).zip([Signal::SIGKILL, Signal::SIGTERM, Signal::SIGINT]) {
        let mut waiter = front.waiter(nth);
        until("it sleeps", PATIENCE, || state_of(&waiter) == Some('S'));
        kill(pid_of(&waiter), signal).expect("a signal");
        assert!(!ends(&mut waiter, AT_ONCE).success(), "{signal}");
    }
    let mut limited = shell("timeout 0.1 sh -c 'echo > lock'", front.dir.path());
    assert_eq!(ends(&mut limited, AT_ONCE).code(), Some(124), "timeout(1) says so");
    front.saw("Interrupt {", 4);
}

#[test]
fn a_wait_that_is_asked_for_again_goes_on_and_can_still_be_ended() {
    let mut front = Front::mount();
    if !front.negotiated.contains("has_resend: true") {
        return;
    }
    let held = File::options().write(true).open(front.path("lock")).expect("free");
    let mut granted = front.waiter(2);
    let mut killed = front.waiter(3);
    let mut stdin = front.daemon.stdin.take().expect("piped");
    stdin.write_all(b"resend\n").expect("the daemon listens");
    front.hears("again");
    front.hears("again");
    kill(pid_of(&killed), Signal::SIGKILL).expect("a signal");
    assert!(
        !ends(&mut killed, AT_ONCE).success(),
        "its interrupt names the request it knows"
    );
    drop(held);
    assert!(
        ends(&mut granted, PATIENCE).success(),
        "the answer reached the request that was sent again"
    );
}

#[test]
fn flock_and_fcntl_reach_the_service() {
    let front = Front::mount();
    let open = || {
        File::options()
            .read(true)
            .write(true)
            .open(front.path("lock"))
            .expect("a handle")
    };
    let held = Flock::lock(open(), FlockArg::LockExclusive).expect("free");
    let (_, errno) = Flock::lock(open(), FlockArg::LockExclusiveNonblock).expect_err("taken");
    assert_eq!(errno, nix::errno::Errno::EWOULDBLOCK);
    front.saw(
        "style: Flock, mode: Some(Exclusive), range: Range { start: 0, end: 9223372036854775807 }",
        2,
    );

    let mut waiter = shell("flock lock true", front.dir.path());
    front.saw("wait: true", 2);
    until("it sleeps interruptibly", PATIENCE, || {
        state_of_family(&waiter).contains(&'S')
    });
    let mut killed = shell("exec flock lock true", front.dir.path());
    front.saw("wait: true", 3);
    kill(pid_of(&killed), Signal::SIGKILL).expect("a signal");
    assert!(!ends(&mut killed, AT_ONCE).success());
    held.unlock().map_err(|(_, errno)| errno).expect("unlock");
    assert!(ends(&mut waiter, PATIENCE).success(), "the other waiter has it");

    let bytes = libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 10,
        l_len: 10,
        l_pid: 0,
    };
    let file = open();
    until("fcntl can have it", PATIENCE, || {
        fcntl(file.as_fd(), FcntlArg::F_SETLK(&bytes)).is_ok()
    });
    front.saw(
        "mode: Some(Exclusive), range: Range { start: 10, end: 19 }, wait: false",
        1,
    );
    front.saw("style: Posix(", 1);
}

/// The states of a process and its children.
fn state_of_family(child: &Child) -> Vec<char> {
    let children = fs::read_to_string(format!("/proc/{0}/task/{0}/children", child.id())).unwrap_or_default();
    let states = children.split_whitespace().filter_map(|pid| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    });
    states.chain(state_of(child)).collect()
}

#[test]
fn poll_returns_when_the_service_says_so() {
    let front = Front::mount();
    let note = File::open(front.path("note")).expect("open");
    let ready = |timeout: PollTimeout| {
        let mut fds = [PollFd::new(note.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, timeout).expect("poll");
        fds[0].revents().expect("known flags")
    };
    assert_eq!(ready(PollTimeout::ZERO), PollFlags::empty());
    thread::scope(|scope| {
        let waiting = scope.spawn(|| ready(PollTimeout::from(10_000_u16)));
        front.saw("notify: Some(", 1);
        front.control("wake");
        assert_eq!(waiting.join().expect("poll"), PollFlags::POLLIN);
    });
}

#[test]
fn umount_ends_the_loop() {
    let mut front = Front::mount();
    fs::metadata(front.path("hello")).expect("it serves");
    let status = Command::new("fusermount3").arg("-u").arg(front.dir.path()).status();
    assert!(status.expect("fusermount3").success());
    assert!(ends(&mut front.daemon, PATIENCE).success(), "the loop ended by itself");
}

#[test]
fn the_daemon_can_unmount_while_files_are_open_and_opens_wait() {
    let mut front = Front::mount();
    let mut held = File::options()
        .write(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(front.path("lock"))
        .expect("free");
    let mut waiter = front.waiter(2);
    front.control("unmount");
    assert!(
        !ends(&mut waiter, PATIENCE).success(),
        "the waiter was not granted anything"
    );
    assert!(ends(&mut front.daemon, PATIENCE).success(), "the loop ended by itself");
    let error = held.write(b"4242").expect_err("the mount is gone");
    assert_eq!(error.raw_os_error(), Some(libc::ENOTCONN));
    assert_eq!(fs::read_dir(front.dir.path()).expect("bare").count(), 0);
}

#[test]
fn the_daemons_own_calls_are_refused_and_a_panic_costs_one_answer() {
    let front = Front::mount();
    front.control("touch");
    assert_eq!(front.hears("touched"), format!("touched Some({})", libc::EDEADLK));
    let error = fs::metadata(front.path("panic")).expect_err("the call panics");
    assert_eq!(error.raw_os_error(), Some(libc::EIO));
    assert_eq!(fs::read(front.path("hello")).expect("it goes on"), b"hello, lock\n");
}
