//! Two agents in one worktree cannot commit each other's work.

use std::time::Duration;

use crate::support::Said;
use crate::{nothing_left_behind, sh, status, world};

const WRITERS: usize = 8;
const COMMITS: usize = 10;
/// On two busy cores, with an unoptimised build.
const JOB_MAX: Duration = Duration::from_secs(300);

/// 8 writers in ONE worktree, each commits its own file again and again: 100 % success, no commit with foreign files, `git fsck`
/// clean
#[test]
fn eight_writers_share_a_worktree_and_no_commit_has_foreign_files() {
    let mount = world();
    sh(&mount, "git config lockfs.wait 5m; echo reload >$M/control");
    let script = format!(
        "for i in $(seq {COMMITS}); do echo $i >>file-$0; $LOCKFS commit -qm \"$0 $i\" -- file-$0 || echo \"failed: $?\"; done; echo finished"
    );
    let writers: Vec<_> = (1..=WRITERS)
        .map(|number| {
            let mut command = mount.script("bash", &script);
            command.arg(number.to_string());
            mount.spawn(command)
        })
        .collect();
    for mut writer in writers {
        let output = writer.finish_within(JOB_MAX).ok();
        assert_eq!(output.text(), "finished", "{}", output.error());
    }
    let log = sh(
        &mount,
        "git log --reverse --format='%s' --name-only main~80..main | grep .",
    );
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 2 * WRITERS * COMMITS, "one file a commit");
    for pair in lines.chunks(2) {
        let number = pair[0].split(' ').next().unwrap_or_default();
        assert_eq!(pair[1], format!("file-{number}"), "{}", pair[0]);
    }
    for number in 1..=WRITERS {
        let content = sh(&mount, &format!("git show main:file-{number} | tr '\\n' ' '"));
        let expected: Vec<String> = (1..=COMMITS).map(|i| i.to_string()).collect();
        assert_eq!(content.trim(), expected.join(" "), "file-{number}");
    }
    assert_eq!(status(&mount), [""; 0]);
    nothing_left_behind(&mount);
}
