//! The event log, `metrics/events.csv`: it only grows, and what is oldest is forgotten.
//!
//! Each line has an offset that stays its own. Who opens the file sees it from the oldest line that is kept then (its
//! base), below the header; what is forgotten later does not move what that reader sees. One that falls so far behind
//! that its next line is gone is told so. A reader from the life of an earlier daemon goes on where it is: what comes
//! next for it is the first line of this life.

use std::collections::VecDeque;
use std::fmt::Write;

use super::record::Record;

/// The first line of the file.
pub const HEADER: &str = "timestamp,metric_type,lock_file,duration_ms,operation\n";
/// How many bytes of lines are kept: about 100,000 events.
pub const LOG_BYTES_MAX: usize = 8 << 20;

/// What a reader gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// Bytes; none at the end.
    Bytes(Vec<u8>),
    /// They are forgotten.
    Gone,
}

/// The lines that are kept.
#[derive(Debug, Default)]
pub struct EventLog {
    lines: VecDeque<u8>,
    /// The offset of the first byte that is kept.
    base: u64,
    /// The offset of the first byte of this life.
    beginning: u64,
}

impl EventLog {
    /// An empty log of a daemon that began then, in milliseconds since 1970. Its offsets lie above those of earlier
    /// daemons, so that their readers are known.
    pub fn beginning(now: i64) -> Self {
        // Nobody logs a megabyte a second for as long as a daemon lives.
        let beginning = u64::try_from(now).unwrap_or_default() << 10;
        Self {
            lines: VecDeque::new(),
            base: beginning,
            beginning,
        }
    }

    /// Whether a reader who began at that base opened the file in the life of an earlier daemon.
    pub fn is_of_earlier_life(&self, base: u64) -> bool {
        base < self.beginning
    }

    /// The base that lets such a reader go on with the oldest line that is kept, at the offset where it reads next.
    pub fn base_from(&self, offset: u64) -> u64 {
        self.base - offset.saturating_sub(HEADER.len() as u64).min(self.base)
    }

    /// Adds the line of a record.
    pub fn append(&mut self, record: &Record) {
        let line = line(record);
        while self.lines.len() + line.len() > LOG_BYTES_MAX {
            // A sixteenth at once, to the end of a line: looking for ends one by one would cost more than the lines.
            let least = (LOG_BYTES_MAX / 16).min(self.lines.len());
            let end = self.lines.iter().skip(least).position(|&byte| byte == b'\n');
            let gone = end.map_or(self.lines.len(), |end| least + end + 1);
            self.lines.drain(..gone);
            self.base += gone as u64;
        }
        self.lines.extend(line.bytes());
    }

    /// Where a reader begins who opens the file now.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// The size of the file for a reader who began at that base.
    pub fn size(&self, base: u64) -> u64 {
        HEADER.len() as u64 + (self.base + self.lines.len() as u64).saturating_sub(base)
    }

    /// What a read at that offset gets, for a reader who began at that base.
    pub fn read(&self, base: u64, offset: u64, size: u32) -> Piece {
        let (header, size) = (HEADER.len() as u64, size as usize);
        if offset < header {
            let head = &HEADER.as_bytes()[usize::try_from(offset).unwrap_or_default()..];
            let head = &head[..head.len().min(size)];
            let rest = u32::try_from(size - head.len()).unwrap_or(u32::MAX);
            return match self.read(base, header, rest) {
                Piece::Bytes(lines) => Piece::Bytes([head, &lines].concat()),
                Piece::Gone => Piece::Bytes(head.to_vec()),
            };
        }
        let Some(start) = (base + (offset - header)).checked_sub(self.base) else {
            return Piece::Gone;
        };
        let start = usize::try_from(start).unwrap_or(usize::MAX).min(self.lines.len());
        let end = start.saturating_add(size).min(self.lines.len());
        Piece::Bytes(self.lines.range(start..end).copied().collect())
    }
}

