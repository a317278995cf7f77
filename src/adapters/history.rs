//! The history of figures: an SQLite database in the state directory, written in batches by the recorder's thread.
//!
//! It holds the minutes of the last hours and the hours of the last 7 days, a row for each lock and each operation in
//! one. It is worth less than the locks: whatever is wrong with it or with the disk costs figures and nothing else, so
//! it is a file of its own beside the fencing tokens, without a sync at each commit. A crash of the program loses
//! nothing that was committed; a power cut may lose the last seconds.
//!
//! Its size is bounded: before it reaches [`BYTES_MAX`], the oldest day goes.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, Row, Transaction, TransactionBehavior, params};

use super::clock::Clock;
use crate::metrics::{Counts, PackedCell, PackedSeries, Stored};

/// The file's name.
const DATABASE: &str = "history.db";
/// The version of the schema that this program writes.
const SCHEMA: i64 = 1;
/// The bound of the database, in bytes.
pub const BYTES_MAX: i64 = 64 << 20;
/// The size of its pages, in bytes.
const PAGE_BYTES: i64 = 4096;
/// How long hours are kept, in seconds.
const HOURS_KEPT: i64 = 7 * 24 * 3600;
/// How long minutes are kept: as long as the hour that they lie in may still be open, and the last hour, in seconds.
const MINUTES_KEPT: i64 = 2 * 3600;

/// The columns of the counts, in the order of [`Counts::fields`].
const COUNTS: &str = "acquires, releases, waits, timeouts, stale, deadlocks, breaks, steal_attempts, replays";

/// What a row is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Lock = 0,
    Operation = 1,
}

/// Why there is no history, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// Nobody asked for one.
    #[error("no history was asked for")]
    NotWanted,
    /// It was written by a newer program.
    #[error("{} was written by a newer git-lockfs", .0.display())]
    Newer(PathBuf),
    /// A file could not be made or moved.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database could not be read or written.
    #[error("{}: {source}", path.display())]
    Database {
        /// The file.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

/// The history of one repository.
#[derive(Debug)]
pub struct History {
    path: PathBuf,
    database: Connection,
    bytes_max: i64,
}

impl History {
    /// Opens the history in a directory, or begins one. One that is damaged is set aside.
    pub fn open(directory: &Path) -> Result<Self, HistoryError> {
        Self::open_bounded(directory, BYTES_MAX)
    }

    fn open_bounded(directory: &Path, bytes_max: i64) -> Result<Self, HistoryError> {
        let path = directory.join(DATABASE);
        match Self::try_open(&path, bytes_max) {
            Err(HistoryError::Database { source, .. }) if is_damage(&source) => {
                set_aside(directory)?;
                Self::try_open(&path, bytes_max)
            }
            other => other,
        }
    }

    fn try_open(path: &Path, bytes_max: i64) -> Result<Self, HistoryError> {
        let made = OpenOptions::new().append(true).create(true).mode(0o600).open(path);
        made.map_err(|source| HistoryError::File {
            path: path.to_owned(),
            source,
        })?;
        let failed = |source| HistoryError::Database {
            path: path.to_owned(),
            source,
        };
        let database = connect(path, bytes_max).map_err(failed)?;
        let version: i64 = database
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(failed)?;
        if version > SCHEMA {
            return Err(HistoryError::Newer(path.to_owned()));
        }
        make_schema(&database).map_err(failed)?;
        Ok(Self {
            path: path.to_owned(),
            database,
            bytes_max,
        })
    }

    /// Reads everything; `now` in seconds since 1970.
    pub fn read(&self, now: i64) -> Result<Stored, HistoryError> {
        let cells = |seconds: i64, kept: i64| read_cells(&self.database, seconds, now - kept);
        let read = || {
            Ok(Stored {
                minutes: cells(60, MINUTES_KEPT)?,
                hours: cells(3600, HOURS_KEPT + 3600)?,
            })
        };
        read().map_err(|source| self.failed(source))
    }

    /// Writes cells, in one step, over those that were stored for the same time; what is too old goes.
    pub fn write(&mut self, stored: &Stored, now: i64) -> Result<(), HistoryError> {
        let result = self.try_write(stored, now);
        result.map_err(|source| self.failed(source))
    }

    fn try_write(&mut self, stored: &Stored, now: i64) -> rusqlite::Result<()> {
        self.make_room()?;
        let transaction = self
            .database
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let old = "DELETE FROM cells WHERE (seconds = 60 AND start < ?1) OR (seconds = 3600 AND start < ?2)";
        transaction.execute(old, [now - MINUTES_KEPT, now - HOURS_KEPT - 3600])?;
        for (seconds, cells) in [(60, &stored.minutes), (3600, &stored.hours)] {
            for (start, cell) in cells {
                write_cell(&transaction, seconds, *start, cell)?;
            }
        }
        transaction.commit()
    }

    /// Lets the oldest day go when nine tenths of the room are used.
    fn make_room(&self) -> rusqlite::Result<()> {
        let pages = |name: &str| self.database.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let used = (pages("page_count")? - pages("freelist_count")?) * PAGE_BYTES;
        if used > self.bytes_max / 10 * 9 {
            let oldest = "DELETE FROM cells WHERE seconds = 3600 AND start < 24 * 3600 +
                          (SELECT min(start) FROM cells WHERE seconds = 3600)";
            let gone = self.database.execute(oldest, [])?;
            tracing::info!("the history has reached its bound: its oldest day goes ({gone} rows)");
        }
        Ok(())
    }

    fn failed(&self, source: rusqlite::Error) -> HistoryError {
        HistoryError::Database {
            path: self.path.clone(),
            source,
        }
    }
}

fn connect(path: &Path, bytes_max: i64) -> rusqlite::Result<Connection> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    database.busy_timeout(Duration::from_secs(1))?;
    database.pragma_update(None, "page_size", PAGE_BYTES)?;
    database.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    // Whoever else opens it only looks; a commit that a power cut undoes is no loss.
    database.pragma_update(None, "synchronous", "NORMAL")?;
    database.pragma_update_and_check(None, "journal_size_limit", 4 << 20, |_| Ok(()))?;
    database.pragma_update_and_check(None, "max_page_count", bytes_max / PAGE_BYTES, |_| Ok(()))?;
    Ok(database)
}

