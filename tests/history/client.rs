//! One client of the real run: this test binary, started again with its orders in the environment.
//!
//! It takes and releases locks in every dialect at random and logs each step; it draws no conclusions. It runs before
//! `main`: libtest would give it a second thread, which would take the signals meant for the waiting one.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{Error, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use crate::record::{Event, Nanos};

/// The environment variable that makes a client of this binary: `MOUNTPOINT:LOG:SEED:NICE:END`.
pub const ORDERS: &str = "GIT_LOCKFS_TEST_HISTORY_CLIENT";

/// A kept place lasts 1 s: who gave up asks for that lock only when no place can be left.
const KEPT_PLACE: Nanos = 1_500_000_000;

/// CLOCK_MONOTONIC, the clock that all processes share.
pub fn now() -> Nanos {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for the answer.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    Nanos::try_from(time.tv_sec).unwrap() * 1_000_000_000 + Nanos::try_from(time.tv_nsec).unwrap()
}

/// Numbers that need to look random, and be the same for the same seed (splitmix64).
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % bound
    }
}

/// Runs before `main` in every process of this binary.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = follow_orders;

/// The main program of a client; without orders there is nothing to do.
extern "C" fn follow_orders() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let fields: Vec<&str> = orders.split(':').collect();
    let &[mountpoint, log, seed, nice, end] = &fields[..] else {
        panic!("orders: {orders}");
    };
    // SAFETY: plain system call.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice.parse().unwrap()) };
    on_alarm_do_nothing();
    let nice: u8 = nice.parse().unwrap();
    Worker {
        locks: Path::new(mountpoint).join("locks"),
        flock: Path::new(mountpoint).join("flock"),
        acquire: Path::new(mountpoint).join("acquire"),
        log: OpenOptions::new().append(true).create(true).open(log).unwrap(),
        random: Random(seed.parse().unwrap()),
        priority: if nice == 0 { 10 } else { 5 },
        gave_up: [0; NAMES.len()],
    }
    .work_until(end.parse().unwrap());
    std::process::exit(0);
}

/// The locks that clients fight for.
pub const NAMES: [&str; 3] = ["a.lock", "b.lock", "c.lock"];

struct Worker {
    locks: PathBuf,
    flock: PathBuf,
    acquire: PathBuf,
    log: File,
    random: Random,
    priority: u8,
    gave_up: [Nanos; NAMES.len()],
}

impl Worker {
    fn work_until(mut self, end: Nanos) {
        while now() < end {
            let pick = self.random.below(NAMES.len() as u64) as usize;
            if now() < self.gave_up[pick] + KEPT_PLACE {
                std::thread::yield_now();
                continue;
            }
            match self.random.below(14) {
                0..=2 => self.descriptor(pick, libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC),
                3 => self.descriptor(pick, libc::O_WRONLY | libc::O_CREAT | libc::O_NONBLOCK),
                4 => self.impatient(pick),
                5 => self.lease(pick),
                6 => self.owner(pick),
                7 => self.flocked(pick, libc::LOCK_EX),
                8 => self.flocked(pick, libc::LOCK_SH),
                9 => self.flocked(pick, libc::LOCK_EX | libc::LOCK_NB),
                10 => self.ranged(pick, libc::F_WRLCK),
                11 => self.ranged(pick, libc::F_RDLCK),
                12 => self.transacted(pick),
                _ => self.directory(pick),
            }
        }
    }

    fn note(&mut self, at: Nanos, event: &Event) {
        let mut line = event.line(at);
        line.push('\n');
        self.log.write_all(line.as_bytes()).unwrap();
    }

    fn call(&mut self, pick: usize, exclusive: bool) {
        let event = Event::Call {
            lock: NAMES[pick].to_owned(),
            exclusive,
            priority: self.priority,
        };
        self.note(now(), &event);
    }

