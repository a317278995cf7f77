//! A repository as its files say it is: where its directories are, what is checked out, which branches there are.
//!
//! Read natively, because each git command that is made safe asks this first, and a git process would cost more than
//! the locks. What the files do not say outright (the reftable format, a configuration beyond [`Configuration`]) is
//! asked of git. Nothing here decides whether git would accept the repository; git does that itself when it runs.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::configuration::Configuration;
use crate::scopes::{Invocation, Surroundings, worktree_lock};
use crate::types::LockName;

/// What a gitfile says before its path.
const GITFILE: &[u8] = b"gitdir:";
/// What HEAD says before the ref that it points at.
const SYMREF: &[u8] = b"ref:";
/// What HEAD points at when the refs are not in files.
const ELSEWHERE: &str = "refs/heads/.invalid";

/// Where HEAD is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// The commit; `None` before the first one.
    pub commit: Option<String>,
    /// The branch, as a whole ref; `None` when HEAD is detached.
    pub branch: Option<String>,
}

impl Head {
    /// Reads it from the files of a worktree and of what all worktrees share; `None` when these leave it to git.
    pub fn read(git_dir: &Path, common_dir: &Path) -> Option<Self> {
        let path = git_dir.join("HEAD");
        if path.is_symlink() {
            return None;
        }
        let head = fs::read(path).ok()?;
        let Some(name) = head.strip_prefix(SYMREF) else {
            return Some(Self {
                commit: Some(object_id(&head)?),
                branch: None,
            });
        };
        let name = std::str::from_utf8(name.trim_ascii()).ok()?;
        // Other refs may belong to one worktree alone.
        if !name.starts_with("refs/heads/") || name == ELSEWHERE {
            return None;
        }
        let commit = match fs::read(common_dir.join(name)) {
            Ok(text) => Some(object_id(&text)?),
            Err(error) if error.kind() == ErrorKind::NotFound => packed(common_dir, name),
            Err(_) => return None,
        };
        Some(Self {
            commit,
            branch: Some(name.to_owned()),
        })
    }
}

/// The repository that a git command is about.
#[derive(Debug)]
pub struct Repository {
    /// The directory of this worktree in the repository.
    pub git_dir: PathBuf,
    /// The directory that all worktrees share.
    pub common_dir: PathBuf,
    /// The directory that the command runs in.
    pub directory: PathBuf,
    /// Its configuration, with what the command line and the environment add.
    pub configuration: Configuration,
}

impl Repository {
    /// The repository that git would find for a command line, from its `-C` and `--git-dir` and from the environment;
    /// `None` when there is none.
    pub fn find(invocation: &Invocation) -> Option<Self> {
        let mut directory = env::current_dir().ok()?;
        for path in invocation.values_of("-C") {
            directory.push(path);
        }
        let explicit = invocation.values_of("--git-dir").last().map(PathBuf::from);
        let explicit = explicit.or_else(|| env::var_os("GIT_DIR").filter(|dir| !dir.is_empty()).map(PathBuf::from));
        let git_dir = match explicit {
            Some(path) => git_dir_at(&directory.join(path))?,
            None => discover(&directory)?,
        };
        let common_dir = match env::var_os("GIT_COMMON_DIR").filter(|dir| !dir.is_empty()) {
            Some(path) => directory.join(path),
            None => common_dir_of(&git_dir),
        };
        let configuration = Configuration::read(&git_dir, &common_dir, invocation);
        Some(Self {
            git_dir,
            common_dir,
            directory,
            configuration,
        })
    }

    /// The repository of the current directory.
    pub fn here() -> Option<Self> {
        Self::find(&Invocation::default())
    }

    /// Asks git itself about this repository; `None` when it fails.
    fn ask(&self, args: &[&str]) -> Option<Vec<u8>> {
        let output = Command::new("git")
            .arg("--git-dir")
            .arg(&self.git_dir)
            .args(args)
            .env("GIT_OPTIONAL_LOCKS", "0")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .output()
            .ok()?;
        output.status.success().then_some(output.stdout)
    }

    fn is_reftable(&self) -> bool {
        self.configuration
            .get("extensions.refstorage")
            .is_some_and(|format| format != "files")
    }
}

impl Surroundings for Repository {
    fn worktree(&self) -> LockName {
        let is_main = self.git_dir == self.common_dir
            || matches!((self.git_dir.canonicalize(), self.common_dir.canonicalize()), (Ok(a), Ok(b)) if a == b);
        let id = self.git_dir.file_name().filter(|_| !is_main);
        worktree_lock(id.map(OsStr::to_string_lossy).as_deref())
    }

