//! dotlockfile(1), lockfile(1), touch(1), ln(1), cp(1), mv(1).

use libc::{O_CREAT, O_WRONLY};

use crate::support::{Mount, Said, require};

#[test]
fn dotlockfile_locks_refuses_checks_and_unlocks() {
    require("dotlockfile");
    let mount = Mount::new();
    let script = "dotlockfile -l -r 0 $L/x.lock && echo locked; dotlockfile -c $L/x.lock && echo checked
dotlockfile -l -r 0 $L/x.lock || echo refused $?
dotlockfile -u $L/x.lock && test ! -e $L/x.lock && echo unlocked";
    assert_eq!(mount.sh(script).ok().text(), "locked\nchecked\nrefused 4\nunlocked");
    assert_eq!(mount.listed(), [""; 0], "its scratch files are gone");
}

#[test]
fn dotlockfile_with_a_pid_holds_for_its_caller() {
    require("dotlockfile");
    let mount = Mount::new();
    let mut shell = mount.spawn_sh("dotlockfile -p -l -r 0 $L/x.lock && echo locked; while :; do sleep 60; done");
    shell.wait_for_line("locked");
    assert_eq!(mount.field_of("x.lock", "held").as_deref(), Some("owner"));
    assert_eq!(mount.sh("dotlockfile -l -r 0 $L/x.lock").code(), 4);
    assert_eq!(mount.sh("flock -n $F/x.lock true").code(), 1);
    shell.kill();
    mount.wait_until_free("x.lock");
    mount
        .sh("dotlockfile -l -r 0 $L/x.lock && dotlockfile -u $L/x.lock")
        .ok();
}

#[test]
fn dotlockfile_is_refused_by_every_kind_of_holder() {
    require("dotlockfile");
    let mount = Mount::new();
    for take in [
        "exec 9>$L/x.lock",
        "exec 9<>$L/x.lock; flock 9",
        "mkdir $L/x.lock",
        "echo $$ >$L/x.lock",
    ] {
        let mut holder = mount.spawn_sh(&format!("{take}; echo ready; while :; do sleep 60 9>&-; done"));
        holder.wait_for_line("ready");
        assert_eq!(mount.sh("dotlockfile -l -r 0 $L/x.lock").code(), 4, "{take}");
        holder.kill();
        // A directory is a lease without its keeper now; anyone may remove it.
        mount.sh("rmdir $L/x.lock 2>/dev/null; true").ok();
        mount.wait_until_free("x.lock");
    }
}

#[test]
fn procmails_lockfile_locks_refuses_and_is_removed() {
    require("lockfile");
    let mount = Mount::new();
    let script = "lockfile -r 0 $L/x.lock && echo locked; lockfile -r 0 $L/x.lock 2>/dev/null || echo refused
rm -f $L/x.lock && test ! -e $L/x.lock && echo removed; lockfile -r 0 $L/x.lock && echo again; rm -f $L/x.lock";
    assert_eq!(mount.sh(script).ok().text(), "locked\nrefused\nremoved\nagain");
    assert_eq!(mount.listed(), [""; 0], "its scratch files are gone");
}

#[test]
fn procmails_lockfile_holds_for_the_script_that_ran_it() {
    require("lockfile");
    let mount = Mount::new();
    let mut script = mount.spawn_sh("lockfile -r 0 $L/x.lock && echo locked; while :; do sleep 60; done");
    script.wait_for_line("locked");
    assert_ne!(mount.sh("lockfile -r 0 $L/x.lock").code(), 0);
    assert_ne!(mount.sh("rm $L/x.lock").code(), 0, "a stranger cannot remove it");
    script.kill();
    mount.sh("rm $L/x.lock").ok();
    assert!(!mount.taken("x.lock"));
}

#[test]
fn touch_takes_it_and_refuses_strangers() {
    let mount = Mount::new();
    assert_eq!(
        mount
            .sh("touch $L/x.lock && test -e $L/x.lock && rm $L/x.lock && echo done")
            .text(),
        "done"
    );
    let mut holder = mount.client();
    let fd = holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    assert_ne!(mount.sh("touch $L/x.lock").code(), 0);
    holder.close(fd);
    assert!(!mount.taken("x.lock"));
    let said =
        mount.sh("touch -d '2030-01-02 03:04:05.678 UTC' $L/x.lock && TZ=UTC stat -c %y $L/x.lock; rm $L/x.lock");
    assert_eq!(said.ok().text(), "2030-01-02 03:04:05.678000000 +0000");
}

#[test]
fn ln_s_and_ln_take_it_once() {
    let mount = Mount::new();
    let script = "ln -s $$ $L/x.lock && echo took; ln -s $$ $L/x.lock 2>/dev/null || echo refused; rm $L/x.lock
set -C; echo $$ > $L/.own && ln $L/.own $L/y.lock && echo linked; ln $L/.own $L/y.lock 2>/dev/null || echo refused
rm $L/.own; head -n 1 $L/y.lock | grep -qx $$ && echo mine; rm $L/y.lock";
    assert_eq!(mount.sh(script).ok().text(), "took\nrefused\nlinked\nrefused\nmine");
}

#[test]
fn cp_and_mv_bring_their_text_with_them() {
    let mount = Mount::new();
    let script = "echo $$ > $T/pid; cp $T/pid $L/x.lock && grep -o held=owner $L/x.lock; rm $L/x.lock
cp -p $T/pid $L/x.lock && echo with times; rm $L/x.lock
cp $T/pid $T/moved; mv $T/moved $L/y.lock && grep -o held=owner $L/y.lock; test -e $T/moved || echo moved
set -C; echo $$ > $L/.own; mv -n $L/.own $L/z.lock && head -n 1 $L/z.lock | grep -qx $$ && echo renamed
echo nonsense > $T/bad; cp $T/bad $L/bad.lock 2>/dev/null || echo refused; test -e $L/bad.lock || echo nothing left";
    let expected = "held=owner\nwith times\nheld=owner\nmoved\nrenamed\nrefused\nnothing left";
    assert_eq!(mount.sh(script).ok().text(), expected);
}

#[test]
fn cp_n_and_mv_leave_a_taken_lock_alone() {
    let mount = Mount::new();
    let mut holder = mount.client();
    holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let before = mount.text_of("x.lock");
    mount
        .sh("echo 0 > $T/zero; cp -n $T/zero $L/x.lock; mv -f $T/zero $L/x.lock; mv -T $L/x.lock $L/y.lock; true")
        .ok();
    assert_eq!(mount.text_of("x.lock"), before);
    assert_eq!(mount.listed(), ["x.lock"]);
}
