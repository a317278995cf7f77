//! Reads Rust sources just well enough for the rules: what is code, what is a comment or a string, which paths are
//! named, which items only tests compile, which file declares which. Knows no rule.

use std::fs;
use std::path::{Path, PathBuf};

/// A file, and the same text with parts blanked out; the lines of all three are the same.
pub struct Source {
    pub path: PathBuf,
    pub text: String,
    /// Without comments and without the inside of strings.
    pub code: String,
    /// Nothing but the comments.
    pub comments: String,
}

impl Source {
    fn read(path: PathBuf) -> Self {
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let (code, comments) = split(&text);
        Self {
            path,
            text,
            code,
            comments,
        }
    }

    /// The path below the project, as it is printed.
    pub fn shown(&self) -> String {
        let below = self.path.strip_prefix(project()).unwrap_or(&self.path);
        below.display().to_string()
    }

    /// Whether cargo compiles the file by itself: nobody needs to declare it.
    pub fn is_crate_root(&self) -> bool {
        let shown = self.shown();
        let in_tests = shown
            .strip_prefix("tests/")
            .is_some_and(|rest| !rest.contains('/') || rest.ends_with("/main.rs"));
        in_tests || ["src/lib.rs", "src/main.rs", "src/shim.rs"].contains(&shown.as_str())
    }

    pub fn line_of(&self, offset: usize) -> usize {
        1 + self.code.as_bytes()[..offset].iter().filter(|&&b| b == b'\n').count()
    }

    /// The code without what is compiled only for tests.
    pub fn shipped_code(&self) -> String {
        let mut code = self.code.clone();
        while let Some(start) = code.find("#[cfg(test)]") {
            let end = end_of_item(&code, start + "#[cfg(test)]".len());
            blank(&mut code, start, end);
        }
        code
    }
}

