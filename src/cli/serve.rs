//! The inside of the daemon: puts mountpoint, mount, service and loop together, and takes them apart in order.
//!
//! Three threads: this one reads the kernel's requests, the watcher's sleeps until something happens on its own (a
//! deadline, the end of a process, a signal, the end of the repository), the inspector's does slow work.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};

use super::EXIT_NO_DAEMON;
use super::failure::failure;
use super::mountpoint::{Detach, Mountpoint, detach};
use super::place::{Place, our_mounts};
use crate::adapters::watcher::block_signals;
use crate::adapters::{Confinement, Event, Journal, Processes, Tokens, Watcher, processes};
use crate::fuse::{self, MountError, Mounted, Unmounter};
use crate::service::{Outside, Service};
use crate::types::Settings;

/// What a daemon serves, and who wants to know when it does.
pub struct Options {
    /// Where.
    pub place: Place,
    /// Under which settings.
    pub settings: Settings,
    /// Reads the settings again, for `reload`; a sentence says what is wrong with them.
    pub reload: Box<dyn Fn() -> std::result::Result<Settings, String> + Send + Sync>,
    /// Whether other users may look and lock.
    pub allow_other: bool,
    /// Gets one byte when the mount answers. An error returned before that is reported there by the caller.
    pub ready: Option<OwnedFd>,
}

/// Mounts and serves until it is unmounted.
pub fn serve(options: Options) -> Result<ExitCode> {
    start_log();
    block_signals().context("signals could not be blocked")?;
    processes::raise_descriptor_limit().context("the limit of descriptors could not be raised")?;
    let watcher = Watcher::new(&options.place.common_dir).context("the repository could not be watched")?;
    let (tokens, first, end) = Tokens::open(&options.place.state_dir).context("fencing tokens could not be read")?;
    // A mount that is new has nothing to go on from.
    let journal = Journal::create(&options.place.state_dir, b"").context("the journal could not be begun")?;
    let mounted = mount(&options)?;
    let mountpoint = options.place.mountpoint.clone();
    let service = Arc::new(Service::new(
        options.settings,
        Outside {
            processes: Arc::new(Processes::new(watcher.exits())),
            alarm: watcher.alarm(),
            confinement: Confinement::of_self().context("our own confinement could not be read")?,
            tokens,
            reserved: first..end,
            replies: mounted.replies(),
            reload: options.reload,
            mountpoint: mountpoint.clone(),
            owner: (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
            others_allowed: options.allow_other,
        },
        Box::new(journal),
    ));
    let inspector = Arc::clone(&service);
    thread::Builder::new()
        .name("inspector".to_owned())
        .spawn(move || inspector.inspect_forever())?;
    let (attendant, unmounter, place) = (Arc::clone(&service), mounted.unmounter(), options.place.clone());
    thread::Builder::new()
        .name("watcher".to_owned())
        .spawn(move || attend(&watcher, &attendant, &unmounter, &place))?;
    if let Some(ready) = options.ready {
        // The starter may be gone; the mount is there all the same.
        let _ = File::from(ready).write_all(b"1");
    }
    tracing::info!(mountpoint = %mountpoint.display(), protocol = ?mounted.negotiated().protocol, "mounted");
    fuse::serve(&mounted, &*service).context("the request loop ended")?;
    service.stop_inspector();
    let held = service.held_locks();
    if held.is_empty() {
        tracing::info!("unmounted");
    } else {
        tracing::error!(?held, "unmounted while locks were held: their holders have lost them");
    }
    Ok(ExitCode::SUCCESS)
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

fn mount(options: &Options) -> Result<Mounted> {
    let mountpoint = Mountpoint::prepare(&options.place)?;
    let path = mountpoint.verified_path()?;
    // Without allow_other the kernel keeps out even the owner's own programs when they are set-group-ID, as dotlockfile(1)
    // is. root may always ask for it; who is let in is then decided by the service.
    let allow_other = options.allow_other || nix::unistd::geteuid().is_root();
    let mounted = Mounted::mount(path, allow_other).map_err(|error| match error {
        MountError::NoDevice { .. } | MountError::DeviceDenied { .. } | MountError::NoFusermount => {
            failure(EXIT_NO_DAEMON, format!("{:#}", anyhow::Error::new(error)))
        }
        other => anyhow::Error::new(other),
    })?;
    mountpoint.close()?;
    Ok(mounted)
}

/// Attends to what happens on its own, until the mount ends.
fn attend(watcher: &Watcher, service: &Service, unmounter: &Unmounter, place: &Place) {
    let mut events = Vec::new();
    loop {
        events.clear();
        if let Err(error) = watcher.wait(&mut events) {
            tracing::error!("the watcher sees nothing any more: {error}");
            return;
        }
        for event in &events {
            match event {
                Event::Exited(process) => service.attend_exit(*process),
                Event::Deadline => service.attend_deadline(),
                Event::Signal(signal) => end_if_idle(*signal, service, unmounter),
                Event::RepositoryGone => {
                    tracing::warn!("the repository is gone");
                    unmount(unmounter);
                    // What is left is an empty directory of ours; if it cannot go, it may stay.
                    let _ = std::fs::remove_dir(&place.mountpoint);
                    std::process::exit(0);
                }
                Event::Wake => {}
            }
        }
    }
}

/// A signal asks the daemon to end; while locks are held it refuses and says who holds them.
fn end_if_idle(signal: i32, service: &Service, unmounter: &Unmounter) {
    if signal == libc::SIGHUP {
        return;
    }
    match service.close_if_idle() {
        Ok(()) => {
            unmount(unmounter);
            tracing::info!("unmounted on signal {signal}");
            std::process::exit(0);
        }
        Err(held) => tracing::warn!(
            "signal {signal} refused, locks are held: {}; to break them: git lockfs umount --force",
            held.join(", ")
        ),
    }
}

fn unmount(unmounter: &Unmounter) {
    if let Err(error) = unmounter.unmount() {
        tracing::error!("unmounting failed: {error}");
    }
    // A repository that was moved took its mount along, and only the kernel knows where to.
    let device = unmounter.connection().map(|minor| (0, minor));
    for mount in our_mounts() {
        if Some(mount.device) == device
            && let Err(error) = detach(&mount.at, Detach::Lazy)
        {
            tracing::error!("unmounting {} failed: {error:#}", mount.at.display());
        }
    }
}
