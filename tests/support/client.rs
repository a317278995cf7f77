//! A process of its own that makes system calls on request: holders and waiters that a test can order about and kill.
//!
//! It is this test binary again, which serves its standard input, a socket, before `main` is reached: libtest would
//! give it a second thread, and the deadlock rules treat a process with one thread differently. A call that waits is
//! begun with [`Client::begin`] and taken up with [`Client::finish`]; all others go through [`Client::call`].

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::OwnedFd;
use std::os::fd::{FromRawFd, IntoRawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::dialect::{Dialect, Held};
use super::process::Running;
use super::sys::{self, Errno, Range, Sys};
use super::work;

const SERVE: &str = "GIT_LOCKFS_TEST_CLIENT";
/// How long a call may take that should end by itself.
const ANSWER_MAX: Duration = Duration::from_secs(20);

/// One system call. Descriptors are the client's own numbers.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Op {
    /// open(2)
    Open { path: PathBuf, flags: i32 },
    /// close(2)
    Close { fd: i32 },
    /// dup(2)
    Dup { fd: i32 },
    /// flock(2)
    Flock { fd: i32, operation: i32 },
    /// fcntl(2) on a range; F_GETLK returns type, PID, start and length in the text
    Fcntl {
        fd: i32,
        command: i32,
        kind: i16,
        start: i64,
        len: i64,
    },
    /// write(2)
    Write { fd: i32, data: String },
    /// read(2); the data is the text
    Read { fd: i32, max: usize },
    /// A whole file, as cat(1) reads it; the data is the text
    Cat { path: PathBuf },
    /// stat(2) without following a link; `dir`, `file` or `link` is the text
    Kind { path: PathBuf },
    /// mkdir(2)
    Mkdir { path: PathBuf },
    /// rmdir(2)
    Rmdir { path: PathBuf },
    /// unlink(2)
    Unlink { path: PathBuf },
    /// symlink(2)
    Symlink { target: String, path: PathBuf },
    /// link(2)
    Link { from: PathBuf, to: PathBuf },
    /// rename(2)
    Rename { from: PathBuf, to: PathBuf },
    /// utimensat(2); no time is now
    Utimens { path: PathBuf, time: Option<(i64, i64)> },
    /// futimens(3)
    Futimens { fd: i32, time: Option<(i64, i64)> },
    /// poll(2)
    Poll { fd: i32, events: i16, timeout_ms: i32 },
    /// fork(2): a child with copies of all descriptors that sleeps until killed; its PID is the result
    Fork,
    /// setpriority(2) of the process
    Nice { level: i32 },
    /// Takes a lock in a dialect; the result is the number by which [`Op::Release`] gives it back
    Take { dialect: Dialect, name: String, wait: bool },
    /// Gives back what was taken
    Release { id: i64 },
    /// [`work::count`]
    Count {
        dialect: Dialect,
        name: String,
        counter: PathBuf,
        times: u32,
    },
    /// [`work::mix`]
    Mix {
        names: Vec<String>,
        markers: PathBuf,
        seed: u64,
        times: u32,
    },
    /// _exit(2); there is no answer
    Exit { code: i32 },
}

/// What a call answered: a number or an errno, and text where the call has some.
#[derive(Debug, Serialize, Deserialize)]
struct Answer {
    result: Result<i64, i32>,
    text: String,
}

/// A process that makes system calls on request; killed when this goes.
pub struct Client {
    process: Running,
    socket: BufReader<UnixStream>,
}

/// The program that [`Client::start`] needs: this test binary.
pub fn executable() -> PathBuf {
    std::env::current_exe().expect("the path of this test binary")
}

impl Client {
    /// Starts a client; `command` runs [`executable`].
    pub fn start(mut command: Command) -> Self {
        let (ours, theirs) = UnixStream::pair().expect("a socket pair");
        ours.set_read_timeout(Some(ANSWER_MAX)).expect("a time limit");
        command
            .env(SERVE, "1")
            .stdin(OwnedFd::from(theirs))
            .stdout(Stdio::null());
        let process = Running::adopt(command.spawn().expect("this test binary starts"));
        Self {
            process,
            socket: BufReader::new(ours),
        }
    }

    /// Its PID.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its state letter.
    pub fn state(&self) -> char {
        self.process.state()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: i32) {
        self.process.signal(signal);
    }

    /// Kills it with SIGKILL and waits until it is gone.
    pub fn kill(mut self) {
        self.process.kill();
    }

    /// Lets it exit by itself, with code 0.
    pub fn exit(mut self) {
        self.begin(Op::Exit { code: 0 });
        super::wait_until("the client exits", || self.process.status().is_some());
    }

    /// Begins a call that may wait.
    pub fn begin(&mut self, op: Op) {
        let line = serde_json::to_string(&op).expect("an operation is JSON") + "\n";
        self.socket
            .get_mut()
            .write_all(line.as_bytes())
            .expect("the client reads its socket");
    }

    /// The answer to the call that was begun; panics when none comes in time.
    #[track_caller]
    pub fn finish(&mut self) -> Sys<i64> {
        self.take().0
    }

