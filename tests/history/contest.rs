//! A contest on a real mount: client processes fight for three locks in every dialect, some are killed at random points
//! and replaced, and a watcher notes who is seen in the line. What comes of it is a history to be judged.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use crate::checker::check;
use crate::client::{NAMES, ORDERS, Random, now};
use crate::record::{Answer, Client, Death, End, Event, Nanos, Request, Sighting, assemble, note_sightings};
use crate::support::process::holds_within;
use crate::support::{Repository, Running, client::executable, wait_until};

/// How long a client may take to end after the contest: longer than any wait.
const END_MAX: Duration = Duration::from_secs(40);

/// A client process and where it logs.
struct Seat {
    client: Client,
    process: Running,
    log: PathBuf,
    nice: i32,
}

/// A contest under way.
pub struct Contest<'a> {
    repository: &'a Repository,
    /// When the clients stop.
    end: Nanos,
    seats: Vec<Seat>,
    born: u32,
    random: Random,
    sightings: Vec<Sighting>,
    history: Vec<Request>,
}

/// How much happened.
#[derive(Clone, Copy, Debug)]
pub struct Tally {
    pub granted: usize,
    pub with_token: usize,
    pub busy: usize,
    pub cancelled: usize,
    pub died: usize,
    pub seen: usize,
}

impl<'a> Contest<'a> {
    /// Seats so many clients, which work for that long.
    pub fn begin(repository: &'a Repository, clients: usize, length: Duration) -> Self {
        let end = now() + Nanos::try_from(length.as_nanos()).expect("not for ever");
        let mut this = Self {
            repository,
            end,
            seats: Vec::new(),
            born: 0,
            random: Random(end),
            sightings: Vec::new(),
            history: Vec::new(),
        };
        for number in 0..clients {
            let seat = this.seat(if number % 4 == 0 { 5 } else { 0 });
            this.seats.push(seat);
        }
        this
    }

    /// Whether the clients are to go on.
    pub fn goes_on(&self) -> bool {
        now() < self.end
    }

    /// A number below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.random.below(bound)
    }

    fn seat(&mut self, nice: i32) -> Seat {
        let client = Client(self.born);
        self.born += 1;
        let log = self.repository.dir().join(format!("history-{}", client.0));
        let orders = format!(
            "{}:{}:{}:{nice}:{}",
            self.repository.mountpoint().display(),
            log.display(),
            client.0,
            self.end
        );
        let mut command = self.repository.command(executable());
        command.env(ORDERS, orders);
        let process = self.repository.spawn(command);
        Seat {
            client,
            process,
            log,
            nice,
        }
    }

    /// Looks at the line once.
    pub fn watch(&mut self) {
        let from = now();
        let table = self.repository.locks_json();
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
    pub fn replace_one(&mut self) {
        let at = self.random.below(self.seats.len() as u64) as usize;
        let nice = self.seats[at].nice;
        let mut gone = self.seats.swap_remove(at);
        let pid = u64::from(gone.process.id());
        let killed = now();
        gone.process.kill();
        // Descriptors are closed before the parent hears of the death; that an owner or keeper is gone, the daemon
        // learns by itself.
        wait_until("a dead client holds nothing", || {
            !shows(&self.repository.locks_json(), pid)
        });
        let death = Death { killed, reaped: now() };
        self.history.extend(requests_of(&gone, Some(death)));
        let fresh = self.seat(nice);
        self.seats.push(fresh);
    }

    /// Waits for the clients to end, judges the history, and tells how much happened.
    pub fn judge(mut self) -> Tally {
        for mut seat in std::mem::take(&mut self.seats) {
            if !holds_within(END_MAX, || seat.process.status().is_some()) {
                let log = std::fs::read_to_string(&seat.log).unwrap_or_default();
                let last: Vec<&str> = log.lines().rev().take(3).collect();
                let (pid, table) = (seat.process.id(), self.repository.locks_json());
                panic!(
                    "{:?} (PID {pid}) is not answered after {last:?}: {table:#}",
                    seat.client
                );
            }
            let output = seat.process.finish_within(END_MAX);
            assert!(
                output.status.success(),
                "{:?} failed: {}{}",
                seat.client,
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            self.history.extend(requests_of(&seat, None));
        }
        note_sightings(&mut self.history, &self.sightings);
        assert_eq!(check(&self.history), []);
        for name in NAMES {
            self.repository.wait_until_free(name);
        }
        let tally = tally(&self.history);
        eprintln!("{tally:?}");
        tally
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

fn tally(history: &[Request]) -> Tally {
    let count = |what: fn(&Request) -> bool| history.iter().filter(|r| what(r)).count();
    Tally {
        granted: count(|r| matches!(r.answer, Answer::Granted { .. })),
        with_token: count(|r| matches!(r.answer, Answer::Granted { token: Some(_), .. })),
        busy: count(|r| matches!(r.answer, Answer::Busy { .. })),
        cancelled: count(|r| matches!(r.answer, Answer::Cancelled { .. })),
        died: count(|r| {
            matches!(
                r.answer,
                Answer::Died { .. }
                    | Answer::Granted {
                        end: End::Died { .. },
                        ..
                    }
            )
        }),
        seen: count(|r| r.queued_by.is_some()),
    }
}
