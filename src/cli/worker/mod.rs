//! The worker: answers the requests of a mount that the supervisor made and keeps.
//!
//! Five threads: this one reads the kernel's requests, the watcher's sleeps until something happens on its own (a
//! deadline, the end of a process, a signal, the end of the repository), the inspector's does slow work, the recorder's
//! folds what happened into figures, and one sees to it that there is a supervisor (`succession`).

mod past;
mod succession;

use std::fs::File;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};

pub use self::past::examine;
use self::succession::Succession;
use super::estate::Estate;
use super::notice::Notice;
use super::place::{Place, our_mounts};
use crate::adapters::watcher::block_signals;
use crate::adapters::{
    AlertCommand, Confinement, Event, Heartbeat, History, Phase, Processes, Tokens, Watcher, processes,
};
use crate::fuse::{self, Detach, Unmounter, detach};
use crate::service::{Outside, Service};
use crate::types::Settings;
use crate::view::locks_json::{Recovery, ServedBy};

/// What the supervisor asks by whether the watcher listens; nothing happens to a process that does not know it.
pub const PING: libc::c_int = libc::SIGURG;
/// What the supervisor tells a worker to retire by; one that does not know it ends as by a crash.
pub const RETIRE: libc::c_int = libc::SIGUSR1;
/// Exit code of a worker whose successors would fail like it (EX_DATAERR of sysexits.h).
pub const EXIT_HOPELESS: u8 = 65;

/// Reads the settings; a sentence says what is wrong with them.
pub type ReadSettings = Box<dyn Fn() -> std::result::Result<Settings, String> + Send + Sync>;

/// Serves until the mount ends. `notice` gets to know when, or why not.
pub fn work(estate: Estate, settings: ReadSettings, notice: File, supervisor: u32) -> Result<ExitCode> {
    let mut notice = Some(notice);
    let served = serve(Arc::new(estate), settings, &mut notice, supervisor);
    if let (Err(error), Some(notice)) = (&served, notice) {
        Notice::of(error).send(&notice);
    }
    served
}

fn serve(estate: Arc<Estate>, settings: ReadSettings, notice: &mut Option<File>, supervisor: u32) -> Result<ExitCode> {
    block_signals().context("signals could not be blocked")?;
    processes::raise_descriptor_limit().context("the limit of descriptors could not be raised")?;
    let place = estate.place()?;
    let watcher = Watcher::new(&place.common_dir).context("the repository could not be watched")?;
    let (tokens, first, end) = Tokens::open(&place.state_dir).context("fencing tokens could not be read")?;
    let standing = estate.standing;
    let cloned = match standing.recovery {
        Recovery::Resend => None,
        Recovery::Clone => Some(estate.mounted.cloned().context("the device could not be cloned")?),
    };
    let mounted = cloned.as_ref().unwrap_or(&estate.mounted);
    let succession = Succession::watch(estate.clone(), supervisor)?;
    // Read again for `reload`, and for a first worker.
    let settings = Arc::new(settings);
    let reload = Arc::clone(&settings);
    let alert_command = AlertCommand::new(&place.common_dir);
    let outside = Outside {
        processes: Arc::new(Processes::new(watcher.exits())),
        alarm: watcher.alarm(),
        confinement: Confinement::of_self().context("our own confinement could not be read")?,
        tokens,
        reserved: first..end,
        history: History::open(&place.state_dir),
        replies: mounted.replies(),
        reload: Box::new(move || reload()),
        tell_alerts: Box::new(move |alerts| alert_command.tell(alerts)),
        mountpoint: place.mountpoint.clone(),
        owner: (nix::unistd::geteuid().as_raw(), nix::unistd::getegid().as_raw()),
        others_allowed: standing.others_allowed,
        served_by: Box::new(move || ServedBy {
            worker_pid: std::process::id(),
            supervisor_pid: succession.supervisor(),
            recovery: standing.recovery,
        }),
        heartbeat: estate.heartbeat.clone(),
    };
    let service = Arc::new(past::begin(&place, standing.life, &settings, outside)?);
    let inspector = Arc::clone(&service);
    thread::Builder::new()
        .name("inspector".to_owned())
        .spawn(move || inspector.inspect_forever())?;
    let recorder = Arc::clone(&service);
    let recorder = thread::Builder::new()
        .name("recorder".to_owned())
        .spawn(move || recorder.record_forever())?;
    let attendant = Attendant {
        service: Arc::clone(&service),
        unmounter: estate.mounted.unmounter(),
        heartbeat: estate.heartbeat.clone(),
        place: place.clone(),
    };
    let attending = thread::Builder::new()
        .name("watcher".to_owned())
        .spawn(move || attendant.attend(&watcher))?;
    service.start();
    if standing.life > 1 {
        match standing.recovery {
            Recovery::Resend => mounted.resend(),
            Recovery::Clone => service.reconcile(),
        }
    }
    estate.heartbeat.set_phase(Phase::Serving);
    if let Some(notice) = notice.take() {
        Notice::Ready.send(&notice);
    }
    tracing::info!(
        mountpoint = %place.mountpoint.display(),
        protocol = ?standing.terms.negotiated.protocol,
        recovery = ?standing.recovery,
        life = standing.life,
        "mounted"
    );
    fuse::serve(mounted, &*service, &estate.heartbeat).context("the request loop ended")?;
    if estate.heartbeat.phase() == Phase::Ending {
        // The watcher ends this process when it has taken the mount down everywhere.
        let _ = attending.join();
    }
    estate.heartbeat.set_phase(Phase::Ending);
    service.stop_inspector();
    service.stop_recorder();
    // A panic in it was logged when it happened.
    let _ = recorder.join();
    let held = service.held_locks();
    if held.is_empty() {
        tracing::info!("unmounted");
    } else {
        tracing::error!(?held, "unmounted while locks were held: their holders have lost them");
    }
    Ok(ExitCode::SUCCESS)
}

