//! The database: the first of the two records, and the home of whatever else must outlive the daemon.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, TransactionBehavior};

use super::{COUNT_MAX, FIRST, Reading, TokenError, file_error, private_file};

/// The file's name.
pub(super) const DATABASE: &str = "state.db";
/// The version of the schema that this program writes.
pub(super) const SCHEMA: i64 = 1;

/// Opens the database and reads the end of the block from it. `None` when it is damaged.
pub(super) fn open(directory: &Path) -> Result<Option<(Connection, Reading)>, TokenError> {
    let path = directory.join(DATABASE);
    // SQLite gives its journal the mode of the database, and makes the database for all to read.
    private_file(OpenOptions::new().append(true), &path).map_err(|source| file_error(&path, source))?;
    let result = connect(&path).and_then(|database| {
        let version = database.pragma_query_value(None, "user_version", |row| row.get::<_, i64>(0))?;
        let reading = if version == SCHEMA {
            read_database(&database)?
        } else {
            Reading::Absent
        };
        Ok((database, version, reading))
    });
    match result {
        Ok((_, found, _)) if found > SCHEMA => Err(TokenError::NewerSchema { path, found }),
        // An unknown older version, or a number that no program of ours would have written.
        Ok((_, found, _)) if found < 0 => Ok(None),
        Ok((_, _, Reading::Damaged)) => Ok(None),
        Ok((database, _, reading)) => Ok(Some((database, reading))),
        Err(error) if is_damage(&error) => Ok(None),
        Err(source) => Err(TokenError::Database { path, source }),
    }
}

fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let database = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    database.busy_timeout(Duration::from_secs(5))?;
    // A rollback journal suits one small write now and then, and leaves no side files. EXTRA also syncs the directory
    // after the journal is removed; with FULL, a power cut could bring the journal back and undo the reservation.
    database.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
    database.pragma_update(None, "synchronous", "EXTRA")?;
    Ok(database)
}

fn read_database(database: &Connection) -> rusqlite::Result<Reading> {
    let verdict: String = database.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Ok(Reading::Damaged);
    }
    let end: Option<i64> = database
        .query_row("SELECT value FROM counters WHERE name = 'token_end'", [], |row| {
            row.get(0)
        })
        .optional()?;
    Ok(end.map_or(Reading::Absent, |end| match u64::try_from(end) {
        Ok(end) if (FIRST..=COUNT_MAX).contains(&end) => Reading::End(end),
        _ => Reading::Damaged,
    }))
}

/// Whether the file, not the disk or the permissions, is what is wrong.
fn is_damage(error: &rusqlite::Error) -> bool {
    match error {
        rusqlite::Error::SqliteFailure(failure, _) => {
            // `Unknown` is SQLITE_ERROR: the schema is ours by its version, and yet a table is missing.
            matches!(
                failure.code,
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::Unknown
            )
        }
        rusqlite::Error::SqlInputError { .. }
        | rusqlite::Error::InvalidColumnType(..)
        | rusqlite::Error::IntegralValueOutOfRange(..)
        | rusqlite::Error::FromSqlConversionFailure(..) => true,
        _ => false,
    }
}

/// Makes what is not there yet.
pub(super) fn make_schema(database: &Connection) -> rusqlite::Result<()> {
    database.execute_batch(&format!(
        "BEGIN IMMEDIATE;
         CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY NOT NULL, value INTEGER NOT NULL) STRICT;
         PRAGMA user_version = {SCHEMA};
         COMMIT;"
    ))
}

/// Records durably that all tokens below `end` are reserved.
pub(super) fn commit(database: &mut Connection, end: u64) -> rusqlite::Result<()> {
    let transaction = database.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute(
        "INSERT INTO counters (name, value) VALUES ('token_end', ?1)
         ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
        [i64::try_from(end).expect("counts stay below COUNT_MAX and a few blocks")],
    )?;
    transaction.commit()
}

/// Moves a damaged database out of the way, with the journal that belongs to it.
pub(super) fn set_aside(directory: &Path, seconds: u64) -> Result<(), TokenError> {
    for suffix in ["-journal", "-wal", "-shm", ""] {
        let from = directory.join(format!("{DATABASE}{suffix}"));
        let to = directory.join(format!("{DATABASE}.damaged-{seconds}{suffix}"));
        match fs::rename(&from, &to) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => return Err(file_error(&from, source)),
            Ok(()) if suffix.is_empty() => {
                tracing::warn!("{} is damaged and was set aside as {}", from.display(), to.display());
            }
            _ => {}
        }
    }
    Ok(())
}
