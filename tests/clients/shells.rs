//! Redirection in bash, dash, zsh and busybox sh.

use libc::{O_CREAT, O_WRONLY};

use crate::support::{Mount, Said};

const SHELLS: [&str; 4] = ["bash", "dash", "zsh", "busybox"];

#[test]
fn an_open_descriptor_holds_until_it_is_closed() {
    let mount = Mount::new();
    for shell in SHELLS {
        for redirection in [">", ">>"] {
            let script = format!(
                "exec 9{redirection}$L/x.lock || exit 75; test -e $L/x.lock && echo held; exec 9>&-; test -e $L/x.lock || echo free"
            );
            assert_eq!(
                mount.sh_with(shell, &script).ok().text(),
                "held\nfree",
                "{shell} {redirection}"
            );
        }
    }
}

#[test]
fn a_braced_section_is_held_for_its_length() {
    let mount = Mount::new();
    for shell in SHELLS {
        let script = "{ test -e $L/x.lock && echo inside; } 9>$L/x.lock; test -e $L/x.lock || echo outside";
        assert_eq!(mount.sh_with(shell, script).ok().text(), "inside\noutside", "{shell}");
    }
}

#[test]
fn a_redirection_waits_for_the_lock() {
    let mount = Mount::new();
    let mut holder = mount.client();
    for shell in SHELLS {
        for redirection in [">", ">>"] {
            let fd = holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
            let script = format!("exec 9{redirection}$L/x.lock || exit 75; echo got it");
            let waiter = mount.spawn(mount.script(shell, &script));
            mount.wait_for_waiters("x.lock", 1);
            assert_eq!(waiter.state(), 'S', "{shell} sleeps interruptibly");
            holder.close(fd);
            assert_eq!(waiter.finish().ok().text(), "got it", "{shell}");
        }
    }
}

#[test]
fn noclobber_takes_it_now_or_fails() {
    // zsh opens a name that exists once more, without O_EXCL, to see whether it is a regular file: so there it waits.
    let mount = Mount::with(&[("wait", "200ms")]);
    for shell in SHELLS {
        let noclobber = if shell == "zsh" { "setopt noclobber" } else { "set -C" };
        let script = format!(
            "{noclobber}; (echo $$ > $L/x.lock) && echo took; (echo $$ > $L/x.lock) 2>/dev/null || echo refused
rm $L/x.lock; (: > $L/x.lock) && echo again; rm $L/x.lock"
        );
        assert_eq!(
            mount.sh_with(shell, &script).ok().text(),
            "took\nrefused\nagain",
            "{shell}"
        );
    }
}

#[test]
fn a_written_pid_holds_for_the_shell() {
    let mount = Mount::new();
    for shell in SHELLS {
        let script =
            "echo $$ > $L/x.lock || exit 75; grep held= $L/x.lock; test \"$(head -n 1 $L/x.lock)\" = $$ && echo mine";
        assert_eq!(mount.sh_with(shell, script).ok().text(), "held=owner\nmine", "{shell}");
        mount.wait_until_free("x.lock");
    }
}

#[test]
fn a_read_write_handle_is_no_lock() {
    let mount = Mount::new();
    for shell in SHELLS {
        let script = "exec 9<>$L/x.lock; test -e $L/x.lock || echo free; flock -n 9 && test -e $L/x.lock && echo held";
        assert_eq!(mount.sh_with(shell, script).ok().text(), "free\nheld", "{shell}");
    }
}

#[test]
fn mkdir_is_a_lock_in_every_shell() {
    let mount = Mount::new();
    for shell in SHELLS {
        let script = "mkdir $L/x.lock && echo took; mkdir $L/x.lock 2>/dev/null || echo refused; rmdir $L/x.lock && mkdir $L/x.lock && echo again; rmdir $L/x.lock";
        assert_eq!(
            mount.sh_with(shell, script).ok().text(),
            "took\nrefused\nagain",
            "{shell}"
        );
    }
}

#[test]
fn zsh_has_an_fcntl_lock_of_its_own() {
    let mount = Mount::new();
    let script = "zmodload zsh/system; zsystem flock -f fd $F/x.lock && test -e $L/x.lock && echo held
(zsystem flock -t 0 $F/x.lock) || echo refused; zsystem flock -u $fd; test -e $L/x.lock || echo free";
    assert_eq!(mount.sh_with("zsh", script).ok().text(), "held\nrefused\nfree");
}

#[test]
fn a_trap_on_exit_gives_back_a_directory() {
    let mount = Mount::new();
    for shell in SHELLS {
        let script = "trap 'rm -r $L/x.lock' EXIT; mkdir $L/x.lock && echo $$ > $L/x.lock/pid && echo working";
        assert_eq!(mount.sh_with(shell, script).ok().text(), "working", "{shell}");
        assert!(!mount.taken("x.lock"), "{shell}");
    }
}
