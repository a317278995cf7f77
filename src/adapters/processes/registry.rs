//! The registry: one [`ProcessId`] for each process that was pinned, from the first look to its end and forgetting.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::pidfd::{ExitKind, Info, OpenError, Pidfd, leader_of};
use super::procfs::{Stat, has_thread};
use crate::adapters::watcher::Exits;
use crate::types::ProcessId;

/// The most processes that are pinned at a time; each costs one descriptor.
pub const PROCESSES_MAX: usize = 65_536;

/// Descriptors that are left for everything else.
const DESCRIPTORS_SPARED: u64 = 128;

/// A process that is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// Its name among us, never given twice.
    pub id: ProcessId,
    /// Its PID, that is its thread group id, in our PID namespace.
    pub pid: u32,
    /// The PID of its parent at the moment of the call; 0 when that cannot be seen from here.
    pub parent: u32,
}

/// A pinned process as it can be found again by a program that takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trail {
    /// Its name among us.
    pub id: ProcessId,
    /// Its PID.
    pub pid: u32,
    /// When it began, in clock ticks since the machine started; 0 when /proc did not say, and then it is not found.
    pub began: u64,
}

/// Every process that is pinned. To be shared between threads.
#[derive(Debug)]
pub struct Processes {
    table: Mutex<Table>,
    exits: Exits,
    capacity: usize,
    /// Whether the table has trails that nobody has taken.
    has_new: AtomicBool,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    by_id: HashMap<ProcessId, (Arc<Pidfd>, u64)>,
    /// The newest process of each PID.
    by_pid: HashMap<u32, ProcessId>,
    /// The trails of processes that were pinned since they were taken last.
    new: Vec<Trail>,
}

/// Why a process was not pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PinError {
    /// It is not there, has ended, or cannot be seen.
    Gone,
    /// [`PROCESSES_MAX`], or the limit of descriptors, is reached.
    Full,
}

/// A process that a thread id led to, pinned for as long as this value lives, and its id if it has one.
pub(super) struct Resolved {
    pub(super) id: Option<ProcessId>,
    pub(super) pidfd: Arc<Pidfd>,
}

impl Processes {
    /// An empty registry, as large as [`PROCESSES_MAX`] and the limit of descriptors allow.
    pub fn new(exits: Exits) -> Self {
        let (limit, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap_or((1024, 1024));
        let descriptors = usize::try_from(limit.saturating_sub(DESCRIPTORS_SPARED)).unwrap_or(usize::MAX);
        Self::with_capacity(exits, descriptors.min(PROCESSES_MAX))
    }

    fn with_capacity(exits: Exits, capacity: usize) -> Self {
        Self {
            table: Mutex::default(),
            exits,
            capacity,
            has_new: AtomicBool::new(false),
        }
    }

    /// The trails of processes that were pinned since this was asked last.
    pub fn take_new_trails(&self) -> Vec<Trail> {
        if !self.has_new.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut self.table.lock().new)
    }

    /// The trails of all that are pinned.
    pub fn trails(&self) -> Vec<Trail> {
        let table = self.table.lock();
        let trail = |(id, (pidfd, began)): (&ProcessId, &(Arc<Pidfd>, u64))| Trail {
            id: *id,
            pid: pidfd.pid(),
            began: *began,
        };
        table.by_id.iter().map(trail).collect()
    }

    /// The id that the next process gets.
    pub fn next_id(&self) -> ProcessId {
        ProcessId(self.table.lock().next)
    }

    /// Pins processes again that a former program had pinned, under their old ids, and gives no id below `next` to
    /// anybody else. Those that have ended are not there afterwards: they count as ended, and how is not known.
    pub fn restore(&self, trails: &[Trail], next: ProcessId) {
        for trail in trails {
            let Ok(pidfd) = self.open(trail.pid) else { continue };
            // Once the pidfd is had, the PID is that process's for as long as the pidfd says that it lives.
            let began = Stat::of(trail.pid).and_then(|stat| stat.began());
            if began != Some(trail.began) || trail.began == 0 || pidfd.has_exited() {
                continue;
            }
            let mut table = self.table.lock();
            // One that cannot be watched is as good as not found: nobody would tell its end.
            if self.exits.watch(&pidfd, trail.id).is_ok() {
                table.by_pid.insert(trail.pid, trail.id);
                table.by_id.insert(trail.id, (Arc::new(pidfd), trail.began));
            }
        }
        let mut table = self.table.lock();
        table.next = table.next.max(next.0);
    }

