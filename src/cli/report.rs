//! Sentences about locks for people: who holds, since when, for how long, what for.

use std::time::Duration;

use super::locks_json::{Held, Holder, Snapshot};

/// A span as people say it: `0.5s`, `12s`, `3m12s`, `2h05m`, `4d03h`.
pub fn span(span: Duration) -> String {
    let seconds = span.as_secs();
    match seconds {
        ..10 => {
            let tenths = span.as_millis() / 100;
            match tenths % 10 {
                0 => format!("{seconds}s"),
                tenth => format!("{seconds}.{tenth}s"),
            }
        }
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86400, seconds / 3600 % 24),
    }
}

/// A span given in milliseconds.
pub fn span_ms(millis: u64) -> String {
    span(Duration::from_millis(millis))
}

/// The time of day here of an RFC 3339 moment, with its date when it is more than a day ago; the text itself when it
/// is no such moment.
pub fn clock(moment: &str, age: Duration) -> String {
    let Some(local) = moment.parse::<jiff::Timestamp>().ok().and_then(local_time) else {
        return moment.to_owned();
    };
    let time = format!("{:02}:{:02}:{:02}", local.tm_hour, local.tm_min, local.tm_sec);
    if age < Duration::from_secs(24 * 3600) {
        time
    } else {
        format!(
            "{:04}-{:02}-{:02} {time}",
            local.tm_year + 1900,
            local.tm_mon + 1,
            local.tm_mday
        )
    }
}

fn local_time(moment: jiff::Timestamp) -> Option<libc::tm> {
    let seconds: libc::time_t = moment.as_second();
    // SAFETY: an all-zero `tm` is a valid value (its zone pointer may be null); localtime_r fills it from `seconds`
    // and keeps neither pointer.
    let (done, local) = unsafe {
        let mut local: libc::tm = std::mem::zeroed();
        (!libc::localtime_r(&seconds, &mut local).is_null(), local)
    };
    done.then_some(local)
}

/// A process and its session: `4242 (agent-7)`.
pub fn who(pid: u32, session: Option<&str>) -> String {
    let process = match pid {
        0 => "a process that cannot be seen from here".to_owned(),
        pid => pid.to_string(),
    };
    match session {
        Some(session) => format!("{process} ({session})"),
        None => process,
    }
}

/// `held by 4242 (agent-7) since 14:40:00, for 3m12s: git merge`
pub fn held_by(holder: &Holder) -> String {
    let who = match (holder.pid, holder.held, &holder.session) {
        // A lease belongs to no process in particular.
        (0, Held::Lease, Some(session)) => format!("session {session}"),
        (pid, _, session) => who(pid, session.as_deref()),
    };
    let since = clock(&holder.since, holder.age());
    let age = span(holder.age());
    match &holder.op {
        Some(op) => format!("held by {who} since {since}, for {age}: {op}"),
        None => format!("held by {who} since {since}, for {age}"),
    }
}

/// A sentence for each holder of the locks of these names.
pub fn holders_of<'a>(snapshot: &Snapshot, names: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    names
        .into_iter()
        .flat_map(|name| {
            let sentence = move |holder: &Holder| format!("{name} is {}", held_by(holder));
            snapshot.holders(name).iter().map(sentence)
        })
        .collect()
}

/// A sentence for everything that is held or waited for; empty when the mount is idle.
pub fn in_use(snapshot: &Snapshot) -> Vec<String> {
    let mut lines = holders_of(snapshot, snapshot.locks.iter().map(|lock| lock.name.as_str()));
    for lock in snapshot.locks.iter().filter(|lock| !lock.waiters.is_empty()) {
        let waiters: Vec<String> = lock
            .waiters
            .iter()
            .take(NAMED_MAX)
            .map(|w| who(w.pid, w.session.as_deref()))
            .collect();
        let more = lock.waiters.len() - waiters.len();
        let more = if more == 0 {
            String::new()
        } else {
            format!(" and {more} more")
        };
        lines.push(format!("{} is waited for by {}{more}", lock.name, waiters.join(", ")));
    }
    lines
}

/// How many processes a sentence names before it counts the rest.
const NAMED_MAX: usize = 5;

#[cfg(test)]
mod tests {
    use super::super::locks_json::SAMPLE;
    use super::*;

    #[test]
    fn spans_read_like_speech() {
        let cases = [
            (0, "0s"),
            (500, "0.5s"),
            (1200, "1.2s"),
            (12_900, "12s"),
            (192_000, "3m12s"),
            (7_500_000, "2h05m"),
            (356_400_000, "4d03h"),
        ];
        for (millis, text) in cases {
            assert_eq!(span_ms(millis), text);
        }
    }

    #[test]
    fn a_holder_is_named_with_session_time_and_operation() {
        let snapshot = Snapshot::parse(SAMPLE.as_bytes()).expect("sample");
        let lines = holders_of(&snapshot, ["x.lock", "free.lock"]);
        assert_eq!(lines.len(), 1);
        assert!(
            lines[0].starts_with("x.lock is held by 4242 (agent-7) since "),
            "{}",
            lines[0]
        );
        assert!(lines[0].ends_with(", for 3m12s: git merge"), "{}", lines[0]);
    }

    #[test]
    fn what_is_in_use_names_holders_and_waiters() {
        let snapshot = Snapshot::parse(SAMPLE.as_bytes()).expect("sample");
        let lines = in_use(&snapshot);
        assert_eq!(lines.len(), 4, "three holders and one line of waiters: {lines:?}");
        assert_eq!(lines[3], "x.lock is waited for by 4250, 4251 (agent-9)");
        assert!(lines[1].contains("a process that cannot be seen from here"));
    }

    #[test]
    fn a_moment_that_is_none_is_shown_as_it_is() {
        assert_eq!(clock("soon", Duration::ZERO), "soon");
        assert_eq!(clock("2026-11-20T14:40:00Z", Duration::ZERO).len(), 8);
        assert_eq!(
            clock("2026-11-20T14:40:00Z", Duration::from_secs(90_000)).len(),
            19,
            "an old moment has its date"
        );
    }
}
