//! Files that are open or small: scratch files, files in a lock made by mkdir, and what somebody is about to read.

use libc::{O_CREAT, O_EXCL, O_RDONLY, O_WRONLY};

use crate::support::sys::Errno;
use crate::support::{Op, Said, wait_until};
use crate::{Crashing, EXCL, TAKE};

/// dotlockfile(1) and lockfile(1) write a scratch file and link(2) it to the lock's name.
#[test]
fn a_scratch_file_becomes_a_lock_after_a_crash() {
    let mount = Crashing::new();
    let mut client = mount.client();
    let scratch = mount.lock(".lk1");
    let fd = client.open(&scratch, O_WRONLY | O_CREAT | O_EXCL).unwrap();
    client.write(fd, &format!("{}\n", client.pid())).unwrap();
    mount.kill_worker();
    client.write(fd, "a note\n").unwrap();
    client.close(fd);
    mount.kill_worker();
    assert_eq!(client.cat(&scratch), Ok(format!("{}\na note\n", client.pid())));
    let link = Op::Link {
        from: scratch.clone(),
        to: mount.lock("x.lock"),
    };
    client.call(link.clone()).unwrap();
    mount.kill_worker();
    let same = mount.sh("stat -c '%i %h' $L/.lk1 $L/x.lock").ok().text();
    let lines: Vec<&str> = same.lines().collect();
    assert_eq!(lines[0], lines[1]);
    assert!(lines[0].ends_with(" 2"), "{same}");
    assert_eq!(client.call(link), Err(Errno::EEXIST));
    client.unlink(&scratch).unwrap();
    mount.kill_worker();
    assert_eq!(
        mount.sh("stat -c %h $L/x.lock; grep held= $L/x.lock").text(),
        "1\nheld=owner"
    );
    assert_eq!(client.cat(&scratch), Err(Errno::ENOENT));
    client.unlink(mount.lock("x.lock")).unwrap();
}

/// gone with their maker
#[test]
fn a_scratch_file_goes_with_its_maker() {
    let mount = Crashing::new();
    let mut client = mount.client();
    let fd = client.open(mount.lock(".lk1"), EXCL).unwrap();
    client.close(fd);
    mount.kill_worker();
    assert!(mount.taken(".lk1"));
    client.kill();
    wait_until("it is gone", || !mount.taken(".lk1"));
}

/// Up to 16 small files may lie in one; `rm -r` releases.
#[test]
fn a_directory_keeps_its_files() {
    let mount = Crashing::new();
    let script = "cd $L && mkdir x.lock && cd x.lock && echo one > a && echo two > b && exec 7>> a && echo ready
until test -e $T/go1; do sleep 0.02; done
cat a b; echo more >&7; echo $$ > pid; mv b c; echo written
until test -e $T/go2; do sleep 0.02; done
cat a c pid; ls; cd ..; rm -r x.lock && echo released";
    let shell = mount.spawn_sh(script);
    shell.wait_for_line("ready");
    mount.kill_worker();
    mount.sh(": > $T/go1").ok();
    shell.wait_for_line("written");
    mount.kill_worker();
    assert_eq!(mount.field_of("x.lock", "held").as_deref(), Some("owner"));
    mount.sh(": > $T/go2").ok();
    let pid = shell.id();
    let said = shell.finish().ok().text();
    let expected = format!("ready\none\ntwo\nwritten\none\nmore\ntwo\n{pid}\na\nc\npid\nreleased");
    assert_eq!(said, expected);
    assert!(!mount.taken("x.lock"));
}

/// A text that is written piece by piece.
#[test]
fn a_text_goes_on_where_it_was() {
    let mount = Crashing::new();
    let (mut client, fd) = mount.holder("x.lock");
    let pid = client.pid();
    client.write(fd, &format!("{pid}:agent-7\n")).unwrap();
    mount.kill_worker();
    client.write(fd, "first\n").unwrap();
    mount.kill_worker();
    client.write(fd, "second\n").unwrap();
    let text = mount.text_of("x.lock").expect("it is held");
    assert!(text.starts_with(&format!("{pid}:agent-7\n")), "{text}");
    assert!(text.ends_with("\nfirst\nsecond\n"), "{text}");
}

/// What was rendered at an open is read to its end by whoever opened it.
#[test]
fn who_reads_a_file_reads_on() {
    let paths = [
        "locks/x.lock",
        "flock/x.lock",
        "README",
        "metrics/locks.json",
        "acquire",
        "control",
    ];
    for path in paths {
        let mount = Crashing::new();
        let (_holder, _) = mount.holder("x.lock");
        let mut client = mount.client();
        let path = mount.path(path);
        let whole = client.cat(&path).unwrap();
        let fd = client.open(&path, O_RDONLY).unwrap();
        let mut read = client.read(fd, 10).unwrap();
        mount.kill_worker();
        read += &client.read(fd, 20).unwrap();
        mount.kill_worker();
        loop {
            let piece = client.read(fd, 4096).unwrap();
            if piece.is_empty() {
                break;
            }
            read += &piece;
        }
        if path.ends_with("locks.json") {
            let table: serde_json::Value = serde_json::from_str(&read).expect("one whole table");
            assert_eq!(table["locks"][0]["name"], "x.lock");
        } else {
            assert_eq!(read, whole, "{}", path.display());
        }
    }
}

/// A listing that was begun is finished.
#[test]
fn who_lists_a_directory_lists_on() {
    let mount = Crashing::new();
    let _held: Vec<_> = ["a.lock", "b.lock", "c.lock"].map(|name| mount.holder(name)).into();
    let script = "import os, time
entries = os.scandir(os.environ['L'])
print('open', flush=True)
while not os.path.exists(os.environ['T'] + '/go'): time.sleep(0.02)
print(sorted(entry.name for entry in entries), flush=True)
";
    let lists = mount.spawn_python(script);
    lists.wait_for_line("open");
    mount.kill_worker();
    mount.sh(": > $T/go").ok();
    let said = lists.finish().ok().text();
    assert!(said.ends_with("['a.lock', 'b.lock', 'c.lock']"), "{said}");
}

/// The nodes that the kernel remembers are good in the next worker's life, also those of names that are free by then.
#[test]
fn paths_that_the_kernel_remembers_lead_to_the_same_files() {
    let mount = Crashing::new();
    let mut client = mount.client();
    let fd = client.open(mount.lock("x.lock"), TAKE).unwrap();
    let script = "cd $L && stat -c %i x.lock . ../flock/x.lock ../metrics/locks.json ../acquire";
    let before = mount.sh(script).ok().text();
    mount.kill_worker();
    assert_eq!(mount.sh(script).ok().text(), before);
    client.close(fd);
    mount.wait_until_free("x.lock");
    let fd = client.open(mount.lock("x.lock"), TAKE).unwrap();
    assert_eq!(
        mount.sh(script).ok().text(),
        before,
        "st_ino is the same each time it returns"
    );
    client.close(fd);
    let shell = mount.spawn_sh("cd $L; echo there; until test -e $T/go; do sleep 0.02; done; echo $$ > y.lock && ls");
    shell.wait_for_line("there");
    mount.kill_worker();
    mount.sh(": > $T/go").ok();
    assert_eq!(shell.finish().ok().text(), "there\ny.lock");
}
