//! What the machine has: kernel, device, fusermount3, git, limits, sandbox.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::Command;

use nix::sys::resource::{Resource, getrlimit};

use super::{Check, Verdict};
use crate::cli::device;

/// The oldest kernel that everything is tried on.
const KERNEL_MIN: (u32, u32) = (5, 10);
/// Since then a request can be sent again after a crash.
const KERNEL_RESEND: (u32, u32) = (6, 9);
/// The oldest git: `--path-format` and `worktree` as we use them.
const GIT_MIN: (u32, u32) = (2, 38);
/// Below that many descriptors a daemon cannot watch many processes.
const DESCRIPTORS_MIN: u64 = 4096;

/// All checks of the machine; what only mounting takes is a mere warning where nothing needs to be mounted.
pub fn checks(needs_mount: bool) -> Vec<Check> {
    let for_mount = |check: Check| match check.verdict {
        Verdict::Fail if !needs_mount => Check {
            verdict: Verdict::Warn,
            ..check
        },
        _ => check,
    };
    let mut checks = vec![
        kernel(),
        for_mount(device_node()),
        for_mount(fusermount()),
        allow_other(),
        git(),
        descriptors(),
        sandbox(),
    ];
    checks.extend(["default_request_timeout", "max_request_timeout"].map(request_timeout));
    checks
}

fn kernel() -> Check {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let release = release.trim();
    match version(release) {
        Some(found) if found < KERNEL_MIN => Check::fail(
            "kernel",
            format!("Linux {release} is older than 5.10"),
            "boot a newer kernel",
        ),
        Some(found) if found < KERNEL_RESEND => Check::ok(
            "kernel",
            format!("Linux {release}; requests cannot be sent again after a crash before 6.9"),
        ),
        Some(_) => Check::ok("kernel", format!("Linux {release}")),
        None => Check::warn("kernel", "its version cannot be read", "mount /proc"),
    }
}

fn device_node() -> Check {
    match device::obstacle() {
        Some(device::Obstacle { finding, fix }) => Check::fail("device", finding, fix),
        None => match device::open_device() {
            Ok(()) => Check::ok("device", "/dev/fuse can be opened"),
            Err(_) => Check::ok("device", "/dev/fuse is opened by fusermount3 for us"),
        },
    }
}

fn fusermount() -> Check {
    const NAME: &str = "fusermount3";
    let Some(path) = device::fusermount() else {
        return if device::is_root() {
            Check::ok(NAME, "not installed; root mounts without it")
        } else {
            Check::fail(NAME, "not installed", "apt-get install fuse3")
        };
    };
    // In a user namespace root's files seem to be of nobody.
    let is_roots = |meta: &fs::Metadata| meta.uid() == 0 || in_user_namespace();
    let setuid_root = fs::metadata(&path).is_ok_and(|meta| is_roots(&meta) && meta.mode() & libc::S_ISUID != 0);
    if setuid_root || device::is_root() {
        Check::ok(NAME, path.display().to_string())
    } else {
        let fix = format!("sudo chown root {0} && sudo chmod u+s {0}", path.display());
        Check::fail(NAME, format!("{} is not setuid root", path.display()), fix)
    }
}

fn allow_other() -> Check {
    if device::is_root() || device::others_may_be_allowed() {
        Check::ok("allow_other", "can be asked for")
    } else {
        // Only who wants it needs it.
        Check::ok(
            "allow_other",
            format!(
                "not for ordinary users; to allow it: echo user_allow_other | sudo tee -a {}",
                device::FUSE_CONF
            ),
        )
    }
}

fn git() -> Check {
    let output = Command::new("git").arg("--version").output();
    let Ok(output) = output else {
        return Check::fail("git", "not installed", "apt-get install git");
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let found = text.trim().trim_start_matches("git version ").to_owned();
    match version(&found) {
        Some(parsed) if parsed >= GIT_MIN => Check::ok("git", found),
        _ => Check::fail("git", format!("{found} is older than 2.38"), "apt-get install git"),
    }
}

fn descriptors() -> Check {
    match getrlimit(Resource::RLIMIT_NOFILE) {
        Ok((_, hard)) if hard < DESCRIPTORS_MIN => Check::warn(
            "descriptors",
            format!("at most {hard} open files: the daemon watches each owner with one"),
            format!("raise `nofile` in /etc/security/limits.conf to {DESCRIPTORS_MIN} or more"),
        ),
        Ok((soft, hard)) => Check::ok(
            "descriptors",
            format!("{soft} open files, raised to {hard} by the daemon"),
        ),
        Err(error) => Check::warn("descriptors", error.to_string(), "ulimit -n"),
    }
}

/// What confines this process; locks work in there through a mount made outside.
fn sandbox() -> Check {
    let mut found = Vec::new();
    if ["/.dockerenv", "/run/.containerenv"]
        .iter()
        .any(|path| fs::exists(path).unwrap_or(false))
    {
        found.push("a container");
    }
    if in_user_namespace() {
        found.push("a user namespace");
    }
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    if status_field(&status, "Seccomp") == Some("2") {
        found.push("a seccomp filter");
    }
    if status_field(&status, "NoNewPrivs") == Some("1") && !device::is_root() {
        return Check::warn(
            "sandbox",
            "no_new_privs is set, so fusermount3 cannot mount",
            "run `git lockfs mount` outside of the sandbox; flock(1) on flock/NAME works inside",
        );
    }
    match found.as_slice() {
        [] => Check::ok("sandbox", "none seen"),
        // Whether it hinders is what the other checks say.
        some => Check::ok(
            "sandbox",
            format!("{}; a mount made outside works inside", some.join(", ")),
        ),
    }
}

fn in_user_namespace() -> bool {
    let whole_map = |map: String| map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    fs::read_to_string("/proc/self/uid_map").is_ok_and(|map| !whole_map(map))
}

fn request_timeout(name: &'static str) -> Check {
    let path = format!("/proc/sys/fs/fuse/{name}");
    let Ok(text) = fs::read_to_string(&path) else {
        return Check::ok(name, "this kernel has none");
    };
    match text.trim() {
        "0" => Check::ok(name, "off"),
        seconds => Check::warn(
            name,
            format!("the kernel ends the whole mount when one wait takes {seconds} s"),
            format!("sudo sysctl fs.fuse.{name}=0, or `git lockfs mount --wait` below that"),
        ),
    }
}

fn status_field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let value = |line: &'a str| line.strip_prefix(name)?.strip_prefix(':').map(str::trim);
    status.lines().find_map(value)
}

/// The first two numbers of a version.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_as_numbers() {
        assert_eq!(version("6.18.44-fc"), Some((6, 18)));
        assert_eq!(version("2.47.3"), Some((2, 47)));
        assert!(version("2.9.1") < Some(GIT_MIN));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn fields_of_a_status_are_whole_words() {
        let status = "Seccomp:\t2\nSeccomp_filters:\t1\n";
        assert_eq!(status_field(status, "Seccomp"), Some("2"));
        assert_eq!(status_field(status, "NoNewPrivs"), None);
    }
}
