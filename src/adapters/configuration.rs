//! git's configuration as one list of keys and values, in the order in which git reads it.
//!
//! The files are read natively. Where that fails (a file that cannot be parsed, a condition of an include that needs
//! more than the git directory), git is asked, so that its own words explain what is wrong with the file.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use gix_config::file::{Metadata, includes, init};
use gix_config::path::interpolate;
use gix_config::{File, Source};

use super::git::{ConfigError, PROTECTED, SECTION, apply_environment};
use crate::scopes::Invocation;
use crate::types::Settings;

/// The sections that anybody here asks about.
const SECTIONS: &[&str] = &["lockfs", "alias", "remote", "branch", "extensions"];

/// Keys as `section.subsection.name`, section and name in lower case, and their values; later ones win.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Configuration {
    entries: Vec<(String, String)>,
}

impl Configuration {
    /// Reads what git would for a command line in that repository.
    pub fn read(git_dir: &Path, common_dir: &Path, invocation: &Invocation) -> Self {
        let mut entries = native(git_dir, common_dir)
            .or_else(|| asked(git_dir))
            .unwrap_or_default();
        entries.extend(parameters(&env::var("GIT_CONFIG_PARAMETERS").unwrap_or_default()));
        entries.extend(invocation.values_of("-c").map(parameter));
        Self { entries }
    }

    /// The last value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        let found = self.entries.iter().rfind(|(name, _)| name == key);
        found.map(|(_, value)| value.as_str())
    }

    /// The subsections of a section, each once.
    pub fn subsections(&self, section: &str) -> Vec<String> {
        let mut names: Vec<String> = Vec::new();
        for (key, _) in &self.entries {
            let rest = key.strip_prefix(section).and_then(|rest| rest.strip_prefix('.'));
            let Some((name, _)) = rest.and_then(|rest| rest.rsplit_once('.')) else {
                continue;
            };
            if !names.iter().any(|known| known == name) {
                names.push(name.to_owned());
            }
        }
        names
    }

    /// The settings that it and the environment make.
    pub fn settings(&self) -> Result<Settings, ConfigError> {
        let mut settings = Settings::default();
        for (key, value) in &self.entries {
            if key == PROTECTED {
                continue;
            }
            if let Some(key) = key.strip_prefix(SECTION) {
                settings.set(key, value)?;
            }
        }
        apply_environment(&mut settings, env::var_os)?;
        Ok(settings)
    }
}

/// The configuration files that git reads, the weakest first.
fn files(git_dir: &Path, common_dir: &Path) -> Vec<(PathBuf, Source)> {
    let variable = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
    let is_true =
        |name: &str| variable(name).is_some_and(|value| !["0", "false", "no", "off"].iter().any(|no| value == *no));
    let mut files = Vec::new();
    if !is_true("GIT_CONFIG_NOSYSTEM") {
        let system = variable("GIT_CONFIG_SYSTEM").map_or_else(|| PathBuf::from("/etc/gitconfig"), PathBuf::from);
        files.push((system, Source::System));
    }
    let home = variable("HOME").map(PathBuf::from);
    if let Some(global) = variable("GIT_CONFIG_GLOBAL") {
        files.push((PathBuf::from(global), Source::User));
    } else {
        let xdg = variable("XDG_CONFIG_HOME").map(PathBuf::from);
        let xdg = xdg.or_else(|| home.as_ref().map(|home| home.join(".config")));
        files.extend(xdg.map(|xdg| (xdg.join("git/config"), Source::Git)));
        files.extend(home.map(|home| (home.join(".gitconfig"), Source::User)));
    }
    files.push((common_dir.join("config"), Source::Local));
    files.push((git_dir.join("config.worktree"), Source::Worktree));
    files
}

fn native(git_dir: &Path, common_dir: &Path) -> Option<Vec<(String, String)>> {
    let home = env::var_os("HOME").map(PathBuf::from);
    let context = interpolate::Context {
        home_dir: home.as_deref(),
        home_for_user: Some(interpolate::home_for_user),
        ..Default::default()
    };
    let conditional = includes::conditional::Context {
        git_dir: Some(git_dir),
        branch_name: None,
    };
    let options = init::Options {
        includes: includes::Options::follow(context, conditional),
        lossy: true,
        ignore_io_errors: false,
    };
    let mut metas = files(git_dir, common_dir)
        .into_iter()
        .map(|(path, source)| Metadata::from(source).at(path));
    let file = File::from_paths_metadata_buf(&mut metas, &mut Vec::new(), false, options).ok()?;
    let mut entries = file.map_or_else(Vec::new, |file| entries_of(&file));
    let worktree = entries.iter().rfind(|(key, _)| key == "extensions.worktreeconfig");
    if git_dir.join("config.worktree").exists() && worktree.is_none_or(|(_, value)| value != "true") {
        // Read although git does not: rare enough to ask.
        return None;
    }
    if let Some(more) = File::from_env(init::Options::default()).ok()? {
        entries.extend(entries_of(&more));
    }
    Some(entries)
}

