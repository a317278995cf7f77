//! The real run: 16 client processes fight for three locks in every dialect on a real mount, some are killed at random
//! points and replaced, a watcher notes who is seen in the line, and the checker judges.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::checker::check;
use crate::client::{NAMES, ORDERS, Random, now};
use crate::record::{Answer, Client, Death, End, Event, Nanos, Request, Sighting, assemble, note_sightings};
use crate::support::{Mount, Running, client::executable, wait_until};

const CLIENTS: usize = 16;
const RUN: Duration = Duration::from_secs(5);
/// A client dies about that often.
const KILL_EVERY: Nanos = 60_000_000;

/// A client process and where it logs.
struct Seat {
    client: Client,
    process: Running,
    log: PathBuf,
    nice: i32,
}

struct Run {
    mount: Mount,
    end: Nanos,
    seats: Vec<Seat>,
    born: u32,
    sightings: Vec<Sighting>,
    history: Vec<Request>,
}

impl Run {
    fn seat(&mut self, nice: i32) -> Seat {
        let client = Client(self.born);
        self.born += 1;
        let log = self.mount.dir().join(format!("history-{}", client.0));
        let orders = format!(
            "{}:{}:{}:{}:{nice}:{}",
            self.mount.locks().display(),
            self.mount.flock().display(),
            log.display(),
            client.0,
            self.end
        );
        let mut command = self.mount.command(executable());
        command.env(ORDERS, orders);
        let process = self.mount.spawn(command);
        Seat {
            client,
            process,
            log,
            nice,
        }
    }

    /// Looks at the line once.
    fn watch(&mut self) {
        let from = now();
        let table = self.mount.locks_json();
        let to = now();
        let by_pid: BTreeMap<u64, Client> = self
            .seats
            .iter()
            .map(|s| (u64::from(s.process.id()), s.client))
            .collect();
        for lock in table["locks"].as_array().expect("locks") {
            for waiter in lock["waiters"].as_array().expect("waiters") {
                if let Some(&client) = by_pid.get(&waiter["pid"].as_u64().expect("pid")) {
                    let lock = lock["name"].as_str().expect("name").to_owned();
                    self.sightings.push(Sighting { client, lock, from, to });
                }
            }
        }
    }

    /// Kills one client, waits until the daemon has noticed, and seats another in its place.
    fn replace(&mut self, at: usize) {
        let nice = self.seats[at].nice;
        let mut gone = self.seats.swap_remove(at);
        let pid = u64::from(gone.process.id());
        let killed = now();
        gone.process.kill();
        // Descriptors are closed before the parent hears of the death; that an owner or keeper is gone, the daemon
        // learns by itself.
        wait_until("a dead client holds nothing", || !shows(&self.mount.locks_json(), pid));
        let death = Death { killed, reaped: now() };
        self.history.extend(requests_of(&gone, Some(death)));
        let fresh = self.seat(nice);
        self.seats.push(fresh);
    }
}

fn shows(table: &serde_json::Value, pid: u64) -> bool {
    table["locks"].as_array().expect("locks").iter().any(|lock| {
        ["holders", "waiters"].iter().any(|role| {
            let mut processes = lock[role].as_array().expect("a list").iter();
            processes.any(|process| process["pid"].as_u64() == Some(pid))
        })
    })
}

fn requests_of(seat: &Seat, death: Option<Death>) -> Vec<Request> {
    let log = std::fs::read_to_string(&seat.log).unwrap_or_default();
    let events: Vec<(Nanos, Event)> = log
        .lines()
        .map(|line| Event::parse(line).unwrap_or_else(|| panic!("{:?} logged {line:?}", seat.client)))
        .collect();
    assemble(seat.client, &events, death)
}

/// Exclusion, order, an answer for every waiter and growing tokens, among processes that also die while they hold and
/// while they wait. A lease ends with its keeper here, so that the dead leave nothing behind.
#[test]
fn sixteen_processes_leave_a_history_without_a_flaw() {
    let mount = Mount::with(&[("lease", "0"), ("wait", "20s")]);
    let mut run = Run {
        end: now() + Nanos::try_from(RUN.as_nanos()).unwrap(),
        mount,
        seats: Vec::new(),
        born: 0,
        sightings: Vec::new(),
        history: Vec::new(),
    };
    for number in 0..CLIENTS {
        let seat = run.seat(if number % 4 == 0 { 5 } else { 0 });
        run.seats.push(seat);
    }
    let mut random = Random(run.end);
    let mut next_kill = now() + 10 * KILL_EVERY;
    while now() < run.end {
        run.watch();
        if now() >= next_kill {
            let victim = random.below(CLIENTS as u64) as usize;
            run.replace(victim);
            next_kill = now() + KILL_EVERY;
        }
    }
    for mut seat in std::mem::take(&mut run.seats) {
        let output = seat.process.finish_within(Duration::from_secs(40));
        assert!(
            output.status.success(),
            "{:?} failed: {}{}",
            seat.client,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        run.history.extend(requests_of(&seat, None));
    }
    note_sightings(&mut run.history, &run.sightings);
    assert_eq!(check(&run.history), []);
    assert_lively(&run.history);
    for name in NAMES {
        run.mount.wait_until_free(name);
    }
}

/// A history in which little happened would prove little.
fn assert_lively(history: &[Request]) {
    let count = |what: fn(&Request) -> bool| history.iter().filter(|r| what(r)).count();
    let granted = count(|r| matches!(r.answer, Answer::Granted { .. }));
    let busy = count(|r| matches!(r.answer, Answer::Busy { .. }));
    let cancelled = count(|r| matches!(r.answer, Answer::Cancelled { .. }));
    let died = count(|r| {
        matches!(
            r.answer,
            Answer::Died { .. }
                | Answer::Granted {
                    end: End::Died { .. },
                    ..
                }
        )
    });
    let seen = count(|r| r.queued_by.is_some());
    let with_token = count(|r| matches!(r.answer, Answer::Granted { token: Some(_), .. }));
    let summary = format!(
        "{granted} granted ({with_token} with token), {busy} busy, {cancelled} cancelled, {died} died, {seen} seen"
    );
    eprintln!("{summary}");
    assert!(
        granted >= 500 && with_token >= 300 && busy >= 50 && cancelled >= 5 && died >= 10 && seen >= 50,
        "too little happened to prove anything: {summary}"
    );
}