fn line(record: &Record) -> String {
    let mut line = stamp(record.at);
    let micros = record.span.as_micros();
    // Writing to a String cannot fail. A lock's name has no comma and no quote.
    let _ = write!(
        line,
        ",{},{},{}.{:03},",
        record.kind,
        record.lock.as_ref().map(|lock| lock.as_str()).unwrap_or_default(),
        micros / 1000,
        micros % 1000
    );
    field(&mut line, record.op.as_deref().unwrap_or_default());
    line.push('\n');
    line
}

/// A time as `2026-11-20T14:40:00.123Z`.
fn stamp(at: i64) -> String {
    let at = jiff::Timestamp::from_millisecond(at).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    format!("{at:.3}")
}

/// A field as RFC 4180 has it.
fn field(line: &mut String, text: &str) {
    if text.contains([',', '"', '\n', '\r']) {
        let _ = write!(line, "\"{}\"", text.replace('"', "\"\""));
    } else {
        line.push_str(text);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::super::record::Kind;
    use super::*;
    use crate::types::{LockName, Mode};

    fn record(op: &str) -> Record {
        Record {
            at: 1_763_649_600_123,
            kind: Kind::Release,
            lock: LockName::parse(b"x.lock").ok(),
            mode: Mode::Exclusive,
            pid: 1,
            session: None,
            op: Some(Arc::from(op)),
            span: Duration::from_micros(12_345),
        }
    }

    fn text(log: &EventLog, base: u64, offset: u64) -> String {
        match log.read(base, offset, u32::MAX) {
            Piece::Bytes(bytes) => String::from_utf8(bytes).expect("text"),
            Piece::Gone => "gone".to_owned(),
        }
    }

    #[test]
    fn a_line_has_the_columns_of_the_header() {
        let mut log = EventLog::default();
        log.append(&record("git merge"));
        log.append(&record("a,\"b\""));
        let expected = format!(
            "{HEADER}2025-11-20T14:40:00.123Z,release,x.lock,12.345,git merge\n\
             2025-11-20T14:40:00.123Z,release,x.lock,12.345,\"a,\"\"b\"\"\"\n"
        );
        assert_eq!(text(&log, log.base(), 0), expected);
        assert_eq!(log.size(log.base()), expected.len() as u64);
        assert_eq!(text(&log, 0, 4), expected[4..]);
        assert_eq!(text(&log, 0, 60), expected[60..]);
    }

    #[test]
    fn a_reader_of_an_earlier_life_goes_on_with_the_first_line_of_this_one() {
        let mut former = EventLog::beginning(1_000_000);
        former.append(&record("former"));
        let (base, seen) = (former.base(), former.size(former.base()));
        let mut log = EventLog::beginning(2_000_000);
        log.append(&record("first"));
        assert!(log.is_of_earlier_life(base) && !log.is_of_earlier_life(log.base()));
        let moved = log.base_from(seen);
        assert_eq!(log.size(moved), seen + text(&log, moved, seen).len() as u64);
        assert!(text(&log, moved, seen).ends_with(",first\n"));
        assert_eq!(
            log.read(moved, seen - 1, 9),
            Piece::Gone,
            "what was before is another's"
        );
        assert_eq!(
            text(&log, log.base_from(0), 0),
            text(&log, log.base(), 0),
            "nothing was read yet"
        );
    }

    #[test]
    fn a_reader_keeps_its_offsets_until_its_next_line_is_forgotten() {
        let mut log = EventLog::default();
        log.append(&record("first"));
        let (base, seen) = (log.base(), log.size(log.base()));
        log.append(&record("second"));
        let second = text(&log, base, seen);
        assert!(second.ends_with(",second\n"), "{second}");
        while log.base() == 0 {
            log.append(&record("many"));
        }
        assert!(log.lines.len() <= LOG_BYTES_MAX);
        assert_eq!(text(&log, base, seen), "gone");
        assert!(
            text(&log, base, log.size(base) - 5).ends_with("many\n"),
            "the end is where it was"
        );
        let fresh = text(&log, log.base(), 0);
        assert!(
            fresh.lines().nth(1).is_some_and(|line| line.ends_with(",many")),
            "whole lines"
        );
    }
}
