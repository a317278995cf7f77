//! `git lockfs top`: who holds and who waits, in a terminal, refreshed in place.
//!
//! The terminal is given back however this ends: by a key, an error, a panic or a signal. [`picture`] draws and knows no
//! terminal; this file has the clock and the signals.

mod keys;
mod picture;
mod summary;

use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::read;
use ratatui::DefaultTerminal;

use super::client::Mount;
use super::failure::failure;
use keys::{Pressed, pressed};
use picture::Picture;
use summary::Summary;

/// The shortest pause between two looks: the daemon has better things to do.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
/// Exit code for a command line that cannot be carried out, as clap has it.
const EXIT_USAGE: u8 = 2;
/// What a shell adds to the number of the signal that ended a command.
const EXIT_SIGNAL: i32 = 128;

/// Watch locks, holders and waiters in the terminal
///
/// Keys: q or Esc ends; Up and Down (k, j), PgUp, PgDn, Home and End choose a lock, whose holders and waiters are shown
/// below; s sorts by name, by waiters or by age; p stops and goes on; Ctrl-Z leaves it for a while.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The pause between two looks, at least 100ms
    #[arg(long, short = 'i', value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
}

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if interval < INTERVAL_MIN {
        return Err(format!("shorter than {}ms", INTERVAL_MIN.as_millis()));
    }
    Ok(interval)
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
        return Err(failure(
            EXIT_USAGE,
            "top needs a terminal: `git lockfs status` prints the same once, `git lockfs status --watch` again and \
             again, `git lockfs status --json` for programs",
        ));
    }
    let mount = Mount::find()?;
    let mut picture = Picture::new(mount.place().mountpoint.display().to_string());
    look(&mount, &mut picture)?;
    let signals = Signals::block()?;
    // From here on a panic restores the terminal before it is printed.
    let mut terminal = ratatui::try_init().context("the terminal")?;
    let ended = watch(&mut terminal, &mount, &mut picture, &signals, args.interval);
    ratatui::restore();
    ended
}

fn watch(
    terminal: &mut DefaultTerminal,
    mount: &Mount,
    picture: &mut Picture,
    signals: &Signals,
    interval: Duration,
) -> Result<ExitCode> {
    let mut looked = Instant::now();
    loop {
        terminal.draw(|frame| picture.draw(frame))?;
        let rest = interval.saturating_sub(looked.elapsed());
        match signals.wait(rest)? {
            Woken::Signal(number) => return Ok(ExitCode::from((EXIT_SIGNAL + number) as u8)),
            Woken::Keys(keys) => {
                for key in keys {
                    match key {
                        Pressed::End => return Ok(ExitCode::SUCCESS),
                        Pressed::Leave => leave(terminal)?,
                        Pressed::Step(step) => picture.step(step),
                    }
                }
            }
            Woken::Time => {}
        }
        if looked.elapsed() >= interval {
            if !picture.is_paused() {
                look(mount, picture)?;
            }
            looked = Instant::now();
        }
    }
}

fn look(mount: &Mount, picture: &mut Picture) -> Result<()> {
    let figures = std::fs::read(mount.file("metrics/summary.json"));
    picture.show(mount.snapshot()?, figures.ok().and_then(|text| Summary::parse(&text)));
    Ok(())
}

/// Gives the terminal to the shell until `fg`.
fn leave(terminal: &mut DefaultTerminal) -> Result<()> {
    ratatui::restore();
    raise(Signal::SIGTSTP)?;
    *terminal = ratatui::try_init().context("the terminal")?;
    Ok(())
}

/// The signals that ask a program to end, and the one of a terminal of another size, to be waited for beside the keyboard.
struct Signals(SignalFd);

enum Woken {
    Keys(Vec<Pressed>),
    Signal(i32),
    Time,
}

impl Signals {
    fn block() -> Result<Self> {
        let signals = [
            Signal::SIGTERM,
            Signal::SIGHUP,
            Signal::SIGINT,
            Signal::SIGQUIT,
            Signal::SIGWINCH,
        ];
        let set: SigSet = signals.into_iter().collect();
        set.thread_block().context("signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        Ok(Self(SignalFd::with_flags(&set, flags).context("signals")?))
    }

    /// Waits for a key, a signal or so long. Another size counts as time, for the next drawing sees it.
    fn wait(&self, rest: Duration) -> Result<Woken> {
        let stdin = io::stdin();
        let mut ready = [
            PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.0.as_fd(), PollFlags::POLLIN),
        ];
        let timeout = PollTimeout::try_from(rest).unwrap_or(PollTimeout::MAX);
        match poll(&mut ready, timeout) {
            Err(Errno::EINTR) => return Ok(Woken::Time),
            done => done.context("the terminal")?,
        };
        if let Some(info) = self.0.read_signal()? {
            let number = info.ssi_signo as i32;
            return Ok(match number {
                libc::SIGWINCH => Woken::Time,
                _ => Woken::Signal(number),
            });
        }
        if ready[0].revents().is_none_or(|revents| revents.is_empty()) {
            return Ok(Woken::Time);
        }
        let mut bytes = [0; 256];
        match read(stdin.as_fd(), &mut bytes) {
            // A terminal that was hung up.
            Ok(0) | Err(Errno::EIO) => Ok(Woken::Signal(libc::SIGHUP)),
            Ok(length) => Ok(Woken::Keys(pressed(bytes.get(..length).unwrap_or_default()))),
            Err(Errno::EINTR | Errno::EAGAIN) => Ok(Woken::Time),
            Err(error) => Err(error).context("the terminal"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_has_a_least_length() {
        assert_eq!(interval("2s"), Ok(Duration::from_secs(2)));
        assert!(interval("10ms").is_err_and(|error| error.contains("100ms")));
        assert!(interval("soon").is_err());
    }
}
