//! Who descends from whom.
//!
//! A walk up the tree of processes can be overtaken: a parent dies, its child is given to another one, the PID is
//! used again. So each step reads the parent's PID from a child that is held, opens it, and reads it once more: while
//! the child still names it, it was that process all along.

use super::procfs::{Stat, Status, has_thread};
use super::registry::{Pinned, Processes, Resolved};
use crate::adapters::Clock;
use crate::types::{ProcessId, Tick};

/// How far up a walk goes.
const LINEAGE_MAX: usize = 64;
/// How often one step is tried anew when a parent dies under it.
const STEP_TRIES: usize = 8;

/// Programs that adopt the orphans of others (PR_SET_CHILD_SUBREAPER, or as the first process of a container), by
/// their names as the kernel has them, 15 bytes at most. That a process is a subreaper cannot be seen from outside.
const SUBREAPERS: &[&str] = &[
    "systemd",
    "init",
    "tini",
    "tini-static",
    "dumb-init",
    "catatonit",
    "docker-init",
    "conmon",
    "s6-svscan",
    "runsvdir",
    "openrc-init",
    "dinit",
];
/// containerd-shim-runc-v2 and its kin, whose names the kernel cuts here.
const SUBREAPER_PREFIX: &str = "containerd-shim";

impl Processes {
    /// The process of a thread and then its ancestors, nearest first, at most `max`, all pinned.
    ///
    /// It ends before PID 1 (of any PID namespace), a known subreaper, our own process and what cannot be seen: none
    /// of them can be said to keep anything for its descendants. Empty when the thread itself cannot be pinned.
    pub fn ancestors(&self, tid: u32, max: usize) -> Vec<Pinned> {
        let mut line: Vec<Pinned> = Vec::new();
        while line.len() < max {
            let next = match line.last() {
                None => self.pin(tid),
                Some(child) => self.parent_of(child.id),
            };
            let Some(pinned) = next else { break };
            line.push(pinned);
        }
        line
    }

    /// The process of a thread and its ancestors, as far as they are pinned already and alive; pins nothing.
    pub fn lineage(&self, tid: u32) -> Vec<ProcessId> {
        let mut line = Vec::new();
        let mut next = self.resolve(tid).ok();
        for _ in 0..LINEAGE_MAX {
            let Some(process) = next else { break };
            line.extend(process.id);
            next = self.step_up(&process);
        }
        line
    }

    /// The PIDs of a thread's process and of its ancestors, nearest first, at most `max`.
    pub fn family(&self, tid: u32, max: usize) -> Vec<u32> {
        self.ancestors(tid, max).into_iter().map(|pinned| pinned.pid).collect()
    }

    /// The PID of the process that started a thread's process; 0 when it cannot be seen.
    pub fn parent_of_thread(&self, tid: u32) -> u32 {
        let process = self.resolve(tid).ok();
        process
            .and_then(|process| process.pidfd.info())
            .map_or(0, |info| info.parent)
    }

    /// Whether the thread that had that id at that time, on the monotonic clock, is there now: one that began later was
    /// given the number of one that is gone. When that cannot be seen it is the same.
    pub fn was_there(&self, tid: u32, seen: Tick) -> bool {
        self.is_there(tid) && Stat::of(tid).is_none_or(|stat| !stat.began_after(seen, Clock::now()))
    }

    /// Whether there is a thread of that id now.
    pub fn is_there(&self, tid: u32) -> bool {
        has_thread(tid, tid)
    }

    /// Whether a process has a thread of that id now.
    pub fn has_thread(&self, pid: u32, tid: u32) -> bool {
        pid == tid || has_thread(pid, tid)
    }

    fn parent_of(&self, child: ProcessId) -> Option<Pinned> {
        for _ in 0..STEP_TRIES {
            let pid = self.info(child)?.parent;
            if !can_keep(pid) {
                return None;
            }
            let parent = self.pin(pid);
            if self.info(child)?.parent == pid {
                return parent;
            }
        }
        None
    }

