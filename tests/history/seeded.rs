//! Histories with a bug written into them by hand, one rule each: the checker must name it, and must stay silent on
//! the correct history beside it.

use crate::checker::{Violation, check};
use crate::record::{Answer, Client, End, Mode, Nanos, Request};

fn request(client: u32, called: Nanos, answer: Answer) -> Request {
    Request {
        client: Client(client),
        lock: "x.lock".to_owned(),
        mode: Mode::Exclusive,
        priority: 5,
        called,
        queued_by: None,
        answer,
    }
}

fn granted(client: u32, called: Nanos, held: std::ops::Range<Nanos>, token: u64) -> Request {
    let end = End::Released {
        called: held.end,
        returned: held.end + 2,
    };
    request(
        client,
        called,
        Answer::Granted {
            returned: held.start,
            token: Some(token),
            end,
        },
    )
}

fn seen_waiting(mut request: Request, at: Nanos) -> Request {
    request.queued_by = Some(at);
    request
}

fn shared(mut request: Request) -> Request {
    request.mode = Mode::Shared;
    request
}

#[test]
fn sections_that_follow_each_other_are_correct() {
    let history = [
        granted(1, 0, 10..20, 1),
        granted(2, 5, 22..30, 2),
        request(3, 12, Answer::Busy { returned: 14 }),
        shared(granted(4, 6, 40..50, 3)),
        shared(granted(5, 6, 41..60, 4)),
    ];
    assert_eq!(check(&history), []);
}

#[test]
fn overlapping_sections_are_found() {
    let history = [granted(1, 0, 10..20, 1), granted(2, 5, 19..30, 2)];
    let overlap = Violation::Overlap {
        lock: "x.lock".to_owned(),
        first: Client(1),
        second: Client(2),
    };
    assert_eq!(check(&history), [overlap]);
}

#[test]
fn a_shared_section_within_an_exclusive_one_is_found() {
    let history = [granted(1, 0, 10..90, 1), shared(granted(2, 5, 19..30, 2))];
    assert!(matches!(check(&history)[..], [Violation::Overlap { .. }]));
}

/// The first seeded bug: the release of client 1 is lost; the lock stays taken by nobody.
#[test]
fn a_lost_release_is_found() {
    let waiter_left_alone = [granted(1, 0, 10..20, 1), request(2, 5, Answer::Missing)];
    let unanswered = Violation::Unanswered {
        lock: "x.lock".to_owned(),
        client: Client(2),
    };
    assert_eq!(check(&waiter_left_alone), [unanswered]);

    let try_refused = [granted(1, 0, 10..20, 1), request(2, 30, Answer::Busy { returned: 31 })];
    let busy = Violation::BusyWithNobody {
        lock: "x.lock".to_owned(),
        client: Client(2),
    };
    assert_eq!(check(&try_refused), [busy]);
}

/// The second seeded bug: client 1 owned the lock by PID and died; client 2 got its PID, and the arbiter takes one for
/// the other: it thinks the lock held, or gives up the lock of client 2 for the death of client 1.
#[test]
fn a_reused_pid_is_found() {
    let owner_that_died = request(
        1,
        0,
        Answer::Granted {
            returned: 2,
            token: Some(1),
            end: End::Died { killed: 10, reaped: 12 },
        },
    );
    let thought_alive = [owner_that_died.clone(), request(3, 30, Answer::Busy { returned: 31 })];
    assert!(matches!(check(&thought_alive)[..], [Violation::BusyWithNobody { .. }]));

    let thought_dead = [owner_that_died, granted(2, 15, 20..50, 2), granted(3, 25, 30..40, 3)];
    assert!(matches!(check(&thought_dead)[..], [Violation::Overlap { .. }]));
}

/// The third seeded bug: client 2 gave up, was told so, and is granted the lock later all the same.
#[test]
fn a_grant_after_a_cancel_is_found() {
    let gave_up = request(2, 5, Answer::Cancelled { asked: 8, returned: 9 });
    let left_alone = [granted(1, 0, 1..20, 1), gave_up.clone(), request(3, 7, Answer::Missing)];
    assert!(matches!(
        check(&left_alone)[..],
        [Violation::Unanswered { client: Client(3), .. }]
    ));

    let refused = [
        granted(1, 0, 1..20, 1),
        gave_up,
        request(3, 30, Answer::Busy { returned: 31 }),
    ];
    assert!(matches!(
        check(&refused)[..],
        [Violation::BusyWithNobody { client: Client(3), .. }]
    ));
}

#[test]
fn tokens_that_repeat_or_go_back_are_found() {
    let twice = [granted(1, 0, 10..20, 7), granted(2, 5, 22..30, 7)];
    assert_eq!(check(&twice), [Violation::TokenTwice { token: 7 }]);

    let back = check(&[granted(1, 0, 10..20, 7), granted(2, 5, 22..30, 6)]);
    assert_eq!(
        back,
        [Violation::TokenBack { earlier: 7, later: 6 }],
        "in the order of the sections"
    );

    let mut elsewhere = granted(2, 15, 16..30, 6);
    elsewhere.lock = "y.lock".to_owned();
    let back = check(&[granted(1, 0, 10..20, 7), elsewhere]);
    assert_eq!(
        back,
        [Violation::TokenBack { earlier: 7, later: 6 }],
        "also over two locks"
    );
}

#[test]
fn a_waiter_that_was_overtaken_is_found() {
    let holder = granted(1, 0, 1..20, 1);
    let ahead = seen_waiting(granted(2, 2, 40..50, 3), 5);
    let later = granted(3, 6, 22..30, 2);
    let overtaken = Violation::Overtaken {
        lock: "x.lock".to_owned(),
        ahead: Client(2),
        by: Client(3),
    };
    assert_eq!(
        check(&[holder.clone(), ahead.clone(), later.clone()]),
        std::slice::from_ref(&overtaken)
    );

    let mut unseen = ahead.clone();
    unseen.queued_by = None;
    assert_eq!(
        check(&[holder.clone(), unseen, later.clone()]),
        [],
        "without a sighting, call times prove no order"
    );

    let mut important = later.clone();
    important.priority = 10;
    assert_eq!(
        check(&[holder.clone(), ahead, important]),
        [],
        "a higher priority goes first"
    );

    let killed_later = Answer::Died { killed: 35, reaped: 36 };
    let victim = seen_waiting(request(2, 2, killed_later), 5);
    assert_eq!(
        check(&[holder, victim, later]),
        [overtaken],
        "the victim lived when the other was served"
    );
}
