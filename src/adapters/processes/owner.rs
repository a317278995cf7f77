//! A PID that somebody wrote: which process was meant, and may it be named?
//!
//! The number means something in the writer's PID namespace only. FUSE translates the writer's own id for us, but not
//! what it writes: `1` from a container is that container's init.

use std::fs::{self, File};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;

use super::procfs::{Stat, Status};
use super::registry::{PinError, Pinned, Processes};

/// Why a process cannot be made an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// No live process with that PID can be seen from the writer's PID namespace and from ours.
    #[error("there is no such process")]
    NoSuchProcess,
    /// It is another user's, the first process of its PID namespace, or a thread of the kernel.
    #[error("it is another user's process, PID 1 or a thread of the kernel")]
    NotYours,
    /// No more processes can be pinned.
    #[error("too many processes are being watched")]
    Full,
}

impl Processes {
    /// Pins the process that a writer means by a PID, if it lives and belongs to the writer's user.
    pub fn check_owner(&self, writer_tid: u32, writer_uid: u32, pid_written: u32) -> Result<Pinned, OwnerError> {
        let writer = Status::of(writer_tid).ok_or(OwnerError::NoSuchProcess)?;
        let depth = writer
            .namespace_pids()
            .len()
            .checked_sub(1)
            .ok_or(OwnerError::NoSuchProcess)?;
        let pid = match depth {
            0 => pid_written,
            _ => translate(writer_tid, depth, pid_written).ok_or(OwnerError::NoSuchProcess)?,
        };
        let found = self.resolve(pid).map_err(OwnerError::from)?;
        // Threads have numbers too, but those are no PIDs.
        if found.pidfd.pid() != pid {
            return Err(OwnerError::NoSuchProcess);
        }
        // Held now: what is read from here on is about this process.
        let uid = found.pidfd.info().ok_or(OwnerError::NoSuchProcess)?.uid;
        let status = Status::of(pid).ok_or(OwnerError::NoSuchProcess)?;
        let stat = Stat::of(pid).ok_or(OwnerError::NoSuchProcess)?;
        if status.namespace_pids().get(depth) != Some(&pid_written) || found.pidfd.has_exited() {
            return Err(OwnerError::NoSuchProcess);
        }
        if pid_written == 1 || pid == 1 || stat.is_kernel_thread() || uid != writer_uid {
            return Err(OwnerError::NotYours);
        }
        Ok(self.register(found)?)
    }
}

/// Our PID for what is `wanted` in the PID namespace of a thread that lives `depth` levels below ours.
fn translate(writer_tid: u32, depth: usize, wanted: u32) -> Option<u32> {
    let home = namespace(writer_tid)?;
    let mut candidates = fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    candidates.find(|&pid: &u32| {
        let Some(pids) = Status::of(pid).map(|status| status.namespace_pids()) else {
            return false;
        };
        // It may live deeper still, and yet be seen from the writer's level.
        pids.get(depth) == Some(&wanted) && namespace_above(pid, pids.len() - 1 - depth) == Some(home)
    })
}

