//! The small file: the second of the two records, there for the day on which the database is damaged.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::{COUNT_MAX, FIRST, Observer, Reading, Step, TokenError, file_error, private_file};

/// The file's name.
pub(super) const FLOOR: &str = "token-floor";

/// Reads the end of the block.
pub(super) fn read(directory: &Path) -> Result<Reading, TokenError> {
    let path = directory.join(FLOOR);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Reading::Absent),
        Err(source) => return Err(file_error(&path, source)),
    };
    let number = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.strip_suffix('\n')?.parse::<u64>().ok());
    Ok(match number {
        Some(end) if (FIRST..=COUNT_MAX).contains(&end) => Reading::End(end),
        _ => Reading::Damaged,
    })
}

/// Replaces the file in one step that a power cut cannot halve.
pub(super) fn write(directory: &Path, end: u64, observe: Observer<'_>) -> Result<(), TokenError> {
    let path = directory.join(FLOOR);
    let new = directory.join(format!("{FLOOR}.new"));
    let mut replace = || {
        let mut file = private_file(OpenOptions::new().write(true).truncate(true), &new)?;
        file.write_all(format!("{end}\n").as_bytes())?;
        observe(Step::FloorWritten)?;
        file.sync_all()?;
        observe(Step::FloorSynced)?;
        fs::rename(&new, &path)?;
        observe(Step::FloorRenamed)?;
        File::open(directory)?.sync_all()?;
        observe(Step::DirectorySynced)
    };
    replace().map_err(|source| file_error(&path, source))
}
