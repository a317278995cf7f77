//! 10,000 waiters at once.
//!
//! They are threads of a few processes: this test binary, started again with its orders in the environment. It serves
//! them before `main`, as a plain program without a test runner would.

use std::fs::OpenOptions;
use std::io::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::client::executable;
use crate::support::process::holds_within;
use crate::support::{Mount, Running, Said, wait_until};
use crate::{TRY, entry, holder};

/// `NAME:THREADS`: as many threads wait for that lock.
const ORDERS: &str = "GIT_LOCKFS_TEST_CROWD";
const PROCESSES: usize = 8;
const THREADS: usize = 1250;
/// Threads start slowly on a busy machine with two cores.
const ARRIVAL_MAX: Duration = Duration::from_secs(90);
const SERVED_MAX: Duration = Duration::from_secs(90);

#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = join_the_crowd;

extern "C" fn join_the_crowd() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let (path, threads) = orders.rsplit_once(':').expect("orders are PATH:THREADS");
    raise_descriptor_limit();
    let served = Arc::new(AtomicUsize::new(0));
    let waiting: Vec<_> = (0..threads.parse().expect("a number"))
        .map(|_| {
            let (path, served) = (path.to_owned(), Arc::clone(&served));
            let wait = move || {
                if OpenOptions::new()
                    .write(true)
                    .create(true)
                    .truncate(false)
                    .open(path)
                    .is_ok()
                {
                    served.fetch_add(1, Ordering::Relaxed);
                }
            };
            let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(wait);
            thread.expect("the machine has room for the threads")
        })
        .collect();
    for thread in waiting {
        let _ = thread.join();
    }
    let _ = writeln!(std::io::stdout(), "{}", served.load(Ordering::Relaxed));
    std::process::exit(0);
}

/// A descriptor is reserved for each open that waits.
fn raise_descriptor_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("the limit is known");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("it may rise to the hard limit");
}

fn crowd(mount: &Mount, name: &str) -> Vec<Running> {
    let start = || {
        let mut command = mount.command(executable());
        command.env(ORDERS, format!("{}:{THREADS}", mount.lock(name).display()));
        mount.spawn(command)
    };
    let crowd: Vec<Running> = (0..PROCESSES).map(|_| start()).collect();
    let there = holds_within(ARRIVAL_MAX, || mount.waiters(name) == PROCESSES * THREADS);
    assert!(there, "only {} waiters arrived", mount.waiters(name));
    crowd
}

/// 10,000 waiters at once are fine: everything else goes on, and all of them are served.
#[test]
fn ten_thousand_waiters_are_all_served() {
    let mount = Mount::with(&[("wait", "10m")]);
    let (mut holding, fd) = holder(&mount, "x.lock");
    let mut crowd = crowd(&mount, "x.lock");

    let begun = Instant::now();
    mount
        .sh("ls $L; cat $L/x.lock; : > $L/y.lock; flock -n $F/z.lock true; echo $$ > $L/w.lock; rm $L/w.lock")
        .ok();
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "others wait {:?} beside the crowd",
        begun.elapsed()
    );
    let waiters = entry(&mount, "x.lock")["waiters"].as_array().map(Vec::len);
    assert_eq!(waiters, Some(PROCESSES * THREADS));

    holding.close(fd);
    let mut served = 0;
    for process in &mut crowd {
        let output = process.finish_within(SERVED_MAX).ok();
        served += output.text().parse::<usize>().expect("a count");
    }
    assert_eq!(served, PROCESSES * THREADS);
    mount.wait_until_free("x.lock");
}

/// with EINTR on a signal, at once, also SIGKILL: ten thousand at a stroke leave nothing behind.
#[test]
fn ten_thousand_waiters_can_all_be_killed() {
    let mount = Mount::with(&[("wait", "10m")]);
    let (mut holding, fd) = holder(&mount, "x.lock");
    let crowd = crowd(&mount, "x.lock");
    for process in &crowd {
        process.signal(libc::SIGKILL);
    }
    drop(crowd);
    wait_until("nobody waits", || mount.waiters("x.lock") == 0);
    holding.close(fd);
    let mut next = mount.client();
    wait_until("the lock can be had", || next.open(mount.lock("x.lock"), TRY).is_ok());
}
