//! Fencing tokens that never go back: not after a crash, a power cut or a damaged disk block.
//!
//! Tokens are handed out from a block that was reserved durably before the first of it is used; after a restart the
//! rest of the old block is skipped. So one write with fsync serves [`BLOCK`] grants. The end of the block is kept
//! twice, in an SQLite database (home of everything else that must last) and in a small file of its own, and the
//! larger of the two counts. Difficulties, and what answers them:
//!
//! 1. A crash between the two writes: neither is used before both are done, and either alone would do.
//! 2. A damaged database is set aside, never repaired in place; but only after the file says where to go on.
//! 3. Both damaged: the count goes on from the wall clock, in units of 2^-20 s. As nobody takes a million tokens
//!    a second on average, that lies above everything given before, unless the clock was set back since; then no
//!    trace of the old count exists anywhere, and there is no better guess.
//! 4. Both absent is a new repository, which starts from 1. Whoever deletes the whole directory starts anew.

mod database;
mod floor;

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use self::database::{DATABASE, SCHEMA};
use super::clock::Clock;
use crate::types::Token;

/// How many tokens are reserved at a time.
pub const BLOCK: u64 = 65_536;

/// The first token of a new repository.
const FIRST: u64 = 1;
/// No count comes this far in earnest, so a number beyond it is damage.
const COUNT_MAX: u64 = 1 << 62;
/// The units of a second in which tokens follow the wall clock when nothing else is left: 2^20.
const WALL_SHIFT: u32 = 20;

/// The reservations of one repository. One daemon at a time has them open.
#[derive(Debug)]
pub struct Tokens {
    directory: PathBuf,
    database: Connection,
    /// All tokens below are reserved, and may have been used.
    end: u64,
}

/// Why tokens cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The database was written by a newer program.
    #[error(
        "{} has schema {found}, and this git-lockfs knows schemas up to {SCHEMA}: use the newer version that wrote it",
        path.display()
    )]
    NewerSchema {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
    },
    /// A file could not be read or made durable.
    #[error("{} cannot be read or written", path.display())]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The database could not be read or made durable.
    #[error("{} cannot be read or written", path.display())]
    Database {
        /// The database.
        path: PathBuf,
        /// What SQLite said.
        source: rusqlite::Error,
    },
}

/// What one of the two places says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    /// It was never written.
    Absent,
    /// All tokens below are reserved.
    End(u64),
    /// It was written, and cannot be read.
    Damaged,
}

/// What has just been done; a test ends the program there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Began,
    SetAside,
    SchemaMade,
    DatabaseCommitted,
    FloorWritten,
    FloorSynced,
    FloorRenamed,
    DirectorySynced,
}

/// Told of each step; an error ends the work there.
type Observer<'a> = &'a mut dyn FnMut(Step) -> io::Result<()>;

impl Tokens {
    /// Opens the reservations in a directory, which is made if need be, and reserves a first block.
    ///
    /// Returns the first token that may be used, which is larger than any used before, and the first that may not.
    pub fn open(directory: &Path) -> Result<(Self, Token, Token), TokenError> {
        let seconds = u64::try_from(Clock::wall().as_second()).unwrap_or(0);
        Self::open_observed(directory, seconds, &mut |_| Ok(()))
    }

    /// Reserves the next block; all tokens below the returned one may be used, once this has returned.
    ///
    /// It waits for the disk, twice. After an error nothing new may be used, and it can be tried again.
    pub fn reserve_more(&mut self) -> Result<Token, TokenError> {
        self.reserve(&mut |_| Ok(()))
    }

    fn open_observed(
        directory: &Path,
        seconds: u64,
        observe: Observer<'_>,
    ) -> Result<(Self, Token, Token), TokenError> {
        make_private_directory(directory).map_err(|source| file_error(directory, source))?;
        observe(Step::Began).map_err(|source| file_error(directory, source))?;
        let floor = floor::read(directory)?;
        let (database, recorded) = match database::open(directory)? {
            Some((database, recorded)) => (Some(database), recorded),
            None => (None, Reading::Damaged),
        };
        let start = continue_from(recorded, floor, seconds);
        let database = match database {
            Some(database) => database,
            None => {
                // First the file: were the database set aside without it, a crash would leave a new repository.
                floor::write(directory, start, observe)?;
                database::set_aside(directory, seconds)?;
                observe(Step::SetAside).map_err(|source| file_error(directory, source))?;
                let (database, _) = database::open(directory)?.ok_or_else(|| {
                    let source = io::Error::other("a new database is damaged at once");
                    file_error(&directory.join(DATABASE), source)
                })?;
                database
            }
        };
        let path = directory.join(DATABASE);
        database::make_schema(&database).map_err(|source| TokenError::Database {
            path: path.clone(),
            source,
        })?;
        observe(Step::SchemaMade).map_err(|source| file_error(&path, source))?;
        let mut tokens = Self {
            directory: directory.to_owned(),
            database,
            end: start,
        };
        let end = tokens.reserve(observe)?;
        Ok((tokens, Token(start), end))
    }

