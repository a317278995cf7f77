//! Signals that ask us to end, kept until what was begun can be ended in order: an `index.lock` that stays behind would
//! stop every git in the worktree.

use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::Result;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

use crate::cli::failure::failure;

/// The signals that end a program by default and that people and programs send for that.
const ENDING: &[Signal] = &[Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];

/// The last one that came; 0 for none.
static CAME: AtomicI32 = AtomicI32::new(0);

/// As long as this lives, such a signal is only noted. Programs that we start are not affected.
#[derive(Debug)]
pub struct Deferred {
    before: Vec<(Signal, SigAction)>,
}

impl Deferred {
    /// Begins to defer.
    pub fn begin() -> Result<Self> {
        let note = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
        let mut this = Self { before: Vec::new() };
        for &signal in ENDING {
            // SAFETY: the handler does nothing but store to an atomic, which is safe in a signal handler.
            let before = unsafe { sigaction(signal, &note) }?;
            this.before.push((signal, before));
        }
        Ok(this)
    }

    /// Fails when such a signal has come, with the exit code that a shell gives for it.
    pub fn check(&self) -> Result<()> {
        match CAME.load(Ordering::Relaxed) {
            0 => Ok(()),
            signal => {
                let code = u8::try_from(128 + signal).unwrap_or(u8::MAX);
                Err(failure(code, "interrupted"))
            }
        }
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        for (signal, before) in &self.before {
            // SAFETY: it was in force before.
            let _ = unsafe { sigaction(*signal, before) };
        }
    }
}

extern "C" fn note(signal: libc::c_int) {
    CAME.store(signal, Ordering::Relaxed);
}