pub fn project() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every Rust file below a directory of the project, in a stable order.
pub fn sources(directory: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut left = vec![project().join(directory)];
    while let Some(directory) = left.pop() {
        let Ok(entries) = fs::read_dir(&directory) else {
            continue;
        };
        for entry in entries {
            let path = entry.expect("a directory that opened can be listed").path();
            if path.is_dir() {
                left.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found.into_iter().map(Source::read).collect()
}

/// The files below src that a release has: those that a declaration outside of `#[cfg(test)]` leads to.
pub fn shipped_sources() -> Vec<Source> {
    let (mut shipped, mut left): (Vec<_>, Vec<_>) = sources("src").into_iter().partition(Source::is_crate_root);
    let mut seen = 0;
    while seen < shipped.len() {
        let code = shipped[seen].shipped_code();
        let declared = |source: &Source| declares(&shipped[seen], &code, source);
        let (found, rest) = left.into_iter().partition(declared);
        shipped.extend::<Vec<_>>(found);
        left = rest;
        seen += 1;
    }
    shipped
}

fn blank(text: &mut String, start: usize, end: usize) {
    let kept: String = text[start..end]
        .bytes()
        .map(|b| if b == b'\n' { '\n' } else { ' ' })
        .collect();
    text.replace_range(start..end, &kept);
}

/// Splits a text into code and comments, both as long as the text. Strings count as code but lose their inside.
fn split(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let mut code = text.to_owned();
    let mut comments = text.to_owned();
    let mut at = 0;
    let mut code_starts = 0;
    while at < bytes.len() {
        let rest = &bytes[at..];
        let before = at.checked_sub(1).map(|i| bytes[i]);
        let starts_word = !before.is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
        if rest.starts_with(b"//") {
            let end = at + find(rest, b"\n").unwrap_or(rest.len());
            blank(&mut comments, code_starts, at);
            blank(&mut code, at, end);
            (at, code_starts) = (end, end);
        } else if rest.starts_with(b"/*") {
            let end = at + block_comment(rest);
            blank(&mut comments, code_starts, at);
            blank(&mut code, at, end);
            (at, code_starts) = (end, end);
        } else if let Some(length) = starts_word.then(|| raw_string(rest)).flatten() {
            blank(&mut code, at, at + length);
            at += length;
        } else if rest[0] == b'"' {
            let length = quoted(rest, b'"');
            blank(&mut code, at + 1, at + length - 1);
            at += length;
        } else if let Some(length) = character(text, at) {
            blank(&mut code, at, at + length);
            at += length;
        } else {
            at += 1;
        }
    }
    blank(&mut comments, code_starts, bytes.len());
    (code, comments)
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

fn block_comment(bytes: &[u8]) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < bytes.len() {
        if bytes[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if bytes[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    at
}

/// The length of `r"…"`, `r#"…"#`, `br"…"` or `cr"…"`, if one begins here.
fn raw_string(bytes: &[u8]) -> Option<usize> {
    let prefix = match bytes {
        [b'b' | b'c', b'r', ..] => 2,
        [b'r', ..] => 1,
        _ => return None,
    };
    let hashes = bytes[prefix..].iter().take_while(|&&b| b == b'#').count();
    let open = prefix + hashes;
    if bytes.get(open) != Some(&b'"') {
        return None;
    }
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    find(&bytes[open + 1..], &close).map(|end| open + 1 + end + close.len())
}

fn quoted(bytes: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// The length of a character literal, if one begins here; a lifetime is none.
fn character(text: &str, at: usize) -> Option<usize> {
    let rest = text.get(at..)?.strip_prefix('\'')?;
    let first = rest.chars().next()?;
    if first == '\\' {
        return Some(quoted(&text.as_bytes()[at..], b'\''));
    }
    rest[first.len_utf8()..].starts_with('\'').then(|| 2 + first.len_utf8())
}

/// Where the item that begins at `from` ends: at its `;`, or at the brace that closes its body.
fn end_of_item(code: &str, from: usize) -> usize {
    let mut depth = 0;
    for (offset, byte) in code.bytes().enumerate().skip(from) {
        match byte {
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' => {
                depth -= 1;
                if depth == 0 && byte == b'}' {
                    return offset + 1;
                }
            }
            b';' if depth == 0 => return offset + 1,
            _ => {}
        }
    }
    code.len()
}

fn word(code: &str) -> &str {
    let end = code
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .unwrap_or(code.len());
    &code[..end]
}

/// The paths named after `crate::` or after enough `super::` to leave the top-level module: offset and path.
pub fn crate_paths(source: &Source) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    for (start, _) in source.code.match_indices("crate::") {
        named_after(&source.code, start + "crate::".len(), &mut paths);
    }
    let below = source.path.strip_prefix(project().join("src")).unwrap_or(&source.path);
    let parts = below.components().count();
    let depth_of_file = if below.ends_with("mod.rs") { parts - 1 } else { parts };
    let mut previous_end = 0;
    for (start, _) in source.code.match_indices("super::") {
        if start < previous_end {
            continue;
        }
        let climbs = source.code[start..]
            .split("super::")
            .skip(1)
            .take_while(|gap| gap.is_empty())
            .count()
            + 1;
        previous_end = start + climbs * "super::".len();
        if climbs >= depth_of_file + modules_around(&source.code, start) {
            named_after(&source.code, previous_end, &mut paths);
        }
    }
    paths
}

/// How many inline modules enclose an offset.
fn modules_around(code: &str, offset: usize) -> usize {
    code.match_indices("mod ")
        .filter(|&(start, _)| {
            let name = word(&code[start + 4..]);
            let body = start + 4 + name.len();
            let opens = code[body..].trim_start().starts_with('{');
            opens && (body..end_of_item(code, body)).contains(&offset)
        })
        .count()
}

/// Collects `a::b` from `a::b::…` or from each entry of a brace list.
fn named_after(code: &str, at: usize, paths: &mut Vec<(usize, String)>) {
    let mut named = |offset: usize| {
        let first = word(&code[offset..]);
        let second = code[offset + first.len()..].strip_prefix("::").map(word);
        let path = match second {
            Some(second) if !second.is_empty() => format!("{first}::{second}"),
            _ => first.to_owned(),
        };
        paths.push((offset, path));
    };
    if !code[at..].starts_with('{') {
        named(at);
        return;
    }
    let mut depth = 0;
    let mut expects_name = false;
    for (offset, c) in code.char_indices().skip_while(|&(offset, _)| offset < at) {
        match c {
            '{' => {
                depth += 1;
                expects_name = depth == 1;
            }
            '}' if depth == 1 => return,
            '}' => depth -= 1,
            ',' => expects_name = depth == 1,
            c if expects_name && !c.is_whitespace() => {
                named(offset);
                expects_name = false;
            }
            _ => {}
        }
    }
}

/// Whether `code`, which is `other`'s or a part of it, has `mod NAME;` where that means `source`, or whether `other` has
/// a `#[path]` to it.
pub fn declares(other: &Source, code: &str, source: &Source) -> bool {
    let directory = source.path.parent().expect("a file has a directory");
    let (named_by, home) = match source.path.ends_with("mod.rs") {
        true => (directory, directory.parent().expect("nothing lies at the root")),
        false => (source.path.as_path(), directory),
    };
    let name = named_by.file_stem().expect("a module has a name").to_string_lossy();
    let near = other.path.parent() == Some(home) || other.path.with_extension("") == home;
    let by_name = near
        && other.path != source.path
        && code.match_indices("mod ").any(|(start, opening)| {
            let after = &code[start + opening.len()..];
            word(after) == name && after[name.len()..].trim_start().starts_with(';')
        });
    let beside = other.path.parent().expect("a file has a directory");
    let by_path = other.text.match_indices("#[path = \"").any(|(start, opening)| {
        let path = other.text[start + opening.len()..]
            .split('"')
            .next()
            .unwrap_or_default();
        fs::canonicalize(beside.join(path))
            .is_ok_and(|path| fs::canonicalize(&source.path).is_ok_and(|own| own == path))
    });
    by_name || by_path
}

/// The rules are only as good as the reading of the source: strings, comments and literals must not fool it.
#[test]
fn the_reader_tells_code_from_comments_and_strings() {
    let text = "let a = \"// no \\\" crate::x\"; // crate::y\nlet b = r#\"\"crate::z\"#; let c = '\"'; /* a /* b */ */ d::<'a>();";
    let (code, comments) = split(text);
    assert_eq!(code.len(), text.len());
    assert!(!code.contains("crate::"), "{code}");
    assert!(code.contains("d::<'a>();"), "{code}");
    assert!(
        comments.contains("crate::y") && comments.contains("/* a /* b */ */"),
        "{comments}"
    );
    assert!(!comments.contains("crate::x"), "{comments}");
}

#[test]
fn the_reader_finds_every_way_up() {
    let text = "use crate::{types::Mode, view::{a, b}, cli};\nuse super::super::engine::Engine;\nmod tests { use super::super::x; use super::y; }";
    let path = project().join("src/fuse/wire/mod.rs");
    let (code, comments) = split(text);
    let source = Source {
        path,
        text: text.to_owned(),
        code,
        comments,
    };
    let mut found: Vec<String> = crate_paths(&source).into_iter().map(|(_, path)| path).collect();
    found.sort();
    assert_eq!(found, ["cli", "engine::Engine", "types::Mode", "view"]);
    assert_eq!(source.line_of(text.find("super").expect("is there")), 2);
}
