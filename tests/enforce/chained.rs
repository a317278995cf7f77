//! Hooks and hook managers that were there before go on as they were, and uninstall leaves no trace.

use crate::support::{Repository, Said};
use crate::{refused, sh};

const COMMIT: &str = "git commit -q --allow-empty -m x";
/// A hook that writes its name, arguments and input down.
const TELLING: &str =
    r#"printf '#!/bin/sh\n{ echo "${0##*/} $*"; case $0 in *reference*) cat;; esac; } >>"$T/told"\n'"#;

/// Everything that uninstall has to put back, to the byte.
#[track_caller]
fn everything(repository: &Repository) -> String {
    sh(
        repository,
        "cd .git; find . \\( -name .git-locks -o -path ./objects -o -path ./lockfs -o -path ./logs -o -name COMMIT_EDITMSG \\) -prune -o -type f -exec sha256sum {} + -o -printf '%p %l %m\\n' | sort; cat config",
    )
}

fn plain() -> Repository {
    let repository = Repository::new();
    sh(
        &repository,
        "git config lockfs.enforce true; git config lockfs.onUnavailable deny; git worktree add -q $T/linked",
    );
    repository
}

/// chains to hooks that were there before
#[test]
fn a_hook_of_the_same_name_goes_on_running() {
    let repository = plain();
    sh(
        &repository,
        &format!("{TELLING} >.git/hooks/reference-transaction; chmod +x .git/hooks/reference-transaction"),
    );
    sh(
        &repository,
        &format!("{TELLING} >.git/hooks/pre-commit; chmod +x .git/hooks/pre-commit"),
    );
    let before = everything(&repository);
    sh(&repository, "$LOCKFS hook install");
    refused(&repository, COMMIT, &["deny"]);
    sh(&repository, "git config lockfs.onUnavailable allow; : >$T/told");
    sh(&repository, COMMIT);
    let told = sh(&repository, "cat $T/told");
    for line in [
        "pre-commit ",
        "reference-transaction prepared",
        "reference-transaction committed",
        " refs/heads/main",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
    sh(&repository, "echo 'exit 1' >>.git/hooks/reference-transaction");
    refused(&repository, COMMIT, &[]);
    sh(
        &repository,
        "sed -i '$d' .git/hooks/reference-transaction; git config lockfs.onUnavailable deny",
    );
    sh(&repository, "$LOCKFS hook uninstall");
    // The configuration was edited meanwhile, and has its lines again, if not its bytes.
    let hooks = |text: &str| {
        text.lines()
            .filter(|line| line.contains("hooks"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(hooks(&everything(&repository)), hooks(&before));
}

/// chains to hook managers: a relative directory of hooks is each worktree's own, and hooks may come later
#[test]
fn the_directory_of_a_hook_manager_goes_on_serving() {
    let repository = plain();
    sh(
        &repository,
        "git config core.hooksPath .husky/_; mkdir -p .husky/_ $T/linked/.husky/_",
    );
    let before = everything(&repository);
    sh(
        &repository,
        "$LOCKFS hook install; git config lockfs.onUnavailable allow",
    );
    sh(
        &repository,
        &format!("for w in . $T/linked; do {TELLING} >$w/.husky/_/pre-commit; chmod +x $w/.husky/_/pre-commit; done"),
    );
    sh(
        &repository,
        &format!("cd $T/linked; {COMMIT}; test $(wc -l <$T/told) = 1; cd $R; {COMMIT}"),
    );
    assert_eq!(sh(&repository, "cat $T/told"), "pre-commit \npre-commit ");
    sh(&repository, "echo 'exit 3' >>.husky/_/pre-commit");
    assert!(!repository.sh(COMMIT).status.success(), "its refusal counts");
    sh(&repository, &format!("cd $T/linked; {COMMIT}"));
    sh(&repository, "git config lockfs.onUnavailable deny");
    refused(
        &repository,
        "cd $T/linked; git commit -q --allow-empty --no-verify -m x",
        &["deny"],
    );
    sh(&repository, "$LOCKFS hook uninstall");
    assert_eq!(sh(&repository, "git config core.hooksPath"), ".husky/_");
    assert_eq!(everything(&repository).lines().count(), before.lines().count());
}

/// uninstall takes it all back, byte for byte
#[test]
fn uninstall_leaves_every_byte_as_it_was() {
    let with_manager = "printf '[core]\\n\\thooksPath=  \".hooks\" ; mine\\n' >>.git/config; mkdir .hooks";
    for prepare in [
        "true",
        with_manager,
        "echo exit >.git/hooks/reference-transaction; chmod +x .git/hooks/reference-transaction",
    ] {
        let repository = plain();
        sh(&repository, prepare);
        let before = everything(&repository);
        let said = sh(&repository, "$LOCKFS hook install");
        assert_ne!(said, "", "it says what it does");
        assert_eq!(
            sh(&repository, "$LOCKFS hook install"),
            "",
            "a second time there is nothing to do"
        );
        refused(&repository, COMMIT, &["deny"]);
        refused(&repository, &format!("cd $T/linked; {COMMIT}"), &["deny"]);
        assert_ne!(sh(&repository, "$LOCKFS hook uninstall"), "");
        assert_eq!(everything(&repository), before, "{prepare}");
        assert_eq!(sh(&repository, "$LOCKFS hook uninstall"), "");
        sh(&repository, COMMIT);
    }
}

/// `git lockfs install` and `uninstall` have the hook with them where it is wanted.
#[test]
fn install_brings_the_hook_where_it_is_enforced() {
    let repository = plain();
    let before = everything(&repository);
    sh(&repository, "$LOCKFS install");
    refused(&repository, COMMIT, &["deny"]);
    sh(&repository, "$LOCKFS uninstall");
    assert_eq!(everything(&repository), before);
    sh(
        &repository,
        "git config lockfs.enforce false; $LOCKFS install; test ! -e .git/hooks/reference-transaction",
    );
}

/// A bare repository has hooks too.
#[test]
fn a_bare_repository_is_guarded() {
    let repository = plain();
    sh(
        &repository,
        "git clone -q --bare . $T/bare.git; cd $T/bare.git; git config lockfs.enforce true; git config lockfs.onUnavailable deny; $LOCKFS hook install",
    );
    let before = sh(&repository, "git -C $T/bare.git for-each-ref");
    let said = repository
        .sh("git commit-tree -m x HEAD^{tree} >$T/new; git push -qf $T/bare.git $(cat $T/new):refs/heads/main");
    assert!(
        !said.status.success() && said.error().contains("deny"),
        "{}",
        said.error()
    );
    assert_eq!(sh(&repository, "git -C $T/bare.git for-each-ref"), before);
}
