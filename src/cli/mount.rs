//! `git lockfs mount`: one daemon a repository, in the background, answering when this returns.
//!
//! The starter takes the daemon's lock, executes itself anew with that lock and the end of a pipe, and waits for the
//! one byte that says that the mount answers. Those who start at the same time find the lock taken and wait for the
//! same mount.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::bounded::until;
use super::client::no_daemon;
use super::config::MountConfig;
use super::daemon::{DaemonLock, inherited, log_path};
use super::failure::{exit_code, failure};
use super::mountpoint::{Detach, detach};
use super::place::{Place, State};
use super::serve::{self, serve};
use super::{EXIT_NO_DAEMON, device, held};
use crate::adapters::read_settings;

/// How long a mount may take until it answers, ours or that of another starter.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The log is set aside once when it is larger than this.
const LOG_BYTES_MAX: u64 = 1 << 20;
/// The longest sentence that a daemon reports through the pipe.
const REPORT_BYTES_MAX: u64 = 8192;

/// Mount the locks of this repository
///
/// Returns when the mount answers and leaves a daemon behind. If it is mounted already, says so and succeeds.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// Stay in the foreground and log to standard error
    #[arg(short, long)]
    foreground: bool,
    /// Let opens and `acquire` wait that long at most (5s, 2m, 0, forever)
    #[arg(long, value_name = "TIME")]
    wait: Option<String>,
    /// Let a lease outlive its keeper that long
    #[arg(long, value_name = "TIME")]
    lease: Option<String>,
    /// Let other users look and lock; the mount's owner alone administers
    #[arg(long)]
    allow_other: bool,
    /// Set any key of the configuration: wait, waitFor.PATTERN, lease, aging, ticketGrace, parents; or allow_other
    #[arg(short = 'o', value_name = "KEY=VALUE,...")]
    options: Vec<String>,
    #[arg(long, hide = true, requires = "lock_fd")]
    ready_fd: Option<RawFd>,
    #[arg(long, hide = true, requires = "common_dir")]
    lock_fd: Option<RawFd>,
    #[arg(long, hide = true, requires = "ready_fd")]
    common_dir: Option<PathBuf>,
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    if let (Some(ready), Some(lock), Some(dir)) = (args.ready_fd, args.lock_fd, &args.common_dir) {
        return run_as_daemon(args, ready, lock, Place::of(dir.clone()));
    }
    let place = Place::find()?;
    let config = configure(args, &place)?;
    match place.state() {
        State::Mounted => return already_mounted(&place),
        State::Closed => return Err(no_daemon(&place, State::Closed)),
        State::Bare | State::Dead | State::Mute => {}
    }
    device::require()?;
    let Some(lock) = claim(&place)? else {
        return already_mounted(&place);
    };
    if args.foreground {
        lock.declare()?;
        return serve(daemon_options(args, place, config, None));
    }
    start(args, &place, &lock)
}

fn daemon_options(args: &Args, place: Place, config: MountConfig, ready: Option<OwnedFd>) -> serve::Options {
    let (again, there) = (args.clone(), place.clone());
    let reload = move || {
        configure(&again, &there)
            .map(|config| config.settings)
            .map_err(|error| format!("{error:#}"))
    };
    serve::Options {
        place,
        settings: config.settings,
        reload: Box::new(reload),
        allow_other: config.allow_other,
        ready,
    }
}

fn already_mounted(place: &Place) -> Result<ExitCode> {
    writeln!(io::stdout(), "already mounted at {}", place.mountpoint.display())?;
    Ok(ExitCode::SUCCESS)
}

fn configure(args: &Args, place: &Place) -> Result<MountConfig> {
    let mut config = MountConfig::with_options(read_settings(&place.common_dir)?, &args.options)?;
    for (key, value) in [("wait", &args.wait), ("lease", &args.lease)] {
        if let Some(value) = value {
            config.settings.set(key, value)?;
        }
    }
    config.allow_other |= args.allow_other;
    if config.allow_other && !device::is_root() && !device::others_may_be_allowed() {
        bail!(
            "allow_other: {conf} does not let ordinary users do that: `echo user_allow_other | sudo tee -a {conf}`",
            conf = device::FUSE_CONF
        );
    }
    Ok(config)
}