    fn worktree_at(&self, path: &str) -> Option<LockName> {
        let wanted = self.directory.join(path);
        let wanted = wanted.canonicalize().unwrap_or(wanted);
        if self
            .common_dir
            .parent()
            .and_then(|main| main.canonicalize().ok())
            .as_ref()
            == Some(&wanted)
        {
            return Some(worktree_lock(None));
        }
        let linked = fs::read_dir(self.common_dir.join("worktrees")).ok()?;
        let mut by_suffix = None;
        for entry in linked.flatten() {
            let Ok(gitdir) = fs::read(entry.path().join("gitdir")) else {
                continue;
            };
            let gitfile = entry.path().join(path_of(gitdir.trim_ascii_end()));
            let Some(place) = gitfile.parent() else { continue };
            let id = entry.file_name();
            if place.canonicalize().is_ok_and(|place| place == wanted) || place == wanted {
                return Some(worktree_lock(Some(&id.to_string_lossy())));
            }
            if place.ends_with(path) {
                by_suffix = Some(worktree_lock(Some(&id.to_string_lossy())));
            }
        }
        by_suffix
    }

    fn branch(&self) -> Option<String> {
        let head = fs::read(self.git_dir.join("HEAD")).ok()?;
        let name = head.strip_prefix(SYMREF)?.trim_ascii();
        let name = String::from_utf8_lossy(name).into_owned();
        if name != ELSEWHERE {
            return Some(name);
        }
        let answer = self.ask(&["symbolic-ref", "-q", "HEAD"])?;
        Some(String::from_utf8_lossy(answer.trim_ascii_end()).into_owned())
    }

    fn has_branch(&self, short: &str) -> bool {
        let name = format!("refs/heads/{short}");
        if self.is_reftable() {
            return self.ask(&["show-ref", "--verify", "-q", &name]).is_some();
        }
        if self.common_dir.join(&name).is_file() {
            return true;
        }
        packed(&self.common_dir, &name).is_some()
    }

    fn alias(&self, name: &str) -> Option<String> {
        let value = self.configuration.get(&format!("alias.{}", name.to_ascii_lowercase()));
        value.map(str::to_owned)
    }

    fn remotes(&self) -> Vec<String> {
        self.configuration.subsections("remote")
    }

    fn remote_of(&self, branch: &str) -> Option<String> {
        self.configuration
            .get(&format!("branch.{branch}.remote"))
            .map(str::to_owned)
    }
}

/// What packed-refs has for the full name of a ref.
fn packed(common_dir: &Path, name: &str) -> Option<String> {
    let packed = fs::read(common_dir.join("packed-refs")).unwrap_or_default();
    let mut lines = packed.split(|&b| b == b'\n');
    lines.find_map(|line| object_id(line.strip_suffix(name.as_bytes())?.strip_suffix(b" ")?))
}

/// A whole object ID, and nothing else but a line break.
fn object_id(text: &[u8]) -> Option<String> {
    let id = std::str::from_utf8(text.trim_ascii_end()).ok()?;
    let is_whole = [40, 64].contains(&id.len()) && id.bytes().all(|digit| digit.is_ascii_hexdigit());
    is_whole.then(|| id.to_owned())
}

/// The git directory that belongs to a directory or to one above it.
fn discover(directory: &Path) -> Option<PathBuf> {
    let directory = directory.canonicalize().ok()?;
    directory
        .ancestors()
        .find_map(|above| git_dir_at(&above.join(".git")).or_else(|| git_dir_at(above)))
}

/// The git directory at a path: the directory itself, or what a gitfile there names.
fn git_dir_at(path: &Path) -> Option<PathBuf> {
    let meta = fs::metadata(path).ok()?;
    if meta.is_file() {
        let text = fs::read(path).ok()?;
        let target = path_of(text.strip_prefix(GITFILE)?.trim_ascii()).to_owned();
        return git_dir_at(&path.parent()?.join(target));
    }
    // What git itself looks for, as far as it tells a git directory from others.
    let is_git_dir = path.join("HEAD").symlink_metadata().is_ok()
        && (path.join("commondir").is_file() || (path.join("objects").is_dir() && path.join("refs").exists()));
    is_git_dir.then(|| path.to_owned())
}