    /// Notes the outcome of a take; `asked` is when this client began to give up.
    fn outcome(&mut self, pick: usize, error: Option<i32>, asked: Option<Nanos>) {
        let returned = now();
        let event = match error {
            None => Event::Held {
                token: token(&self.locks.join(NAMES[pick])),
            },
            // A directory is one to everybody from the death of its keeper until that is noticed.
            Some(libc::EAGAIN | libc::EEXIST | libc::ETIMEDOUT | libc::EISDIR) => Event::Busy,
            Some(libc::EINTR) => {
                self.gave_up[pick] = returned;
                Event::Cancelled {
                    asked: asked.expect("only who asked for a signal gets one"),
                }
            }
            Some(errno) => panic!("{}: {}", NAMES[pick], Error::from_raw_os_error(errno)),
        };
        self.note(returned, &event);
    }

    /// The critical section: a little work, then the release, and a call that proves it has arrived: it comes after the
    /// RELEASE in the daemon's queue.
    fn section(&mut self, pick: usize, release: impl FnOnce()) {
        for _ in 0..self.random.below(2000) {
            std::hint::spin_loop();
        }
        self.note(now(), &Event::Release);
        release();
        let _ = self.locks.join(NAMES[pick]).symlink_metadata();
        self.note(now(), &Event::Released);
    }

    fn descriptor(&mut self, pick: usize, flags: i32) {
        self.call(pick, true);
        let got = open(&self.locks.join(NAMES[pick]), flags);
        self.outcome(pick, got.as_ref().err().copied(), None);
        if let Ok(fd) = got {
            self.section(pick, || drop(fd));
        }
    }

    fn impatient(&mut self, pick: usize) {
        self.call(pick, true);
        let asked = now();
        let micros = 1000 + i64::try_from(self.random.below(10_000)).unwrap();
        alarm_every(micros);
        let got = open(&self.locks.join(NAMES[pick]), libc::O_WRONLY | libc::O_CREAT);
        alarm_every(0);
        self.outcome(pick, got.as_ref().err().copied(), Some(asked));
        if let Ok(fd) = got {
            self.section(pick, || drop(fd));
        }
    }

    fn lease(&mut self, pick: usize) {
        self.call(pick, true);
        let path = self.locks.join(NAMES[pick]);
        let got = open(&path, libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL);
        self.outcome(pick, got.as_ref().err().copied(), None);
        if let Ok(fd) = got {
            drop(fd);
            self.section(pick, || {
                std::fs::remove_file(path).expect("the keeper removes its lease")
            });
        }
    }

    fn owner(&mut self, pick: usize) {
        self.call(pick, true);
        let path = self.locks.join(NAMES[pick]);
        let got = open(&path, libc::O_WRONLY | libc::O_CREAT);
        if let Ok(fd) = &got {
            let mut file = File::from(fd.try_clone().unwrap());
            file.write_all(format!("{}\n", std::process::id()).as_bytes()).unwrap();
        }
        self.outcome(pick, got.as_ref().err().copied(), None);
        if let Ok(fd) = got {
            drop(fd);
            self.section(pick, || std::fs::remove_file(path).expect("the owner removes its lock"));
        }
    }

    fn flocked(&mut self, pick: usize, operation: i32) {
        let through_flock = self.random.below(2) == 0;
        let directory = if through_flock { &self.flock } else { &self.locks };
        let fd = match open(&directory.join(NAMES[pick]), libc::O_RDWR | libc::O_CREAT) {
            // As in `outcome`: the directory of somebody whose death is not noticed yet.
            Err(libc::EISDIR) => return,
            got => got.expect("a handle is always to be had"),
        };
        self.call(pick, operation & libc::LOCK_EX != 0);
        // SAFETY: `fd` is open.
        let failed = unsafe { libc::flock(fd.as_raw_fd(), operation) } != 0;
        let error = failed.then(|| Error::last_os_error().raw_os_error().unwrap());
        self.outcome(pick, error, None);
        if error.is_none() {
            // SAFETY: as above.
            self.section(pick, || {
                // SAFETY: a descriptor of ours and a flag.
                assert_eq!(unsafe { libc::flock(fd.as_raw_fd(), libc::LOCK_UN) }, 0)
            });
        }
    }