fn entries_of(file: &File) -> Vec<(String, String)> {
    let mut entries = Vec::new();
    for section in file.sections() {
        let header = section.header();
        let name = header.name().to_string().to_ascii_lowercase();
        if !SECTIONS.contains(&name.as_str()) {
            continue;
        }
        let prefix = match header.subsection_name() {
            Some(subsection) => format!("{name}.{subsection}"),
            None => name,
        };
        let body = section.body();
        let mut names: Vec<String> = body.value_names().map(|name| name.to_string()).collect();
        names.dedup();
        for key in names {
            let is_switch = body.value_implicit(&key) == Some(None);
            let values = body.values(&key);
            let key = format!("{prefix}.{}", key.to_ascii_lowercase());
            if is_switch {
                // A key without `=` is on.
                entries.push((key, "true".to_owned()));
                continue;
            }
            entries.extend(values.iter().map(|value| (key.clone(), value.to_string())));
        }
    }
    entries
}

/// The same from git.
fn asked(git_dir: &Path) -> Option<Vec<(String, String)>> {
    let output = Command::new("git")
        .arg("--git-dir")
        .arg(git_dir)
        .args(["config", "--null", "--list"])
        .env("GIT_OPTIONAL_LOCKS", "0")
        .stdin(Stdio::null())
        .output()
        .ok()?;
    let records = output.stdout.split(|&b| b == 0).filter(|record| !record.is_empty());
    let entry = |record: &[u8]| {
        let text = String::from_utf8_lossy(record);
        let (key, value) = text.split_once('\n').unwrap_or((&*text, "true"));
        (key.to_owned(), value.to_owned())
    };
    Some(records.map(entry).collect())
}

/// What `git -c` hands to the git commands below it: words such as `'key'='value'`.
fn parameters(text: &str) -> Vec<(String, String)> {
    let words = shell_words::split(text).unwrap_or_default();
    words.iter().map(|word| parameter(word)).collect()
}

/// `KEY=VALUE`, or `KEY` for a switch that is on.
fn parameter(word: &str) -> (String, String) {
    let (key, value) = word.split_once('=').unwrap_or((word, "true"));
    let key = match (key.find('.'), key.rfind('.')) {
        (Some(first), Some(last)) if first < last => {
            key[..first].to_ascii_lowercase() + &key[first..last] + &key[last..].to_ascii_lowercase()
        }
        _ => key.to_ascii_lowercase(),
    };
    (key, value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_command_line_adds_is_read_as_git_reads_it() {
        let entry = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(parameter("Lockfs.Require=true"), entry("lockfs.require", "true"));
        assert_eq!(parameter("branch.A.Remote=b=c"), entry("branch.A.remote", "b=c"));
        assert_eq!(parameter("core.bare"), entry("core.bare", "true"));
        assert_eq!(
            parameters("'alias.x'='log -1' 'a.b'"),
            [entry("alias.x", "log -1"), entry("a.b", "true")]
        );
    }

    #[test]
    fn native_reading_and_git_agree() {
        let dir = tempfile::tempdir().expect("a directory");
        let config = "[lockfs \"scope\"]\n\tcommit = worktree ; a remark\n[LOCKFS]\n\twait=5s\n\talertCommand = say\n\trequire\n[include]\n\tpath = more\n\
             [include]\n\tpath = missing\n[includeIf \"gitdir:/nowhere/\"]\n\tpath = other\n\
             [remote \"a.b\"]\n\turl = \"x y\"\n[branch \"Topic\"]\n\tRemote = a.b\n[alias]\n\tCi = commit \\\n\t-v\n";
        let git = |args: &[&str]| {
            let status = Command::new("git")
                .args(args)
                .current_dir(dir.path())
                .status()
                .expect("git");
            assert!(status.success());
        };
        git(&["init", "-q", "--bare"]);
        let mut text = std::fs::read_to_string(dir.path().join("config")).expect("made by git");
        text += config;
        std::fs::write(dir.path().join("config"), text).expect("it is ours");
        std::fs::write(dir.path().join("more"), "[lockfs]\n\twait = 7s\n").expect("it is ours");
        let ours = |entries: Option<Vec<(String, String)>>| {
            let mut entries = entries.expect("read");
            entries.retain(|(key, _)| SECTIONS.iter().any(|section| key.starts_with(&format!("{section}."))));
            entries
        };
        let native = ours(native(dir.path(), dir.path()));
        assert_eq!(native, ours(asked(dir.path())));
        let configuration = Configuration { entries: native };
        assert_eq!(configuration.get("lockfs.wait"), Some("7s"));
        assert_eq!(configuration.subsections("remote"), ["a.b"]);
        assert!(configuration.settings().expect("valid").require);
    }
}
