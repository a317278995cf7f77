//! mkdir locks.

use libc::{LOCK_EX, LOCK_NB, O_CREAT, O_RDWR, O_WRONLY};

use crate::support::sys::Errno;
use crate::support::{Mount, Said, wait_until};

/// "mkdir locks are a directory to their keeper and its descendants …, a regular file to everyone else"
#[test]
fn a_directory_to_its_keeper_and_a_file_to_strangers() {
    let mount = Mount::new();
    let (mut keeper, mut stranger) = (mount.client(), mount.client());
    keeper.mkdir(mount.lock("x.lock")).unwrap();
    assert_eq!(keeper.kind(mount.lock("x.lock")).unwrap(), "dir");
    assert_eq!(stranger.kind(mount.lock("x.lock")).unwrap(), "file");
    assert_eq!(keeper.kind(mount.lock("x.lock")).unwrap(), "dir", "whoever asked last");
    let said = mount.sh("mkdir $L/y.lock; stat -c %F $L/y.lock; ls -d $L/y.lock/; cd $L/y.lock && pwd -P");
    let place = mount.lock("y.lock");
    let place = place.display();
    assert_eq!(said.ok().text(), format!("directory\n{place}/\n{place}"));
}

/// "(and to all once it is gone)"
#[test]
fn a_directory_to_all_once_its_keeper_is_gone() {
    let mount = Mount::new();
    let (mut keeper, mut stranger) = (mount.client(), mount.client());
    keeper.mkdir(mount.lock("x.lock")).unwrap();
    keeper.kill();
    wait_until("it is a directory to strangers", || {
        stranger.kind(mount.lock("x.lock")).as_deref() == Ok("dir")
    });
    stranger.rmdir(mount.lock("x.lock")).unwrap();
}

/// "so a stranger's flock or `>` waits instead of locking a directory of its own"
#[test]
fn a_strangers_flock_and_open_wait_for_a_directory() {
    let mount = Mount::new();
    let (mut keeper, mut one, mut two) = (mount.client(), mount.client(), mount.client());
    keeper.mkdir(mount.lock("x.lock")).unwrap();
    let fd = one.open(mount.lock("x.lock"), O_RDWR | O_CREAT).unwrap();
    assert_eq!(one.flock(fd, LOCK_EX | LOCK_NB), Err(Errno::EAGAIN));
    one.begin_flock(fd, LOCK_EX);
    mount.wait_for_waiters("x.lock", 1);
    two.begin_open(mount.lock("x.lock"), O_WRONLY | O_CREAT);
    mount.wait_for_waiters("x.lock", 2);
    keeper.rmdir(mount.lock("x.lock")).unwrap();
    one.finish().unwrap();
    assert!(!two.answered(), "one after the other");
    one.close(fd);
    two.finish().unwrap();
}

/// "Up to 16 small files may lie in one"
#[test]
fn up_to_16_files_lie_in_a_directory() {
    let mount = Mount::new();
    let said = mount.sh("mkdir $L/x.lock && cd $L/x.lock || exit
for i in $(seq 16); do echo text $i > file$i || echo failed $i; done
{ echo 17 > file17; } 2>$T/err || echo full
ls | wc -l
cat file1 file16
echo other > file2 && cat file2
rm file3 && echo 17 > file17 && cat file17
grep -o 'No space left' $T/err");
    let expected = "full\n16\ntext 1\ntext 16\nother\n17\nNo space left";
    assert_eq!(said.ok().text(), expected);
}

/// "`pid` counts as its text"
#[test]
fn a_file_named_pid_is_its_text() {
    let mount = Mount::new();
    let shell = mount.spawn_sh("mkdir $L/x.lock && echo $$:agent-7 > $L/x.lock/pid && echo ready; exec sleep 60");
    shell.wait_for_line("ready");
    assert_eq!(mount.field_of("x.lock", "held").as_deref(), Some("owner"));
    let text = mount.text_of("x.lock").unwrap();
    assert_eq!(text.lines().next(), Some(format!("{}:agent-7", shell.id()).as_str()));
    drop(shell);
    mount.wait_until_free("x.lock");
    let said = mount.sh("mkdir $L/y.lock; echo nonsense > $L/y.lock/pid || echo refused; rm -rf $L/y.lock");
    assert_eq!(said.text(), "refused");
}

/// "`rm -r` releases"
#[test]
fn rm_r_releases() {
    let mount = Mount::new();
    let said = mount.sh(
        "mkdir $L/x.lock && echo $$ > $L/x.lock/pid && echo note > $L/x.lock/note
rmdir $L/x.lock 2>$T/err || grep -o 'not empty' $T/err
test -d $L/x.lock && rm -r $L/x.lock && test ! -e $L/x.lock && echo free",
    );
    let text = said.ok().text();
    assert!(text.to_lowercase().ends_with("not empty\nfree"), "{text}");
}

/// "a regular file to everyone else": the lock's text, as of any other lock.
#[test]
fn a_stranger_reads_the_text_of_a_directory() {
    let mount = Mount::new();
    let (mut keeper, mut stranger) = (mount.client(), mount.client());
    keeper.mkdir(mount.lock("x.lock")).unwrap();
    let text = stranger.cat(mount.lock("x.lock")).unwrap();
    assert!(
        text.contains("\nheld=lease\n") && text.contains("\nmode=exclusive\n"),
        "{text}"
    );
}
