//! `git lockfs scope`: the table's answer for a command line, here and now.

use super::support::{Mount, Repository, Said};

fn scope(repository: &Repository, line: &str) -> String {
    let args: Vec<&str> = line.split(' ').collect();
    repository
        .lockfs(&[&["scope", "--"], args.as_slice()].concat())
        .ok()
        .text()
}

/// `git lockfs scope -- merge topic` prints the answer.
#[test]
fn the_answer_is_one_lock_a_line() {
    let repository = Repository::new();
    let merge = "main-worktree.lock exclusive\nmaintenance.lock shared\nref-refs%2Fheads%2Fmain.lock exclusive";
    assert_eq!(scope(&repository, "merge topic"), merge);
    assert_eq!(scope(&repository, "status"), "none");
    assert_eq!(
        scope(&repository, "worktree remove elsewhere"),
        "registry.lock exclusive"
    );
}

#[test]
fn each_worktree_has_its_own_answer() {
    let repository = Repository::new();
    repository.git(&["worktree", "add", "-q", "-b", "topic", "../linked"]);
    let expected = "maintenance.lock shared\nworktree-linked.lock exclusive";
    assert_eq!(scope(&repository, "-C ../linked add ."), expected);
    let commit = scope(&repository, "-C ../linked commit");
    assert!(commit.contains("ref-refs%2Fheads%2Ftopic.lock exclusive"), "{commit}");
    let switch = scope(&repository, "switch topic");
    assert!(
        switch.contains("ref-refs%2Fheads%2Ftopic.lock"),
        "it is claimed: {switch}"
    );
    let remove = scope(&repository, "worktree remove ../linked");
    assert!(remove.contains("worktree-linked.lock exclusive"), "{remove}");
}

/// Configurable by `git config lockfs.scope.<command>`; the coarse table stays as the preset `lockfs.scopes=coarse`.
#[test]
fn the_answer_is_configurable() {
    let repository = Repository::new();
    repository.git(&["config", "lockfs.scope.push", "worktree:shared deploy.lock"]);
    assert_eq!(
        scope(&repository, "push"),
        "deploy.lock exclusive\nmain-worktree.lock shared"
    );
    repository.git(&["config", "alias.ci", "commit -v"]);
    assert_eq!(scope(&repository, "ci"), scope(&repository, "commit"));
    repository.git(&["config", "lockfs.scopes", "coarse"]);
    assert_eq!(scope(&repository, "merge topic"), "global.lock exclusive");
    assert_eq!(scope(&repository, "commit"), "main-worktree.lock exclusive");
    assert_eq!(scope(&repository, "-c lockfs.scope.commit=none commit"), "none");
}

#[test]
fn json_has_the_same_facts() {
    let repository = Repository::new();
    let said = repository.lockfs(&["scope", "--json", "--", "add", "."]).ok().text();
    let json: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(json["version"], 1);
    assert_eq!(json["command"], "add");
    assert_eq!(json["locks"][0]["name"], "main-worktree.lock");
    assert_eq!(json["locks"][1]["mode"], "shared");
}

#[test]
fn a_scope_that_cannot_be_read_is_refused_by_its_key() {
    let repository = Repository::new();
    repository.git(&["config", "lockfs.scope.push", "work-tree"]);
    for args in [&["scope", "--", "push"][..], &["git", "--", "push"], &["mount"]] {
        let output = repository.lockfs(args);
        assert_eq!(output.code(), 1, "{args:?}");
        assert!(
            output.error().contains("lockfs.scope.push"),
            "{args:?}: {}",
            output.error()
        );
    }
    let outside = tempfile::tempdir().expect("a directory");
    let mut command = repository.command(env!("CARGO_BIN_EXE_git-lockfs"));
    command.args(["scope", "--", "push"]).current_dir(outside.path());
    assert_eq!(repository.run(command).code(), 1, "what it depends on is not there");
}

/// Keys of acquire: what is shared and what is exclusive comes in one request, together or none.
#[test]
fn a_request_has_both_modes() {
    let mount = Mount::new();
    let script = "exec 9<> $M/acquire; echo 'locks=x.lock shared=y.lock' >&9 || exit 75; \
                  flock -n $F/x.lock true && exit 1; flock -n $F/y.lock true && exit 2; flock -ns $F/y.lock true || exit 3";
    mount.sh(script).ok();
    let refused =
        mount.sh("exec 8> $L/y.lock; exec 9<> $M/acquire; echo 'locks=x.lock shared=y.lock wait=0' >&9; ls $L");
    assert_eq!(refused.text(), "y.lock", "together or none");
}
