//! `git lockfs hook`: puts the hook where git finds it, and takes it back.
//!
//! Nothing of the user's is moved or changed. Where no hook of that name is, ours is a link beside the others. Where one
//! is, or where `core.hooksPath` names a directory of a hook manager, git is given a directory of links of our own,
//! which pass every hook on to that directory.

use std::ffi::OsString;
use std::fs;
use std::io::{self, ErrorKind, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use super::chain::{ALWAYS_PASSED_ON, PASSED_ON_IF_THERE, PREVIOUS};
use super::{GUARD, PROBE_ANSWER, PROBE_REF};
use crate::cli::place::{self, Place};
use crate::cli::worktree::{ask, git};

/// The directory of links, below git's common dir.
const LINKS: &str = "lockfs-hooks";
/// In it: the repository's configuration as it was before it named this directory, and after.
const CONFIG_BEFORE: &str = ".config-before";
const CONFIG_AFTER: &str = ".config-after";
/// git's key for the directory of hooks.
const HOOKS_PATH: &str = "core.hooksPath";

/// Install or remove the hook that refuses to move refs without a lock
///
/// It does so where lockfs.enforce is true. Hooks that are there already go on running.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// What to do
    action: Action,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    /// Put the hook where git finds it
    Install,
    /// Take it back, and leave everything as it was
    Uninstall,
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let place = Place::find()?;
    let done = match args.action {
        Action::Install => install(&place)?,
        Action::Uninstall => uninstall(&place)?,
    };
    for line in done {
        writeln!(io::stdout(), "{line}")?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Installs the hook; what was done, a line each. Nothing when it is there.
pub fn install(place: &Place) -> Result<Vec<String>> {
    let program = std::env::current_exe().context("the path of this program is unknown")?;
    let links = place.common_dir.join(LINKS);
    match hooks_path(place)? {
        Some(path) if path == links => refresh(&links, &program),
        Some(path) => take_place_of(&path, place, &program),
        None => {
            let hooks = place.common_dir.join("hooks");
            let hook = hooks.join(GUARD);
            match fs::symlink_metadata(&hook) {
                Ok(_) if is_ours(&hook) => link(&program, &hook),
                Ok(_) => take_place_of(&hooks, place, &program),
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    fs::create_dir_all(&hooks).with_context(|| hooks.display().to_string())?;
                    link(&program, &hook)
                }
                Err(error) => Err(error).with_context(|| hook.display().to_string()),
            }
        }
    }
}

/// Takes the hook back; what was done, a line each. Nothing when it is not there.
pub fn uninstall(place: &Place) -> Result<Vec<String>> {
    let mut done = Vec::new();
    let hook = place.common_dir.join("hooks").join(GUARD);
    if is_ours(&hook) {
        fs::remove_file(&hook).with_context(|| hook.display().to_string())?;
        done.push(format!("removed {}", hook.display()));
    }
    let links = place.common_dir.join(LINKS);
    if fs::symlink_metadata(&links).is_err() {
        return Ok(done);
    }
    if hooks_path(place)?.as_deref() == Some(&links) {
        restore_configuration(place, &links)?;
        done.push(format!("restored {HOOKS_PATH}"));
    }
    fs::remove_dir_all(&links).with_context(|| links.display().to_string())?;
    done.push(format!("removed {}", links.display()));
    Ok(done)
}

/// Whether the hook fires for the worktree in that directory: git is asked to make a ref that the hook always refuses.
pub fn fires(directory: &Path) -> Result<bool> {
    let in_place = |args: &[&str]| {
        let mut command = git(args);
        command.current_dir(directory);
        command
    };
    // Any object will do, and the empty one is small.
    let blob = ask(&mut in_place(&["hash-object", "-w", "-t", "blob", "--stdin"]), b"")?;
    let blob = String::from_utf8_lossy(blob.trim_ascii_end()).into_owned();
    let name = format!("{PROBE_REF}/{}", std::process::id());
    let mut update = in_place(&["update-ref", &name, &blob]);
    let output = update
        .stdin(Stdio::null())
        .output()
        .context("git could not be started")?;
    if output.status.success() {
        ask(&mut in_place(&["update-ref", "-d", &name]), b"")?;
        return Ok(false);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if !said.contains(PROBE_ANSWER) {
        bail!("git refused the probe by itself: {}", said.trim_end());
    }
    Ok(true)
}

/// Where git looks for hooks when it is told so, as an absolute path where it is one.
fn hooks_path(place: &Place) -> Result<Option<PathBuf>> {
    let mut command = configuration(place, &["--type=path", "--get", HOOKS_PATH]);
    let output = command.output().context("git could not be started")?;
    match output.status.code() {
        Some(0) => {
            let path = output.stdout.strip_suffix(b"\n").unwrap_or(&output.stdout);
            Ok((!path.is_empty()).then(|| PathBuf::from(std::ffi::OsStr::from_bytes(path))))
        }
        Some(1) => Ok(None),
        _ => bail!("{}", String::from_utf8_lossy(&output.stderr).trim_end()),
    }
}

/// `git config` on the repository.
fn configuration(place: &Place, args: &[&str]) -> Command {
    let mut command = place::git();
    command.arg("config").args(args).env("GIT_DIR", &place.common_dir);
    command
}

/// Whether a hook is a link to this program, of whatever version.
fn is_ours(hook: &Path) -> bool {
    let target = fs::read_link(hook).ok();
    let name = target.as_ref().and_then(|target| target.file_name());
    name.is_some_and(|name| name == "git-lockfs")
}

/// Makes the link, or lets it lead here; a program that runs the hook meanwhile finds the one or the other.
fn link(program: &Path, hook: &Path) -> Result<Vec<String>> {
    if fs::read_link(hook).is_ok_and(|target| target == program) {
        return Ok(Vec::new());
    }
    let mut new = OsString::from(hook);
    new.push(format!(".{}.new", std::process::id()));
    symlink(program, &new)
        .and_then(|()| fs::rename(&new, hook))
        .with_context(|| hook.display().to_string())?;
    Ok(vec![format!("linked {} to {}", hook.display(), program.display())])
}

/// Lets links that are there lead here.
fn refresh(links: &Path, program: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(links).with_context(|| links.display().to_string())?;
    let mut done = Vec::new();
    for entry in entries.flatten().filter(|entry| is_ours(&entry.path())) {
        done.extend(link(program, &entry.path())?);
    }
    Ok(done)
}

/// Gives git a directory of links, which pass on to `previous`.
fn take_place_of(previous: &Path, place: &Place, program: &Path) -> Result<Vec<String>> {
    let links = place.common_dir.join(LINKS);
    let new = place.common_dir.join(format!("{LINKS}.{}.new", std::process::id()));
    let config = place.common_dir.join("config");
    let made = make_links(&new, previous, place, program)
        .and_then(|()| fs::copy(&config, new.join(CONFIG_BEFORE)).map(drop))
        // One of an installation that something else has since replaced.
        .and_then(|()| match fs::remove_dir_all(&links) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => fs::rename(&new, &links),
        });
    if made.is_err() {
        let _ = fs::remove_dir_all(&new);
    }
    made.with_context(|| links.display().to_string())?;
    let value = links
        .to_str()
        .context("the path of the repository is not UTF-8, which git's configuration must be")?;
    let told = ask(&mut configuration(place, &["--local", HOOKS_PATH, value]), b"");
    if told.is_err() {
        let _ = fs::remove_dir_all(&links);
    }
    told?;
    fs::copy(&config, links.join(CONFIG_AFTER)).with_context(|| config.display().to_string())?;
    Ok(vec![
        format!(
            "made {}, which passes hooks on to {}",
            links.display(),
            previous.display()
        ),
        format!("set {HOOKS_PATH} to {}", links.display()),
    ])
}

fn make_links(links: &Path, previous: &Path, place: &Place, program: &Path) -> io::Result<()> {
    fs::create_dir(links)?;
    fs::write(links.join(PREVIOUS), previous.as_os_str().as_bytes())?;
    // A relative path is each worktree's own; the main one speaks for all.
    let main = place.common_dir.parent().unwrap_or(&place.common_dir);
    let here = main.join(previous);
    let there = PASSED_ON_IF_THERE.iter().filter(|name| here.join(name).exists());
    for name in ALWAYS_PASSED_ON.iter().chain(there) {
        symlink(program, links.join(name))?;
    }
    Ok(())
}

/// Puts the configuration back as it was, to the byte if nobody has changed it since, else only our value.
fn restore_configuration(place: &Place, links: &Path) -> Result<()> {
    let config = place.common_dir.join("config");
    let before = fs::read(links.join(CONFIG_BEFORE)).with_context(|| links.display().to_string())?;
    let is_unchanged = fs::read(&config).ok() == fs::read(links.join(CONFIG_AFTER)).ok();
    if is_unchanged {
        // git's own lock on the file, and git's way to replace it.
        let lock = place.common_dir.join("config.lock");
        let written = fs::File::create_new(&lock)
            .and_then(|mut file| {
                file.set_permissions(fs::metadata(&config)?.permissions())?;
                file.write_all(&before)
            })
            .with_context(|| lock.display().to_string());
        return written.and_then(|()| fs::rename(&lock, &config).with_context(|| config.display().to_string()));
    }
    let saved = links.join(CONFIG_BEFORE);
    let mut command = place::git();
    command.args(["config", "--get", HOOKS_PATH, "--file"]).arg(&saved);
    let old = command.output().context("git could not be started")?;
    let old = String::from_utf8_lossy(old.stdout.trim_ascii_end()).into_owned();
    let args: &[&str] = match old.as_str() {
        "" => &["--local", "--unset", HOOKS_PATH],
        old => &["--local", HOOKS_PATH, old],
    };
    ask(&mut configuration(place, args), b"").map(drop)
}