/// The right to start the daemon, once nothing is mounted; `None` when another starter's mount answers.
fn claim(place: &Place) -> Result<Option<DaemonLock>> {
    let claimed = until(START_LIMIT, || claim_now(place).transpose());
    claimed.unwrap_or_else(|| {
        Err(failure(
            EXIT_NO_DAEMON,
            format!(
                "another daemon of {} has started and does not answer: end it with `git lockfs umount --force`",
                place.mountpoint.display()
            ),
        ))
    })
}

/// One step of [`claim`]: `None` is not yet, `Some(None)` somebody's mount answers.
fn claim_now(place: &Place) -> Result<Option<Option<DaemonLock>>> {
    let Some(lock) = DaemonLock::try_take(place)? else {
        return match place.state() {
            State::Mounted => Ok(Some(None)),
            // It was asked for longer than a daemon takes that has just mounted.
            State::Mute => Err(no_daemon(place, State::Mute)),
            State::Bare | State::Dead | State::Closed => Ok(None),
        };
    };
    match place.state() {
        State::Bare => Ok(Some(Some(lock))),
        State::Mounted => Ok(Some(None)),
        State::Closed => Err(no_daemon(place, State::Closed)),
        // Nobody has the daemon's lock: what is left of that mount serves nobody.
        State::Dead | State::Mute => {
            detach(&place.mountpoint, Detach::Lazy).context("what is left of the last mount could not be removed")?;
            Ok(Some(Some(lock)))
        }
    }
}

/// Executes ourselves as the daemon and waits until it answers.
fn start(args: &Args, place: &Place, lock: &DaemonLock) -> Result<ExitCode> {
    let (ready, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    let mut child = daemon_command(args, place, lock.raw_fd(), theirs.as_raw_fd())?
        .spawn()
        .context("the daemon could not be started")?;
    drop(theirs);
    let report = await_report(ready);
    match report {
        Ok(()) if place.state() == State::Mounted => Ok(ExitCode::SUCCESS),
        Ok(()) => Err(failure(
            EXIT_NO_DAEMON,
            format!(
                "the daemon has started but {} does not answer",
                place.mountpoint.display()
            ),
        )),
        Err(error) => {
            give_up(place, &mut child);
            Err(error)
        }
    }
    .with_context(|| format!("not mounted (log: {})", log_path(place).display()))
}

fn daemon_command(args: &Args, place: &Place, lock: RawFd, ready: RawFd) -> Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["mount", "--foreground"]);
    command
        .arg(format!("--lock-fd={lock}"))
        .arg(format!("--ready-fd={ready}"));
    command.arg("--common-dir").arg(&place.common_dir);
    for (option, value) in [("--wait", &args.wait), ("--lease", &args.lease)] {
        if let Some(value) = value {
            command.arg(format!("{option}={value}"));
        }
    }
    for list in &args.options {
        command.arg(format!("-o{list}"));
    }
    if args.allow_other {
        command.arg("--allow-other");
    }
    // The starter may itself run under a lock; the daemon does not.
    command.env_remove(held::HELD_ENV).env_remove(held::TOKEN_ENV);
    command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(open_log(place)?);
    // SAFETY: `detach_from_starter` only makes system calls that are safe between fork and exec.
    unsafe { command.pre_exec(move || detach_from_starter([lock, ready])) };
    Ok(command)
}

/// Runs between fork and exec: a session of its own, no signals blocked, and of the starter's descriptors only `kept`.
fn detach_from_starter(kept: [RawFd; 2]) -> io::Result<()> {
    // SAFETY: plain system calls on numbers and on values of this frame; none allocates or locks.
    unsafe {
        if libc::setsid() == -1 {
            return Err(io::Error::last_os_error());
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        // Marked, not closed: the spawn itself still needs a descriptor to report a failed exec.
        let first: libc::c_uint = 3;
        let marked = libc::syscall(
            libc::SYS_close_range,
            first,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        );
        if marked == -1 {
            // Before Linux 5.11: one by one, as far as descriptors commonly go.
            for fd in 3..4096 {
                libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC);
            }
        }
        for fd in kept {
            if libc::fcntl(fd, libc::F_SETFD, 0) == -1 {
                return Err(io::Error::last_os_error());
            }
        }
    }
    Ok(())
}