    /// The same for long work, with a limit of its own.
    #[track_caller]
    pub fn finish_within(&mut self, limit: Duration) -> Sys<i64> {
        let set = |socket: &BufReader<UnixStream>, limit| {
            socket.get_ref().set_read_timeout(Some(limit)).expect("a time limit");
        };
        set(&self.socket, limit);
        let result = self.finish();
        set(&self.socket, ANSWER_MAX);
        result
    }

    /// Whether the call that was begun has been answered.
    pub fn answered(&mut self) -> bool {
        let set = |socket: &BufReader<UnixStream>, on| socket.get_ref().set_nonblocking(on).expect("a socket's mode");
        set(&self.socket, true);
        let some = self.socket.fill_buf().is_ok_and(|data| !data.is_empty());
        set(&self.socket, false);
        some
    }

    /// Makes a call and returns its answer.
    #[track_caller]
    pub fn call(&mut self, op: Op) -> Sys<i64> {
        self.begin(op);
        self.finish()
    }

    /// Makes a call whose answer is text.
    #[track_caller]
    pub fn ask(&mut self, op: Op) -> Sys<String> {
        self.begin(op);
        let (result, text) = self.take();
        result.map(|_| text)
    }

    /// open(2)
    #[track_caller]
    pub fn open(&mut self, path: impl AsRef<Path>, flags: i32) -> Sys<i32> {
        let path = path.as_ref().to_owned();
        self.call(Op::Open { path, flags }).map(|fd| fd as i32)
    }

    /// Begins an open(2) that may wait.
    pub fn begin_open(&mut self, path: impl AsRef<Path>, flags: i32) {
        let path = path.as_ref().to_owned();
        self.begin(Op::Open { path, flags });
    }

    /// close(2)
    #[track_caller]
    pub fn close(&mut self, fd: i32) {
        self.call(Op::Close { fd }).expect("close succeeds");
    }

    /// flock(2)
    #[track_caller]
    pub fn flock(&mut self, fd: i32, operation: i32) -> Sys<i64> {
        self.call(Op::Flock { fd, operation })
    }

    /// Begins a flock(2) that may wait.
    pub fn begin_flock(&mut self, fd: i32, operation: i32) {
        self.begin(Op::Flock { fd, operation });
    }

    /// fcntl(2): F_SETLK and its kin on `len` bytes from `start`
    #[track_caller]
    pub fn fcntl(&mut self, fd: i32, command: i32, kind: i32, start: i64, len: i64) -> Sys<i64> {
        self.begin_fcntl(fd, command, kind, start, len);
        self.finish()
    }

    /// Begins an fcntl(2) that may wait.
    pub fn begin_fcntl(&mut self, fd: i32, command: i32, kind: i32, start: i64, len: i64) {
        let kind = kind as i16;
        self.begin(Op::Fcntl {
            fd,
            command,
            kind,
            start,
            len,
        });
    }

    /// Takes a lock now, or is refused.
    #[track_caller]
    pub fn take_now(&mut self, dialect: Dialect, name: &str) -> Sys<i64> {
        let name = name.to_owned();
        let wait = false;
        self.call(Op::Take { dialect, name, wait })
    }

    /// Begins to take a lock, waiting for it.
    pub fn begin_take(&mut self, dialect: Dialect, name: &str) {
        let name = name.to_owned();
        let wait = true;
        self.begin(Op::Take { dialect, name, wait });
    }

    /// Gives back what was taken by that number.
    #[track_caller]
    pub fn release(&mut self, id: i64) {
        self.call(Op::Release { id }).expect("what was taken can be given back");
    }

    /// cat(1)
    #[track_caller]
    pub fn cat(&mut self, path: impl AsRef<Path>) -> Sys<String> {
        let path = path.as_ref().to_owned();
        self.ask(Op::Cat { path })
    }

    /// The kind of file that a path is to this process: `dir`, `file` or `link`.
    #[track_caller]
    pub fn kind(&mut self, path: impl AsRef<Path>) -> Sys<String> {
        let path = path.as_ref().to_owned();
        self.ask(Op::Kind { path })
    }

    /// write(2)
    #[track_caller]
    pub fn write(&mut self, fd: i32, data: &str) -> Sys<i64> {
        let data = data.to_owned();
        self.call(Op::Write { fd, data })
    }

    /// read(2)
    #[track_caller]
    pub fn read(&mut self, fd: i32, max: usize) -> Sys<String> {
        self.ask(Op::Read { fd, max })
    }

    /// mkdir(2)
    #[track_caller]
    pub fn mkdir(&mut self, path: impl AsRef<Path>) -> Sys<i64> {
        let path = path.as_ref().to_owned();
        self.call(Op::Mkdir { path })
    }

    /// unlink(2)
    #[track_caller]
    pub fn unlink(&mut self, path: impl AsRef<Path>) -> Sys<i64> {
        let path = path.as_ref().to_owned();
        self.call(Op::Unlink { path })
    }

