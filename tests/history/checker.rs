//! The rules of locking, and nothing else: says whether a history can have come from a correct arbiter.
//!
//! 1. *Exclusion*: no two sections of conflicting modes on one lock overlap. A section surely lasts from the return of
//!    the acquire to the call of the release (or to the kill of its holder).
//! 2. *Tokens*: no token is given twice; a grant that returned before another was called, on whatever lock, has the
//!    smaller token; on one lock tokens grow in the order of the sections.
//! 3. *Answers*: every request of a client that lives is answered.
//! 4. *Reasons*: a request is refused as busy only if somebody may have held the lock, or may have been ahead in its
//!    line, at some moment of the call.
//! 5. *Order*: who was seen in the line before another called, with at least its priority, is served before it.
//!
//! The checker only reports what call and return times prove, whatever the scheduler did in between: it never blames a
//! correct arbiter.

use std::collections::{BTreeMap, BTreeSet};

use crate::record::{Answer, Client, End, Nanos, Request};

/// A rule that was broken, and by which requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// Two sections overlap.
    Overlap {
        lock: String,
        first: Client,
        second: Client,
    },
    /// A token was given twice.
    TokenTwice { token: u64 },
    /// A later grant has a smaller token.
    TokenBack { earlier: u64, later: u64 },
    /// A request was never answered.
    Unanswered { lock: String, client: Client },
    /// Refused as busy while nobody can have been in the way.
    BusyWithNobody { lock: String, client: Client },
    /// Served before somebody who was ahead in the line.
    Overtaken { lock: String, ahead: Client, by: Client },
}

/// Everything the history proves to be wrong.
pub fn check(history: &[Request]) -> Vec<Violation> {
    let mut by_lock: BTreeMap<&str, Vec<&Request>> = BTreeMap::new();
    for request in history {
        by_lock.entry(&request.lock).or_default().push(request);
    }
    let mut found = Vec::new();
    for requests in by_lock.values() {
        exclusion(requests, &mut found);
        answers(requests, &mut found);
        reasons(requests, &mut found);
        order(requests, &mut found);
        tokens_of_one_lock(requests, &mut found);
    }
    tokens_of_all(history, &mut found);
    found
}

/// From when to when the client surely held the lock.
fn section(request: &Request) -> Option<(Nanos, Nanos)> {
    let Answer::Granted { returned, end, .. } = &request.answer else {
        return None;
    };
    let last = match end {
        End::Released { called, .. } => *called,
        End::Died { killed, .. } => *killed,
        End::Held => Nanos::MAX,
    };
    Some((*returned, last))
}

/// From when to when the request may have been in the way of others, waiting or holding.
fn presence(request: &Request) -> (Nanos, Nanos) {
    let last = match &request.answer {
        Answer::Granted { end, .. } => match end {
            End::Released { returned, .. } => *returned,
            End::Died { reaped, .. } => *reaped,
            End::Held => Nanos::MAX,
        },
        Answer::Busy { returned } | Answer::Cancelled { returned, .. } => *returned,
        Answer::Died { reaped, .. } => *reaped,
        Answer::Missing => Nanos::MAX,
    };
    (request.called, last)
}

/// Until when the request surely stood in the line, once it was there.
fn surely_waits_until(request: &Request) -> Nanos {
    match &request.answer {
        // The moment of a grant is not known, but a conflicting section that began before ours was granted before ours.
        Answer::Granted { returned, .. } => *returned,
        // It may have gone at any moment of the call: the limit is the arbiter's.
        Answer::Busy { .. } => 0,
        Answer::Cancelled { asked, .. } => *asked,
        Answer::Died { killed, .. } => *killed,
        Answer::Missing => Nanos::MAX,
    }
}

