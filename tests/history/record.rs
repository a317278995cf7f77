//! What a client can know about its own requests, and how it is logged.
//!
//! A client writes one line an event, each with one write(2), so that a client killed at any point leaves a log that is
//! true up to there. Times are CLOCK_MONOTONIC in nanoseconds, taken before a call and after its return: whatever the
//! arbiter did lies between. [`assemble`] makes requests of the lines; it knows no rule.

use std::collections::BTreeMap;

/// Nanoseconds on CLOCK_MONOTONIC.
pub type Nanos = u64;

/// A client process; never reused, unlike a PID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Client(pub u32);

/// How a lock is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Shared,
    Exclusive,
}

impl Mode {
    /// Whether two locks of these modes exclude each other.
    pub fn conflicts(self, other: Self) -> bool {
        self == Self::Exclusive || other == Self::Exclusive
    }
}

/// One request and everything its client, and whoever watched the client, knows of it.
#[derive(Clone, Debug)]
pub struct Request {
    pub client: Client,
    pub lock: String,
    pub mode: Mode,
    /// 1 to 10.
    pub priority: u8,
    /// Just before the call.
    pub called: Nanos,
    /// A moment at which somebody saw the request in the line.
    pub queued_by: Option<Nanos>,
    pub answer: Answer,
}

/// How a request was answered.
#[derive(Clone, Debug)]
pub enum Answer {
    /// The lock was had.
    Granted {
        returned: Nanos,
        token: Option<u64>,
        end: End,
    },
    /// Not now, or not within the limit: EAGAIN, EEXIST, ETIMEDOUT.
    Busy { returned: Nanos },
    /// The client itself gave up, at the earliest at `asked`, and was told so.
    Cancelled { asked: Nanos, returned: Nanos },
    /// The client was killed before it logged an answer.
    Died { killed: Nanos, reaped: Nanos },
    /// No answer, and the client lived.
    Missing,
}

/// How a granted lock ended.
#[derive(Clone, Debug)]
pub enum End {
    /// Given back; at `returned` it was surely free.
    Released { called: Nanos, returned: Nanos },
    /// The client was killed while it held it.
    Died { killed: Nanos, reaped: Nanos },
    /// Held when the history ended.
    Held,
}

/// One line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Before the call.
    Call {
        lock: String,
        exclusive: bool,
        priority: u8,
    },
    /// After the call, holding the lock.
    Held { token: Option<u64> },
    /// After the call, refused.
    Busy,
    /// After the call, given up; the client had asked for that at `asked` or later.
    Cancelled { asked: Nanos },
    /// Before the release.
    Release,
    /// After the release.
    Released,
}

impl Event {
    /// One line without its end.
    pub fn line(&self, at: Nanos) -> String {
        match self {
            Self::Call {
                lock,
                exclusive,
                priority,
            } => format!("{at} call {lock} {exclusive} {priority}"),
            Self::Held { token } => format!("{at} held {}", token.unwrap_or(0)),
            Self::Busy => format!("{at} busy"),
            Self::Cancelled { asked } => format!("{at} cancelled {asked}"),
            Self::Release => format!("{at} release"),
            Self::Released => format!("{at} released"),
        }
    }

    /// Parses one line.
    pub fn parse(line: &str) -> Option<(Nanos, Self)> {
        let mut words = line.split(' ');
        let at = words.next()?.parse().ok()?;
        let event = match words.next()? {
            "call" => Self::Call {
                lock: words.next()?.to_owned(),
                exclusive: words.next()?.parse().ok()?,
                priority: words.next()?.parse().ok()?,
            },
            "held" => Self::Held {
                token: Some(words.next()?.parse().ok()?).filter(|&token: &u64| token != 0),
            },
            "busy" => Self::Busy,
            "cancelled" => Self::Cancelled {
                asked: words.next()?.parse().ok()?,
            },
            "release" => Self::Release,
            "released" => Self::Released,
            _ => return None,
        };
        Some((at, event))
    }
}

/// When a client was killed, and when its parent had reaped it.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    pub killed: Nanos,
    pub reaped: Nanos,
}