fn make_schema(database: &Connection) -> rusqlite::Result<()> {
    let counts = COUNTS.split(", ").map(|name| format!("{name} INTEGER NOT NULL, "));
    database.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         CREATE TABLE IF NOT EXISTS cells (
             seconds INTEGER NOT NULL, start INTEGER NOT NULL, kind INTEGER NOT NULL, name TEXT NOT NULL,
             {} wait BLOB NOT NULL, hold BLOB NOT NULL,
             PRIMARY KEY (seconds, start, kind, name)
         ) STRICT, WITHOUT ROWID;
         PRAGMA user_version = {SCHEMA};
         COMMIT;",
        counts.collect::<String>()
    ))
}

fn read_cells(database: &Connection, seconds: i64, since: i64) -> rusqlite::Result<Vec<(i64, PackedCell)>> {
    let mut statement = database.prepare(&format!(
        "SELECT start, kind, name, wait, hold, {COUNTS} FROM cells WHERE seconds = ?1 AND start >= ?2 ORDER BY start"
    ))?;
    let mut rows = statement.query([seconds, since])?;
    let mut cells: Vec<(i64, PackedCell)> = Vec::new();
    while let Some(row) = rows.next()? {
        let start: i64 = row.get(0)?;
        if cells.last().is_none_or(|(last, _)| *last != start) {
            cells.push((start, PackedCell::default()));
        }
        let Some((_, cell)) = cells.last_mut() else { continue };
        let list = if row.get::<_, i64>(1)? == Kind::Lock as i64 {
            &mut cell.locks
        } else {
            &mut cell.ops
        };
        list.push(read_series(row)?);
    }
    Ok(cells)
}

fn read_series(row: &Row<'_>) -> rusqlite::Result<PackedSeries> {
    let mut counts = Counts::default();
    for (at, field) in counts.fields_mut().into_iter().enumerate() {
        *field = u64::try_from(row.get::<_, i64>(5 + at)?).unwrap_or_default();
    }
    Ok(PackedSeries {
        name: Arc::from(row.get::<_, String>(2)?),
        counts,
        wait: row.get::<_, Vec<u8>>(3)?.into(),
        hold: row.get::<_, Vec<u8>>(4)?.into(),
    })
}

fn write_cell(transaction: &Transaction<'_>, seconds: i64, start: i64, cell: &PackedCell) -> rusqlite::Result<()> {
    let mut statement = transaction.prepare_cached(&format!(
        "INSERT OR REPLACE INTO cells (seconds, start, kind, name, wait, hold, {COUNTS})
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)"
    ))?;
    for (kind, list) in [(Kind::Lock, &cell.locks), (Kind::Operation, &cell.ops)] {
        for series in list {
            let counts = series
                .counts
                .fields()
                .map(|count| i64::try_from(count).unwrap_or(i64::MAX));
            let [a, b, c, d, e, f, g, h, i] = counts;
            statement.execute(params![
                seconds,
                start,
                kind as i64,
                &*series.name,
                &*series.wait,
                &*series.hold,
                a,
                b,
                c,
                d,
                e,
                f,
                g,
                h,
                i
            ])?;
        }
    }
    Ok(())
}

/// Whether the file, not the disk or the permissions, is what is wrong.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => matches!(
            failure.code,
            ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown
        ),
        rusqlite::Error::SqlInputError { .. } | rusqlite::Error::InvalidColumnType(..) => true,
        _ => false,
    }
}

