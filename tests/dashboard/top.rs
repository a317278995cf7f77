//! `git lockfs top`, in a real terminal.

use crate::support::{Mount, Repository, Said, wait_until};
use crate::terminal::Terminal;
use crate::{TAKE, holder};

/// The program, and after it what it left of the terminal.
const TOP: &str = "echo before; $LOCKFS top -i 100ms; echo status=$?; stty -a | tr ' ;' '\\n\\n' | grep -x -e -echo -e echo \
                   -e -icanon -e icanon; exec cat";

/// It refreshes in place, and q gives the terminal back as it was.
#[test]
fn top_shows_what_comes_and_gives_the_terminal_back() {
    let mount = Mount::new();
    let terminal = Terminal::start(&mount, (100, 24), TOP);
    terminal.wait_for("No lock is taken.");
    assert!(terminal.is_drawn_on());
    let (holding, _) = holder(&mount, "x.lock");
    terminal.wait_for("x.lock");
    let mut waiting = mount.client();
    waiting.begin_open(mount.lock("x.lock"), TAKE);
    mount.wait_for_waiters("x.lock", 1);
    terminal.wait_for("1 waiting");
    terminal.press(&["Down"]);
    terminal.wait_for(&format!("{} (sid-", holding.pid()));
    terminal.wait_for(&format!("1. {}", waiting.pid()));
    std::fs::write(crate::pictures().join("top.txt"), terminal.screen()).expect("a picture for people");

    terminal.resize((60, 12));
    terminal.wait_for("q end");
    terminal.press(&["q"]);
    terminal.wait_for("status=0");
    // What stty(1) says last.
    terminal.wait_for("icanon");
    wait_until("all of it is said", || {
        terminal.screen().lines().any(|line| line == "echo")
    });
    let screen = terminal.screen();
    assert!(!terminal.is_drawn_on(), "{screen}");
    for line in ["before", "echo", "icanon"] {
        assert!(screen.lines().any(|shown| shown == line), "{line}: {screen}");
    }
}

/// p stops it, so that one can read.
#[test]
fn a_pause_keeps_the_picture() {
    let mount = Mount::new();
    let terminal = Terminal::start(&mount, (100, 24), TOP);
    let (mut holding, fd) = holder(&mount, "x.lock");
    terminal.wait_for("x.lock");
    terminal.press(&["p"]);
    terminal.wait_for("paused");
    holding.close(fd);
    let (_second, _) = holder(&mount, "y.lock");
    // A key is answered by a new drawing; what is drawn is still the old look.
    terminal.press(&["Down"]);
    terminal.wait_for("holds exclusive");
    assert!(!terminal.screen().contains("y.lock"), "{}", terminal.screen());
    terminal.press(&["p"]);
    terminal.wait_for("y.lock");
}

/// Signals end it as they end any program, and the terminal is given back.
#[test]
fn a_signal_gives_the_terminal_back() {
    let mount = Mount::new();
    let script = format!("echo $$ > $T/shell; {TOP}");
    let terminal = Terminal::start(&mount, (100, 24), &script);
    terminal.wait_for("No lock is taken.");
    mount.sh("kill -TERM $(pgrep -P $(cat $T/shell))").ok();
    terminal.wait_for("status=143");
    assert!(!terminal.is_drawn_on());
    terminal.wait_for("icanon");
}

/// A daemon that ends is told about after the terminal is given back.
#[test]
fn the_end_of_the_daemon_is_said_on_the_usual_screen() {
    let mount = Mount::new();
    let terminal = Terminal::start(&mount, (160, 24), TOP);
    terminal.wait_for("No lock is taken.");
    mount.lockfs(&["umount"]).ok();
    terminal.wait_for("status=69");
    assert!(!terminal.is_drawn_on());
    terminal.wait_for("git lockfs mount");
}

/// Ctrl-Z leaves it for a while.
#[test]
fn it_can_be_left_for_a_while() {
    let mount = Mount::new();
    let terminal = Terminal::start(&mount, (100, 24), "exec bash --norc -i");
    terminal.press(&["PS1='ready> '; $LOCKFS top -i 100ms", "Enter"]);
    terminal.wait_for("No lock is taken.");
    terminal.press(&["C-z"]);
    terminal.wait_for("Stopped");
    assert!(!terminal.is_drawn_on());
    terminal.press(&["fg", "Enter"]);
    wait_until("it draws again", || terminal.is_drawn_on());
    let (_holding, _) = holder(&mount, "x.lock");
    terminal.wait_for("x.lock");
    terminal.press(&["q"]);
    wait_until("it ends", || !terminal.is_drawn_on());
}

/// Without a terminal it says what to use instead.
#[test]
fn without_a_terminal_it_names_status() {
    let mount = Mount::new();
    let output = mount.lockfs(&["top"]);
    assert_eq!(output.code(), 2);
    assert!(
        output.error().contains("git lockfs status --watch"),
        "{}",
        output.error()
    );
    let repository = Repository::new();
    assert_eq!(
        repository.lockfs(&["top"]).code(),
        2,
        "what cannot work anywhere is said first"
    );
}
