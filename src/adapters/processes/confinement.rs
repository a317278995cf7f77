//! Whether a caller is more confined than the daemon, which acts with the daemon's rights on its behalf.
//!
//! A sandbox can show itself in any namespace, the root directory, the groups, the LSM label, seccomp, no_new_privs or
//! the capabilities; whatever differs from ours counts, and so does what cannot be read. Everything is taken from the
//! calling *thread's* own /proc entry. Landlock shows nowhere in /proc, but without privileges it can be entered only
//! with no_new_privs, which does show.

use std::fs;
use std::io;
use std::path::PathBuf;

use super::procfs::{Status, read_bounded};

/// Every namespace a thread is in, or will put its children in: those are where its next program would live.
const NAMESPACES: &[&str] = &[
    "cgroup",
    "ipc",
    "mnt",
    "net",
    "pid",
    "pid_for_children",
    "time",
    "time_for_children",
    "user",
    "uts",
];
/// Where security modules show a thread's label; each kernel has some of these.
const LABELS: &[&str] = &["attr/current", "attr/apparmor/current", "attr/smack/current"];
/// Fields of /proc/TID/status, with what they are called in a sentence. The count of filters is told since Linux 5.9.
const FIELDS: &[(&str, &str)] = &[
    ("NoNewPrivs", "no_new_privs"),
    ("Seccomp", "seccomp mode"),
    ("Seccomp_filters", "number of seccomp filters"),
    ("Groups", "supplementary groups"),
    ("CapInh", CAPABILITIES),
    ("CapPrm", CAPABILITIES),
    ("CapEff", CAPABILITIES),
    ("CapBnd", CAPABILITIES),
    ("CapAmb", CAPABILITIES),
];
const CAPABILITIES: &str = "capabilities";
const LABEL_BYTES_MAX: u64 = 4096;

/// What binds the daemon itself, for comparison.
///
/// Read once: after its start the daemon changes none of it, and nobody else can.
#[derive(Clone, Debug)]
pub struct Confinement {
    own: Bounds,
}

/// What binds one thread. Something that this kernel does not have is `None` on both sides.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bounds {
    namespaces: Vec<Option<PathBuf>>,
    root: PathBuf,
    labels: Vec<Option<Vec<u8>>>,
    fields: Vec<Option<String>>,
    uid: Option<u32>,
}

impl Confinement {
    /// Reads what binds the calling thread, in the daemon.
    pub fn of_self() -> io::Result<Self> {
        let own = Bounds::read("thread-self")?;
        Ok(Self { own })
    }

    /// Finds the first thing in which a thread is confined otherwise than the daemon is.
    ///
    /// A thread that cannot be seen, or read whole, counts as confined. To be asked while the thread waits for an
    /// answer: then its id is nobody else's.
    pub fn check(&self, tid: u32) -> Result<(), &'static str> {
        if tid == 0 {
            return Err("PID namespace, which cannot be seen from here");
        }
        let theirs = Bounds::read(&tid.to_string()).map_err(|_| "state, which cannot be read")?;
        self.compare(&theirs)
    }

    fn compare(&self, theirs: &Bounds) -> Result<(), &'static str> {
        let own = &self.own;
        if own.namespaces != theirs.namespaces {
            return Err("namespaces");
        }
        if own.root != theirs.root {
            return Err("root directory");
        }
        if own.labels != theirs.labels {
            return Err("security label");
        }
        let is_mightier = own.uid != Some(0) && theirs.uid == Some(0) && theirs.can_all_that(own);
        for ((key, name), (ours, theirs)) in FIELDS.iter().zip(own.fields.iter().zip(&theirs.fields)) {
            // root on an ordinary user's mount has other groups and capabilities, and could take any it likes.
            let is_free = is_mightier && (key.starts_with("Cap") || *key == "Groups");
            if ours != theirs && !is_free {
                return Err(name);
            }
        }
        Ok(())
    }
}

impl Bounds {
    fn read(thread: &str) -> io::Result<Self> {
        let at = |name: &str| format!("/proc/{thread}/{name}");
        let links = NAMESPACES
            .iter()
            .map(|name| present(fs::read_link(at(&format!("ns/{name}")))));
        let labels = LABELS
            .iter()
            .map(|name| present(read_bounded(at(name), LABEL_BYTES_MAX)));
        let namespaces = links.collect::<io::Result<_>>()?;
        let labels = labels.collect::<io::Result<_>>()?;
        let root = fs::read_link(at("root"))?;
        let status = Status::at(&at("status")).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self {
            namespaces,
            root,
            labels,
            fields: FIELDS
                .iter()
                .map(|(key, _)| status.field(key).map(str::to_owned))
                .collect(),
            uid: status.number("Uid"),
        })
    }

    /// Whether its effective capabilities include all that the other could ever have.
    fn can_all_that(&self, other: &Self) -> bool {
        let set = |bounds: &Self, wanted: &str| {
            let index = FIELDS.iter().position(|(key, _)| *key == wanted)?;
            u64::from_str_radix(bounds.fields[index].as_deref()?, 16).ok()
        };
        match (set(self, "CapEff"), set(other, "CapBnd")) {
            (Some(mine), Some(theirs)) => mine & theirs == theirs,
            _ => false,
        }
    }
}

