//! What many contenders do at once: count without any guard but the lock, and look for each other in its section.

use std::fs;
use std::path::Path;

use libc::{O_CREAT, O_EXCL, O_WRONLY};

use super::dialect::{ALL, Dialect};
use super::sys::{self, Errno, Sys};

/// Adds to the number in a file, one by one, each time under the lock. Reading and writing are apart on purpose: two in
/// the section at once lose an increment.
pub fn count(mountpoint: &Path, dialect: Dialect, name: &str, counter: &Path, times: u32) -> Sys<i64> {
    for _ in 0..times {
        let held = dialect.take_at_last(mountpoint, name)?;
        let text = fs::read_to_string(counter).expect("the counter is there");
        let number: u64 = text.trim().parse().expect("the counter is a number");
        fs::write(counter, (number + 1).to_string()).expect("the counter can be written");
        held.release()?;
    }
    Ok(i64::from(times))
}

/// Takes locks of several names in changing dialects; EADDRINUSE when somebody else was found in a section, which no
/// call of the filesystem answers.
pub fn mix(mountpoint: &Path, names: &[String], markers: &Path, seed: u64, times: u32) -> Sys<i64> {
    let mut random = seed;
    for _ in 0..times {
        // The constants of Knuth's MMIX: any generator will do that gives the same sequence for the same seed.
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let dialect = ALL[(random >> 33) as usize % ALL.len()];
        let name = &names[(random >> 48) as usize % names.len()];
        let held = dialect.take_at_last(mountpoint, name)?;
        let alone = check_section(markers, name, dialect.is_shared());
        held.release()?;
        alone?;
    }
    Ok(i64::from(times))
}

/// Leaves a marker, looks for a marker that may not be there, and takes its own away. Whoever comes second sees the
/// first, whichever of the two that is.
fn check_section(markers: &Path, name: &str, shared: bool) -> Sys<()> {
    let own = if shared {
        markers.join(format!("{name}.shared.{}", std::process::id()))
    } else {
        markers.join(format!("{name}.exclusive"))
    };
    match sys::open(&own, O_WRONLY | O_CREAT | O_EXCL) {
        Ok(_) => {}
        Err(Errno::EEXIST) => return Err(Errno::EADDRINUSE),
        Err(errno) => return Err(errno),
    }
    let conflict = if shared { ".exclusive" } else { ".shared." };
    let others = fs::read_dir(markers).expect("the markers are listed").flatten();
    let met = others
        .filter_map(|entry| entry.file_name().into_string().ok())
        .any(|file| file.strip_prefix(name).is_some_and(|rest| rest.starts_with(conflict)));
    sys::unlink(&own)?;
    if met { Err(Errno::EADDRINUSE) } else { Ok(()) }
}
