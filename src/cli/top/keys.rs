//! What the keyboard sends, as steps.
//!
//! Read here and not by crossterm's event reader, whose edge-triggered poll forgets keys that arrive together with a
//! change of the terminal's size, and which spins for ever on a terminal that was hung up.

use super::picture::Step;

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pressed {
    /// q, Esc, Ctrl-C.
    End,
    /// Ctrl-Z.
    Leave,
    /// Something about the picture.
    Step(Step),
}

/// Sequences that begin with Esc, as xterm and those after it send them, in both modes of the cursor keys.
const SEQUENCES: &[(&[u8], Step)] = &[
    (b"\x1b[A", Step::Rows(-1)),
    (b"\x1bOA", Step::Rows(-1)),
    (b"\x1b[B", Step::Rows(1)),
    (b"\x1bOB", Step::Rows(1)),
    (b"\x1b[5~", Step::Pages(-1)),
    (b"\x1b[6~", Step::Pages(1)),
    (b"\x1b[H", Step::First),
    (b"\x1bOH", Step::First),
    (b"\x1b[1~", Step::First),
    (b"\x1b[F", Step::Last),
    (b"\x1bOF", Step::Last),
    (b"\x1b[4~", Step::Last),
];

/// The keys in what was read at once; what nobody knows is passed over.
pub fn pressed(mut bytes: &[u8]) -> Vec<Pressed> {
    let mut keys = Vec::new();
    while let Some((&first, rest)) = bytes.split_first() {
        if first != b'\x1b' {
            keys.extend(plain(first));
            bytes = rest;
        } else if let Some((sequence, step)) = SEQUENCES.iter().find(|(sequence, _)| bytes.starts_with(sequence)) {
            keys.push(Pressed::Step(*step));
            bytes = bytes.get(sequence.len()..).unwrap_or_default();
        } else {
            // Esc alone; or a sequence of some other key, which ends the batch.
            keys.extend(rest.is_empty().then_some(Pressed::End));
            break;
        }
    }
    keys
}

fn plain(byte: u8) -> Option<Pressed> {
    const CTRL_C: u8 = 3;
    const CTRL_Z: u8 = 26;
    let step = match byte {
        b'q' | CTRL_C => return Some(Pressed::End),
        CTRL_Z => return Some(Pressed::Leave),
        b'k' => Step::Rows(-1),
        b'j' => Step::Rows(1),
        b' ' => Step::Pages(1),
        b'g' => Step::First,
        b'G' => Step::Last,
        b's' => Step::Sort,
        b'p' => Step::Pause,
        _ => return None,
    };
    Some(Pressed::Step(step))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_keys_may_come_at_once() {
        let expected = [Step::Rows(1), Step::Rows(-1), Step::Pages(1), Step::Last].map(Pressed::Step);
        assert_eq!(pressed(b"j\x1b[A\x1b[6~\x1bOF"), expected);
        assert_eq!(pressed(b"x\x80q"), [Pressed::End]);
    }

    #[test]
    fn escape_alone_ends_and_an_unknown_key_does_not() {
        assert_eq!(pressed(b"\x1b"), [Pressed::End]);
        assert_eq!(pressed(b"\x1b[15~"), []);
        assert_eq!(pressed(b"\x1bq"), [], "Alt-q is another key");
    }
}
