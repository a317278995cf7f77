//! symlink locks.

use libc::{O_NONBLOCK, O_RDONLY, O_WRONLY};

use crate::support::sys::{self, Errno};
use crate::support::{Mount, Op, Said};

fn symlink(mount: &Mount, target: &str) -> Op {
    Op::Symlink {
        target: target.to_owned(),
        path: mount.lock("x.lock"),
    }
}

/// "symlink locks are answered as a link, later looked up as a regular file"
#[test]
fn a_symlink_lock_is_looked_up_as_a_file() {
    let mount = Mount::new();
    let (mut keeper, mut stranger) = (mount.client(), mount.client());
    keeper.call(symlink(&mount, "0")).unwrap();
    assert_eq!(keeper.kind(mount.lock("x.lock")).unwrap(), "file");
    assert_eq!(stranger.kind(mount.lock("x.lock")).unwrap(), "file");
    assert_eq!(stranger.call(symlink(&mount, "0")), Err(Errno::EEXIST));
    keeper.unlink(mount.lock("x.lock")).unwrap();
    stranger.call(symlink(&mount, "0")).unwrap();
}

/// "the target counts as their text"
#[test]
fn the_target_of_a_symlink_is_its_text() {
    let mount = Mount::new();
    let mut owner = mount.client();
    let line = format!("{}:agent-7:1763647200", owner.pid());
    owner.call(symlink(&mount, &line)).unwrap();
    assert_eq!(mount.text_of("x.lock").unwrap().lines().next(), Some(line.as_str()));
    assert_eq!(mount.field_of("x.lock", "held").as_deref(), Some("owner"));
    owner.kill();
    mount.wait_until_free("x.lock");
}

/// "nobody is ever redirected"
#[test]
fn a_symlink_lock_leads_nowhere() {
    let mount = Mount::new();
    let secret = mount.dir().join("secret");
    std::fs::write(&secret, "untouched").unwrap();
    let (mut keeper, mut stranger) = (mount.client(), mount.client());
    let to_file = symlink(&mount, secret.to_str().unwrap());
    assert_eq!(keeper.call(to_file), Err(Errno::EINVAL), "a path is no text of a lock");
    assert!(!mount.taken("x.lock"));
    let pid = keeper.pid();
    keeper.call(symlink(&mount, &pid.to_string())).unwrap();
    let written = stranger.open(mount.lock("x.lock"), O_WRONLY | O_NONBLOCK);
    assert_eq!(written, Err(Errno::EAGAIN));
    let text = stranger.cat(mount.lock("x.lock")).unwrap();
    assert!(text.starts_with(&format!("{pid}\n")), "{text}");
    drop(sys::open(mount.lock("x.lock"), O_RDONLY | libc::O_NOFOLLOW).expect("a regular file"));
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "untouched");
}

/// `ln -s` in a shell script, as Emacs and many scripts lock
#[test]
fn ln_s_takes_it_once() {
    let mount = Mount::new();
    let said =
        mount.sh("ln -s $$ $L/x.lock && echo took; ln -s $$ $L/x.lock 2>/dev/null || echo refused; rm $L/x.lock");
    assert_eq!(said.ok().text(), "took\nrefused");
    assert!(!mount.taken("x.lock"));
}