fn exclusion(requests: &[&Request], found: &mut Vec<Violation>) {
    let mut sections: Vec<_> = requests.iter().filter_map(|r| Some((section(r)?, *r))).collect();
    sections.sort_by_key(|(span, _)| *span);
    for (at, ((_, end), one)) in sections.iter().enumerate() {
        let overlapping = sections[at + 1..].iter().take_while(|((start, _), _)| start < end);
        for (_, other) in overlapping.filter(|(_, other)| other.mode.conflicts(one.mode)) {
            found.push(Violation::Overlap {
                lock: one.lock.clone(),
                first: one.client,
                second: other.client,
            });
        }
    }
}

fn answers(requests: &[&Request], found: &mut Vec<Violation>) {
    for request in requests {
        if matches!(request.answer, Answer::Missing) {
            found.push(Violation::Unanswered {
                lock: request.lock.clone(),
                client: request.client,
            });
        }
    }
}

fn reasons(requests: &[&Request], found: &mut Vec<Violation>) {
    for (at, request) in requests.iter().enumerate() {
        let Answer::Busy { returned } = request.answer else {
            continue;
        };
        let in_the_way = requests.iter().enumerate().any(|(other_at, other)| {
            let (from, to) = presence(other);
            other_at != at && other.mode.conflicts(request.mode) && from <= returned && request.called <= to
        });
        if !in_the_way {
            found.push(Violation::BusyWithNobody {
                lock: request.lock.clone(),
                client: request.client,
            });
        }
    }
}

fn order(requests: &[&Request], found: &mut Vec<Violation>) {
    let mut by_call: Vec<&Request> = requests.to_vec();
    by_call.sort_by_key(|r| r.called);
    for ahead in requests {
        let Some(queued) = ahead.queued_by else { continue };
        let until = surely_waits_until(ahead);
        let first_later = by_call.partition_point(|r| r.called <= queued);
        let later = by_call[first_later..].iter().take_while(|r| r.called < until);
        for by in later.filter(|by| by.mode.conflicts(ahead.mode) && by.priority <= ahead.priority) {
            // Granted before `by` returned, and `ahead` was surely waiting until then.
            if section(by).is_some_and(|(start, _)| start < until) {
                found.push(Violation::Overtaken {
                    lock: ahead.lock.clone(),
                    ahead: ahead.client,
                    by: by.client,
                });
            }
        }
    }
}

fn tokens_of_one_lock(requests: &[&Request], found: &mut Vec<Violation>) {
    let mut sections: Vec<_> = requests.iter().filter_map(|r| Some((section(r)?, token(r)?))).collect();
    sections.sort();
    for pair in sections.windows(2) {
        let (earlier, later) = (pair[0].1, pair[1].1);
        if earlier > later {
            found.push(Violation::TokenBack { earlier, later });
        }
    }
}

fn tokens_of_all(history: &[Request], found: &mut Vec<Violation>) {
    let mut granted: Vec<(Nanos, Nanos, u64)> = history
        .iter()
        .filter_map(|r| Some((section(r)?.0, r.called, token(r)?)))
        .collect();
    let mut seen = BTreeSet::new();
    for &(_, _, token) in &granted {
        if !seen.insert(token) {
            found.push(Violation::TokenTwice { token });
        }
    }
    granted.sort();
    let mut by_call = granted.clone();
    by_call.sort_by_key(|&(_, called, _)| called);
    let (mut returned_before, mut highest) = (0, 0);
    for (_, called, later) in by_call {
        while granted
            .get(returned_before)
            .is_some_and(|&(returned, _, _)| returned < called)
        {
            highest = highest.max(granted[returned_before].2);
            returned_before += 1;
        }
        if later < highest {
            found.push(Violation::TokenBack {
                earlier: highest,
                later,
            });
        }
    }
}

/// Fencing tokens are promised for exclusive grants.
fn token(request: &Request) -> Option<u64> {
    match request.answer {
        Answer::Granted { token, .. } if request.mode == crate::record::Mode::Exclusive => token,
        _ => None,
    }
}
