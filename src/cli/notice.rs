//! What a started process tells its starter through a pipe: that it serves, or why it does not.
//!
//! One byte `1`, or `E<exit code> <sentence>`. The end of the pipe before that means that it died.

use std::fs::File;
use std::io::{self, Read, Write};

use super::EXIT_NO_DAEMON;
use super::failure::{exit_code, failure};

/// The longest notice, in bytes.
const NOTICE_BYTES_MAX: u64 = 8192;

/// What was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It serves.
    Ready,
    /// It cannot, for this reason.
    Failed {
        /// The exit code that the starter is to end with.
        code: u8,
        /// The reason, and what to do.
        sentence: String,
    },
}

impl Notice {
    /// The notice of an error.
    pub fn of(error: &anyhow::Error) -> Self {
        Self::Failed {
            code: exit_code(error),
            sentence: format!("{error:#}").replace('\n', " "),
        }
    }

    /// Waits for it; `None` when the pipe ended without a word.
    pub fn read(mut pipe: File) -> io::Result<Option<Self>> {
        let mut told = vec![0];
        if pipe.read(&mut told)? == 0 {
            return Ok(None);
        }
        if told == *b"E" {
            // The rest comes at once, and the end of the pipe with the end of who has it.
            pipe.take(NOTICE_BYTES_MAX).read_to_end(&mut told)?;
        }
        Ok(Self::parse(&told))
    }

    /// What these bytes say; `None` when the pipe ended without a word.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first()?;
        if *first != b'E' {
            return Some(Self::Ready);
        }
        let rest = String::from_utf8_lossy(rest);
        let rest = rest.trim_end();
        let (code, sentence) = match rest.split_once(' ').map(|(code, sentence)| (code.parse(), sentence)) {
            Some((Ok(code), sentence)) => (code, sentence),
            _ => (EXIT_NO_DAEMON, rest),
        };
        let sentence = sentence.to_owned();
        Some(Self::Failed { code, sentence })
    }

    /// Tells it. Who should read it may be gone, which is no error of ours.
    pub fn send(&self, mut pipe: &File) {
        let _: io::Result<()> = match self {
            Self::Ready => pipe.write_all(b"1"),
            Self::Failed { code, sentence } => writeln!(pipe, "E{code} {sentence}"),
        };
    }

    /// The same as a result.
    pub fn into_result(self) -> anyhow::Result<()> {
        match self {
            Self::Ready => Ok(()),
            Self::Failed { code, sentence } => Err(failure(code, sentence)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_arrives() {
        let failed = Notice::of(&failure(77, "no,\nnot here"));
        for (notice, bytes) in [(Notice::Ready, &b"1"[..]), (failed, b"E77 no, not here\n")] {
            let (reader, writer) = nix::unistd::pipe().expect("pipe");
            notice.send(&File::from(writer));
            assert_eq!(Notice::read(File::from(reader)).expect("read"), Some(notice.clone()));
            assert_eq!(Notice::parse(bytes), Some(notice));
        }
        let (reader, _) = nix::unistd::pipe().expect("pipe");
        assert_eq!(Notice::read(File::from(reader)).expect("read"), None, "it died");
    }
}
