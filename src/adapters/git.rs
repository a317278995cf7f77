//! Asks git: the settings of a repository, through the git command.
//!
//! git is started in the common dir, away from the mount, with its environment cleared of what would point it at
//! another repository, and it gets a bounded time to answer. What a setting means is decided by [`Settings`] alone.

use std::env;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use nix::poll::PollTimeout;
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::processes::pidfd::Pidfd;
use crate::types::{KEYS, SettingError, Settings, is_unread_variable};

/// What `git rev-parse --local-env-vars` lists, less what only adds configuration (`git -c`), and what steers the
/// search for a repository. These would make git answer for another repository than the one that was asked about.
const REDIRECTING: &[&str] = &[
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_CEILING_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_CONFIG",
    "GIT_DIR",
    "GIT_DISCOVERY_ACROSS_FILESYSTEM",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_INTERNAL_SUPER_PREFIX",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

/// How long git may take to read its configuration, in milliseconds. Files on a dead network mount never answer.
const ANSWER_MS_MAX: u16 = 10_000;
/// More than any configuration of ours, in bytes.
const ANSWER_BYTES_MAX: u64 = 1 << 20;
/// The section of all our keys, in git's lower-case spelling.
pub(super) const SECTION: &str = "lockfs.";

/// What is read from protected configuration only, when it is needed, and is no setting of a mount.
pub(super) const PROTECTED: &str = "lockfs.alertcommand";

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// git is not there, or cannot be run.
    #[error("git could not be started")]
    Start(#[source] io::Error),
    /// git failed, with its own words.
    #[error("git config failed: {message}")]
    Failed {
        /// What git wrote on its standard error.
        message: String,
    },
    /// git did not come to an end.
    #[error("git config gave no answer within {} s", ANSWER_MS_MAX / 1000)]
    TimedOut,
    /// A value that is no text.
    #[error("{name}: the value is not UTF-8")]
    NotUtf8 {
        /// The key or environment variable.
        name: String,
    },
    /// An unknown key or a bad value in git's configuration.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// An environment variable that looks like a setting and is none.
    #[error("the environment variable {variable} is no setting; unset it")]
    UnknownVariable {
        /// Its name.
        variable: String,
    },
    /// A bad value in an environment variable.
    #[error("the environment variable {variable} is refused")]
    Environment {
        /// Its name.
        variable: &'static str,
        /// What is wrong with its value.
        source: SettingError,
    },
}

/// Reads the settings of a repository: git's configuration, and over it the environment. An empty variable counts as
/// not set.
pub fn read_settings(common_dir: &Path) -> Result<Settings, ConfigError> {
    let mut settings = Settings::default();
    apply_configuration(&mut settings, &ask_git(common_dir)?)?;
    check_variables(env::vars_os().map(|(name, _)| name))?;
    apply_environment(&mut settings, env::var_os)?;
    Ok(settings)
}

/// A git command on a repository, by its common dir, whatever the environment says.
fn git(common_dir: &Path) -> Command {
    let mut command = Command::new("git");
    for variable in REDIRECTING {
        command.env_remove(variable);
    }
    // Named outright: a search would depend on safe.bareRepository and on what lies above.
    command
        .args(["--git-dir", "."])
        .current_dir(common_dir)
        .env("GIT_OPTIONAL_LOCKS", "0");
    command
}

fn ask_git(common_dir: &Path) -> Result<Vec<u8>, ConfigError> {
    let mut command = git(common_dir);
    command.args(["config", "--null", "--get-regexp", r"^lockfs\."]);
    let (status, stdout, stderr) = run(&mut command)?;
    // git config exits with 1 when no key matches.
    if status.success() || (status.code() == Some(1) && stdout.is_empty() && stderr.is_empty()) {
        return Ok(stdout);
    }
    let words = String::from_utf8_lossy(&stderr);
    let message = match words.trim() {
        "" => status.to_string(),
        words => words.to_owned(),
    };
    Err(ConfigError::Failed { message })
}

/// The value of a key in git's protected configuration, system and global: what a repository says of itself is left out.
pub(super) fn protected_value(common_dir: &Path, key: &str) -> Result<Option<String>, ConfigError> {
    let mut value = None;
    for scope in ["--system", "--global"] {
        let mut command = git(common_dir);
        command.args(["config", scope, "--null", "--get", &format!("{SECTION}{key}")]);
        let (status, stdout, _) = run(&mut command)?;
        // A file that is not there, or says nothing of the key, is no error.
        if status.success() {
            let bytes = stdout.strip_suffix(b"\0").unwrap_or(&stdout).to_vec();
            let text = String::from_utf8(bytes).map_err(|_| ConfigError::NotUtf8 { name: key.to_owned() })?;
            value = Some(text).filter(|text| !text.is_empty());
        }
    }
    Ok(value)
}

/// Runs a command to its end, or kills it when it takes too long.
fn run(command: &mut Command) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), ConfigError> {
    let start = ConfigError::Start;
    // Files in memory, unlike pipes, never fill up, so only the end need be waited for.
    let memory = || memfd_create(c"git", MFdFlags::MFD_CLOEXEC).map(File::from);
    let stdout = memory().map_err(io::Error::from).map_err(start)?;
    let stderr = memory().map_err(io::Error::from).map_err(start)?;
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().map_err(start)?)
        .stderr(stderr.try_clone().map_err(start)?)
        .spawn()
        .map_err(start)?;
    let ended = Pidfd::open(child.id()).map(|pidfd| pidfd.wait_exit(PollTimeout::from(ANSWER_MS_MAX)));
    if !matches!(ended, Ok(true)) {
        // It cannot have been waited for, so this is still our child.
        let _ = child.kill();
    }
    let status = child.wait().map_err(start)?;
    match ended {
        Ok(true) => {}
        Ok(false) => return Err(ConfigError::TimedOut),
        Err(error) => return Err(start(error.into())),
    }
    let text = |mut file: File| {
        let mut bytes = Vec::new();
        file.rewind()?;
        file.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    Ok((status, text(stdout).map_err(start)?, text(stderr).map_err(start)?))
}

