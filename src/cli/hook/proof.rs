//! Whether the process that moves a ref holds a lock that fits, by the grant that the mount knows.
//!
//! A lock fits a ref when it is held exclusively and is the ref's own; `global.lock`; or the lock of the worktree in
//! which the branch is checked out. For a ref that does not exist yet any of git's scopes will do: there is nobody whose
//! work it could overwrite. Packing moves nothing and needs none.
//!
//! That a process holds a lock is shown in two ways. What runs under `git lockfs` has the locks and their fencing tokens
//! in its environment; a token that the mount does not know any more proves nothing, so a holder whose lock was broken
//! cannot move a branch. Otherwise the holder must be the process itself or one above it, as when a shell has the lock
//! on a descriptor and runs git. What touch(1), mkdir(1) or flock(1) took for a shell is the shell's.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::updates::{Update, is_zero};
use crate::cli::ancestors::ancestors;
use crate::cli::held::{self, HELD_ENV, Held};
use crate::cli::place::MOUNT_NAME;
use crate::scopes::{ref_lock, worktree_lock};
use crate::types::{LockName, Mode, Settings};

/// Where a worktree says which branch it is rebasing while HEAD is detached.
const REBASED: &[&str] = &["rebase-merge/head-name", "rebase-apply/head-name"];

/// Updates, and where they happen.
#[derive(Debug)]
pub struct Question {
    updates: Vec<Update>,
    git_dir: PathBuf,
    /// The directory that all worktrees share.
    pub common_dir: PathBuf,
    held: Vec<Held>,
}

/// The answer.
#[derive(Debug)]
pub enum Verdict {
    /// All of them may go on.
    Fits,
    /// No daemon answers.
    Unavailable,
    /// The first that may not.
    Refused(Refusal),
}

/// Why an update may not go on.
#[derive(Debug)]
pub struct Refusal {
    /// The ref.
    pub name: String,
    /// The locks that would fit; at least one.
    pub fitting: Vec<LockName>,
    /// A grant that would have fitted and is over.
    pub outdated: Option<Held>,
}

impl Refusal {
    /// The reason, as the second half of a sentence.
    pub fn why(&self) -> String {
        match &self.outdated {
            Some(held) => format!(
                "its process held {} by the token {}, which is outdated: the lock was broken, lost or given back",
                held.name, held.token
            ),
            None => "its process holds no fitting lock".to_owned(),
        }
    }
}

impl Question {
    /// The question of this process, in the repository that git's environment and directory name; `None` where there is
    /// none.
    pub fn of_environment(updates: Vec<Update>) -> Option<Self> {
        let git_dir = match env::var_os("GIT_DIR").filter(|dir| !dir.is_empty()) {
            Some(dir) => PathBuf::from(dir),
            None => git_dir_here()?,
        };
        let common_dir = match env::var_os("GIT_COMMON_DIR").filter(|dir| !dir.is_empty()) {
            Some(dir) => PathBuf::from(dir),
            None => match fs::read(git_dir.join("commondir")) {
                Ok(text) => git_dir.join(path_of(&text)),
                Err(_) => git_dir.clone(),
            },
        };
        Some(Self {
            updates,
            git_dir: git_dir.canonicalize().ok()?,
            common_dir: common_dir.canonicalize().ok()?,
            held: held::parse(&env::var(HELD_ENV).unwrap_or_default()),
        })
    }

    /// Looks at the mount, and says what is to be done.
    pub fn answer(&self) -> Verdict {
        if !self.is_mounted() {
            return Verdict::Unavailable;
        }
        let above = std::cell::OnceCell::new();
        for update in &self.updates {
            let fitting = self.fitting(&update.name);
            if self.is_granted(&fitting) || self.is_held_above(&fitting, above.get_or_init(processes_above)) {
                continue;
            }
            let current = self.value_of(&update.name);
            let creates = current == Value::Absent && !update.removes();
            if creates
                && (self.has_some_scope()
                    || self.is_held_above(&self.scopes_here(), above.get_or_init(processes_above)))
            {
                continue;
            }
            if self.only_packs(update, &current) {
                continue;
            }
            let is_meant = |held: &&Held| held.mode == Mode::Exclusive && fitting.contains(&held.name);
            let outdated = self.held.iter().find(is_meant).cloned();
            return Verdict::Refused(Refusal {
                name: update.name.clone(),
                fitting,
                outdated,
            });
        }
        Verdict::Fits
    }