/// The identity of a thread's PID namespace. The path is resolved by procfs alone; no file of the thread is touched.
fn namespace(tid: u32) -> Option<(u64, u64)> {
    let metadata = fs::metadata(format!("/proc/{tid}/ns/pid")).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// The identity of the PID namespace so many levels above a process.
fn namespace_above(pid: u32, levels: usize) -> Option<(u64, u64)> {
    let mut at = File::open(format!("/proc/{pid}/ns/pid")).ok()?;
    for _ in 0..levels {
        // SAFETY: takes no argument; a result that is not negative is a new descriptor of ours.
        let fd = unsafe { libc::ioctl(at.as_raw_fd(), libc::NS_GET_PARENT) };
        if fd < 0 {
            return None;
        }
        // SAFETY: see above; nobody else knows this descriptor.
        at = File::from(unsafe { OwnedFd::from_raw_fd(fd) });
    }
    let metadata = at.metadata().ok()?;
    Some((metadata.dev(), metadata.ino()))
}

impl From<PinError> for OwnerError {
    fn from(error: PinError) -> Self {
        match error {
            PinError::Gone => Self::NoSuchProcess,
            PinError::Full => Self::Full,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use nix::unistd::getuid;

    use super::super::testing::{Program, processes};
    use super::*;

    fn this_thread() -> u32 {
        u32::try_from(nix::unistd::gettid().as_raw()).expect("positive")
    }

    #[test]
    fn a_live_process_of_ones_own_can_be_an_owner() {
        let processes = processes();
        let mut program = Program::sleeping();
        let me = getuid().as_raw();
        let owner = processes.check_owner(this_thread(), me, program.pid()).expect("ours");
        assert_eq!((owner.pid, owner.parent), (program.pid(), std::process::id()));
        assert_eq!(processes.pin(program.pid()), Some(owner), "known by the same id");
        program.kill();
        super::super::testing::wait_until("its end", || !processes.alive(owner.id));
        let refused = processes.check_owner(this_thread(), me, program.pid());
        assert_eq!(refused, Err(OwnerError::NoSuchProcess), "a zombie");
        program.reap();
        let refused = processes.check_owner(this_thread(), me, program.pid());
        assert_eq!(refused, Err(OwnerError::NoSuchProcess), "and after");
    }

    #[test]
    fn nobody_else_can() {
        let processes = processes();
        let me = getuid().as_raw();
        let check = |uid, pid| processes.check_owner(this_thread(), uid, pid);
        assert_eq!(check(0, 1), Err(OwnerError::NotYours), "PID 1, even for root");
        assert_eq!(check(me, 0), Err(OwnerError::NoSuchProcess));
        assert_eq!(check(me, u32::MAX), Err(OwnerError::NoSuchProcess));
        assert_eq!(
            check(me + 1, std::process::id()),
            Err(OwnerError::NotYours),
            "another user's"
        );
        let unseen = processes.check_owner(0, me, std::process::id());
        assert_eq!(
            unseen,
            Err(OwnerError::NoSuchProcess),
            "a writer in an unseen namespace"
        );
        if Stat::of(2).is_some_and(|stat| stat.is_kernel_thread()) {
            assert_eq!(check(0, 2), Err(OwnerError::NotYours), "kthreadd");
        } else {
            eprintln!("skipped: no kernel thread can be seen from here");
        }
    }

    #[test]
    fn the_id_of_a_thread_is_no_pid() {
        let processes = processes();
        let me = getuid().as_raw();
        let thread = std::thread::spawn(move || processes.check_owner(this_thread(), me, this_thread()));
        assert_eq!(thread.join().expect("no panic"), Err(OwnerError::NoSuchProcess));
    }

    #[test]
    fn a_pid_is_read_where_it_was_written() {
        let processes = processes();
        let me = getuid().as_raw();
        let mut command = Command::new("unshare");
        command.args(["-Urpf", "--kill-child", "--mount-proc", "bash", "-c"]);
        command.arg("sleep 600 & echo $!; unshare -pf bash -c 'echo inner; sleep 600' & wait");
        let mut inside = Program::start(command.stderr(std::process::Stdio::null()));
        let first = inside.line();
        let Ok(sleeper) = first.parse::<u32>() else {
            eprintln!("skipped: no PID namespace can be made here");
            return;
        };
        assert_eq!(inside.line(), "inner");
        // unshare forks the shell, which is the namespace's PID 1.
        let shell: u32 = fs::read_to_string(format!("/proc/{0}/task/{0}/children", inside.pid()))
            .expect("the kernel tells children")
            .trim()
            .parse()
            .expect("one child");
        let check = |pid| processes.check_owner(shell, me, pid);
        let owner = check(sleeper).expect("the sleeper inside");
        assert_eq!(owner.parent, shell);
        assert_ne!(owner.pid, sleeper, "its PID out here is another one");
        assert_eq!(check(1), Err(OwnerError::NotYours), "their own init");
        assert_eq!(
            check(shell),
            Err(OwnerError::NoSuchProcess),
            "a PID of ours means nothing there"
        );
        // The program in the namespace within is seen from the one around it, under the number it has there.
        let deepest = fs::read_dir("/proc")
            .expect("proc is there")
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .filter_map(|pid: u32| Some((pid, Status::of(pid)?.namespace_pids())))
            .find(|(pid, pids)| pids.len() == 3 && namespace_above(*pid, 1) == namespace(shell))
            .expect("a process two levels down");
        assert_eq!(check(deepest.1[1]).map(|owner| owner.pid), Ok(deepest.0));
    }
}