    fn step_up(&self, child: &Resolved) -> Option<Resolved> {
        for _ in 0..STEP_TRIES {
            let pid = child.pidfd.info()?.parent;
            if pid <= 1 {
                return None;
            }
            let parent = self.resolve(pid).ok();
            if child.pidfd.info()?.parent == pid {
                return parent;
            }
        }
        None
    }
}

fn can_keep(pid: u32) -> bool {
    if pid <= 1 || pid == std::process::id() {
        return false;
    }
    let Some(status) = Status::of(pid) else { return false };
    let is_first = status.namespace_pids().last() == Some(&1);
    !is_first && !status.field("Name").is_some_and(is_subreaper)
}

fn is_subreaper(name: &str) -> bool {
    SUBREAPERS.contains(&name) || name.starts_with(SUBREAPER_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Program, processes, wait_until};
    use super::*;

    fn pids(line: &[Pinned]) -> Vec<u32> {
        line.iter().map(|pinned| pinned.pid).collect()
    }

    #[test]
    fn a_thread_that_began_later_was_not_there() {
        let processes = processes();
        let program = Program::sleeping();
        assert!(processes.was_there(program.pid(), Clock::now().mono));
        let first = Tick::default();
        assert!(
            !processes.was_there(program.pid(), first),
            "it is younger than the machine"
        );
        assert!(!processes.was_there(0, Clock::now().mono), "nobody");
    }

    #[test]
    fn ancestors_go_up_to_where_nobody_can_keep_anything() {
        let processes = processes();
        // Two shells and a sleeper; above them is the test, as the daemon would be.
        let mut outer = Program::shell("bash -c 'sleep 600 & echo $!; echo $$; wait; true'; true");
        let (sleeper, inner) = (outer.number(), outer.number());
        let line = processes.ancestors(sleeper, 16);
        assert_eq!(pids(&line), [sleeper, inner, outer.pid()]);
        assert_eq!(line[0].parent, inner);
        assert_eq!(line[2].parent, std::process::id());
        assert_eq!(
            processes.ancestors(sleeper, 2),
            line[..2],
            "the same ids again, and no more than asked"
        );
        assert_eq!(processes.ancestors(sleeper, 0), []);
        assert_eq!(processes.ancestors(0, 16), []);
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(sleeper).expect("a PID")),
            nix::sys::signal::Signal::SIGKILL,
        )
        .expect("it is ours");
    }

    #[test]
    fn lineage_names_who_is_pinned_and_alive_and_pins_nobody() {
        let processes = processes();
        let mut outer = Program::shell("bash -c 'echo $$; read line; true'; true");
        let inner = outer.number();
        assert_eq!(processes.lineage(inner), []);
        let outer_id = processes.pin(outer.pid()).expect("it lives").id;
        assert_eq!(processes.lineage(inner), [outer_id]);
        let inner_id = processes.pin(inner).expect("it lives").id;
        assert_eq!(processes.lineage(inner), [inner_id, outer_id]);
        assert_eq!(processes.lineage(outer.pid()), [outer_id]);
        outer.kill();
        wait_until("the end of the outer shell", || !processes.alive(outer_id));
        assert_eq!(processes.lineage(inner), [inner_id], "an orphan has lost its ancestors");
        outer.say("go");
        wait_until("the end of the inner shell", || !processes.alive(inner_id));
        assert_eq!(processes.lineage(inner), []);
    }

    #[test]
    fn those_who_adopt_keep_nothing() {
        for name in ["systemd", "init", "tini", "conmon", "containerd-shim", "runsvdir"] {
            assert!(is_subreaper(name), "{name}");
        }
        for name in ["bash", "initdb", "claude", "systemd-run"] {
            assert!(!is_subreaper(name), "{name}");
        }
        assert!(!can_keep(0) && !can_keep(1) && !can_keep(std::process::id()));
    }
}