    /// rmdir(2)
    #[track_caller]
    pub fn rmdir(&mut self, path: impl AsRef<Path>) -> Sys<i64> {
        let path = path.as_ref().to_owned();
        self.call(Op::Rmdir { path })
    }

    #[track_caller]
    fn take(&mut self) -> (Sys<i64>, String) {
        let mut line = String::new();
        let read = self.socket.read_line(&mut line);
        let count = read.unwrap_or_else(|error| panic!("client {}: no answer: {error}", self.process.id()));
        assert!(count > 0, "client {} ended without an answer", self.process.id());
        let answer: Answer = serde_json::from_str(&line).expect("an answer is JSON");
        (answer.result.map_err(Errno::from_raw), answer.text)
    }
}

/// Runs before `main` in every process of this binary.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = serve_if_started_as_a_client;

extern "C" fn serve_if_started_as_a_client() {
    if std::env::var_os(SERVE).is_none() {
        return;
    }
    // SAFETY: descriptor 0 is the socket that `Client::start` gave us, and nobody else uses it.
    let socket = unsafe { UnixStream::from_raw_fd(0) };
    let mut requests = BufReader::new(&socket);
    let mut hands = Hands::default();
    let mut line = String::new();
    while requests.read_line(&mut line).is_ok_and(|count| count > 0) {
        let op: Op = serde_json::from_str(&line).expect("an operation is JSON");
        let mut text = String::new();
        let result = hands.carry_out(op, &mut text).map_err(|errno| errno as i32);
        let answer = serde_json::to_string(&Answer { result, text }).expect("an answer is JSON") + "\n";
        if (&socket).write_all(answer.as_bytes()).is_err() {
            break;
        }
        line.clear();
    }
    std::process::exit(0);
}

/// What a client process keeps between its calls.
#[derive(Default)]
struct Hands {
    held: BTreeMap<i64, Held>,
    last: i64,
}

impl Hands {
    fn carry_out(&mut self, op: Op, text: &mut String) -> Sys<i64> {
        let none = |()| 0;
        match op {
            Op::Open { path, flags } => sys::open(path, flags).map(|fd| i64::from(fd.into_raw_fd())),
            Op::Close { fd } => sys::close(fd).map(none),
            Op::Dup { fd } => sys::dup(fd).map(i64::from),
            Op::Flock { fd, operation } => sys::flock(fd, operation).map(none),
            Op::Fcntl {
                fd,
                command,
                kind,
                start,
                len,
            } => {
                let mut range = Range {
                    kind,
                    start,
                    len,
                    pid: 0,
                };
                sys::fcntl(fd, command, &mut range)?;
                *text = format!("{} {} {} {}", range.kind, range.pid, range.start, range.len);
                Ok(0)
            }
            Op::Write { fd, data } => sys::write(fd, data.as_bytes()).map(|n| n as i64),
            Op::Read { fd, max } => {
                let data = sys::read(fd, max)?;
                *text = String::from_utf8_lossy(&data).into_owned();
                Ok(data.len() as i64)
            }
            Op::Cat { path } => {
                *text = std::fs::read_to_string(path).map_err(errno)?;
                Ok(text.len() as i64)
            }
            Op::Kind { path } => {
                let kind = path.symlink_metadata().map_err(errno)?.file_type();
                let name = if kind.is_dir() {
                    "dir"
                } else if kind.is_symlink() {
                    "link"
                } else {
                    "file"
                };
                name.clone_into(text);
                Ok(0)
            }
            Op::Mkdir { path } => sys::mkdir(path).map(none),
            Op::Rmdir { path } => sys::rmdir(path).map(none),
            Op::Unlink { path } => sys::unlink(path).map(none),
            Op::Symlink { target, path } => sys::symlink(target, path).map(none),
            Op::Link { from, to } => sys::link(from, to).map(none),
            Op::Rename { from, to } => sys::rename(from, to).map(none),
            Op::Utimens { path, time } => sys::utimens(path, time).map(none),
            Op::Futimens { fd, time } => sys::futimens(fd, time).map(none),
            Op::Poll { fd, events, timeout_ms } => sys::poll(fd, events, timeout_ms).map(i64::from),
            Op::Fork => sys::fork_sleeper().map(i64::from),
            Op::Nice { level } => sys::nice(level).map(none),
            Op::Take { dialect, name, wait } => {
                let held = dialect.take(&mountpoint(), &name, wait)?;
                self.last += 1;
                self.held.insert(self.last, held);
                Ok(self.last)
            }
            Op::Release { id } => self.held.remove(&id).ok_or(Errno::EBADF)?.release().map(none),
            Op::Count {
                dialect,
                name,
                counter,
                times,
            } => work::count(&mountpoint(), dialect, &name, &counter, times),
            Op::Mix {
                names,
                markers,
                seed,
                times,
            } => work::mix(&mountpoint(), &names, &markers, seed, times),
            Op::Exit { code } => std::process::exit(code),
        }
    }
}

fn mountpoint() -> PathBuf {
    std::env::var_os("M")
        .expect("clients have the environment of the test")
        .into()
}

fn errno(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO))
}
