//! flock(1) of util-linux. (Debian builds busybox without that applet.)

use libc::{LOCK_SH, O_CREAT, O_RDONLY, O_WRONLY};

use crate::support::{Mount, Said};

/// Both directories, as `$D` in a script.
const PLACES: [&str; 2] = ["$L", "$F"];

#[test]
fn a_command_runs_under_the_lock_and_its_exit_code_comes_back() {
    let mount = Mount::new();
    for place in PLACES {
        let said = mount.sh(&format!(
            "D={place}; flock $D/x.lock sh -c 'test -e $L/x.lock && echo held; exit 7'; echo $?; test -e $L/x.lock || echo free"
        ));
        assert_eq!(said.text(), "held\n7\nfree", "{place}");
    }
}

#[test]
fn n_gives_up_at_once_with_the_code_of_e() {
    let mount = Mount::new();
    let mut holder = mount.client();
    holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    for place in PLACES {
        let said = mount.sh(&format!(
            "D={place}; flock -n $D/x.lock true; echo $?; flock -n -E 9 $D/x.lock true; echo $?; flock -s -n $D/x.lock true; echo $?"
        ));
        assert_eq!(said.text(), "1\n9\n1", "{place}");
    }
}

#[test]
fn w_gives_up_after_its_time() {
    let mount = Mount::new();
    let mut holder = mount.client();
    holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    for place in PLACES {
        let said = mount.sh(&format!("D={place}; flock -w 0.2 -E 9 $D/x.lock true; echo $?"));
        assert_eq!(said.text(), "9", "{place}");
    }
    assert_eq!(mount.waiters("x.lock"), 0, "those who gave up have left the line");
}

#[test]
fn w_gets_it_when_it_comes_free_in_time() {
    let mount = Mount::new();
    let mut holder = mount.client();
    for place in PLACES {
        let fd = holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
        let waiter = mount.spawn_sh(&format!("D={place}; flock -w 15 $D/x.lock echo got it"));
        mount.wait_for_waiters("x.lock", 1);
        holder.close(fd);
        assert_eq!(waiter.finish().ok().text(), "got it");
    }
}

#[test]
fn s_shares_and_x_does_not() {
    let mount = Mount::new();
    let mut reader = mount.client();
    let fd = reader.open(mount.lock("x.lock"), O_RDONLY | O_CREAT).unwrap();
    reader.flock(fd, LOCK_SH).unwrap();
    for place in PLACES {
        let said = mount.sh(&format!(
            "D={place}; flock -s -n $D/x.lock echo shared; flock -x -n $D/x.lock echo exclusive; echo $?"
        ));
        assert_eq!(said.text(), "shared\n1", "{place}");
    }
}

#[test]
fn o_closes_the_descriptor_before_the_command() {
    let mount = Mount::new();
    for place in PLACES {
        let said = mount.sh(&format!(
            "D={place}; flock -o $D/x.lock sh -c 'ls -l /proc/self/fd | grep -c x.lock; test -e $L/x.lock && echo held'"
        ));
        assert_eq!(said.text(), "0\nheld", "{place}");
    }
}

#[test]
fn without_o_a_background_child_keeps_the_lock() {
    let mount = Mount::new();
    let said = mount.sh(
        "flock $L/x.lock sh -c 'sleep 60 & echo $! > $T/pid'; flock -n $L/x.lock true || echo kept
kill $(<$T/pid); flock -w 10 $L/x.lock echo free
flock -o $L/y.lock sh -c 'sleep 60 &'; flock -n $L/y.lock echo free at once",
    );
    assert_eq!(said.ok().text(), "kept\nfree\nfree at once");
}

#[test]
fn the_descriptor_form_locks_and_unlocks() {
    let mount = Mount::new();
    let forms = [
        "9<>$L/x.lock",
        "9<>$F/x.lock",
        "9>$F/x.lock",
        "9>>$F/x.lock",
        "9<$F/x.lock",
    ];
    for form in forms {
        let said = mount.sh(&format!(
            "exec {form}; flock -n 9 && echo locked; flock -n $F/x.lock true || echo excludes
flock -u 9; flock -n $F/x.lock echo unlocked; flock -s -n 9 && flock -s -n $F/x.lock echo shared
flock -x -n 9 && echo upgraded; exec 9>&-; flock -n $L/x.lock echo closed"
        ));
        assert_eq!(
            said.ok().text(),
            "locked\nexcludes\nunlocked\nshared\nupgraded\nclosed",
            "{form}"
        );
    }
    let said = mount.sh("(flock -n 9 || exit 1; echo in the section) 9<>$L/x.lock; test -e $L/x.lock || echo after it");
    assert_eq!(said.ok().text(), "in the section\nafter it");
}

#[test]
fn a_shell_that_opened_for_writing_holds_and_flock_agrees() {
    let mount = Mount::new();
    let said = mount.sh("exec 9>$L/x.lock; flock -n 9 && echo own; flock -n $F/x.lock true || echo others not");
    assert_eq!(said.text(), "own\nothers not");
}

#[test]
fn timeout_ends_a_waiting_flock() {
    let mount = Mount::new();
    let mut holder = mount.client();
    holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    for place in PLACES {
        let said = mount.sh(&format!("D={place}; timeout 0.2 flock $D/x.lock true; echo $?"));
        assert_eq!(said.text(), "124", "{place}");
        assert_eq!(mount.waiters("x.lock"), 0, "{place}");
    }
}
