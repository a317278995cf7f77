//! Names and their grammar: the only place that decides what a name may look like.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The longest name, in bytes (NAME_MAX of Linux).
const NAME_BYTES_MAX: usize = 255;
/// The longest name of a session or a ticket, in bytes.
const LABEL_BYTES_MAX: usize = 128;

/// Why a name was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No bytes at all.
    #[error("the name is empty")]
    Empty,
    /// More bytes than allowed.
    #[error("the name is longer than {max} bytes")]
    TooLong {
        /// The bound, in bytes.
        max: usize,
    },
    /// Bytes that are no UTF-8.
    #[error("the name is not UTF-8")]
    NotUtf8,
    /// A character that no name may have.
    #[error("the name has {0:?}, which no name may have")]
    Character(char),
    /// A `%` in a ref name that is neither `%2F` nor `%25`.
    #[error("in a ref name only %2F (for /) and %25 (for %) are escapes, upper case")]
    Escape,
    /// A scratch name where only a lock's name will do.
    #[error("names that begin with . or _ or end in .tmp are scratch files, not locks")]
    Scratch,
}

/// A character that shows: neither control, blank, nor an invisible formatting character.
fn is_printable(c: char) -> bool {
    if c.is_ascii() {
        // Nearly every name is only this, and each LOOKUP parses one.
        return c.is_ascii_graphic();
    }
    let invisible = matches!(c, '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
        | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}');
    !(c.is_control() || c.is_whitespace() || invisible)
}

fn check(bytes: &[u8], max: usize, forbidden: &[char]) -> Result<Arc<str>, NameError> {
    if bytes.is_empty() {
        return Err(NameError::Empty);
    }
    if bytes.len() > max {
        return Err(NameError::TooLong { max });
    }
    let text = std::str::from_utf8(bytes).map_err(|_| NameError::NotUtf8)?;
    match text.chars().find(|&c| !is_printable(c) || forbidden.contains(&c)) {
        Some(c) => Err(NameError::Character(c)),
        None => Ok(Arc::from(text)),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(into = "Arc<str>", try_from = "Arc<str>")]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<$name> for Arc<str> {
            fn from(name: $name) -> Self {
                name.0
            }
        }

        impl TryFrom<Arc<str>> for $name {
            type Error = NameError;

            fn try_from(text: Arc<str>) -> Result<Self, NameError> {
                Self::parse(text.as_bytes())
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }
    };
}

name! {
    /// The name of a lock: 1 to 255 bytes, printable, without `/`, blank, comma, quote.
    LockName
}
name! {
    /// The name of a session: 1 to 128 bytes, printable, without `:`, `/`, blank, comma, quote.
    SessionName
}
name! {
    /// The name of a ticket: the grammar of a session's name.
    TicketName
}

const NOT_IN_NAMES: &[char] = &['/', ',', '"', '\'', '`'];
const NOT_IN_LABELS: &[char] = &['/', ',', '"', '\'', '`', ':'];

impl LockName {
    /// Parses the name of a lock or of a scratch file.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        let name = Self(check(bytes, NAME_BYTES_MAX, NOT_IN_NAMES)?);
        let escapes_are_canonical = !name.0.starts_with("ref-")
            || name
                .0
                .split('%')
                .skip(1)
                .all(|rest| rest.starts_with("2F") || rest.starts_with("25"));
        if escapes_are_canonical {
            Ok(name)
        } else {
            Err(NameError::Escape)
        }
    }

    /// Parses a name that must be a lock's.
    pub fn parse_lock(bytes: &[u8]) -> Result<Self, NameError> {
        let name = Self::parse(bytes)?;
        if name.is_scratch() {
            Err(NameError::Scratch)
        } else {
            Ok(name)
        }
    }

    /// Whether a file of this name is a scratch file and no lock.
    pub fn is_scratch(&self) -> bool {
        self.0.starts_with(['.', '_']) || self.0.ends_with(".tmp")
    }
}

impl SessionName {
    /// Parses the name of a session.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        check(bytes, LABEL_BYTES_MAX, NOT_IN_LABELS).map(Self)
    }
}