    /// Pins the process of a thread, in our PID namespace, and has its exit told from now on.
    ///
    /// The same process gets the same id each time. `None` when it is gone or hidden, or when no more can be pinned.
    /// The thread must be known to live, as the caller of an unanswered request is: else its number may be another's.
    pub fn pin(&self, tid: u32) -> Option<Pinned> {
        self.try_pin(tid).ok()
    }

    pub(super) fn try_pin(&self, tid: u32) -> Result<Pinned, PinError> {
        let resolved = self.resolve(tid)?;
        self.register(resolved)
    }

    /// Whether the process runs; a zombie does not, and one that was forgotten counts as ended.
    pub fn alive(&self, id: ProcessId) -> bool {
        self.pidfd(id).is_some_and(|pidfd| !pidfd.has_exited())
    }

    /// How a process ended, if it has.
    pub fn exit_kind(&self, id: ProcessId) -> ExitKind {
        self.pidfd(id).map_or(ExitKind::Unknown, |pidfd| pidfd.exit_kind())
    }

    /// Drops a process that has ended, or that matters no more: then its exit is not told.
    pub fn forget(&self, id: ProcessId) {
        // Bound outside the mutex, so that the descriptor is closed outside it.
        let dropped = self.table.lock().remove(id);
        if let Some(pidfd) = &dropped {
            self.exits.unwatch(pidfd);
        }
    }

    /// The PID of a process that is pinned; somebody else's once the process is gone.
    pub fn pid_of(&self, id: ProcessId) -> Option<u32> {
        self.pidfd(id).map(|pidfd| pidfd.pid())
    }

    /// The parent and user of a pinned process, now; `None` once it is gone.
    pub(super) fn info(&self, id: ProcessId) -> Option<Info> {
        self.pidfd(id)?.info()
    }

    fn pidfd(&self, id: ProcessId) -> Option<Arc<Pidfd>> {
        self.table.lock().by_id.get(&id).map(|(pidfd, _)| pidfd.clone())
    }

    /// The live process of that PID, if it is pinned.
    ///
    /// While a process is alive its PID is nobody else's, so the PID is proof enough once its pidfd says that it is.
    fn known(&self, pid: u32) -> Option<Resolved> {
        let (id, pidfd) = self.table.lock().newest(pid)?;
        (!pidfd.has_exited()).then_some(Resolved { id: Some(id), pidfd })
    }

    /// Finds the live process of a thread without registering it.
    pub(super) fn resolve(&self, tid: u32) -> Result<Resolved, PinError> {
        if let Some(known) = self.known(tid) {
            return Ok(known);
        }
        let found = match self.open(tid) {
            Err(OpenError::NotALeader) => self.resolve_leader(tid)?,
            opened => Resolved::fresh(opened?),
        };
        if found.pidfd.has_exited() {
            return Err(PinError::Gone);
        }
        Ok(found)
    }

    fn resolve_leader(&self, tid: u32) -> Result<Resolved, PinError> {
        let pid = leader_of(tid).ok_or(PinError::Gone)?;
        let found = match self.known(pid) {
            Some(known) => known,
            None => Resolved::fresh(self.open(pid)?),
        };
        // Now that the process is held, its PID cannot change hands: the thread must be there.
        if has_thread(pid, tid) {
            Ok(found)
        } else {
            Err(PinError::Gone)
        }
    }

    fn open(&self, pid: u32) -> Result<Pidfd, OpenError> {
        match Pidfd::open(pid) {
            Err(OpenError::Full) => {
                self.sweep();
                Pidfd::open(pid)
            }
            opened => opened,
        }
    }