    /// The locks that fit, the ref's own first.
    fn fitting(&self, name: &str) -> Vec<LockName> {
        let mut fitting = vec![ref_lock(name)];
        if self.is_checked_out(name) {
            fitting.insert(0, self.worktree());
        }
        fitting.extend(self.global());
        fitting
    }

    fn global(&self) -> Option<LockName> {
        LockName::parse_lock(b"global.lock").ok()
    }

    fn worktree(&self) -> LockName {
        let id = self.git_dir.file_name().filter(|_| self.git_dir != self.common_dir);
        worktree_lock(id.map(OsStr::to_string_lossy).as_deref())
    }

    /// The scopes under which git makes refs without having the lock of each: adding a worktree, switching.
    fn scopes_here(&self) -> Vec<LockName> {
        let registry = LockName::parse_lock(b"registry.lock").ok();
        std::iter::once(self.worktree()).chain(registry).collect()
    }

    /// Whether HEAD of this worktree is that branch, or a rebase here is going to move it.
    fn is_checked_out(&self, name: &str) -> bool {
        let says = |file: &str, prefix: &[u8]| {
            let text = fs::read(self.git_dir.join(file)).unwrap_or_default();
            text.strip_prefix(prefix).map(<[u8]>::trim_ascii) == Some(name.as_bytes())
        };
        says("HEAD", b"ref: ") || REBASED.iter().any(|file| says(file, b""))
    }

    /// Whether the environment has a grant of one of these that the mount confirms.
    fn is_granted(&self, fitting: &[LockName]) -> bool {
        let mut held = self.held.iter().filter(|held| fitting.contains(&held.name));
        held.any(|held| self.is_confirmed(held))
    }

    /// The same for any of git's scopes.
    fn has_some_scope(&self) -> bool {
        let settings = Settings::default();
        let is_scope = |name: &LockName| name.as_str() == "global.lock" || settings.parent_of(name.as_str()).is_some();
        let mut held = self.held.iter().filter(|held| is_scope(&held.name));
        held.any(|held| self.is_confirmed(held))
    }

    fn is_confirmed(&self, held: &Held) -> bool {
        let exclusive = held.mode == Mode::Exclusive;
        exclusive
            && self
                .lock(&held.name)
                .is_some_and(|lock| lock.exclusive && lock.token == Some(held.token))
    }

    fn is_held_above(&self, fitting: &[LockName], above: &[u32]) -> bool {
        let mut names = fitting.iter();
        names.any(|name| {
            let lock = self.lock(name).filter(|lock| lock.exclusive);
            lock.is_some_and(|lock| lock.holders.iter().any(|pid| above.contains(pid)))
        })
    }

    fn lock(&self, name: &LockName) -> Option<Lock> {
        // By this door it is a file to everybody, also when mkdir(1) made it.
        let file = self.common_dir.join(MOUNT_NAME).join("flock").join(name.as_str());
        fs::read_to_string(file).ok().map(|text| Lock::parse(&text))
    }

    /// A mountpoint is on another device than what it lies in; anything but an answer means that none will come.
    fn is_mounted(&self) -> bool {
        let device = |path: &Path| fs::symlink_metadata(path).map(|meta| meta.dev()).ok();
        let mountpoint = device(&self.common_dir.join(MOUNT_NAME));
        mountpoint.is_some() && mountpoint != device(&self.common_dir)
    }

    /// What a ref has now, before the update.
    fn value_of(&self, name: &str) -> Value {
        match fs::read(self.common_dir.join(name)) {
            Ok(text) => Value::Loose(String::from_utf8_lossy(text.trim_ascii()).into_owned()),
            Err(error) if error.kind() == ErrorKind::NotFound && !self.is_reftable() => match self.packed(name) {
                Some(value) => Value::Packed(value),
                None => Value::Absent,
            },
            Err(_) => Value::Unknown,
        }
    }

    fn is_reftable(&self) -> bool {
        self.common_dir.join("reftable").is_dir()
    }

    fn packed(&self, name: &str) -> Option<String> {
        let packed = fs::read_to_string(self.common_dir.join("packed-refs")).ok()?;
        let mut lines = packed.lines();
        let value = |line: &str| line.strip_suffix(name)?.strip_suffix(' ').map(str::to_owned);
        lines.find_map(value)
    }

