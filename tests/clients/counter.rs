//! "20 contenders × 200 increments of an unguarded counter, per dialect, exact".

use std::time::Duration;

use crate::support::{Client, Dialect, Mount, Op, Said, dialect};

const CONTENDERS: u32 = 20;
const INCREMENTS: u32 = 200;
/// Enough for a slow machine; a lost wake-up would take it whole.
const ALL_MAX: Duration = Duration::from_secs(90);

fn prepare(mount: &Mount) -> std::path::PathBuf {
    let counter = mount.dir().join("counter");
    std::fs::write(&counter, "0\n").expect("the counter can be written");
    counter
}

fn check(mount: &Mount, counter: &std::path::Path) {
    let text = std::fs::read_to_string(counter).expect("the counter is there");
    let expected = CONTENDERS * INCREMENTS;
    assert_eq!(text.trim(), expected.to_string(), "two were in the section at once");
    assert_eq!(mount.listed(), [""; 0], "nothing is left behind");
}

/// Counts with processes that make the calls of one dialect.
fn contend(dialect: Dialect) {
    let mount = Mount::new();
    let counter = prepare(&mount);
    let mut clients: Vec<Client> = (0..CONTENDERS).map(|_| mount.client()).collect();
    for client in &mut clients {
        client.begin(Op::Count {
            dialect,
            name: "x.lock".to_owned(),
            counter: counter.clone(),
            times: INCREMENTS,
        });
    }
    for client in &mut clients {
        assert_eq!(client.finish_within(ALL_MAX), Ok(i64::from(INCREMENTS)), "{dialect:?}");
    }
    check(&mount, &counter);
}

/// Counts with shells that take the lock as the script says; `$i` runs over the increments.
fn contend_in_bash(section: &str) {
    let mount = Mount::new();
    let counter = prepare(&mount);
    let script = format!("for ((i = 0; i < {INCREMENTS}; i++)); do\n{section}\ndone");
    let shells: Vec<_> = (0..CONTENDERS).map(|_| mount.spawn_sh(&script)).collect();
    for mut shell in shells {
        shell.finish_within(ALL_MAX).ok();
    }
    check(&mount, &counter);
}

#[test]
fn every_dialect_has_its_counter() {
    assert_eq!(dialect::ALL.len(), 16, "a new dialect needs a test below");
}

macro_rules! counters {
    ($($name:ident: $dialect:ident,)*) => {
        $(#[test]
        fn $name() {
            contend(Dialect::$dialect);
        })*
    };
}

counters! {
    redirection_counts_exactly: Redirect,
    appending_counts_exactly: Append,
    a_written_pid_counts_exactly: Owner,
    an_exclusive_open_counts_exactly: Exclusive,
    mkdir_counts_exactly: Mkdir,
    symlink_counts_exactly: Symlink,
    link_counts_exactly: Link,
    rename_counts_exactly: Rename,
    touch_counts_exactly: Touch,
    flock_counts_exactly: Flock,
    flock_through_the_door_counts_exactly: FlockDoor,
    fcntl_counts_exactly: Fcntl,
    fcntl_through_the_door_counts_exactly: FcntlDoor,
    ofd_counts_exactly: Ofd,
    acquire_counts_exactly: Acquire,
}

#[test]
fn bash_redirection_counts_exactly() {
    contend_in_bash("{ read -r n <$T/counter; echo $((n + 1)) >$T/counter; } 9>$L/x.lock || exit 75");
}

#[test]
fn bash_with_flock_of_a_descriptor_counts_exactly() {
    contend_in_bash("{ flock 9 && read -r n <$T/counter && echo $((n + 1)) >$T/counter; } 9<>$L/x.lock || exit 75");
}

#[test]
fn bash_with_a_pid_counts_exactly() {
    contend_in_bash(
        "echo $$ >$L/x.lock || exit 75; read -r n <$T/counter; echo $((n + 1)) >$T/counter; rm $L/x.lock || exit 76",
    );
}