fn open_log(place: &Place) -> Result<File> {
    let path = log_path(place);
    if std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.len() > LOG_BYTES_MAX) {
        std::fs::rename(&path, path.with_extension("log.1"))?;
    }
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&path)
        .with_context(|| path.display().to_string())
}

/// Reads what the daemon reports: one byte when it answers, or `E<exit code> <sentence>`.
fn await_report(ready: OwnedFd) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(ready.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Err(failure(EXIT_NO_DAEMON, "the daemon did not answer in time")),
            Ok(_) => break,
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    let mut report = File::from(ready);
    let mut first = [0];
    if report.read(&mut first)? == 0 {
        return Err(failure(EXIT_NO_DAEMON, "the daemon died while it started"));
    }
    if first != *b"E" {
        return Ok(());
    }
    let mut rest = Vec::new();
    report.take(REPORT_BYTES_MAX).read_to_end(&mut rest)?;
    Err(parse_report(&String::from_utf8_lossy(&rest)))
}

fn parse_report(rest: &str) -> anyhow::Error {
    let rest = rest.trim_end();
    match rest.split_once(' ').map(|(code, sentence)| (code.parse(), sentence)) {
        Some((Ok(code), sentence)) => failure(code, sentence),
        _ => failure(EXIT_NO_DAEMON, rest),
    }
}

/// Ends a daemon that has not come up, and takes off what it may have mounted.
fn give_up(place: &Place, child: &mut Child) {
    // It may have ended by itself; all that matters is that it has.
    let _ = child.kill();
    let _ = child.wait();
    if matches!(place.state(), State::Dead | State::Mute) {
        // The next mount tries again and says what is wrong.
        let _ = detach(&place.mountpoint, Detach::Lazy);
    }
}

/// The inside of the daemon, started by [`start`].
fn run_as_daemon(args: &Args, ready: RawFd, lock: RawFd, place: Place) -> Result<ExitCode> {
    let ready = inherited(ready)?;
    let mut report = File::from(ready.try_clone()?);
    let served = DaemonLock::inherit(&place, lock).and_then(|lock| {
        lock.declare()?;
        let config = configure(args, &place)?;
        serve(daemon_options(args, place, config, Some(ready)))
    });
    if let Err(error) = &served {
        let sentence = format!("{error:#}").replace('\n', " ");
        // Once the mount has answered, nobody reads this any more; then the log has it.
        let _ = writeln!(report, "E{} {sentence}", exit_code(error));
    }
    served
}

#[cfg(test)]
mod tests {
    use super::super::failure::Failure;
    use super::*;

    fn report(bytes: &[u8]) -> Result<()> {
        let (ours, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("pipe");
        File::from(theirs).write_all(bytes).expect("write");
        await_report(ours)
    }

    #[test]
    fn a_daemon_reports_readiness_or_its_reason_and_exit_code() {
        assert!(report(b"1").is_ok());
        let reason = report(b"E77 no, not here\n").expect_err("a reason");
        let expected = Failure {
            code: 77,
            sentence: "no, not here".to_owned(),
        };
        assert_eq!(reason.downcast_ref::<Failure>(), Some(&expected));
        let died = report(b"").expect_err("nothing");
        assert_eq!(exit_code(&died), EXIT_NO_DAEMON);
    }

    #[test]
    fn options_override_each_other_in_the_documented_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let init = Command::new("git").args(["init", "-q"]).arg(dir.path()).status();
        assert!(init.expect("git").success());
        let place = Place::of(dir.path().join(".git"));
        let args = Args {
            wait: Some("7s".to_owned()),
            options: vec!["wait=8s,lease=9s".to_owned()],
            ..Args::default()
        };
        let config = configure(&args, &place).expect("configure");
        assert_eq!(config.settings.wait, Some(Duration::from_secs(7)));
        assert_eq!(config.settings.lease, Duration::from_secs(9));
        let args = Args {
            lease: Some("never".to_owned()),
            ..Args::default()
        };
        let error = configure(&args, &place).expect_err("a bad time").to_string();
        assert!(error.contains("lockfs.lease"), "{error}");
    }
}
