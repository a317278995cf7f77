//! `git lockfs mount`: one daemon a repository, in the background, answering when this returns.
//!
//! The starter takes the daemon's lock, executes itself anew as the supervisor with that lock and the end of a pipe, and
//! waits for the notice that the mount answers. Those who start at the same time find the lock taken and wait for the
//! same mount. The processes of the daemon are this subcommand, too, with a role.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::process::{Child, ExitCode};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::fcntl::OFlag;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::bounded::until;
use super::client::no_daemon;
use super::config::MountConfig;
use super::daemon::{DaemonLock, Running, inherited, log_path};
use super::estate::{Estate, Launcher, Program, Role, Standing, open_common_dir, place_of};
use super::failure::failure;
use super::mountpoint::Mountpoint;
use super::notice::Notice;
use super::place::{Place, State};
use super::supervisor::Supervisor;
use super::{EXIT_NO_DAEMON, device, worker};
use crate::adapters::read_settings;
use crate::fuse::{Detach, MountError, Mounted, detach};
use crate::view::locks_json::Recovery;

/// How long a mount may take until it answers, ours or that of another starter.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The log is set aside once when it is larger than this.
const LOG_BYTES_MAX: u64 = 1 << 20;

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
    #[arg(long, hide = true, value_parser = parse_role)]
    role: Option<Role>,
}