/// Makes requests of one client's events.
///
/// # Panics
/// On an order of events that no client can produce: that is a bug of the test, not a finding.
pub fn assemble(client: Client, events: &[(Nanos, Event)], death: Option<Death>) -> Vec<Request> {
    let mut done: Vec<Request> = Vec::new();
    for (at, event) in events {
        let at = *at;
        if let Event::Call {
            lock,
            exclusive,
            priority,
        } = event
        {
            done.push(Request {
                client,
                lock: lock.clone(),
                mode: if *exclusive { Mode::Exclusive } else { Mode::Shared },
                priority: *priority,
                called: at,
                queued_by: None,
                answer: Answer::Missing,
            });
            continue;
        }
        let request = done.last_mut().expect("a log begins with a call");
        request.answer = match (event, &request.answer) {
            (Event::Held { token }, Answer::Missing) => Answer::Granted {
                returned: at,
                token: *token,
                end: End::Held,
            },
            (Event::Busy, Answer::Missing) => Answer::Busy { returned: at },
            (Event::Cancelled { asked }, Answer::Missing) => Answer::Cancelled {
                asked: *asked,
                returned: at,
            },
            (Event::Release, Answer::Granted { returned, token, .. }) => Answer::Granted {
                returned: *returned,
                token: *token,
                end: End::Released {
                    called: at,
                    returned: Nanos::MAX,
                },
            },
            (
                Event::Released,
                Answer::Granted {
                    returned,
                    token,
                    end: End::Released { called, .. },
                },
            ) => Answer::Granted {
                returned: *returned,
                token: *token,
                end: End::Released {
                    called: *called,
                    returned: at,
                },
            },
            (event, answer) => panic!("{client:?} logged {event:?} after {answer:?}"),
        };
    }
    if let (Some(Death { killed, reaped }), Some(last)) = (death, done.last_mut()) {
        match &mut last.answer {
            Answer::Missing => last.answer = Answer::Died { killed, reaped },
            Answer::Granted { end, .. } => match end {
                End::Held => *end = End::Died { killed, reaped },
                End::Released { returned, .. } => *returned = (*returned).min(reaped),
                End::Died { .. } => {}
            },
            _ => {}
        }
    }
    done
}

/// A glance at the line: this process was seen waiting for this lock, between `from` and `to`.
#[derive(Clone, Debug)]
pub struct Sighting {
    pub client: Client,
    pub lock: String,
    pub from: Nanos,
    pub to: Nanos,
}

/// Notes in each request when it was first seen in the line. A sighting that fits two requests of a client proves nothing.
pub fn note_sightings(requests: &mut [Request], sightings: &[Sighting]) {
    let mut by_client: BTreeMap<Client, Vec<&mut Request>> = BTreeMap::new();
    for request in requests {
        by_client.entry(request.client).or_default().push(request);
    }
    for sighting in sightings {
        let Some(own) = by_client.get_mut(&sighting.client) else {
            continue;
        };
        let mut fitting = own
            .iter_mut()
            .filter(|r| r.lock == sighting.lock && r.called <= sighting.to && answered_at(r) >= sighting.from);
        if let (Some(request), None) = (fitting.next(), fitting.next()) {
            request.queued_by = Some(request.queued_by.map_or(sighting.to, |first| first.min(sighting.to)));
        }
    }
}

fn answered_at(request: &Request) -> Nanos {
    match request.answer {
        Answer::Granted { returned, .. } | Answer::Busy { returned } | Answer::Cancelled { returned, .. } => returned,
        Answer::Died { reaped, .. } => reaped,
        Answer::Missing => Nanos::MAX,
    }
}

#[test]
fn every_event_reads_back_as_written() {
    let events = [
        Event::Call {
            lock: "x.lock".to_owned(),
            exclusive: true,
            priority: 5,
        },
        Event::Held { token: Some(71) },
        Event::Held { token: None },
        Event::Busy,
        Event::Cancelled { asked: 6 },
        Event::Release,
        Event::Released,
    ];
    for event in events {
        assert_eq!(Event::parse(&event.line(9)), Some((9, event)));
    }
}

#[test]
fn a_death_ends_what_the_client_was_doing() {
    let call = |at| {
        (
            at,
            Event::Call {
                lock: "x".to_owned(),
                exclusive: true,
                priority: 5,
            },
        )
    };
    let death = Some(Death { killed: 50, reaped: 60 });
    let waiting = assemble(Client(1), &[call(1)], death);
    assert!(matches!(waiting[0].answer, Answer::Died { killed: 50, reaped: 60 }));
    let holding = assemble(Client(1), &[call(1), (2, Event::Held { token: Some(1) })], death);
    assert!(matches!(
        holding[0].answer,
        Answer::Granted {
            end: End::Died { killed: 50, reaped: 60 },
            ..
        }
    ));
    let releasing = assemble(
        Client(1),
        &[call(1), (2, Event::Held { token: Some(1) }), (3, Event::Release)],
        death,
    );
    assert!(matches!(
        releasing[0].answer,
        Answer::Granted {
            end: End::Released {
                called: 3,
                returned: 60
            },
            ..
        }
    ));
}

#[test]
fn a_sighting_between_two_requests_proves_nothing() {
    let request = |called| Request {
        client: Client(1),
        lock: "x".to_owned(),
        mode: Mode::Exclusive,
        priority: 5,
        called,
        queued_by: None,
        answer: Answer::Busy { returned: called + 10 },
    };
    let mut requests = [request(0), request(20)];
    let sighting = |from, to| Sighting {
        client: Client(1),
        lock: "x".to_owned(),
        from,
        to,
    };
    note_sightings(&mut requests, &[sighting(5, 25), sighting(22, 24), sighting(23, 26)]);
    assert_eq!(requests[0].queued_by, None);
    assert_eq!(requests[1].queued_by, Some(24), "the earliest proof counts");
}
