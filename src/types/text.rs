//! The text of a lock: `PID[:SESSION[:TIMESTAMP]]`, then a free note.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{SessionName, TEXT_BYTES_MAX};

/// The first line of a lock's text, as its holder wrote it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared {
    /// The PID in the writer's PID namespace; 0 declares no owner.
    pub pid: u32,
    /// The session, if one was written.
    pub session: Option<SessionName>,
    /// Seconds since 1970, if written.
    pub timestamp: Option<u64>,
}

/// A declaration and the note after it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Text {
    /// The first line.
    pub declared: Declared,
    /// What follows the first line.
    #[serde(with = "serde_bytes")]
    pub note: Vec<u8>,
}

/// Why a text was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// The first line has another form.
    #[error("the first line of a lock's text is PID[:SESSION[:TIMESTAMP]]")]
    Malformed,
    /// More than [`TEXT_BYTES_MAX`] bytes.
    #[error("a lock's text is at most {TEXT_BYTES_MAX} bytes")]
    TooLong,
}

impl Text {
    /// Parses what a holder writes first.
    pub fn parse(bytes: &[u8]) -> Result<Self, TextError> {
        if bytes.len() > TEXT_BYTES_MAX {
            return Err(TextError::TooLong);
        }
        let (line, note) = match bytes.iter().position(|&b| b == b'\n') {
            Some(end) => (&bytes[..end], &bytes[end + 1..]),
            None => (bytes, &bytes[bytes.len()..]),
        };
        let declared = Declared::parse(line).ok_or(TextError::Malformed)?;
        Ok(Self {
            declared,
            note: note.to_vec(),
        })
    }
}

impl Declared {
    fn parse(line: &[u8]) -> Option<Self> {
        // lockfile(1) and dotlockfile(1) end their PID with blanks or a NUL byte.
        let line = line.trim_ascii_end();
        let line = line.strip_suffix(b"\0").unwrap_or(line);
        let mut fields = line.splitn(3, |&b| b == b':');
        let pid = number(fields.next()?.trim_ascii_start())?.try_into().ok()?;
        let session = fields.next().map(SessionName::parse).transpose().ok()?;
        let timestamp = match fields.next() {
            Some(field) => Some(number(field)?),
            None => None,
        };
        Some(Self {
            pid,
            session,
            timestamp,
        })
    }
}

/// Decimal digits only: no sign, no blank.
fn number(digits: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(digits).ok()?;
    (!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

impl fmt::Display for Declared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.pid)?;
        let Some(session) = &self.session else { return Ok(()) };
        write!(f, ":{session}")?;
        let Some(timestamp) = self.timestamp else { return Ok(()) };
        write!(f, ":{timestamp}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_the_first_line_reads_back_as_written() {
        for line in ["1", "4242:agent-7", "4242:agent-7:1763647200", "0"] {
            let text = Text::parse(format!("{line}\nnote\n").as_bytes()).expect(line);
            assert_eq!(text.declared.to_string(), line);
            assert_eq!(text.note, b"note\n");
        }
        assert_eq!(Text::parse(b"     71\0").expect("padded").declared.pid, 71);
    }

    #[test]
    fn anything_else_is_malformed() {
        for bad in [
            "",
            "\n",
            "x",
            "-1",
            "+1",
            "1:",
            "1::2",
            "1:a:",
            "1:a:b",
            "1:a:2:3",
            "4294967296",
            "1 2",
            "0x1",
            "1:a b",
        ] {
            assert_eq!(Text::parse(bad.as_bytes()), Err(TextError::Malformed), "{bad:?}");
        }
        assert_eq!(Text::parse(&[b'1'; 4097]), Err(TextError::TooLong));
    }
}
