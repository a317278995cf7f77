//! What a waiting `run` tells the person who waits: once after a second, and again when something changes.

use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use super::client::Mount;
use super::locks_json::{Holder, Snapshot, Waiter};
use super::report;
use crate::types::{LockName, TicketName};

/// The pause before the first words, and between two looks for changes.
const PAUSE: Duration = Duration::from_secs(1);
/// How many holders are named.
const NAMED_MAX: usize = 4;

/// Reports on standard error while it lives.
#[derive(Debug)]
pub struct Reporter {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Reporter {
    /// Starts to watch the wait of this process for these locks.
    pub fn start(mount: Mount, names: Vec<LockName>, ticket: Option<TicketName>) -> Self {
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = thread::Builder::new().name("progress".to_owned()).spawn(move || {
            let farewell = ticket.map(|ticket| how_to_come_back(&mount, &ticket));
            let mut told: Option<Facts> = None;
            while stopped.recv_timeout(PAUSE) == Err(RecvTimeoutError::Timeout) {
                let Ok(snapshot) = mount.snapshot() else { continue };
                let standing = Standing::of(&snapshot, std::process::id(), &names);
                let facts = standing.facts();
                // Who has left the line has got its answer, and is about to say so itself.
                let has_left = standing.line.is_none() && matches!(told, Some((_, Some(_))));
                if !has_left && told.as_ref() != Some(&facts) {
                    let farewell = farewell.as_deref().filter(|_| told.is_none());
                    eprint!("{}", standing.render(farewell));
                    told = Some(facts);
                }
            }
        });
        // Without a thread the wait goes on unreported.
        Self {
            stop: Some(stop),
            thread: thread.ok(),
        }
    }
}

impl Drop for Reporter {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A reporter that panicked has said so itself.
            let _ = thread.join();
        }
    }
}

/// The locks in the way, each with its holder's token, and the place in the line, where it is known.
type Facts = (Vec<(String, u64)>, Option<u32>);

/// Where a waiting process stands.
#[derive(Debug)]
struct Standing<'a> {
    wanted: String,
    /// The lock in the way, its holder's token, and the sentence about it.
    in_the_way: Vec<(&'a str, u64, String)>,
    line: Option<&'a Waiter>,
}

impl<'a> Standing<'a> {
    fn of(snapshot: &'a Snapshot, pid: u32, names: &[LockName]) -> Self {
        // The edges say what is in the way, also when that is a scope; without one, the locks themselves.
        let mut locks: Vec<&str> = snapshot
            .edges
            .iter()
            .filter(|edge| edge.waiter == pid)
            .map(|edge| edge.lock.as_str())
            .collect();
        locks.sort_unstable();
        locks.dedup();
        let wanted: Vec<&str> = names.iter().map(LockName::as_str).collect();
        if locks.iter().all(|lock| snapshot.holders(lock).is_empty()) {
            locks.clone_from(&wanted);
        }
        let in_the_way = snapshot
            .locks
            .iter()
            .filter(|lock| locks.contains(&lock.name.as_str()))
            .flat_map(|lock| {
                let name = lock.name.as_str();
                let entry = move |h: &Holder| (name, h.token, format!("{name} is {}", report::held_by(h)));
                lock.holders.iter().map(entry)
            })
            .collect();
        let line = snapshot
            .locks
            .iter()
            .filter(|lock| wanted.contains(&lock.name.as_str()))
            .flat_map(|lock| &lock.waiters)
            .filter(|waiter| waiter.pid == pid)
            .max_by_key(|waiter| waiter.position);
        Self {
            wanted: wanted.join(", "),
            in_the_way,
            line,
        }
    }

    /// What makes a new report worth it: who holds, and the place in the line. Not the time that passes.
    fn facts(&self) -> Facts {
        let holders = self
            .in_the_way
            .iter()
            .map(|(name, token, _)| ((*name).to_owned(), *token));
        (holders.collect(), self.line.map(|waiter| waiter.position))
    }

    fn render(&self, farewell: Option<&str>) -> String {
        let mut text = format!("git-lockfs: waiting for {}\n", self.wanted);
        for (_, _, sentence) in self.in_the_way.iter().take(NAMED_MAX) {
            text += &format!("  {sentence}\n");
        }
        if self.in_the_way.len() > NAMED_MAX {
            text += &format!("  and {} more\n", self.in_the_way.len() - NAMED_MAX);
        }
        if let Some(waiter) = self.line {
            text += &format!("  {}", place_in_line(waiter.position));
            if let Some(estimate) = waiter.estimated_wait_ms {
                text += &format!(", about {} to go", report::span_ms(estimate));
            }
            if let Some(left) = waiter.limit_ms.map(|limit| limit.saturating_sub(waiter.waited_ms)) {
                text += &format!(", gives up in {}", report::span_ms(left));
            }
            text.push('\n');
        }
        if let Some(farewell) = farewell {
            text += farewell;
        }
        text
    }
}

fn place_in_line(position: u32) -> String {
    match position {
        0 | 1 => "next in line".to_owned(),
        position => format!("number {position} in line"),
    }
}

/// The commands that resume and withdraw.
fn how_to_come_back(mount: &Mount, ticket: &TicketName) -> String {
    let again: Vec<String> = std::env::args().skip(1).collect();
    let again = shell_words::join(again);
    let control = mount.file("control");
    let control = control.to_string_lossy();
    let control = shell_words::quote(&control);
    format!(
        "  to leave and come back to this place: git lockfs {again}\n  to give it up: echo 'withdraw {ticket}' > {control}\n"
    )
}

#[cfg(test)]
mod tests {
    use super::super::locks_json::SAMPLE;
    use super::*;

    fn names(names: &[&str]) -> Vec<LockName> {
        let parse = |name: &&str| LockName::parse_lock(name.as_bytes()).expect("name");
        names.iter().map(parse).collect()
    }

    #[test]
    fn a_waiter_learns_who_holds_its_place_and_the_time_to_go() {
        let snapshot = Snapshot::parse(SAMPLE.as_bytes()).expect("sample");
        let names = names(&["x.lock"]);
        let text = Standing::of(&snapshot, 4250, &names).render(Some("  farewell\n"));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "git-lockfs: waiting for x.lock");
        assert!(
            lines[1].starts_with("  x.lock is held by 4242 (agent-7) since "),
            "{text}"
        );
        assert_eq!(lines[2], "  next in line, about 1.2s to go, gives up in 29s");
        assert_eq!(lines[3], "  farewell");
    }

    #[test]
    fn time_that_passes_is_no_change_but_a_new_holder_is() {
        let before = Snapshot::parse(SAMPLE.as_bytes()).expect("sample");
        let later = Snapshot::parse(SAMPLE.replace("192000", "193000").as_bytes()).expect("sample");
        let other = Snapshot::parse(SAMPLE.replace("918", "920").as_bytes()).expect("sample");
        let names = names(&["x.lock"]);
        let facts = |snapshot| Standing::of(snapshot, 4250, &names).facts();
        assert_eq!(facts(&before), facts(&later));
        assert_ne!(facts(&before), facts(&other));
    }

    #[test]
    fn a_process_the_daemon_sees_under_another_number_still_learns_who_holds() {
        let snapshot = Snapshot::parse(SAMPLE.as_bytes()).expect("sample");
        let names = names(&["x.lock"]);
        let standing = Standing::of(&snapshot, 1, &names);
        assert_eq!(standing.in_the_way.len(), 1);
        assert!(standing.line.is_none());
    }
}
