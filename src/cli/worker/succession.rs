//! Sees to it that the worker has a supervisor: one that dies is replaced by a new one, over this worker.

use std::os::unix::process::parent_id;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::adapters::Phase;
use crate::cli::estate::Estate;
use crate::cli::process::Process;

/// A supervisor that lived for less has died at once.
const AT_ONCE: Duration = Duration::from_secs(1);
/// How much longer the pause before the next one is, for each but the first that died at once.
const PAUSE_STEP: Duration = Duration::from_millis(200);
/// The longest pause. It is tried for ever: to serve without a supervisor is better than not to serve.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The PID of the supervisor there is; 0 for none.
#[derive(Clone, Debug)]
pub struct Succession(Arc<AtomicU32>);

impl Succession {
    /// Watches the supervisor from a thread of its own.
    pub fn watch(estate: Arc<Estate>, supervisor: u32) -> Result<Self> {
        let known = Self(Arc::new(AtomicU32::new(supervisor)));
        let told = known.clone();
        thread::Builder::new()
            .name("succession".to_owned())
            .spawn(move || told.go_on(&estate, supervisor))?;
        Ok(known)
    }

    /// Who it is now.
    pub fn supervisor(&self) -> u32 {
        self.0.load(Ordering::Relaxed)
    }

    fn go_on(&self, estate: &Estate, first: u32) {
        // It has started us; if we have another parent, it has ended, and its PID means nothing.
        let mut supervisor = Process::open(first).filter(|_| parent_id() == first);
        let mut child = None;
        let mut at_once = 0;
        loop {
            let since = Instant::now();
            while let Some(process) = &supervisor
                && !process.has_ended_within(Duration::MAX)
            {}
            self.0.store(0, Ordering::Relaxed);
            if estate.heartbeat.phase() == Phase::Ending {
                return;
            }
            if let Some(mut child) = child.take() {
                // Else it would stay as a zombie.
                let _: std::io::Result<_> = std::process::Child::wait(&mut child);
            }
            at_once = if since.elapsed() < AT_ONCE { at_once + 1 } else { 0 };
            let pause = (PAUSE_STEP * u32::saturating_sub(at_once, 1)).min(PAUSE_MAX);
            tracing::warn!(
                pause_ms = pause.as_millis(),
                "the supervisor died; another one takes over"
            );
            thread::sleep(pause);
            match estate.supervisor().and_then(|mut command| Ok(command.spawn()?)) {
                Ok(started) => {
                    self.0.store(started.id(), Ordering::Relaxed);
                    supervisor = Process::open(started.id());
                    child = Some(started);
                }
                Err(error) => {
                    tracing::error!("no supervisor could be started: {error:#}");
                    supervisor = None;
                }
            }
        }
    }
}