    pub(super) fn register(&self, resolved: Resolved) -> Result<Pinned, PinError> {
        let Resolved { id, pidfd } = resolved;
        let info = pidfd.info().ok_or(PinError::Gone)?;
        let pid = pidfd.pid();
        let id = match id {
            Some(id) => id,
            None => self.enter(pidfd)?,
        };
        Ok(Pinned {
            id,
            pid,
            parent: info.parent,
        })
    }

    /// Enters a process, unless another thread was faster.
    fn enter(&self, pidfd: Arc<Pidfd>) -> Result<ProcessId, PinError> {
        if self.table.lock().by_id.len() >= self.capacity {
            self.sweep();
        }
        let pid = pidfd.pid();
        // The pidfd holds the process, so what /proc says of this PID is about it as long as it lives.
        let began = Stat::of(pid).and_then(|stat| stat.began()).unwrap_or_default();
        let mut table = self.table.lock();
        let newest = table.newest(pid);
        if let Some((id, _)) = newest.filter(|(_, known)| !known.has_exited()) {
            return Ok(id);
        }
        if table.by_id.len() >= self.capacity {
            return Err(PinError::Full);
        }
        let id = ProcessId(table.next);
        // Within the mutex: nobody may forget it before it is watched.
        self.exits.watch(&*pidfd, id).map_err(|_| PinError::Full)?;
        table.next += 1;
        table.by_pid.insert(pid, id);
        table.by_id.insert(id, (pidfd, began));
        table.new.push(Trail { id, pid, began });
        self.has_new.store(true, Ordering::Release);
        Ok(id)
    }

    /// Drops all that have ended: at the bound, making room is worth more than remembering how they did.
    fn sweep(&self) {
        let all: Vec<_> = self
            .table
            .lock()
            .by_id
            .iter()
            .map(|(id, (pidfd, _))| (*id, pidfd.clone()))
            .collect();
        for (id, pidfd) in all {
            if pidfd.has_exited() {
                self.forget(id);
            }
        }
    }
}

impl Table {
    fn newest(&self, pid: u32) -> Option<(ProcessId, Arc<Pidfd>)> {
        let id = *self.by_pid.get(&pid)?;
        let (pidfd, _) = self.by_id.get(&id).expect("both maps change together");
        Some((id, pidfd.clone()))
    }

    fn remove(&mut self, id: ProcessId) -> Option<Arc<Pidfd>> {
        let (pidfd, _) = self.by_id.remove(&id)?;
        if self.by_pid.get(&pidfd.pid()) == Some(&id) {
            self.by_pid.remove(&pidfd.pid());
        }
        Some(pidfd)
    }
}

impl Resolved {
    fn fresh(pidfd: Pidfd) -> Self {
        Self {
            id: None,
            pidfd: Arc::new(pidfd),
        }
    }
}

impl From<OpenError> for PinError {
    fn from(error: OpenError) -> Self {
        match error {
            OpenError::Gone | OpenError::NotALeader => Self::Gone,
            OpenError::Full => Self::Full,
        }
    }
}