/// Attends to what happens on its own.
struct Attendant {
    service: Arc<Service>,
    unmounter: Unmounter,
    heartbeat: Arc<Heartbeat>,
    place: Place,
}

impl Attendant {
    /// Until the mount ends.
    fn attend(&self, watcher: &Watcher) {
        let mut events = Vec::new();
        loop {
            events.clear();
            if let Err(error) = watcher.wait(&mut events) {
                tracing::error!("the watcher sees nothing any more: {error}");
                return;
            }
            for event in &events {
                match event {
                    Event::Exited(process) => self.service.attend_exit(*process),
                    Event::Deadline => self.service.attend_deadline(),
                    Event::Signal(PING) => self.heartbeat.answer(),
                    Event::Signal(libc::SIGHUP) => {}
                    Event::Signal(RETIRE) => {
                        self.save_figures();
                        self.service.retire();
                        tracing::info!("retired");
                        std::process::exit(0);
                    }
                    Event::Signal(signal) => self.end_if_idle(*signal),
                    Event::RepositoryGone => {
                        tracing::warn!("the repository is gone");
                        self.unmount();
                        // What is left is an empty directory of ours; if it cannot go, it may stay.
                        let _ = std::fs::remove_dir(&self.place.mountpoint);
                        std::process::exit(0);
                    }
                    Event::Wake => {}
                }
            }
        }
    }

    /// A signal asks the daemon to end; while locks are held it refuses and says who holds them.
    fn end_if_idle(&self, signal: i32) {
        match self.service.close_if_idle() {
            Ok(()) => {
                self.unmount();
                self.save_figures();
                tracing::info!("unmounted on signal {signal}");
                std::process::exit(0);
            }
            Err(held) => tracing::warn!(
                "signal {signal} refused, locks are held: {}; to break them: git lockfs umount --force",
                held.join(", ")
            ),
        }
    }

    fn save_figures(&self) {
        if let Err(sentence) = self.service.save_figures() {
            tracing::warn!("the last figures are lost: {sentence}");
        }
    }

    fn unmount(&self) {
        // Whatever becomes of this process from here on, it is to have no successor.
        self.heartbeat.set_phase(Phase::Ending);
        if let Err(error) = self.unmounter.unmount() {
            tracing::error!("unmounting failed: {error}");
        }
        // A repository that was moved took its mount along, and only the kernel knows where to.
        let device = self.unmounter.connection().map(|minor| (0, minor));
        for mount in our_mounts() {
            if Some(mount.device) == device
                && let Err(error) = detach(&mount.at, Detach::Lazy)
            {
                tracing::error!("unmounting {} failed: {error}", mount.at.display());
            }
        }
    }
}
