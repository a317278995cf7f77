//! The main job, on real input: many worktrees of one repository commit in parallel, each under its own worktree lock,
//! while others need the repository for themselves.

#[path = "support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use support::{Mount, Said};

const WORKTREES: usize = 11;
const COMMITS: usize = 20;
/// On two busy cores, with an unoptimised build.
const JOB_MAX: Duration = Duration::from_secs(300);

/// git in a worktree; what it says.
fn git(mount: &Mount, worktree: &Path, arguments: &[&str]) -> Output {
    let mut command = mount.command("git");
    command.args(arguments).current_dir(worktree);
    mount.run(command).ok()
}

/// The main worktree and the linked ones, each on a branch of its own.
fn worktrees(mount: &Mount) -> Vec<PathBuf> {
    let mut all = vec![mount.repo().to_owned()];
    for number in 1..WORKTREES {
        let path = mount.dir().join(format!("worktree-{number}"));
        let name = path.to_str().expect("UTF-8");
        mount.git(&["worktree", "add", "-q", "-b", &format!("topic-{number}"), name]);
        all.push(path);
    }
    all
}

/// A repository with 11 worktrees, each committing 20 times in parallel under its worktree lock while others take
/// global.lock: no failure, all commits there, `git fsck` clean.
#[test]
fn eleven_worktrees_commit_side_by_side() {
    let mount = Mount::with(&[("wait", "5m")]);
    let worktrees = worktrees(&mount);
    // Each commit is one critical section: what it writes, adds and commits belongs together.
    let committer = format!(
        r#"for i in $(seq {COMMITS}); do
  $LOCKFS run -- bash -c 'echo "$0" >> log && git add log && git commit -qm "commit $0"' "$i" || echo "commit $i failed: $?"
done; echo finished"#
    );
    let committers: Vec<_> = worktrees
        .iter()
        .map(|worktree| {
            let mut command = mount.script("bash", &committer);
            command.current_dir(worktree);
            mount.spawn(command)
        })
        .collect();
    // What git itself must not do beside commits: each alone in the repository, again and again until all is done.
    let housekeeping = [
        "git pack-refs --all",
        "git gc --quiet --prune=now",
        "git worktree prune && git repack -qad --threads=1",
    ];
    let keepers: Vec<_> = housekeeping
        .iter()
        .map(|job| {
            let script = format!(
                "until test -e $T/stop; do $LOCKFS run -l global.lock -- bash -c '{job} && echo kept >> $T/kept' || echo failed: $?; done; echo finished"
            );
            mount.spawn_sh(&script)
        })
        .collect();

    for mut committer in committers {
        let output = committer.finish_within(JOB_MAX).ok();
        assert_eq!(output.text(), "finished", "{}", output.error());
    }
    std::fs::write(mount.dir().join("stop"), "").expect("a note that all is done");
    for mut keeper in keepers {
        let output = keeper.finish_within(Duration::from_secs(60)).ok();
        assert_eq!(output.text(), "finished", "{}", output.error());
    }
    let kept = std::fs::read_to_string(mount.dir().join("kept")).expect("somebody kept house");
    assert!(kept.lines().count() >= 3, "others did take global.lock: {kept}");

    for worktree in &worktrees {
        let count = git(&mount, worktree, &["rev-list", "--count", "HEAD"]).text();
        assert_eq!(count, (COMMITS + 1).to_string(), "{}", worktree.display());
        let expected: Vec<String> = (1..=COMMITS).map(|i| i.to_string()).collect();
        let log = std::fs::read_to_string(worktree.join("log")).expect("its log");
        assert_eq!(
            log.lines().collect::<Vec<_>>(),
            expected,
            "in order, in {}",
            worktree.display()
        );
        assert_eq!(
            git(&mount, worktree, &["status", "--porcelain"]).text(),
            "",
            "{}",
            worktree.display()
        );
    }
    let fsck = mount.git(&["fsck", "--full", "--strict", "--no-dangling"]);
    assert_eq!(fsck.text() + &fsck.error(), "");
    assert_eq!(mount.listed(), [""; 0], "nobody holds anything any more");
}

/// taking a child counts as shared on the parent, so worktrees run side by side
#[test]
fn worktrees_run_at_the_same_time() {
    let mount = Mount::new();
    let worktrees = worktrees(&mount);
    // Each waits, under its lock, until all the others have theirs: with one lock for all, none would ever finish.
    let script = "$LOCKFS run -- bash -c 'touch $T/in-$0; until test $(ls $T/in-* | wc -l) = $1; do :; done' $0 $1";
    let running: Vec<_> = worktrees
        .iter()
        .enumerate()
        .map(|(number, worktree)| {
            let mut command = mount.script("bash", script);
            command
                .args([number.to_string(), WORKTREES.to_string()])
                .current_dir(worktree);
            mount.spawn(command)
        })
        .collect();
    for mut worktree in running {
        worktree.finish_within(Duration::from_secs(60)).ok();
    }
}
