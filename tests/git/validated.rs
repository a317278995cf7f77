//! After a commit under locks its files are compared with those that it was about to have.

use super::support::{Mount, Said};
use super::{hook, installed, with_file, with_shim};

/// A mount with some files that are tracked, and the hook that adds and takes out what a test says.
fn world(script: &str) -> Mount {
    let mount = installed();
    mount
        .sh("for f in a b c; do echo 1 >$f; done; git add .; git commit -qm files")
        .ok();
    hook(&mount, "pre-commit", &format!("#!/bin/sh\n{script}\n"));
    mount
}

fn warning(mount: &Mount, missing: &str, foreign: &str) -> String {
    let commit = mount.git(&["rev-parse", "HEAD"]).text();
    format!("git-lockfs: warning: git_commit_validation_warning: commit={commit} missing={missing} foreign={foreign}")
}

/// What git was about to commit, whatever the arguments are.
#[test]
fn a_commit_that_has_what_it_was_about_to_have_is_no_warning() {
    let mount = world("true");
    for commit in [
        "git add a; $LOCKFS git -- commit -qm x",
        "git add a; $LOCKFS git -- commit -qam x",
        "git add a; $LOCKFS git -- commit -qm x b",
        "git add a; $LOCKFS git -- commit -qm x -i b",
        "git add a; $LOCKFS git -- commit -qm x -o -- b",
        "git add a; $LOCKFS git -- commit -q --amend --no-edit",
        "git rm -qf c; $LOCKFS git -- commit -qm x",
        "git mv c d; echo more >>d; $LOCKFS git -- commit -qam x",
        "mkdir s; echo 1 >'s/ö \"'; git add -A; cd s; $LOCKFS git -- commit -qm x",
        "git config alias.ci 'commit -a -m'; $LOCKFS git -- ci --porcelain",
        "cd ..; $LOCKFS git -- -C repo -c user.name=x commit -qam x",
        "$LOCKFS git -- commit -q --allow-empty -m x",
        "printf a >$T/list; $LOCKFS git -- commit -qm x --pathspec-from-file=$T/list",
        "git add a; printf b | $LOCKFS git -- commit -qm x --pathspec-from-file=-",
        "git add a; printf x | $LOCKFS git -- commit -qF -",
        "git checkout -qb side; git commit -qam side; git checkout -q -; echo 1 >new; git add new; git commit -qm new; \
         git merge -q --no-commit side 2>&1; $LOCKFS git -- commit -qm merged",
    ] {
        mount
            .sh("git clean -fdq; git checkout -qf main; git reset -q --hard $(git log --format=%H --grep=files main)")
            .ok();
        mount
            .sh("git branch -qD side 2>/dev/null; for f in a b c; do echo $RANDOM >>$f; done")
            .text();
        let before = mount.git(&["rev-parse", "HEAD"]).text();
        let said = mount.sh(commit).ok();
        assert_eq!(said.error(), "", "{commit}");
        assert_ne!(mount.git(&["rev-parse", "HEAD"]).text(), before, "{commit}");
    }
}

#[test]
fn hooks_run_once() {
    let mount = world("echo ran >>$T/hooks");
    mount.sh("echo 2 >a; $LOCKFS git -- commit -qam x").ok();
    assert_eq!(
        std::fs::read_to_string(mount.dir().join("hooks")).expect("the hook ran"),
        "ran\n"
    );
}

/// a difference is a warning and never fails the commit
#[test]
fn what_a_hook_adds_or_takes_out_is_told() {
    let mount = world("echo made >made; git add made; git restore --staged --source=HEAD b");
    let said = mount.sh("echo 2 >a; echo 2 >b; $LOCKFS git -- commit -qam x").ok();
    assert_eq!(said.error(), warning(&mount, "b", "made"));
    let commit = mount.git(&["rev-parse", "HEAD"]).text();
    let event = mount
        .sh("grep -o 'git_commit_validation_warning.*' $M/metrics/events.csv")
        .text();
    assert_eq!(
        event,
        format!("git_commit_validation_warning,,0.000,commit={commit} missing=1 foreign=1")
    );
    let quiet = "echo 3 >a; echo 3 >b; git reset -q --hard HEAD~1; echo 4 >a; git add a; git commit -qm y";
    assert_eq!(
        mount.sh(&with_shim(quiet)).ok().error(),
        "",
        "the transparent git only when it is told to"
    );
    let said = mount
        .sh(&with_shim(&format!("git config lockfs.validate true; {quiet}")))
        .ok();
    assert_eq!(said.error(), warning(&mount, "-", "made"));
}

/// Somebody who takes no locks stages a file while the editor is open.
#[test]
fn what_a_stranger_stages_meanwhile_is_told() {
    let mount = world("true");
    let editor = "GIT_EDITOR='echo 2 >c; git add c; echo x >'";
    let said = mount
        .sh(&format!("echo 2 >a; git add a; {editor} $LOCKFS git -- commit -q"))
        .ok();
    assert_eq!(
        mount.git(&["show", "--name-only", "--format=", "HEAD"]).text(),
        "a",
        "git commits what it has read"
    );
    assert_eq!(said.error(), "");
    hook(
        &mount,
        "pre-commit",
        "#!/bin/sh\nenv -u GIT_INDEX_FILE git -C \"$R\" add b\n",
    );
    let said = mount
        .sh("echo 3 >a; echo 3 >b; git add a; $LOCKFS git -- commit -qm x")
        .ok();
    assert_eq!(said.error(), warning(&mount, "-", "b"));
}

/// A commit that git says no to is no commit, and one whose files nobody can know is not compared.
#[test]
fn without_a_commit_nothing_is_compared() {
    let mount = world("exit 1");
    let said = mount.sh("echo 2 >a; $LOCKFS git -- commit -qam x");
    assert_eq!((said.code(), said.error().as_str()), (1, ""));
    let said = mount.sh("git checkout -q a; $LOCKFS git -- commit -qam x");
    assert_eq!((said.code(), said.error().as_str()), (1, ""));
    for look in ["--short", "--porcelain", "-z", "--dry-run", "--long"] {
        assert_eq!(
            mount
                .sh(&format!("echo 2 >a; $LOCKFS git -- commit {look} -a"))
                .ok()
                .error(),
            "",
            "{look}"
        );
    }
    let patch = "rm .git/hooks/pre-commit; echo 2 >a; echo 2 >b; printf 'y\\nn\\n' | $LOCKFS git -- commit -qpm x";
    assert_eq!(mount.sh(patch).ok().error(), "");
    assert_eq!(mount.git(&["show", "--name-only", "--format=", "HEAD"]).text(), "a");
}

#[test]
fn without_a_mount_nothing_is_compared() {
    let repository = with_file();
    let script = "printf '#!/bin/sh\\necho 1 >made; git add made' >.git/hooks/pre-commit; chmod +x .git/hooks/pre-commit; \
                  echo 2 >file; $LOCKFS git -- commit -qam x";
    assert_eq!(repository.sh(script).ok().error(), "");
}