/// Raises our own limit of descriptors as far as is allowed, and returns it. Programs started later inherit it.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(hard)
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Program, exits, processes, wait_until};
    use super::*;

    #[test]
    fn a_process_keeps_its_id_for_life_whichever_thread_asks() {
        let processes = processes();
        let first = processes.pin(std::process::id()).expect("we live");
        assert_eq!(first.parent, std::os::unix::process::parent_id());
        let again = std::thread::scope(|scope| {
            let pin = || processes.pin(u32::try_from(nix::unistd::gettid().as_raw()).expect("positive"));
            scope.spawn(pin).join().expect("no panic")
        });
        assert_eq!(again, Some(first));
        let stranger = Program::sleeping();
        assert_ne!(processes.pin(stranger.pid()).expect("it lives").id, first.id);
    }

    #[test]
    fn the_dead_are_never_pinned_and_can_be_forgotten() {
        let processes = processes();
        let mut program = Program::sleeping();
        let pinned = processes.pin(program.pid()).expect("it lives");
        assert!(processes.alive(pinned.id));
        assert_eq!(processes.pid_of(pinned.id), Some(program.pid()));
        program.kill();
        wait_until("its end", || !processes.alive(pinned.id));
        assert_eq!(processes.pin(program.pid()), None, "a zombie");
        assert_eq!(processes.exit_kind(pinned.id), ExitKind::Signalled);
        program.reap();
        assert_eq!(processes.pin(program.pid()), None);
        processes.forget(pinned.id);
        processes.forget(pinned.id);
        assert!(!processes.alive(pinned.id));
        assert_eq!(processes.exit_kind(pinned.id), ExitKind::Unknown);
        assert_eq!(processes.pid_of(pinned.id), None);
        for nobody in [0, u32::MAX] {
            assert_eq!(processes.pin(nobody), None);
        }
    }

    /// A child of the test with a PID of its choice, which ends with the guard.
    struct Chosen(libc::pid_t);

    impl Chosen {
        fn with(pid: u32) -> io::Result<Self> {
            let wanted = [libc::pid_t::try_from(pid).expect("a PID")];
            // SAFETY: a struct of integers.
            let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
            args.exit_signal = u64::try_from(libc::SIGCHLD).expect("positive");
            args.set_tid = wanted.as_ptr() as u64;
            args.set_tid_size = 1;
            // SAFETY: a fork without shared memory; the child makes system calls only.
            match unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) } {
                0 => loop {
                    // SAFETY: no arguments.
                    unsafe { libc::syscall(libc::SYS_ppoll, std::ptr::null::<u8>(), 0, std::ptr::null::<u8>(), 0, 0) };
                },
                pid if pid > 0 => Ok(Self(libc::pid_t::try_from(pid).expect("a PID"))),
                _ => Err(io::Error::last_os_error()),
            }
        }
    }

    impl Drop for Chosen {
        fn drop(&mut self) {
            let pid = nix::unistd::Pid::from_raw(self.0);
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
            let _ = nix::sys::wait::waitpid(pid, None);
        }
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let processes = processes();
        // Somebody else may take the number first; then it is tried with another one.
        for _ in 0..100 {
            let mut program = Program::sleeping();
            let before = processes.pin(program.pid()).expect("it lives");
            program.kill();
            program.reap();
            let _successor = match Chosen::with(before.pid) {
                Ok(successor) => successor,
                Err(error) if error.raw_os_error() == Some(libc::EEXIST) => continue,
                Err(error) => {
                    eprintln!("skipped: a PID cannot be chosen here ({error})");
                    return;
                }
            };
            let after = processes.pin(before.pid).expect("it lives");
            assert_eq!(after.pid, before.pid);
            assert_ne!(after.id, before.id);
            assert!(!processes.alive(before.id));
            assert!(processes.alive(after.id));
            assert_eq!(processes.lineage(after.pid), [after.id]);
            assert_ne!(processes.exit_kind(before.id), ExitKind::Clean);
            processes.forget(before.id);
            assert_eq!(
                processes.pin(before.pid),
                Some(after),
                "forgetting the old one leaves the new one"
            );
            return;
        }
        panic!("100 PIDs in a row were taken by others");
    }

    #[test]
    fn at_the_bound_the_dead_make_room_and_the_living_do_not() {
        let processes = Processes::with_capacity(exits(), 2);
        let mut programs = [Program::sleeping(), Program::sleeping(), Program::sleeping()];
        let first = processes.pin(programs[0].pid()).expect("room for one");
        let second = processes.pin(programs[1].pid()).expect("and another");
        assert_eq!(processes.try_pin(programs[2].pid()), Err(PinError::Full));
        assert_eq!(processes.pin(programs[1].pid()), Some(second), "who is in stays in");
        programs[0].kill();
        wait_until("its end", || !processes.alive(first.id));
        assert!(processes.pin(programs[2].pid()).is_some());
    }

    #[test]
    fn the_limit_of_descriptors_goes_as_high_as_allowed() {
        let raised = raise_descriptor_limit().expect("raising up to the hard limit is allowed");
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE).expect("ours"), (raised, raised));
    }
}
