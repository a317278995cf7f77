//! The rules of the source that no compiler checks: which layer may import which, how long a file may be, what may
//! not be left behind. Each test prints every violation as `file:line: what`, not only the first.

#[path = "tidy/reader.rs"]
mod reader;

use std::fmt::Write as _;

use reader::{crate_paths, declares, project, shipped_sources, sources};

/// Rank of each top-level module; a file may name only modules of a lower rank, and its own.
const RANKS: &[(&str, u8)] = &[
    ("types", 0),
    ("engine", 1),
    ("scopes", 1),
    ("predict", 2),
    ("metrics", 2),
    ("ports", 2),
    ("view", 3),
    ("adapters", 3),
    ("service", 4),
    ("fuse", 5),
    ("cli", 6),
];

/// The only part of `service` that `fuse` may see: the calls as plain data.
const FUSE_SEES: &str = "service::api";

/// The longest file under src, in lines, tests included.
const FILE_LINES_MAX: usize = 500;

fn none(violations: String) {
    assert!(violations.is_empty(), "\n{violations}");
}

#[test]
fn imports_go_strictly_downward() {
    let rank_of = |module: &str| RANKS.iter().find(|(name, _)| *name == module).map(|(_, rank)| *rank);
    let mut violations = String::new();
    for source in sources("src") {
        let below = source.path.strip_prefix(project().join("src")).expect("found there");
        let top = below.iter().next().and_then(|part| part.to_str()).unwrap_or_default();
        let module = top.trim_end_matches(".rs");
        if ["lib", "main", "shim"].contains(&module) {
            continue;
        }
        let Some(own_rank) = rank_of(module) else {
            let _ = writeln!(violations, "{}:1: the module {module} has no rank", source.shown());
            continue;
        };
        for (offset, path) in crate_paths(&source) {
            let used = path.split("::").next().unwrap_or_default();
            let lower = rank_of(used).is_some_and(|rank| rank < own_rank);
            let hidden = module == "fuse" && used == "service" && path != FUSE_SEES;
            if used != module && (!lower || hidden) {
                let (file, line) = (source.shown(), source.line_of(offset));
                let _ = writeln!(violations, "{file}:{line}: {module} may not use {path}");
            }
        }
    }
    none(violations);
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut violations = String::new();
    for source in sources("src").iter().chain(&sources("tests")) {
        if !source.text.starts_with("//! ") {
            let _ = writeln!(violations, "{}:1: begins without module documentation", source.shown());
        }
    }
    none(violations);
}

#[test]
fn files_stay_short_enough_to_read() {
    let mut violations = String::new();
    for source in sources("src") {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            let file = source.shown();
            let _ = writeln!(
                violations,
                "{file}:{lines}: over {FILE_LINES_MAX} lines; find the second concept in it"
            );
        }
    }
    none(violations);
}

/// What keeps the mount must not fail with what serves it.
#[test]
fn the_supervisor_knows_nothing_of_locks() {
    let mut violations = String::new();
    let all = sources("src");
    let ours: Vec<_> = all
        .iter()
        .filter(|source| source.shown().starts_with("src/cli/supervisor/"))
        .collect();
    assert!(!ours.is_empty(), "the supervisor was moved: look for it there");
    for source in ours {
        for (offset, path) in crate_paths(source) {
            if ["service", "engine", "view"].contains(&path.split("::").next().unwrap_or_default()) {
                let (file, line) = (source.shown(), source.line_of(offset));
                let _ = writeln!(violations, "{file}:{line}: the supervisor may not use {path}");
            }
        }
    }
    none(violations);
}

#[test]
fn nothing_is_left_half_done() {
    let macros = ["dbg!", "todo!", "unimplemented!"];
    let remarks = ["FIXME", "XXX"];
    let mut violations = String::new();
    for source in sources("src")
        .iter()
        .chain(&sources("tests"))
        .chain(&sources("benches"))
    {
        for (text, wanted) in [(&source.code, &macros[..]), (&source.comments, &remarks[..])] {
            for word in wanted {
                for (offset, _) in text.match_indices(word) {
                    let (file, line) = (source.shown(), source.line_of(offset));
                    let _ = writeln!(violations, "{file}:{line}: {word}");
                }
            }
        }
        for (offset, _) in source.code.match_indices("#[ignore") {
            let (file, line) = (source.shown(), source.line_of(offset));
            let _ = writeln!(violations, "{file}:{line}: a test that never runs");
        }
    }
    none(violations);
}

#[test]
fn nothing_outside_tests_unwraps() {
    let mut violations = String::new();
    for source in shipped_sources() {
        for (offset, _) in source.shipped_code().match_indices(".unwrap()") {
            let (file, line) = (source.shown(), source.line_of(offset));
            let _ = writeln!(
                violations,
                "{file}:{line}: unwrap; say why it holds with expect, or return the error"
            );
        }
    }
    none(violations);
}

#[test]
fn only_the_clock_and_the_command_line_read_the_time() {
    let mut violations = String::new();
    for source in shipped_sources() {
        let file = source.shown();
        if file == "src/adapters/clock.rs" || file.starts_with("src/cli/") {
            continue;
        }
        let code = source.shipped_code();
        for call in [
            "Instant::now",
            "SystemTime::now",
            "Timestamp::now",
            "Zoned::now",
            "clock_gettime",
        ] {
            for (offset, _) in code.match_indices(call) {
                let line = source.line_of(offset);
                let _ = writeln!(violations, "{file}:{line}: {call}; ask adapters::clock");
            }
        }
    }
    none(violations);
}

/// A file in a directory is compiled only when somebody declares it; a forgotten one would pass every test.
#[test]
fn every_file_is_declared() {
    let mut violations = String::new();
    for root in ["src", "tests"] {
        let all = sources(root);
        for source in all.iter().filter(|source| !source.is_crate_root()) {
            if !all.iter().any(|other| declares(other, &other.code, source)) {
                let _ = writeln!(violations, "{}:1: no file declares this module", source.shown());
            }
        }
    }
    none(violations);
}