    /// fcntl(2) on the whole lock, waiting.
    fn ranged(&mut self, pick: usize, kind: i32) {
        let fd = open(&self.flock.join(NAMES[pick]), libc::O_RDWR).expect("a handle is always to be had");
        self.call(pick, kind == libc::F_WRLCK);
        let set = |command, kind: i32| {
            // SAFETY: a struct of integers, and a descriptor that is open.
            let failed = unsafe {
                let mut range: libc::flock = std::mem::zeroed();
                range.l_type = kind as i16;
                libc::fcntl(fd.as_raw_fd(), command, &range) != 0
            };
            failed.then(|| Error::last_os_error().raw_os_error().unwrap())
        };
        let error = set(libc::F_SETLKW, kind);
        self.outcome(pick, error, None);
        if error.is_none() {
            self.section(pick, || assert_eq!(set(libc::F_SETLK, libc::F_UNLCK), None));
        }
    }

    fn transacted(&mut self, pick: usize) {
        let fd = open(&self.acquire, libc::O_RDWR).expect("a handle is always to be had");
        let mut file = File::from(fd);
        self.call(pick, true);
        let request = format!(
            "locks={} mode=exclusive wait=20s priority={}",
            NAMES[pick], self.priority
        );
        let error = file.write_all(request.as_bytes()).err();
        let error = error.map(|error| error.raw_os_error().unwrap());
        self.outcome(pick, error, None);
        if error.is_none() {
            self.section(pick, || drop(file));
        }
    }

    fn directory(&mut self, pick: usize) {
        self.call(pick, true);
        let path = self.locks.join(NAMES[pick]);
        let error = std::fs::create_dir(&path).err();
        let error = error.map(|error| error.raw_os_error().unwrap());
        self.outcome(pick, error, None);
        if error.is_none() {
            self.section(pick, || std::fs::remove_dir(path).expect("the keeper removes its lock"));
        }
    }
}

fn open(path: &Path, flags: i32) -> Result<OwnedFd, i32> {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: `path` is a C string; the descriptor is ours alone.
    unsafe {
        match libc::open(path.as_ptr(), flags | libc::O_CLOEXEC, 0o600) {
            -1 => Err(Error::last_os_error().raw_os_error().unwrap()),
            fd => Ok(OwnedFd::from_raw_fd(fd)),
        }
    }
}

/// The fencing token of the grant that holds the lock.
fn token(lock: &Path) -> Option<u64> {
    let path = CString::new(lock.as_os_str().as_bytes()).unwrap();
    let mut value = [0_u8; 64];
    // SAFETY: both names are C strings, and the buffer is as long as it says.
    let length = unsafe {
        libc::getxattr(
            path.as_ptr(),
            c"user.lockfs.token".as_ptr(),
            value.as_mut_ptr().cast(),
            value.len(),
        )
    };
    let text = std::str::from_utf8(value.get(..usize::try_from(length).ok()?)?).ok()?;
    text.trim().parse().ok()
}

extern "C" fn nothing(_signal: i32) {}

/// SIGALRM interrupts a call (no SA_RESTART) and does nothing else.
fn on_alarm_do_nothing() {
    // SAFETY: the handler touches nothing.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = nothing as extern "C" fn(i32) as usize;
        assert_eq!(libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut()), 0);
    }
}

/// Again and again, because the first may come before the call sleeps. 0 ends it.
fn alarm_every(micros: i64) {
    let time = libc::timeval {
        tv_sec: 0,
        tv_usec: micros,
    };
    let timer = libc::itimerval {
        it_interval: time,
        it_value: time,
    };
    // SAFETY: `timer` is a valid setting.
    unsafe { libc::setitimer(libc::ITIMER_REAL, &timer, std::ptr::null_mut()) };
}