fn parse_role(text: &str) -> serde_json::Result<Role> {
    serde_json::from_str(text)
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(role) = &args.role {
        return play(args, role.clone());
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
        start_log();
        lock.declare(std::process::id(), None)?;
        let program = std::env::current_exe()?;
        let options = options(args);
        let estate = found(open_common_dir(&place)?, lock, &config, Launcher { program, options })?;
        return Supervisor::new(estate, None)?.run(None);
    }
    start(args, &place, &lock)
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
    let common = open_common_dir(place)?;
    let launcher = Launcher {
        program: std::env::current_exe()?,
        options: options(args),
    };
    let role = Role::Founder {
        common: common.as_raw_fd(),
        lock: lock.raw_fd(),
        notice: theirs.as_raw_fd(),
    };
    let mut child = launcher
        .command(&role, Program::Same)?
        .stderr(open_log(place)?)
        .spawn()
        .context("the daemon could not be started")?;
    drop(theirs);
    match await_notice(ready) {
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

/// The options that the processes of the daemon get.
fn options(args: &Args) -> Vec<OsString> {
    let mut options: Vec<OsString> = Vec::new();
    for (option, value) in [("--wait", &args.wait), ("--lease", &args.lease)] {
        options.extend(value.iter().map(|value| format!("{option}={value}").into()));
    }
    options.extend(args.options.iter().map(|list| format!("-o{list}").into()));
    if args.allow_other {
        options.push("--allow-other".into());
    }
    options
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

/// Waits for what the daemon tells.
fn await_notice(pipe: OwnedFd) -> Result<()> {
    let deadline = Instant::now() + START_LIMIT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) => return Err(failure(EXIT_NO_DAEMON, "the daemon did not answer in time")),
            Ok(_) => break,
            Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    match Notice::read(File::from(pipe))? {
        Some(notice) => notice.into_result(),
        None => Err(failure(EXIT_NO_DAEMON, "the daemon died while it started")),
    }
}

/// Ends a daemon that has not come up, and takes off what it may have mounted.
fn give_up(place: &Place, child: &mut Child) {
    // It may have ended by itself; all that matters is that it has.
    if let Ok(Some(daemon)) = Running::find(place) {
        let _ = daemon.kill();
    }
    let _ = child.kill();
    let _ = child.wait();
    if matches!(place.state(), State::Dead | State::Mute) {
        // The next mount tries again and says what is wrong.
        let _ = detach(&place.mountpoint, Detach::Lazy);
    }
}

/// The inside of the daemon.
fn play(args: &Args, role: Role) -> Result<ExitCode> {
    start_log();
    let launcher = Launcher::inherit(options(args))?;
    match role {
        Role::Founder { common, lock, notice } => {
            let starter = File::from(inherited(notice)?);
            let common = inherited(common)?;
            let founded = place_of(&common).map_err(Into::into).and_then(|place| {
                let lock = DaemonLock::inherit(&place, lock)?;
                lock.declare(std::process::id(), None)?;
                found(common, lock, &configure(args, &place)?, launcher)
            });
            match founded {
                Ok(estate) => Supervisor::new(estate, Some(starter))?.run(None),
                Err(error) => {
                    Notice::of(&error).send(&starter);
                    Err(error)
                }
            }
        }
        Role::Heir { bequest, worker } => Supervisor::new(Estate::inherit(bequest, launcher)?, None)?.run(Some(worker)),
        Role::Examiner { common, notice } => {
            let notice = File::from(inherited(notice)?);
            let examined = place_of(&inherited(common)?)
                .map_err(Into::into)
                .and_then(|place| worker::examine(&place));
            match &examined {
                Ok(()) => Notice::Ready.send(&notice),
                Err(error) => Notice::of(error).send(&notice),
            }
            examined.map(|()| ExitCode::SUCCESS)
        }
        Role::Worker {
            bequest,
            notice,
            supervisor,
        } => {
            let notice = File::from(inherited(notice)?);
            let estate = Estate::inherit(bequest, launcher)?;
            let (again, there) = (args.clone(), estate.place()?);
            let settings = move || {
                configure(&again, &there)
                    .map(|config| config.settings)
                    .map_err(|error| format!("{error:#}"))
            };
            worker::work(estate, Box::new(settings), notice, supervisor)
        }
    }
}

/// Mounts.
fn found(common: OwnedFd, lock: DaemonLock, config: &MountConfig, launcher: Launcher) -> Result<Estate> {
    let mountpoint = Mountpoint::prepare(&place_of(&common)?)?;
    let path = mountpoint.verified_path()?;
    // Without allow_other the kernel keeps out even the owner's own programs when they are set-group-ID, as dotlockfile(1)
    // is. root may always ask for it; who is let in is then decided by the service.
    let allow_other = config.allow_other || device::is_root();
    let mounted = Mounted::mount(path, allow_other).map_err(|error| match error {
        MountError::NoDevice { .. } | MountError::DeviceDenied { .. } | MountError::NoFusermount => {
            failure(EXIT_NO_DAEMON, format!("{:#}", anyhow::Error::new(error)))
        }
        other => anyhow::Error::new(other),
    })?;
    mountpoint.close()?;
    let terms = mounted.terms();
    let standing = Standing {
        terms,
        others_allowed: config.allow_other,
        recovery: if terms.negotiated.has_resend && config.resend {
            Recovery::Resend
        } else {
            Recovery::Clone
        },
        life: 0,
    };
    Estate::found(common, lock, mounted, standing, launcher)
}

fn start_log() {
    let filter = tracing_subscriber::EnvFilter::try_from_env("GIT_LOCKFS_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info,fuser=warn"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr);
    // A log that is set up already serves as well.
    let _ = log.try_init();
}

#[cfg(test)]
mod tests {
    use super::super::failure::{Failure, exit_code};
    use super::*;

    fn told(bytes: &[u8]) -> Result<()> {
        let (ours, theirs) = nix::unistd::pipe2(OFlag::O_CLOEXEC).expect("pipe");
        File::from(theirs).write_all(bytes).expect("write");
        await_notice(ours)
    }

    #[test]
    fn a_daemon_tells_that_it_is_ready_or_its_reason_and_exit_code() {
        assert!(told(b"1").is_ok());
        let reason = told(b"E77 no, not here\n").expect_err("a reason");
        let expected = Failure {
            code: 77,
            sentence: "no, not here".to_owned(),
        };
        assert_eq!(reason.downcast_ref::<Failure>(), Some(&expected));
        let died = told(b"").expect_err("nothing");
        assert_eq!(exit_code(&died), EXIT_NO_DAEMON);
    }

    #[test]
    fn options_override_each_other_in_the_documented_order() {
        let dir = tempfile::tempdir().expect("a directory");
        let init = std::process::Command::new("git")
            .args(["init", "-q"])
            .arg(dir.path())
            .status();
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