    /// Whether the ref has the same value afterwards: it is copied into `packed-refs`, or its own file is removed while
    /// it is there. Whoever really removes a ref has `packed-refs` locked, and removes it there too.
    fn only_packs(&self, update: &Update, current: &Value) -> bool {
        match current {
            Value::Absent => update.removes(),
            Value::Loose(value) | Value::Packed(value) if *value == update.new => true,
            Value::Loose(value) => {
                update.removes()
                    && !is_zero(&update.old)
                    && *value == update.old
                    && self.packed(&update.name).as_ref() == Some(value)
                    && !self.common_dir.join("packed-refs.lock").exists()
            }
            _ => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Absent,
    Loose(String),
    Packed(String),
    /// Not kept in files that we read.
    Unknown,
}

/// What the text of a lock says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Lock {
    holders: Vec<u32>,
    exclusive: bool,
    token: Option<u64>,
}

impl Lock {
    /// Reads a line a holder, an empty line, and the fields; what follows them is somebody's note.
    fn parse(text: &str) -> Self {
        let mut parts = text.split("\n\n");
        let holders = parts.next().unwrap_or_default().lines();
        let fields = parts.next().unwrap_or_default();
        let field = |key: &str| {
            fields
                .lines()
                .find_map(|line| line.strip_prefix(key)?.strip_prefix('='))
        };
        Self {
            holders: holders
                .filter_map(|line| line.split(':').next()?.parse().ok())
                .collect(),
            exclusive: field("mode") == Some("exclusive"),
            token: field("token").and_then(|token| token.parse().ok()),
        }
    }
}

/// The git directory of the current one, where git runs its hooks: the top of a worktree, or a bare repository.
fn git_dir_here() -> Option<PathBuf> {
    let dot_git = Path::new(".git");
    match fs::symlink_metadata(dot_git) {
        Err(_) => Some(PathBuf::from(".")),
        Ok(meta) if meta.is_file() => {
            let text = fs::read(dot_git).ok()?;
            Some(path_of(text.strip_prefix(b"gitdir:")?.trim_ascii()).to_owned())
        }
        Ok(_) => Some(dot_git.to_owned()),
    }
}

fn path_of(bytes: &[u8]) -> &Path {
    Path::new(OsStr::from_bytes(bytes.trim_ascii_end()))
}

/// The processes above this one.
fn processes_above() -> Vec<u32> {
    ancestors().iter().map(|ancestor| ancestor.pid).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_lock_is_read_up_to_its_note() {
        let text = "7:agent:1\n\nmode=exclusive\nheld=owner\ntoken=918\nwaiters=0\n\nmode=shared\ntoken=1\n";
        let lock = Lock::parse(text);
        assert_eq!((lock.holders, lock.exclusive, lock.token), (vec![7], true, Some(918)));
        assert_eq!(Lock::parse(""), Lock::default());
        assert!(!Lock::parse("7\n8\n\nmode=shared\ntoken=2\n").exclusive);
    }

    #[test]
    fn removing_the_file_of_a_packed_ref_is_packing_unless_packed_refs_is_locked_for_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("it is ours");
        fs::create_dir_all(dir.path().join("refs/heads")).expect("it is ours");
        write("refs/heads/x", "aa\n");
        write(
            "packed-refs",
            "# pack-refs with: peeled\naa refs/heads/x\nbb refs/heads/y\n",
        );
        let question = Question {
            updates: Vec::new(),
            git_dir: dir.path().to_owned(),
            common_dir: dir.path().to_owned(),
            held: Vec::new(),
        };
        let packs = |old: &str, new: &str, name: &str| {
            let (old, new, name) = (old.to_owned(), new.to_owned(), name.to_owned());
            let current = question.value_of(&name);
            question.only_packs(&Update { old, new, name }, &current)
        };
        assert!(packs("aa", "00", "refs/heads/x"), "its file goes, its line stays");
        assert!(packs("00", "aa", "refs/heads/x") && packs("00", "bb", "refs/heads/y"));
        assert!(packs("00", "00", "refs/heads/z"), "what is not there is not removed");
        for (old, new, name) in [
            ("00", "00", "refs/heads/x"),
            ("bb", "00", "refs/heads/y"),
            ("aa", "bb", "refs/heads/x"),
            ("00", "cc", "refs/heads/y"),
        ] {
            assert!(!packs(old, new, name), "{old} {new} {name}");
        }
        write("packed-refs.lock", "");
        assert!(!packs("aa", "00", "refs/heads/x"), "it goes from both");
    }
}