impl TicketName {
    /// Parses the name of a ticket.
    pub fn parse(bytes: &[u8]) -> Result<Self, NameError> {
        check(bytes, LABEL_BYTES_MAX, NOT_IN_LABELS).map(Self)
    }
}

/// A name in which each `*` stands for any characters, as configuration uses them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "Arc<str>", try_from = "Arc<str>")]
pub struct Pattern {
    text: Arc<str>,
    /// Where the first `*` is, else the end: patterns are tried one after the other for every free name, and what
    /// comes before it tells nearly all of them apart.
    first_star: usize,
}

impl Pattern {
    /// Parses a pattern: the grammar of a lock's name, and `*`.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        let text = check(text.as_bytes(), NAME_BYTES_MAX, NOT_IN_NAMES)?;
        let first_star = text.find('*').unwrap_or(text.len());
        Ok(Self { text, first_star })
    }

    /// Whether `name` fits the pattern.
    pub fn matches(&self, name: &str) -> bool {
        let (first, stars) = self.text.split_at(self.first_star);
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let Some(stars) = stars.strip_prefix('*') else {
            return rest.is_empty();
        };
        let mut parts = stars.split('*');
        let last = parts.next_back().unwrap_or_default();
        for part in parts {
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.len() >= last.len() && rest.ends_with(last)
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<Pattern> for Arc<str> {
    fn from(pattern: Pattern) -> Self {
        pattern.text
    }
}

impl TryFrom<Arc<str>> for Pattern {
    type Error = NameError;

    fn try_from(text: Arc<str>) -> Result<Self, NameError> {
        Self::parse(&text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_every_dialect_are_taken() {
        for good in [
            "a",
            "x.lock",
            "worktree-ID.lock",
            "ref-refs%2Fheads%2Fmain.lock",
            "100%",
            "größe.lock",
            "a=b;c",
        ] {
            assert!(LockName::parse(good.as_bytes()).is_ok(), "{good:?} is a name");
        }
        assert!(LockName::parse(&[b'n'; 255]).is_ok());
    }

    #[test]
    fn what_could_hide_or_confuse_is_refused() {
        use NameError::*;
        let cases: &[(&[u8], NameError)] = &[
            (b"", Empty),
            (&[b'n'; 256], TooLong { max: 255 }),
            (b"a/b", Character('/')),
            (b"a b", Character(' ')),
            (b"a,b", Character(',')),
            (b"a\"b", Character('"')),
            (b"a'b", Character('\'')),
            (b"a\nb", Character('\n')),
            (b"\x7f", Character('\x7f')),
            ("\u{a0}".as_bytes(), Character('\u{a0}')),
            ("a\u{202e}b".as_bytes(), Character('\u{202e}')),
            (b"\xff", NotUtf8),
            (b"ref-a%2fb.lock", Escape),
            (b"ref-a%41.lock", Escape),
            (b"ref-a%", Escape),
        ];
        for (bytes, error) in cases {
            assert_eq!(LockName::parse(bytes), Err(*error), "{bytes:?}");
        }
    }

    #[test]
    fn scratch_names_are_no_locks() {
        for scratch in [".lk01234host", "_abc.host", "x.lock.tmp"] {
            assert_eq!(LockName::parse_lock(scratch.as_bytes()), Err(NameError::Scratch));
        }
    }

    #[test]
    fn a_colon_would_break_the_first_line_of_a_text() {
        assert!(SessionName::parse(b"agent-7").is_ok());
        assert_eq!(SessionName::parse(b"a:b"), Err(NameError::Character(':')));
    }

    #[test]
    fn patterns_match_whole_names() {
        let matches = |pattern: &str, name: &str| Pattern::parse(pattern).expect("pattern").matches(name);
        assert!(matches("worktree-*.lock", "worktree-a.lock"));
        assert!(matches("*", "anything"));
        assert!(matches("a*b*c", "a-b-b-c"));
        assert!(matches("x.lock", "x.lock"));
        assert!(!matches("x.lock", "x.lock2"));
        assert!(!matches("worktree-*.lock", "worktree-.loc"));
        assert!(!matches("ab*b", "ab"), "the two ends may not share a character");
    }
}