    fn reserve(&mut self, observe: Observer<'_>) -> Result<Token, TokenError> {
        let end = self.end + BLOCK;
        let path = self.directory.join(DATABASE);
        database::commit(&mut self.database, end).map_err(|source| TokenError::Database {
            path: path.clone(),
            source,
        })?;
        observe(Step::DatabaseCommitted).map_err(|source| file_error(&path, source))?;
        floor::write(&self.directory, end, observe)?;
        self.end = end;
        Ok(Token(end))
    }
}

/// Decides where the count goes on, and says so when something is lost.
fn continue_from(recorded: Reading, floor: Reading, seconds: u64) -> u64 {
    match (recorded, floor) {
        (Reading::End(a), Reading::End(b)) => a.max(b),
        (Reading::End(end), _) | (_, Reading::End(end)) => end,
        (Reading::Absent, Reading::Absent) => FIRST,
        _ => {
            let start = (seconds << WALL_SHIFT).max(FIRST);
            tracing::warn!("the last fencing token is lost; tokens go on from {start}, by the wall clock");
            start
        }
    }
}

fn make_private_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(directory)?;
    fs::set_permissions(directory, Permissions::from_mode(0o700))
}

fn private_file(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = options
        .create(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

fn file_error(path: &Path, source: io::Error) -> TokenError {
    TokenError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::floor::FLOOR;
    use super::*;

    /// 2026-11-20, the wall clock of these tests.
    const SECONDS: u64 = 1_795_185_600;

    fn directory() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("lockfs");
        (dir, path)
    }

    fn open(directory: &Path) -> (u64, u64) {
        let (_, first, end) = Tokens::open_observed(directory, SECONDS, &mut |_| Ok(())).expect("it opens");
        assert!(first < end, "a block is not empty");
        (first.0, end.0)
    }

    fn damage(directory: &Path, name: &str) {
        fs::write(
            directory.join(name),
            b"no such thing as a database, nor a number".repeat(99),
        )
        .expect("it is ours");
    }

    #[test]
    fn tokens_begin_with_one_and_go_on_from_the_last_block() {
        let (_guard, at) = directory();
        let (mut tokens, first, end) = Tokens::open(&at).expect("it opens");
        assert_eq!((first, end), (Token(1), Token(1 + BLOCK)));
        assert_eq!(tokens.reserve_more().expect("the disk has room"), Token(1 + 2 * BLOCK));
        drop(tokens);
        assert_eq!(open(&at), (1 + 2 * BLOCK, 1 + 3 * BLOCK));
    }

    #[test]
    fn the_files_are_private_also_when_they_were_not() {
        let (_guard, at) = directory();
        fs::create_dir(&at).expect("it is ours");
        fs::set_permissions(&at, Permissions::from_mode(0o755)).expect("it is ours");
        open(&at);
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o7777;
        assert_eq!(mode(&at), 0o700);
        assert_eq!(mode(&at.join(DATABASE)), 0o600);
        assert_eq!(mode(&at.join(FLOOR)), 0o600);
        let mut names: Vec<_> = fs::read_dir(&at)
            .expect("it is ours")
            .map(|entry| entry.expect("an entry").file_name())
            .collect();
        names.sort();
        assert_eq!(names, [DATABASE, FLOOR], "nothing else is left behind");
    }

    #[test]
    fn a_crash_at_any_step_of_opening_or_reserving_loses_nothing() {
        // What was there before: nothing, or a block in use with either record whole, damaged or missing. (With both
        // missing it is a new repository.)
        type Harm = fn(&Path, &str);
        let harms: [Harm; 3] = [
            |_, _| {},
            damage,
            |at, name| fs::remove_file(at.join(name)).expect("it is ours"),
        ];
        let mut befores = vec![None];
        for (i, database) in harms.iter().enumerate() {
            for (j, floor) in harms.iter().enumerate() {
                befores.extend(((i, j) != (2, 2)).then_some(Some((database, floor))));
            }
        }
        for (case, before) in befores.iter().enumerate() {
            for crash_at in 0.. {
                let (_guard, at) = directory();
                let mut used = 0;
                if let Some((database, floor)) = before {
                    used = open(&at).1 - 1;
                    database(&at, DATABASE);
                    floor(&at, FLOOR);
                }
                // Open, then reserve twice, until the crash.
                let mut steps = 0;
                let mut crash = |_: Step| {
                    steps += 1;
                    if steps > crash_at {
                        Err(io::Error::other("crash"))
                    } else {
                        Ok(())
                    }
                };
                let mut survived = false;
                if let Ok((mut tokens, first, end)) = Tokens::open_observed(&at, SECONDS, &mut crash) {
                    assert!(first.0 > used, "{first} was used before");
                    used = end.0 - 1;
                    survived = (0..2).all(|_| match tokens.reserve(&mut crash) {
                        Ok(end) => {
                            used = end.0 - 1;
                            true
                        }
                        Err(_) => false,
                    });
                }
                // A second later.
                let (_, first, _) = Tokens::open_observed(&at, SECONDS + 1, &mut |_| Ok(())).expect("it opens");
                assert!(
                    first.0 > used,
                    "case {case}, crash at {crash_at}: {first} again, used up to {used}"
                );
                if survived {
                    break;
                }
            }
        }
    }

    #[test]
    fn either_record_alone_is_enough() {
        for lost in [DATABASE, FLOOR] {
            let (_guard, at) = directory();
            let (_, end) = open(&at);
            fs::remove_file(at.join(lost)).expect("it is ours");
            assert_eq!(open(&at).0, end, "{lost} was removed");
            let (_, end) = open(&at);
            damage(&at, lost);
            assert_eq!(open(&at).0, end, "{lost} was damaged");
            let (_, end) = open(&at);
            assert_eq!(open(&at).0, end, "both are whole again");
        }
    }

    #[test]
    fn the_larger_record_counts() {
        let (_guard, at) = directory();
        open(&at);
        fs::write(at.join(FLOOR), "900000\n").expect("it is ours");
        assert_eq!(open(&at).0, 900_000);
        fs::write(at.join(FLOOR), "5\n").expect("it is ours");
        assert_eq!(open(&at).0, 900_000 + BLOCK);
    }

    #[test]
    fn a_damaged_database_is_kept_for_whoever_wants_to_look() {
        let (_guard, at) = directory();
        let (_, end) = open(&at);
        let length = fs::metadata(at.join(DATABASE)).expect("it is there").len();
        // Damage past the header, which only a check finds.
        let mut bytes = fs::read(at.join(DATABASE)).expect("it is ours");
        bytes[200..].fill(0xa5);
        fs::write(at.join(DATABASE), bytes).expect("it is ours");
        assert_eq!(open(&at).0, end);
        let aside = at.join(format!("{DATABASE}.damaged-{SECONDS}"));
        assert_eq!(fs::metadata(aside).expect("set aside").len(), length);
    }

    #[test]
    fn with_both_records_damaged_the_wall_clock_is_ahead_of_them() {
        let (_guard, at) = directory();
        let (_, end) = open(&at);
        damage(&at, DATABASE);
        damage(&at, FLOOR);
        let (first, _) = open(&at);
        assert_eq!(first, SECONDS << WALL_SHIFT);
        assert!(first > end);
        assert!(open(&at).0 > first, "and from there it is counted as ever");
    }

    #[test]
    fn records_that_make_no_sense_count_as_damaged() {
        for text in [
            "",
            "\n",
            "0\n",
            "-5\n",
            "12",
            "1 2\n",
            "18446744073709551615\n",
            "99999999999999999999\n",
        ] {
            let (_guard, at) = directory();
            fs::create_dir(&at).expect("it is ours");
            fs::write(at.join(FLOOR), text).expect("it is ours");
            assert_eq!(open(&at).0, SECONDS << WALL_SHIFT, "{text:?}");
        }
        for sql in [
            "UPDATE counters SET value = -1",
            "UPDATE counters SET value = 9223372036854775807",
            "DROP TABLE counters",
        ] {
            let (_guard, at) = directory();
            let (_, end) = open(&at);
            Connection::open(at.join(DATABASE))
                .expect("it opens")
                .execute_batch(sql)
                .expect(sql);
            assert_eq!(open(&at).0, end, "{sql}");
        }
    }

    #[test]
    fn a_newer_schema_is_refused_and_left_alone() {
        let (_guard, at) = directory();
        open(&at);
        let database = Connection::open(at.join(DATABASE)).expect("it opens");
        database
            .pragma_update(None, "user_version", SCHEMA + 1)
            .expect("it is ours");
        drop(database);
        let before = fs::read(at.join(DATABASE)).expect("it is ours");
        let error = Tokens::open(&at).expect_err("newer");
        assert!(matches!(error, TokenError::NewerSchema { found, .. } if found == SCHEMA + 1));
        assert!(error.to_string().contains("newer version"), "{error}");
        assert_eq!(fs::read(at.join(DATABASE)).expect("it is ours"), before);
    }

    #[test]
    fn a_directory_that_cannot_be_is_an_error_with_its_name() {
        let (guard, _) = directory();
        let file = guard.path().join("file");
        fs::write(&file, "").expect("it is ours");
        let error = Tokens::open(&file.join("lockfs")).expect_err("below a file");
        assert!(error.to_string().contains("file/lockfs"), "{error}");
    }
}
