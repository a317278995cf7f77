//! The mount of an ordinary user, through fusermount3.
//!
//! As root the tests become such a user: the one that LOCKFS_TEST_USER names, else nobody.

use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::unistd::{User, geteuid};

use crate::support::process::require;
use crate::support::{Repository, Said};

/// An ordinary user with a repository and a copy of the program that this user can reach.
struct Ordinary {
    repository: Repository,
    program: PathBuf,
    /// Whom to become; nobody else when the tests run as an ordinary user already.
    user: Option<User>,
}

impl Ordinary {
    fn new() -> Self {
        require("fusermount3");
        let repository = Repository::new();
        let program = repository.dir().join("git-lockfs");
        std::fs::copy(env!("CARGO_BIN_EXE_git-lockfs"), &program).expect("a copy of the program");
        std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("chmod");
        let user = geteuid().is_root().then(|| {
            let name = std::env::var("LOCKFS_TEST_USER").unwrap_or_else(|_| "nobody".to_owned());
            let user = User::from_name(&name).expect("the user database");
            user.unwrap_or_else(|| panic!("LOCKFS_TEST_USER: there is no user {name}"))
        });
        if let Some(user) = &user {
            give(repository.dir(), user);
        }
        Self {
            repository,
            program,
            user,
        }
    }

    fn command(&self, program: &str) -> Command {
        let Some(user) = &self.user else {
            return self.repository.command(require(program));
        };
        let mut command = self.repository.command(require("setpriv"));
        command
            .arg(format!("--reuid={}", user.uid))
            .arg(format!("--regid={}", user.gid))
            .arg("--clear-groups")
            .arg(require(program));
        command
    }

    fn sh(&self, script: &str) -> Output {
        let mut command = self.command("bash");
        command.args(["-c", script]).env("LOCKFS", &self.program);
        self.repository.run(command)
    }

    fn uid(&self) -> u32 {
        self.user.as_ref().map_or(geteuid(), |user| user.uid).as_raw()
    }
}

/// Everything below a directory becomes the user's.
fn give(path: &Path, user: &User) {
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw())).expect("root may chown");
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path).expect("a directory").flatten() {
            give(&entry.path(), user);
        }
    }
}

/// As root and as an ordinary user (through fusermount3; tests do both where the machine allows it).
#[test]
fn an_ordinary_user_mounts_locks_and_unmounts() {
    let ordinary = Ordinary::new();
    let script = r#"
$LOCKFS mount >/dev/null || exit
grep -F " $M " /proc/self/mountinfo
{ test -e $L/x.lock && echo held; } 9> $L/x.lock
flock -n $F/y.lock echo flocked
mkdir $L/z.lock && rmdir $L/z.lock && echo made
echo $$ > $L/o.lock && rm $L/o.lock && echo owned
$LOCKFS run -l r.lock -- echo ran
echo flush-metrics > $M/control && echo controlled
$LOCKFS status >/dev/null && $LOCKFS umount && echo unmounted
"#;
    let output = ordinary.sh(script);
    let said = output.text();
    for line in ["held", "flocked", "made", "owned", "ran", "controlled", "unmounted"] {
        assert!(said.lines().any(|l| l == line), "{line}: {said}\n{}", output.error());
    }
    assert!(said.contains(&format!("user_id={}", ordinary.uid())), "{said}");
    for option in ["nosuid", "nodev", "noexec"] {
        assert!(said.contains(option), "{option}: {said}");
    }
    assert!(!ordinary.repository.is_mounted());
}

/// a dead mount is cleaned and mounted anew (an ordinary user needs fusermount3 for that)
#[test]
fn an_ordinary_user_can_clean_a_dead_mount() {
    let ordinary = Ordinary::new();
    let script = r#"
$LOCKFS mount >/dev/null && kill -9 $(cat .git/lockfs/daemon.lock) || exit
until ! stat $M >/dev/null 2>&1; do :; done
$LOCKFS mount >/dev/null && : > $L/x.lock && $LOCKFS umount && echo fine"#;
    let output = ordinary.sh(script);
    assert_eq!(output.text().lines().last(), Some("fine"), "{}", output.error());
}