/// Applies `KEY\nVALUE\0` records in git's order, so that the repository's own configuration comes last and wins.
fn apply_configuration(settings: &mut Settings, answer: &[u8]) -> Result<(), ConfigError> {
    for record in answer.split(|&byte| byte == 0).filter(|record| !record.is_empty()) {
        let record = std::str::from_utf8(record).map_err(|_| ConfigError::NotUtf8 {
            name: String::from_utf8_lossy(record.split(|&byte| byte == b'\n').next().unwrap_or(record)).into_owned(),
        })?;
        // A key without `=` is a switch that is on; what is no switch refuses that word.
        let (key, value) = record.split_once('\n').unwrap_or((record, "true"));
        if key == PROTECTED {
            continue;
        }
        settings.set(key.strip_prefix(SECTION).unwrap_or(key), value)?;
    }
    Ok(())
}

/// Refuses variables that nothing reads, as unknown keys are refused.
fn check_variables(mut names: impl Iterator<Item = OsString>) -> Result<(), ConfigError> {
    let unread = names.find_map(|name| name.into_string().ok().filter(|name| is_unread_variable(name)));
    match unread {
        Some(variable) => Err(ConfigError::UnknownVariable { variable }),
        None => Ok(()),
    }
}

pub(super) fn apply_environment(
    settings: &mut Settings,
    variable: impl Fn(&'static str) -> Option<OsString>,
) -> Result<(), ConfigError> {
    for key in KEYS {
        let Some(value) = variable(key.env).filter(|value| !value.is_empty()) else {
            continue;
        };
        let value = value.into_string().map_err(|_| ConfigError::NotUtf8 {
            name: key.env.to_owned(),
        })?;
        settings
            .set(key.name, &value)
            .map_err(|source| ConfigError::Environment {
                variable: key.env,
                source,
            })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;
    use std::time::Duration;

    use super::*;

    struct Repository(tempfile::TempDir);

    impl Repository {
        fn new() -> Self {
            let repository = Self(tempfile::tempdir().expect("a temporary directory"));
            let mut init = Command::new("git");
            init.args(["init", "-q", "--bare"]).current_dir(repository.path());
            for variable in REDIRECTING {
                init.env_remove(variable);
            }
            assert!(init.status().expect("git is there").success());
            repository
        }

        fn path(&self) -> &Path {
            self.0.path()
        }

        fn config(&self, key: &str, value: &str) {
            let mut command = git(self.path());
            assert!(
                command
                    .args(["config", "--add", key, value])
                    .status()
                    .expect("git is there")
                    .success()
            );
        }

        fn settings(&self) -> Result<Settings, ConfigError> {
            let mut settings = Settings::default();
            apply_configuration(&mut settings, &ask_git(self.path())?)?;
            Ok(settings)
        }
    }

    #[test]
    fn nothing_configured_is_the_defaults() {
        assert_eq!(Repository::new().settings().expect("no error"), Settings::default());
    }

    #[test]
    fn keys_patterns_and_the_last_of_several_values_are_read() {
        let repository = Repository::new();
        repository.config("lockfs.wait", "5s");
        repository.config("lockfs.wait", "7s");
        repository.config("lockfs.ticketGrace", "10s");
        repository.config("lockfs.waitFor.worktree-*.lock", "1s");
        repository.config("lockfs.waitFor.Main.lock", "forever");
        let settings = repository.settings().expect("all good");
        assert_eq!(settings.wait, Some(Duration::from_secs(7)));
        assert_eq!(settings.ticket_grace, Duration::from_secs(10));
        assert_eq!(settings.wait_limit(["worktree-a.lock"]), Some(Duration::from_secs(1)));
        assert_eq!(settings.wait_limit(["Main.lock"]), None, "a pattern keeps its case");
    }

    #[test]
    fn what_is_wrong_is_named() {
        let repository = Repository::new();
        repository.config("lockfs.wiat", "5s");
        let error = repository.settings().expect_err("no such key");
        assert!(error.to_string().contains("lockfs.wiat"), "{error}");
        let repository = Repository::new();
        repository.config("lockfs.lease", "soon");
        let error = repository.settings().expect_err("a bad value");
        assert!(error.to_string().contains("lockfs.lease"), "{error}");
        let repository = Repository::new();
        std::fs::write(repository.path().join("config"), "[lockfs]\n\twait\n").expect("it is ours");
        let error = repository.settings().expect_err("a key without a value");
        assert!(error.to_string().contains("lockfs.wait"), "{error}");
        std::fs::write(repository.path().join("config"), b"[lockfs]\n\twait = \xff\n").expect("it is ours");
        let error = repository.settings().expect_err("no text");
        assert!(error.to_string().contains("lockfs.wait"), "{error}");
        std::fs::write(repository.path().join("config"), "[lockfs\n").expect("it is ours");
        let error = repository.settings().expect_err("a config that git cannot read");
        assert!(
            matches!(&error, ConfigError::Failed { message } if message.contains("config")),
            "{error}"
        );
    }

    #[test]
    fn the_environment_wins_and_is_named_when_wrong() {
        let mut settings = Settings::default();
        settings.set("wait", "5s").expect("good");
        let set = |wanted: &'static str, value: &[u8]| {
            let value = OsString::from_vec(value.to_vec());
            move |variable: &'static str| (variable == wanted).then(|| value.clone())
        };
        apply_environment(&mut settings, set("GIT_LOCKFS_WAIT", b"9s")).expect("good");
        assert_eq!(settings.wait, Some(Duration::from_secs(9)));
        apply_environment(&mut settings, set("GIT_LOCKFS_WAIT", b"")).expect("as if it were not set");
        assert_eq!(settings.wait, Some(Duration::from_secs(9)));
        for value in [&b"9"[..], b"\xff"] {
            let error = apply_environment(&mut settings, set("GIT_LOCKFS_LEASE", value)).expect_err("bad");
            assert!(error.to_string().contains("GIT_LOCKFS_LEASE"), "{error}");
        }
    }

    #[test]
    fn a_variable_that_nothing_reads_is_named() {
        let check = |names: &[&str]| check_variables(names.iter().map(OsString::from));
        let known = KEYS.iter().map(|key| key.env).collect::<Vec<_>>();
        check(&known).expect("the settings");
        check(&[
            "PATH",
            "GIT_DIR",
            "GIT_LOCKFS",
            "GIT_LOCKFS_SESSION",
            "GIT_LOCKFS_TEST_X",
        ])
        .expect("no settings");
        let error = check(&["HOME", "GIT_LOCKFS_WIAT"]).expect_err("misspelt");
        assert!(error.to_string().contains("GIT_LOCKFS_WIAT"), "{error}");
    }

    #[test]
    fn a_command_that_does_not_end_is_ended() {
        let mut fast = Command::new("sh");
        let (status, stdout, stderr) = run(fast.args(["-c", "echo out; echo err >&2; exit 3"])).expect("it ran");
        assert_eq!(
            (status.code(), &stdout[..], &stderr[..]),
            (Some(3), &b"out\n"[..], &b"err\n"[..])
        );
        let missing = run(&mut Command::new("/nonexistent/git")).expect_err("not there");
        assert!(matches!(missing, ConfigError::Start(_)));
    }
}
