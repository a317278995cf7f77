//! What a commit has: the named paths, with the content of the moment.

use crate::support::{Mount, Said, wait_until};
use crate::{files, holder_of, nothing_left_behind, sh, status, world};

/// stages and commits exactly PATHS
#[test]
fn only_the_named_paths_are_committed() {
    let mount = world();
    sh(
        &mount,
        "echo 2 >a; echo 2 >b; echo 2 >sub/c; $LOCKFS commit -qm mine -- a sub",
    );
    assert_eq!(files(&mount, "HEAD"), "M a M sub/c");
    assert_eq!(status(&mount), [" M b"]);
    nothing_left_behind(&mount);
}

/// new files too
#[test]
fn new_and_removed_files_are_committed() {
    let mount = world();
    sh(
        &mount,
        "echo n >new; echo n >'sub/n w'; rm b; git rm -q sub/c; echo x >other; $LOCKFS commit -qm mine -- new sub b",
    );
    assert_eq!(files(&mount, "HEAD"), "D b A new D sub/c A sub/n w");
    assert_eq!(status(&mount), ["?? other"]);
    nothing_left_behind(&mount);
}

/// other staged changes stay staged and stay out
#[test]
fn what_others_have_staged_stays_staged_and_stays_out() {
    let mount = world();
    sh(
        &mount,
        "echo 2 >b; git add b; echo n >new; git add new; git rm -q --cached sub/c; echo 2 >a; $LOCKFS commit -qm mine a",
    );
    assert_eq!(files(&mount, "HEAD"), "M a");
    assert_eq!(status(&mount), ["M  b", "A  new", "D  sub/c", "?? sub/c"]);
    sh(&mount, "git commit -qm theirs");
    assert_eq!(files(&mount, "HEAD"), "M b A new D sub/c");
    nothing_left_behind(&mount);
}

/// A file that changed within the clock tick of its last staging looks unchanged; git reads it again, by the time of
/// its index.
#[test]
fn a_change_within_one_tick_is_seen() {
    let mount = world();
    sh(
        &mount,
        "git config core.trustctime false; git config core.checkStat minimal
        touch -d '2020-02-02 02:02:02' a; git add a; echo 2 >a; touch -d '2020-02-02 02:02:02' a .git/index
        $LOCKFS commit -qm mine -- a",
    );
    assert_eq!(sh(&mount, "git show HEAD:a"), "2");
    assert_eq!(status(&mount), [""; 0]);
}

/// What was staged of a named path is replaced by what is in the file, as `git commit PATH` does.
#[test]
fn an_older_staging_of_a_named_path_gives_way() {
    let mount = world();
    sh(
        &mount,
        "echo staged >a; git add a; echo newest >a; echo n >new; git add -N new; $LOCKFS commit -qm mine -- a new",
    );
    assert_eq!(sh(&mount, "git show HEAD:a HEAD:new"), "newest\nn");
    assert_eq!(status(&mount), [""; 0]);
    nothing_left_behind(&mount);
}

/// The same where the file is as HEAD has it, whatever else is staged.
#[test]
fn a_staging_that_was_taken_back_in_the_file_gives_way() {
    for (others, left) in [("", &[][..]), ("echo 2 >sub/c; git add sub/c;", &["M  sub/c"])] {
        let mount = world();
        let script = "echo staged >a; git add a; git show HEAD:a >a; echo 2 >b; $LOCKFS commit -qm mine -- a b";
        sh(&mount, &format!("{others} {script}"));
        assert_eq!(files(&mount, "HEAD"), "M b");
        assert_eq!(status(&mount), left);
        nothing_left_behind(&mount);
    }
}

