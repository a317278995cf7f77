//! What people look at: the dashboard in a real browser, the same over loopback, and `top` in a real terminal.

#[path = "support/mod.rs"]
mod support;

#[path = "dashboard/browser.rs"]
mod browser;
#[path = "dashboard/page.rs"]
mod page;
#[path = "dashboard/serve.rs"]
mod serve;
#[path = "dashboard/terminal.rs"]
mod terminal;
#[path = "dashboard/top.rs"]
mod top;
#[path = "dashboard/week.rs"]
mod week;

use std::path::PathBuf;

use support::{Client, Mount};

/// What the shell's `>` opens with.
const TAKE: i32 = libc::O_WRONLY | libc::O_CREAT | libc::O_TRUNC;

/// A client that holds a lock by an open; the descriptor with it.
fn holder(mount: &Mount, name: &str) -> (Client, i32) {
    let mut client = mount.client();
    let fd = client.open(mount.lock(name), TAKE).expect("a free lock is granted");
    (client, fd)
}

/// Where a test leaves pictures for people.
fn pictures() -> PathBuf {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("dashboard");
    std::fs::create_dir_all(&dir).expect("a directory for pictures");
    dir
}