fn common_dir_of(git_dir: &Path) -> PathBuf {
    match fs::read(git_dir.join("commondir")) {
        Ok(text) => {
            let joined = git_dir.join(path_of(text.trim_ascii_end()));
            joined.canonicalize().unwrap_or(joined)
        }
        Err(_) => git_dir.to_owned(),
    }
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A repository with a linked worktree `linked` on branch topic, made by git.
    struct World(tempfile::TempDir);

    impl World {
        fn new(format: &str) -> Self {
            let world = Self(tempfile::tempdir().expect("a directory"));
            let script = format!(
                "git init -q -b main --ref-format={format} main && cd main && \
                 git -c user.name=x -c user.email=x@y commit -q --allow-empty -m first && \
                 git worktree add -q -b topic ../linked && git branch packed && git pack-refs --all && \
                 git config remote.up.url /nowhere && git config branch.topic.remote up && git config alias.ci commit && \
                 git config lockfs.scope.push none && mkdir sub"
            );
            let mut command = Command::new("sh");
            command.args(["-ec", &script]).current_dir(world.0.path());
            for (variable, value) in [("GIT_CONFIG_GLOBAL", "/dev/null"), ("GIT_CONFIG_NOSYSTEM", "1")] {
                command.env(variable, value);
            }
            assert!(command.status().expect("sh").success());
            world
        }

        fn at(&self, path: &str) -> Option<Repository> {
            let path = self.0.path().join(path);
            Repository::find(&Invocation::parse(["-C".to_owned(), path.display().to_string()]))
        }
    }

    #[test]
    fn each_worktree_has_its_directory_and_all_share_one() {
        for format in ["files", "reftable"] {
            let world = World::new(format);
            let main = world.at("main/sub").expect("found from below");
            assert_eq!(main.worktree().as_str(), "main-worktree.lock");
            assert_eq!(main.branch().as_deref(), Some("refs/heads/main"), "{format}");
            let linked = world.at("linked").expect("a gitfile");
            assert_eq!(linked.worktree().as_str(), "worktree-linked.lock");
            assert_eq!(linked.branch().as_deref(), Some("refs/heads/topic"), "{format}");
            assert_eq!(
                linked.common_dir.canonicalize().expect("there"),
                main.common_dir.canonicalize().expect("there")
            );
            for (name, expected) in [("topic", true), ("packed", true), ("pack", false), ("none", false)] {
                assert_eq!(linked.has_branch(name), expected, "{format}: {name}");
            }
            for path in ["../linked", "linked"] {
                let found = main.worktree_at(path).map(|name| name.to_string());
                let expected =
                    (path == "linked" || main.directory.join(path).exists()).then_some("worktree-linked.lock");
                assert_eq!(found.as_deref(), expected, "{path}");
            }
            assert_eq!(
                linked.worktree_at("../main").expect("found").as_str(),
                "main-worktree.lock"
            );
            assert_eq!(main.worktree_at("elsewhere"), None);
        }
    }

    #[test]
    fn head_is_read_as_git_reads_it() {
        let world = World::new("files");
        let main = world.at("main").expect("found");
        let git = |script: &str| {
            let mut sh = Command::new("sh");
            let output = sh.args(["-ec", script]).current_dir(&main.directory).output();
            let output = output.expect("sh");
            assert!(output.status.success(), "{script}");
            String::from_utf8_lossy(output.stdout.trim_ascii_end()).into_owned()
        };
        let read = || Head::read(&main.git_dir, &main.common_dir);
        let head = |commit: Option<&String>, branch: Option<&str>| {
            Some(Head {
                commit: commit.cloned(),
                branch: branch.map(str::to_owned),
            })
        };
        let first = git("git rev-parse HEAD");
        assert!(!main.common_dir.join("refs/heads/main").exists(), "it is packed");
        assert_eq!(read(), head(Some(&first), Some("refs/heads/main")));
        let second = git("git -c user.name=x -c user.email=x@y commit -q --allow-empty -m second; git rev-parse HEAD");
        assert_eq!(read(), head(Some(&second), Some("refs/heads/main")));
        git("git checkout -q --detach HEAD~");
        assert_eq!(read(), head(Some(&first), None));
        git("git checkout -q --orphan new");
        assert_eq!(read(), head(None, Some("refs/heads/new")));
        for left_to_git in [
            "git symbolic-ref refs/heads/new refs/heads/main",
            "git symbolic-ref HEAD refs/worktree/x",
            "rm .git/HEAD; ln -s refs/heads/main .git/HEAD",
        ] {
            git(left_to_git);
            assert_eq!(read(), None, "{left_to_git}");
        }
        let reftable = World::new("reftable").at("main").expect("found");
        assert_eq!(Head::read(&reftable.git_dir, &reftable.common_dir), None);
    }

    #[test]
    fn the_configuration_is_that_of_all_worktrees() {
        let world = World::new("files");
        let linked = world.at("linked").expect("found");
        assert_eq!(linked.alias("CI").as_deref(), Some("commit"));
        assert_eq!(linked.remotes(), ["up"]);
        assert_eq!(linked.remote_of("topic").as_deref(), Some("up"));
        let settings = linked.configuration.settings().expect("valid");
        assert!(settings.scope.contains_key("push"));
    }

    #[test]
    fn what_is_no_repository_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::create_dir(dir.path().join(".git")).expect("a directory");
        assert!(git_dir_at(&dir.path().join(".git")).is_none());
        fs::write(dir.path().join("file"), "gitdir: elsewhere\n").expect("a file");
        assert!(git_dir_at(&dir.path().join("file")).is_none());
    }
}