/// a supervisor keeps /dev/fuse (which fusermount3 opened), the worker inherits it
#[test]
fn the_daemon_of_an_ordinary_user_survives_its_processes() {
    let ordinary = Ordinary::new();
    let script = r#"
pids=.git/lockfs/daemon.lock
until_changed() { for i in $(seq 500); do test "$(sed -n $1p $pids)" != "$2" && return; sleep 0.01; done; echo "line $1 stays"; }
$LOCKFS mount >/dev/null || exit
exec 9> $L/x.lock
for line in 2 1 2 1; do
    old=$(sed -n ${line}p $pids)
    kill -9 $old
    until_changed $line "$old"
    test -e $L/x.lock || echo lost
done
$LOCKFS restart && test -e $L/x.lock && echo restarted
$LOCKFS umount 2>/dev/null; test $? = 75 && echo refused
exec 9>&-
while test -e $L/x.lock; do :; done
$LOCKFS umount && echo unmounted"#;
    let output = ordinary.sh(script);
    assert_eq!(output.text(), "restarted\nrefused\nunmounted", "{}", output.error());
    assert!(!ordinary.repository.is_mounted());
}

/// Nobody waits for a mount that was given up, also where an ordinary user has no switch to cut it off.
#[test]
fn the_mount_of_an_ordinary_user_can_be_given_up() {
    let ordinary = Ordinary::new();
    let script = r#"
$LOCKFS mount >/dev/null || exit
exec 9> $L/x.lock
(exec 9>&-; : > $L/x.lock) 2>/dev/null & waiter=$!
until grep -q waiters=1 $L/x.lock; do :; done
while grep -qF " $M " /proc/self/mountinfo; do kill -9 $(sed -n 2p .git/lockfs/daemon.lock) 2>/dev/null; sleep 0.01; done
wait $waiter || echo answered
$LOCKFS doctor | grep -o 'gave up'
exec 9>&-
$LOCKFS mount >/dev/null && test -e $L/x.lock && $LOCKFS umount --force && echo fine"#;
    let output = ordinary.sh(script);
    assert_eq!(output.text(), "answered\ngave up\nfine", "{}", output.error());
}

/// Exactly one daemon a repository, whoever starts it
#[test]
fn simultaneous_starts_of_an_ordinary_user_give_one_mount() {
    let ordinary = Ordinary::new();
    let script = r#"
for i in $(seq 20); do $LOCKFS mount >/dev/null & started+=($!); done
for pid in ${started[@]}; do wait $pid || echo failed; done
grep -cF " $M " /proc/self/mountinfo; $LOCKFS umount && echo fine"#;
    let output = ordinary.sh(script);
    assert_eq!(output.text(), "1\nfine", "{}", output.error());
}

/// Whom the mount does not let in is told so, and root may end it all the same.
#[test]
fn a_mount_of_another_user_says_whose_it_is() {
    let ordinary = Ordinary::new();
    if ordinary.user.is_none() {
        eprintln!("skipped: it takes two users");
        return;
    }
    assert_eq!(ordinary.sh("$LOCKFS mount").code(), 0);
    let as_root = |arguments: &[&str]| {
        let mut command = ordinary.repository.command(&ordinary.program);
        command.args(arguments).envs([
            ("GIT_CONFIG_COUNT", "1"),
            ("GIT_CONFIG_KEY_0", "safe.directory"),
            ("GIT_CONFIG_VALUE_0", "*"),
        ]);
        ordinary.repository.run(command)
    };
    for arguments in [&["mount"][..], &["status"], &["run", "--", "true"]] {
        let refused = as_root(arguments);
        assert_eq!(refused.code(), 69, "{arguments:?}: {}", refused.error());
        assert!(refused.error().contains("--allow-other"), "{}", refused.error());
    }
    assert_eq!(as_root(&["doctor"]).code(), 1);
    as_root(&["umount"]).ok();
    assert!(!ordinary.repository.is_mounted());
}