/// Others wait while it works: it starts no git that it can do without.
#[test]
fn few_gits_are_started() {
    let mount = world();
    let counting =
        "mkdir $T/bin; printf '#!/bin/sh\necho \"$@\" >>%s\nexec %s \"$@\"\n' $T/started $(command -v git) >$T/bin/git
        chmod +x $T/bin/git; echo 2 >a; PATH=$T/bin:$PATH $LOCKFS commit -qm mine -- a; cat $T/started";
    let started = sh(&mount, counting);
    let commands: Vec<&str> = started.lines().filter_map(|line| line.split(' ').next()).collect();
    let captured = ["rev-parse", "read-tree", "add", "diff-index"];
    let in_its_turn = ["diff-index", "update-index", "commit", "diff-tree"];
    assert_eq!(commands, [captured, in_its_turn].concat(), "{started}");
    assert_eq!(status(&mount), [""; 0]);
}

/// with the content of the moment it was called
#[test]
fn the_content_is_that_of_the_moment_of_the_call() {
    let mount = world();
    let (holding, _) = holder_of(&mount, "main-worktree.lock");
    sh(&mount, "echo called >a; echo called >new");
    let waiting = mount.spawn_sh("$LOCKFS commit -qm mine -- a new && echo done");
    mount.wait_for_waiters("main-worktree.lock", 1);
    sh(&mount, "echo later >a; echo later >new");
    holding.kill();
    waiting.wait_for_line("done");
    assert_eq!(sh(&mount, "git show HEAD:a HEAD:new"), "called\ncalled");
    assert_eq!(sh(&mount, "cat a new"), "later\nlater", "the files are not touched");
    assert_eq!(status(&mount), [" M a", " M new"]);
    nothing_left_behind(&mount);
}

/// What somebody stages while the commit waits is newer than it, and stays.
#[test]
fn what_is_staged_during_the_wait_stays() {
    let mount = world();
    let (holding, _) = holder_of(&mount, "main-worktree.lock");
    sh(&mount, "echo called >a");
    let waiting = mount.spawn_sh("$LOCKFS commit -qm mine -- a && echo done");
    mount.wait_for_waiters("main-worktree.lock", 1);
    sh(&mount, "echo later >a; git add a; echo 2 >b; git add b; echo latest >a");
    holding.kill();
    waiting.wait_for_line("done");
    assert_eq!(files(&mount, "HEAD"), "M a");
    assert_eq!(sh(&mount, "git show HEAD:a :a; cat a"), "called\nlater\nlatest");
    assert_eq!(status(&mount), ["MM a", "M  b"]);
}

/// Paths are git's pathspecs, from the current directory.
#[test]
fn paths_are_those_of_git_in_the_current_directory() {
    let mount = world();
    sh(
        &mount,
        "echo 2 >sub/c; echo n >sub/new.x; echo 2 >a; cd sub; $LOCKFS commit -qm mine -- c '*.x'",
    );
    assert_eq!(files(&mount, "HEAD"), "M sub/c A sub/new.x");
    assert_eq!(status(&mount), [" M a"]);
    sh(&mount, "cd sub; $LOCKFS commit -qm rest :/");
    assert_eq!(files(&mount, "HEAD"), "M a");
    nothing_left_behind(&mount);
}

#[test]
fn modes_links_and_odd_names_are_committed() {
    let mount = world();
    sh(
        &mount,
        r#"chmod +x a; ln -s a link; name=$(printf 'tab\there "q" \\ n\nl'); echo x >"$name"; echo x >'[a]'
        $LOCKFS commit -qm mine -- a link "$name" '[a]'"#,
    );
    assert_eq!(status(&mount), [""; 0]);
    let modes = sh(&mount, "git ls-tree HEAD a link | cut -d' ' -f1 | tr '\\n' ' '");
    assert_eq!(modes.trim(), "100755 120000");
    nothing_left_behind(&mount);
}

/// The first commit of a repository, too.
#[test]
fn the_first_commit_of_a_branch_works() {
    let mount = Mount::new();
    sh(
        &mount,
        "git switch -q --orphan fresh; echo 1 >a; echo 1 >b; git add b; $LOCKFS commit -qm mine -- a",
    );
    assert_eq!(
        sh(&mount, "git rev-list --count HEAD; git ls-tree --name-only HEAD"),
        "1\na"
    );
    assert_eq!(status(&mount), ["A  b"]);
    nothing_left_behind(&mount);
}