/// Moves a damaged history out of the way, over one that was moved earlier.
fn set_aside(directory: &Path) -> Result<(), HistoryError> {
    for suffix in ["-wal", "-shm", ""] {
        let from = directory.join(format!("{DATABASE}{suffix}"));
        let to = directory.join(format!("{DATABASE}.damaged{suffix}"));
        match fs::rename(&from, &to) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(HistoryError::File { path: from, source });
            }
            Ok(()) if suffix.is_empty() => {
                let at = Clock::wall();
                tracing::warn!(%at, "{} is damaged and was set aside as {}", from.display(), to.display());
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::metrics::{Cell, Kind as Happened, Record};
    use crate::types::{LockName, Mode};

    const NOW: i64 = 1_763_649_600;

    fn cell(lock: &str, micros: &[u64]) -> PackedCell {
        let mut cell = Cell::default();
        for micros in micros {
            cell.count(&Record {
                at: NOW * 1000,
                kind: Happened::Release,
                lock: LockName::parse(lock.as_bytes()).ok(),
                mode: Mode::Exclusive,
                pid: 1,
                session: None,
                op: Some(Arc::from("git merge")),
                span: Duration::from_micros(*micros),
            });
        }
        PackedCell::of(&cell)
    }

    fn hours(starts: impl IntoIterator<Item = i64>, cell: &PackedCell) -> Stored {
        Stored {
            hours: starts.into_iter().map(|start| (start, cell.clone())).collect(),
            ..Stored::default()
        }
    }

    #[test]
    fn what_was_written_is_read_again_also_after_a_crash() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut history = History::open(dir.path()).expect("open");
        let stored = Stored {
            minutes: vec![(NOW - 60, cell("x.lock", &[1, 2, 3])), (NOW, cell("y.lock", &[9]))],
            hours: vec![(NOW - 3600, cell("x.lock", &[4_000_000]))],
        };
        history.write(&stored, NOW).expect("write");
        history.write(&stored, NOW).expect("the same again is no more");
        // No orderly end, as after SIGKILL.
        std::mem::forget(history);
        let again = History::open(dir.path()).expect("open").read(NOW).expect("read");
        assert_eq!(format!("{again:?}"), format!("{stored:?}"));
        let mode = |name: &str| fs::metadata(dir.path().join(name)).expect("stat").permissions().mode() & 0o777;
        assert_eq!([mode(DATABASE), mode("history.db-wal")], [0o600; 2]);
    }

    #[test]
    fn what_is_older_than_a_week_goes() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut history = History::open(dir.path()).expect("open");
        let cell = cell("x.lock", &[1]);
        let week = (0..200).map(|back| NOW - back * 3600);
        history.write(&hours(week, &cell), NOW).expect("write");
        history.write(&Stored::default(), NOW).expect("write");
        let count: i64 = history
            .database
            .query_row("SELECT count(DISTINCT start) FROM cells", [], |row| row.get(0))
            .expect("count");
        assert_eq!(count, 170);
    }

    #[test]
    fn the_size_is_bounded_and_the_newest_stay() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut history = History::open_bounded(dir.path(), 1 << 20).expect("open");
        let many: Vec<u64> = (0..3000).map(|at| at * at).collect();
        let cell = cell(&format!("{}.lock", "x".repeat(200)), &many);
        for back in (0..150).rev() {
            history
                .write(&hours([NOW - back * 3600], &cell), NOW)
                .expect("there is always room");
        }
        let stored = history.read(NOW).expect("read");
        assert_eq!(stored.hours.last().map(|(start, _)| *start), Some(NOW));
        assert!((24..150).contains(&stored.hours.len()), "{}", stored.hours.len());
        drop(history);
        let bytes = fs::metadata(dir.path().join(DATABASE)).expect("stat").len();
        assert!(bytes <= 1 << 20, "{bytes}");
    }

    #[test]
    fn what_is_larger_than_all_the_room_is_refused_and_leaves_what_was_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut history = History::open_bounded(dir.path(), 1 << 20).expect("open");
        let small = hours([NOW - 3600], &cell("x.lock", &[1]));
        history.write(&small, NOW).expect("there is room");
        let many: Vec<u64> = (0..3000).map(|at| at * at).collect();
        let large = hours((1..500).map(|back| NOW - back * 60), &cell("y.lock", &many));
        let refused = history.write(&large, NOW).expect_err("it does not fit");
        assert!(refused.to_string().contains("full"), "{refused}");
        assert_eq!(format!("{:?}", history.read(NOW).expect("read")), format!("{small:?}"));
        history
            .write(&hours([NOW], &cell("z.lock", &[1])), NOW)
            .expect("there is room");
        drop(history);
        let bytes = fs::metadata(dir.path().join(DATABASE)).expect("stat").len();
        assert!(bytes <= 1 << 20, "{bytes}");
    }

    #[test]
    fn a_damaged_history_is_set_aside_and_a_newer_one_left_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(
            dir.path().join(DATABASE),
            "this is no database, and long enough to tell ".repeat(50),
        )
        .expect("write");
        let history = History::open(dir.path()).expect("a new one");
        assert!(history.read(NOW).expect("read").hours.is_empty());
        assert!(dir.path().join("history.db.damaged").exists());
        history
            .database
            .pragma_update(None, "user_version", SCHEMA + 1)
            .expect("a newer schema");
        drop(history);
        assert!(matches!(History::open(dir.path()), Err(HistoryError::Newer(_))));
    }
}