/// Tells "this kernel has no such thing" from "it may not be seen".
fn present<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        // A security module that is absent answers EINVAL; a kernel without the file has no such name.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::InvalidInput) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::testing::Program;
    use super::*;

    #[test]
    fn our_own_children_are_as_free_as_we_are() {
        let confinement = Confinement::of_self().expect("we can read ourselves");
        let program = Program::sleeping();
        assert_eq!(confinement.check(program.pid()), Ok(()));
        assert_eq!(confinement.check(std::process::id()), Ok(()));
        let thread = std::thread::spawn(move || confinement.check(nix::unistd::gettid().as_raw().unsigned_abs()));
        assert_eq!(thread.join().expect("no panic"), Ok(()));
    }

    #[test]
    fn the_unseen_are_confined() {
        let confinement = Confinement::of_self().expect("we can read ourselves");
        assert!(confinement.check(0).is_err());
        assert!(confinement.check(u32::MAX).is_err());
        let mut program = Program::sleeping();
        program.kill();
        program.reap();
        assert!(confinement.check(program.pid()).is_err());
    }

    #[test]
    fn every_kind_of_sandbox_shows() {
        let confinement = Confinement::of_self().expect("we can read ourselves");
        let inner = "echo in; read line";
        let wrappers: &[(&[&str], &str)] = &[
            (&["setpriv", "--no-new-privs"], "no_new_privs"),
            (&["setpriv", "--bounding-set", "-sys_admin"], CAPABILITIES),
            (&["setpriv", "--groups", "4242"], "supplementary groups"),
            (&["unshare", "-Ur"], "namespaces"),
            (&["unshare", "-m"], "namespaces"),
            (&["unshare", "-n"], "namespaces"),
            (&["unshare", "-Urm"], "namespaces"),
            (&["bwrap", "--die-with-parent", "--dev-bind", "/", "/"], "namespaces"),
        ];
        for (wrapper, expected) in wrappers {
            let mut command = Command::new(wrapper[0]);
            command
                .args(&wrapper[1..])
                .args(["bash", "-c", &format!("echo $$; {inner}")]);
            command.stderr(std::process::Stdio::null());
            if wrapper.contains(&"--bounding-set") && !nix::unistd::geteuid().is_root() {
                eprintln!("skipped: without privileges, setpriv leaves the bounding set as it is and says nothing");
                continue;
            }
            if Command::new(wrapper[0]).arg("--version").output().is_err() {
                eprintln!("skipped: {} is not installed", wrapper[0]);
                continue;
            }
            let mut program = Program::start(&mut command);
            if program.line().is_empty() || program.line() != "in" {
                eprintln!("skipped: {wrapper:?} is not allowed here");
                continue;
            }
            // bwrap watches over a child of its own in the sandbox; the others become the program.
            let pid = match wrapper[0] {
                "bwrap" => innermost_child(program.pid()),
                _ => program.pid(),
            };
            assert_eq!(confinement.check(pid), Err(*expected), "{wrapper:?}");
        }
    }

    fn innermost_child(pid: u32) -> u32 {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        match children.split_ascii_whitespace().next() {
            Some(child) => innermost_child(child.parse().expect("a PID")),
            None => pid,
        }
    }

    #[test]
    fn a_program_that_will_start_others_in_a_namespace_is_confined_now() {
        let confinement = Confinement::of_self().expect("we can read ourselves");
        let mut command = Command::new("unshare");
        command.args(["--pid", "bash", "-c", "echo in; read line"]);
        let mut program = Program::start(command.stderr(std::process::Stdio::null()));
        if program.line() == "in" {
            assert_eq!(confinement.check(program.pid()), Err("namespaces"));
        } else {
            eprintln!("skipped: a PID namespace is not allowed here");
        }
    }

    #[test]
    fn root_is_not_confined_by_being_more_than_the_owner() {
        let mut owner = Confinement::of_self().expect("we can read ourselves");
        let field = |key: &str| FIELDS.iter().position(|(name, _)| *name == key).expect("listed");
        let mut root = owner.own.clone();
        owner.own.uid = Some(1000);
        owner.own.fields[field("Groups")] = Some("1000 27".into());
        owner.own.fields[field("CapEff")] = Some("0000000000000000".into());
        owner.own.fields[field("CapBnd")] = Some("000001ffffffffff".into());
        root.uid = Some(0);
        root.fields[field("CapEff")] = Some("000001ffffffffff".into());
        assert_eq!(owner.compare(&root), Ok(()));
        root.fields[field("CapEff")] = Some("000000000000ffff".into());
        assert!(
            owner.compare(&root).is_err(),
            "a root that lacks something is a sandbox's"
        );
        root.fields[field("CapEff")] = Some("000001ffffffffff".into());
        root.fields[field("NoNewPrivs")] = Some("1".into());
        assert_eq!(owner.compare(&root), Err("no_new_privs"));
    }
}