/// works from linked worktrees
#[test]
fn a_linked_worktree_and_a_detached_head_work() {
    let mount = world();
    sh(
        &mount,
        "git worktree add -q --detach $T/linked; cd $T/linked; echo 2 >a; echo 2 >b; $LOCKFS commit -qm mine -- a",
    );
    let said = sh(
        &mount,
        "cd $T/linked; git show --format=%s --name-only; git status --porcelain",
    );
    assert_eq!(said, "mine\n\na\n M b");
    assert_eq!(sh(&mount, "git log -1 --format=%s"), "files");
    nothing_left_behind(&mount);
}

/// Under the worktree lock, and that of the branch.
#[test]
fn the_locks_of_worktree_and_branch_are_held() {
    let mount = world();
    sh(
        &mount,
        "printf '#!/bin/sh\\nls $L >$T/locks; echo $GIT_LOCKFS_HELD >$T/held\\n' >.git/hooks/pre-commit; chmod +x .git/hooks/pre-commit; echo 2 >a",
    );
    sh(&mount, "$LOCKFS commit -qm mine --session agent-7 -- a");
    let held = sh(&mount, "cat $T/locks $T/held");
    for name in ["main-worktree.lock", "ref-refs%2Fheads%2Fmain.lock"] {
        assert_eq!(held.matches(name).count(), 2, "held, and passed down: {held}");
    }
    nothing_left_behind(&mount);
}

/// Inside a `run` that holds the worktree's lock it does not wait for it.
#[test]
fn inside_a_run_it_does_not_wait_for_itself() {
    let mount = world();
    for outer in ["", "-l global.lock"] {
        sh(
            &mount,
            &format!("echo {outer} x >>a; $LOCKFS run {outer} -- $LOCKFS commit -qm mine --wait 0 -- a"),
        );
        assert_eq!(files(&mount, "HEAD"), "M a");
    }
    nothing_left_behind(&mount);
}

/// The options are those of git commit.
#[test]
fn messages_authors_and_trailers_are_gits() {
    let mount = world();
    sh(
        &mount,
        "echo 2 >a; $LOCKFS commit -q -m one -m two -s --trailer Issue=7 --author 'X Y <x@y>' --date 2020-02-02T02:02:02Z -- a",
    );
    let said = sh(&mount, "git log -1 --format=%B%an%n%ad --date=format:%Y");
    for word in ["one\n\ntwo\n", "Signed-off-by: C O Mitter", "Issue: 7", "\nX Y\n2020"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    sh(&mount, "echo 3 >a; echo from a file | $LOCKFS commit -q -F - -- a");
    assert_eq!(sh(&mount, "git log -1 --format=%s"), "from a file");
    sh(&mount, "echo 4 >a; GIT_EDITOR='echo edited >' $LOCKFS commit -q -- a");
    assert_eq!(sh(&mount, "git log -1 --format=%s"), "edited");
    let quiet = mount.sh("echo 5 >a; $LOCKFS commit -qm quiet -- a").ok();
    assert_eq!(quiet.text() + &quiet.error(), "");
    let loud = mount.sh("echo 6 >a; $LOCKFS commit -m loud -- a").ok();
    assert!(loud.text().contains("loud"), "git's own words: {}", loud.text());
    wait_until("all is released", || mount.listed().is_empty());
}

/// With the transparent git first in PATH, the content is still that of the moment: what it starts itself takes no lock.
#[test]
fn a_coordinated_git_in_the_path_is_not_in_its_way() {
    let mount = world();
    let (holding, _) = holder_of(&mount, "main-worktree.lock");
    sh(&mount, "$LOCKFS install; echo called >a");
    let waiting = mount.spawn_sh("PATH=$PWD/.git/lockfs/bin:$PATH; $LOCKFS commit -qm mine -- a && echo done");
    mount.wait_for_waiters("main-worktree.lock", 1);
    sh(&mount, "echo later >a");
    holding.kill();
    waiting.wait_for_line("done");
    assert_eq!(sh(&mount, "git show HEAD:a; cat a"), "called\nlater");
    nothing_left_behind(&mount);
}
