//! Who may remove a lock, and what happens to others who try.

use libc::{LOCK_EX, O_CREAT, O_EXCL, O_RDONLY, O_WRONLY};

use crate::support::sys::{self, Errno};
use crate::support::{Mount, Op, Repository, Said, require};

/// "`rm`/`rmdir` by the holder, owner or keeper …: releases. By anyone else while it lives: EBUSY."
#[test]
fn a_lock_is_removed_by_its_holder_and_by_no_stranger() {
    let mount = Mount::new();
    let (mut holder, mut stranger) = (mount.client(), mount.client());
    let path = |name: &str| mount.lock(name);
    holder.open(path("descriptor"), O_WRONLY | O_CREAT).unwrap();
    let fd = holder.open(mount.door("flocked"), O_RDONLY).unwrap();
    holder.flock(fd, LOCK_EX).unwrap();
    let fd = holder.open(path("owner"), O_WRONLY | O_CREAT).unwrap();
    let pid = holder.pid();
    holder.write(fd, &format!("{pid}\n")).unwrap();
    holder.open(path("lease"), O_WRONLY | O_CREAT | O_EXCL).unwrap();
    holder.mkdir(path("directory")).unwrap();
    for name in ["descriptor", "flocked", "owner", "lease", "directory"] {
        assert_eq!(stranger.unlink(path(name)), Err(Errno::EBUSY), "{name}");
        assert_eq!(
            sys::unlink(path(name)),
            Err(Errno::EBUSY),
            "{name}: a parent is a stranger"
        );
        let removed = if name == "directory" {
            holder.rmdir(path(name))
        } else {
            holder.unlink(path(name))
        };
        assert_eq!(removed, Ok(0), "{name}");
        assert!(!mount.taken(name), "{name}");
        let now = stranger.open(path(name), O_WRONLY | O_CREAT | O_EXCL);
        now.unwrap_or_else(|errno| panic!("{name} is free: {errno}"));
    }
}

/// "or a descendant of it"
#[test]
fn a_descendant_of_the_owner_may_remove() {
    let mount = Mount::new();
    let said =
        mount.sh("echo $$ > $L/x.lock; bash -c 'sh -c \"rm $L/x.lock; :\"; :' && test ! -e $L/x.lock && echo free");
    assert_eq!(said.text(), "free");
    let said = mount.sh("mkdir $L/y.lock; (rmdir $L/y.lock; :) && echo free");
    assert_eq!(said.text(), "free");
}

/// "or when that process is gone: releases"
#[test]
fn anyone_may_remove_what_a_dead_keeper_left() {
    let mount = Mount::new();
    let (mut keeper, mut stranger) = (mount.client(), mount.client());
    let fd = keeper.open(mount.lock("file"), O_WRONLY | O_CREAT | O_EXCL).unwrap();
    keeper.close(fd);
    keeper.mkdir(mount.lock("directory")).unwrap();
    keeper.kill();
    crate::support::wait_until("the keeper is known to be gone", || {
        stranger.unlink(mount.lock("file")) == Ok(0)
    });
    stranger
        .rmdir(mount.lock("directory"))
        .expect("a directory to all, once its keeper is gone");
    assert_eq!(mount.listed(), [""; 0]);
}

/// "Otherwise ENOENT."
#[test]
fn a_free_lock_cannot_be_removed() {
    let mount = Mount::new();
    assert_eq!(sys::unlink(mount.lock("x.lock")), Err(Errno::ENOENT));
    assert_eq!(sys::rmdir(mount.lock("x.lock")), Err(Errno::ENOENT));
    assert_eq!(mount.sh("rm -f $L/x.lock").code(), 0);
}

/// "rename and link of somebody else's lock: EPERM."
#[test]
fn somebody_elses_lock_cannot_be_renamed_or_linked() {
    let mount = Mount::new();
    let (mut holder, mut stranger) = (mount.client(), mount.client());
    let (from, to) = (mount.lock("x.lock"), mount.lock("y.lock"));
    holder.open(&from, O_WRONLY | O_CREAT | O_EXCL).unwrap();
    let (rename, link) = (
        Op::Rename {
            from: from.clone(),
            to: to.clone(),
        },
        Op::Link { from, to },
    );
    assert_eq!(stranger.call(rename), Err(Errno::EPERM));
    assert_eq!(stranger.call(link), Err(Errno::EPERM));
    assert_eq!(mount.listed(), ["x.lock"]);
}

/// "Another user: EPERM."
#[test]
fn another_user_may_not_remove() {
    // SAFETY: geteuid cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        eprintln!("not tested here: only root can act as another user");
        return;
    }
    use std::os::unix::fs::PermissionsExt;
    let repository = Repository::new();
    let open_to_all = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(repository.dir(), open_to_all).unwrap();
    let mount = Mount::start(repository, &[], &["--allow-other"]);
    let mut holder = mount.client();
    let fd = holder.open(mount.lock("x.lock"), O_WRONLY | O_CREAT | O_EXCL).unwrap();
    holder.close(fd);
    let mut command = mount.command(require("setpriv"));
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "rm", "-f"])
        .arg(mount.lock("x.lock"));
    let said = mount.run(command);
    assert!(said.error().contains("Operation not permitted"), "{}", said.error());
    assert!(mount.taken("x.lock"));
}
