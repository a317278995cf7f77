//! A terminal for programs that draw on one: tmux keeps the screen, types the keys and says what is to be seen.

use std::path::PathBuf;
use std::process::Command;

use crate::support::{Mount, Repository, Said, require, wait_until};

/// One screen with one shell script in it; ended with its server when it goes.
pub struct Terminal<'a> {
    repository: &'a Repository,
    socket: PathBuf,
}

impl<'a> Terminal<'a> {
    /// Starts a bash script on a screen of that size.
    pub fn start(mount: &'a Mount, (width, height): (u16, u16), script: &str) -> Self {
        let this = Self {
            repository: mount,
            socket: mount.dir().join("tmux"),
        };
        let size = [("-x", width), ("-y", height)].map(|(name, size)| [name.to_owned(), size.to_string()]);
        let mut start = this.tmux();
        start
            .args(["-f", "/dev/null", "new-session", "-d"])
            .args(size.concat())
            .arg("bash")
            .args(["-c", script]);
        mount.run(start).ok();
        this
    }

    /// What is to be seen.
    pub fn screen(&self) -> String {
        self.ask(&["capture-pane", "-p"])
    }

    /// Returns once that is to be seen.
    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        let mut screen = String::new();
        let seen = || {
            screen = self.screen();
            screen.contains(text)
        };
        if !crate::support::process::holds_within(std::time::Duration::from_secs(10), seen) {
            panic!("{text:?} is not to be seen:\n{screen}");
        }
    }

    /// Presses keys, by tmux's names.
    pub fn press(&self, keys: &[&str]) {
        self.ask(&[&["send-keys"], keys].concat());
    }

    /// Whether a program has the alternate screen, as those do that draw in place.
    pub fn is_drawn_on(&self) -> bool {
        self.ask(&["display-message", "-p", "#{alternate_on}"]) == "1"
    }

    /// Another size, as when a user drags the window.
    pub fn resize(&self, (width, height): (u16, u16)) {
        self.ask(&["resize-window", "-x", &width.to_string(), "-y", &height.to_string()]);
        wait_until("the window has its size", || {
            self.ask(&["display-message", "-p", "#{window_width}x#{window_height}"]) == format!("{width}x{height}")
        });
    }

    fn ask(&self, arguments: &[&str]) -> String {
        let mut tmux = self.tmux();
        tmux.args(arguments);
        self.repository.run(tmux).ok().text()
    }

    fn tmux(&self) -> Command {
        let mut tmux = self.repository.command(require("tmux"));
        tmux.env("TERM", "xterm-256color").arg("-S").arg(&self.socket);
        tmux
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        let mut tmux = self.tmux();
        tmux.arg("kill-server");
        // It may have ended by itself.
        let _ = self.repository.run(tmux);
    }
}
