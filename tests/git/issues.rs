//! Locks of a session by name: `lock`, `unlock`, `check`, made of the files of `locks/`.

use super::support::{Mount, Repository, Said};

/// `git lockfs lock ISSUE --session S`: files `locks/ISSUE.lock` with `PID:session:timestamp`
#[test]
fn an_issue_is_a_lease_of_its_session() {
    let mount = Mount::new();
    mount.sh("$LOCKFS lock issue-71 --session agent-7 && cat $L/issue-71.lock > $T/text && $LOCKFS lock issue-71 --session agent-7").ok();
    let text = super::written(&mount, "text");
    let first = text.lines().next().expect("a line");
    let fields: Vec<&str> = first.split(':').collect();
    assert_eq!(fields.len(), 3, "{first}");
    assert!(
        fields[0].parse::<u32>().is_ok() && fields[1] == "agent-7" && fields[2].parse::<u64>().is_ok(),
        "{first}"
    );
    assert!(text.contains("held=lease"), "{text}");
}

#[test]
fn another_session_is_refused_and_told_who_has_it() {
    let mount = Mount::new();
    let script = "$LOCKFS lock x --session a || exit; $LOCKFS lock x --session b; echo $?; $LOCKFS unlock x --session b; echo $?; \
                  $LOCKFS check x --session b; echo $?; $LOCKFS check x --session a > /dev/null; echo $?; \
                  $LOCKFS unlock x --session a; echo $?; $LOCKFS check x; echo $?";
    let output = mount.sh(script);
    let said = output.text();
    let codes: Vec<&str> = said.lines().filter(|line| line.parse::<u8>().is_ok()).collect();
    assert_eq!(codes, ["75", "75", "75", "0", "0", "0"], "{said}{}", output.error());
    assert!(
        output.error().contains("session a") && said.contains("session a") && said.contains("x.lock is free"),
        "{said}"
    );
}

/// `unlock --session S` (all)
#[test]
fn a_session_lets_go_of_everything() {
    let mount = Mount::new();
    let script = "export GIT_LOCKFS_SESSION=a; $LOCKFS lock x && $LOCKFS lock y && GIT_LOCKFS_SESSION=b $LOCKFS lock z && \
                  $LOCKFS unlock --session a && ls $L";
    assert_eq!(mount.sh(script).ok().text(), "z.lock");
}

/// nobody alive is robbed by age; the keeper is whoever called
#[test]
fn the_lease_is_kept_for_the_caller() {
    let mount = Mount::with(&[("lease", "1s")]);
    let keeper = mount.spawn_sh("$LOCKFS lock x --session a && echo locked; exec sleep 100");
    keeper.wait_for_line("locked");
    let other = mount.sh("$LOCKFS run -l x.lock -w 3s -- true");
    assert_eq!(other.code(), 75, "kept while the caller lives");
    drop(keeper);
    mount.wait_until_free("x.lock");
}

#[test]
fn it_reads_by_machine_and_refuses_what_is_malformed() {
    let mount = Mount::new();
    let said = mount
        .sh("$LOCKFS lock x --session a; $LOCKFS check x --json --session a")
        .ok()
        .text();
    let json: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!((&json["free"], &json["yours"]), (&false.into(), &true.into()));
    assert_eq!(json["holder"]["session"], "a");
    for args in [
        &["lock", "x"][..],
        &["lock", "a/b", "--session", "s"],
        &["unlock"],
        &["lock", "x", "--session", "a:b"],
        &["check"],
    ] {
        assert_eq!(mount.lockfs(args).code(), 2, "{args:?}");
    }
    assert_eq!(mount.lockfs(&["unlock", "free"]).code(), 1, "it is not held");
    assert_eq!(Repository::new().lockfs(&["lock", "x", "--session", "a"]).code(), 69);
}
