//! "Looking never touches. ls, stat, find, cat, grep -r, tar and an editor's indexer take no lock, start nothing and
//! never hang."

use libc::{O_CREAT, O_RDWR, O_WRONLY};

use crate::support::{Mount, Said, require};

/// What the table says, without its ages and times.
fn holders(mount: &Mount) -> Vec<(String, u64, u64)> {
    let json = mount.locks_json();
    let locks = json["locks"].as_array().expect("locks is an array");
    let holder = |lock: &serde_json::Value| {
        let holder = &lock["holders"][0];
        (
            lock["name"].as_str().expect("a name").to_owned(),
            holder["pid"].as_u64().expect("a pid"),
            holder["token"].as_u64().expect("a token"),
        )
    };
    locks.iter().map(holder).collect()
}

/// Programs that walk the whole mount, with locks of every kind held and one waited for.
#[test]
fn programs_that_walk_the_mount_take_nothing_and_never_hang() {
    let mount = Mount::new();
    let (mut holder, mut waiter) = (mount.client(), mount.client());
    holder.open(mount.lock("open.lock"), O_WRONLY | O_CREAT).unwrap();
    holder.mkdir(mount.lock("mkdir.lock")).unwrap();
    let fd = holder.open(mount.door("flock.lock"), O_RDWR).unwrap();
    holder.flock(fd, libc::LOCK_EX).unwrap();
    waiter.begin_open(mount.lock("open.lock"), O_WRONLY | O_CREAT);
    mount.wait_for_waiters("open.lock", 1);
    let before = holders(&mount);
    assert_eq!(before.len(), 3, "{before:?}");
    require("busybox");
    let looks = [
        "ls -la $M $L $F $M/metrics",
        "ls -R $M",
        "find $M -ls",
        "find $M -type f -exec cat {} +",
        "stat $M/* $L/* $F/*",
        "cat $L/* $M/README $M/last-error $M/acquire $M/control $M/metrics/locks.json",
        "grep -r open.lock $M",
        // 1 says that a file changed between its stat and its read, as live figures may.
        "tar cf $T/all.tar -C $M . || test $? = 1",
        "cp -r $M $T/copy",
        "du -a $M",
        "wc -c $L/* $M/README",
        "head -c 10 $L/open.lock",
        "tail -n 3 $L/open.lock",
        "file=$(<$L/open.lock); test -n \"$file\"",
        "md5sum $L/*",
        "test -e $L/open.lock && test -f $L/open.lock && test -r $L/open.lock",
        "! test -e $L/free.lock",
        "! cat $L/free.lock",
        "! stat $L/free.lock",
        "cd $L && ls *.lock",
        "dd if=$L/open.lock of=/dev/null bs=3",
        "busybox cat $L/*",
        "busybox tar cf $T/b.tar -C $M . || test $? = 1",
        "busybox grep -r open $M",
    ];
    for look in looks {
        let said = mount.sh(look);
        assert!(said.status.success(), "{look}: {}\n{}", said.status, said.error());
        assert_eq!(holders(&mount), before, "after {look}");
        assert_eq!(mount.waiters("open.lock"), 1, "after {look}");
    }
    assert!(!waiter.answered());
}

/// "So `test -e` asks "is it taken?"", and asking takes nothing, however often.
#[test]
fn asking_for_a_free_lock_leaves_it_free() {
    let mount = Mount::new();
    let mut client = mount.client();
    for _ in 0..100 {
        assert!(!mount.taken("x.lock"));
        assert!(std::fs::read(mount.lock("x.lock")).is_err());
    }
    assert_eq!(holders(&mount), []);
    client
        .open(mount.lock("x.lock"), O_WRONLY | O_CREAT | libc::O_NONBLOCK)
        .unwrap();
}

/// "an editor's indexer": inotify watches and memory maps of the files are refused or harmless, never a lock.
#[test]
fn python_may_walk_map_and_watch() {
    let mount = Mount::new();
    let mut holder = mount.client();
    holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT).unwrap();
    let before = holders(&mount);
    let script = "import mmap, os
for place, dirs, files in os.walk(os.environ['M']):
    for name in files:
        path = os.path.join(place, name)
        os.access(path, os.W_OK); os.lstat(path); os.listxattr(path)
        with open(path, 'rb') as f:
            f.read()
            try: mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
            except (OSError, ValueError): pass
";
    require("python3");
    mount.python(script).ok();
    assert_eq!(holders(&mount), before);
}
