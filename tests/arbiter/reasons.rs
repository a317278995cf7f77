//! `last-error`: why a call was refused, in a sentence.

use crate::support::client::Op;
use crate::support::sys::Errno;
use crate::support::{Mount, Said};
use crate::{TAKE, TRY, holder};

/// a sentence in `last-error` (the newest refusal by the daemon of the reader, its parent or grandparent)
#[test]
fn the_shell_that_was_refused_can_read_why() {
    let mount = Mount::new();
    // The redirection is refused to bash itself; cat is its child, then its grandchild.
    let child = mount.sh(": > $L/ref-a%zz.lock; cat $M/last-error; true").ok().text();
    assert!(child.contains("ref-a%zz.lock"), "{child}");
    let grandchild = mount
        .sh(": > $L/ref-b%zz.lock; (true; cat $M/last-error; true); true")
        .ok()
        .text();
    assert!(grandchild.contains("ref-b%zz.lock"), "{grandchild}");
    let own = mount
        .sh("exec bash -c ': > $L/ref-c%zz.lock; echo \"$(< $M/last-error)\"'")
        .ok()
        .text();
    assert!(own.contains("ref-c%zz.lock"), "{own}");
}

/// the newest refusal
#[test]
fn the_newest_refusal_counts() {
    let mount = Mount::new();
    let (holding, _) = holder(&mount, "x.lock");
    let script = ": > $L/ref-a%zz.lock; flock -n $F/x.lock true; cat $M/last-error; true";
    // What a program was told that has ended since is for the shell that ran it.
    assert!(mount.sh(script).text().contains("x.lock: held"));
    let mut client = mount.client();
    let reason = |client: &mut crate::Client| {
        let path = mount.path("last-error");
        client.ask(Op::Cat { path }).expect("last-error can be read")
    };
    assert_eq!(client.open(mount.lock("ref-a%zz.lock"), TAKE), Err(Errno::EINVAL));
    assert!(reason(&mut client).contains("ref-a%zz.lock"));
    assert_eq!(client.open(mount.lock("x.lock"), TRY), Err(Errno::EAGAIN));
    let sentence = reason(&mut client);
    assert!(sentence.contains("x.lock"), "{sentence}");
    assert!(
        sentence.contains(&holding.pid().to_string()),
        "it says who holds it: {sentence}"
    );
    assert!(!sentence.contains("ref-a%zz"), "{sentence}");
}

/// of the reader, its parent or grandparent
#[test]
fn strangers_do_not_see_each_others_refusals() {
    let mount = Mount::new();
    let mut refused = mount.client();
    assert_eq!(refused.open(mount.lock("ref-a%zz.lock"), TAKE), Err(Errno::EINVAL));
    let mut stranger = mount.client();
    let path = mount.path("last-error");
    assert!(!stranger.ask(Op::Cat { path }).unwrap().contains("ref-a%zz"));
}

/// Fail loudly: what is malformed is refused … with a sentence … and a line in the daemon's log.
#[test]
fn every_refusal_is_in_the_log() {
    let mount = Mount::new();
    mount.sh(": > $L/ref-a%zz.lock; true").ok();
    crate::support::wait_until("the log has it", || mount.daemon_log().contains("ref-a%zz.lock"));
}

/// why a call here was refused, in a sentence, and what to do
#[test]
fn each_kind_of_refusal_has_a_sentence() {
    let mount = Mount::with(&[("wait", "200ms")]);
    let (_holder, _) = holder(&mount, "x.lock");
    let refusals = [
        ("timed out", ": > $L/x.lock", "x.lock"),
        ("text", "echo nonsense > $L/y.lock", "PID"),
        ("dead PID", "sleep 0 & wait $!; echo $! > $L/y.lock", "y.lock"),
        ("PID 1", "echo 1 > $L/y.lock", "y.lock"),
        ("removing", "rm $L/x.lock", "x.lock"),
        ("scratch", ": 9<> $L/.hidden", ".hidden"),
        ("request", "echo lcoks=x.lock 1<> $M/acquire", "lcoks"),
        ("verb", "echo explode > $M/control", "explode"),
    ];
    for (what, refused, word) in refusals {
        let said = mount.sh(&format!("{refused}; cat $M/last-error; true")).text();
        let sentence = said.lines().last().unwrap_or_default();
        assert!(sentence.contains(word) && sentence.len() > 20, "{what}: {said:?}");
    }
}
