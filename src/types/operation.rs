//! The names of operations: what a command line does, told without its arguments, which may carry secrets.

/// The longest operation that is told, in bytes.
const OPERATION_BYTES_MAX: usize = 64;

/// git's options before the verb that take the next word as their value.
const GIT_OPTIONS_WITH_VALUE: &[&[u8]] = &[
    b"-C",
    b"-c",
    b"--git-dir",
    b"--work-tree",
    b"--namespace",
    b"--config-env",
    b"--super-prefix",
    b"--attr-source",
];

/// What a command line does, in words that hold no secrets: `git VERB`, or the name of the program.
pub fn operation_name<'a>(mut words: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    // A program that has rewritten its command line writes one text with blanks; the first word is its name, and the
    // rest may hold anything. A login shell's name begins with a dash.
    let first = words.next()?.split(u8::is_ascii_whitespace).next()?;
    let name = first.rsplit(|&byte| byte == b'/').next()?;
    let name = name.strip_prefix(b"-").unwrap_or(name);
    let name = name.strip_suffix(b":").unwrap_or(name);
    let verb = match name {
        b"git" => match verb(&mut words, GIT_OPTIONS_WITH_VALUE) {
            Some(b"lockfs") => return Some(with_verb("git lockfs", verb(&mut words, &[]))),
            verb => verb,
        },
        b"git-lockfs" => return Some(with_verb("git lockfs", verb(&mut words, &[]))),
        _ => match name.strip_prefix(b"git-") {
            // git's own programs are called by their full names too.
            Some(verb) if is_verb(verb) => Some(verb),
            _ => return shown(name),
        },
    };
    Some(with_verb("git", verb))
}

/// The same for an operation that a request has told in words of its own.
pub fn name_of_told(said: &str) -> Option<String> {
    operation_name(said.split_ascii_whitespace().map(str::as_bytes))
}

/// The first word that is no option; `None` when it does not look like a verb.
fn verb<'a>(words: &mut impl Iterator<Item = &'a [u8]>, with_value: &[&[u8]]) -> Option<&'a [u8]> {
    while let Some(word) = words.next() {
        if with_value.contains(&word) {
            words.next();
        } else if !word.starts_with(b"-") {
            return is_verb(word).then_some(word);
        }
    }
    None
}

/// Whether a word looks like git's commands do, so that it is worth telling.
fn is_verb(word: &[u8]) -> bool {
    let fits = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    (1..=32).contains(&word.len()) && word.iter().all(fits)
}

fn with_verb(program: &str, verb: Option<&[u8]>) -> String {
    match verb.map(String::from_utf8_lossy) {
        Some(verb) => format!("{program} {verb}"),
        None => program.to_owned(),
    }
}

/// A name made fit to be shown: printable and bounded.
fn shown(name: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(name);
    let mut shown = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if shown.len() + c.len_utf8() > OPERATION_BYTES_MAX {
            break;
        }
        shown.push(c);
    }
    (!shown.is_empty()).then_some(shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(words: &[&str]) -> Option<String> {
        operation_name(words.iter().map(|word| word.as_bytes()))
    }

    #[test]
    fn git_is_told_by_its_verb_and_everything_else_by_name() {
        let cases: &[(&[&str], &str)] = &[
            (&["git", "merge", "topic"], "git merge"),
            (
                &["/usr/bin/git", "-C", "/a", "-c", "k=secret", "commit", "-m", "x"],
                "git commit",
            ),
            (&["git", "--git-dir=/x", "--no-pager", "log"], "git log"),
            (&["git", "--git-dir", "/x", "--work-tree", "y", "status"], "git status"),
            (&["git", "lockfs", "run", "--", "cmd"], "git lockfs run"),
            (&["git-lockfs", "mount"], "git lockfs mount"),
            (&["/x/git-lockfs", "--version"], "git lockfs"),
            (&["/usr/lib/git-core/git-upload-pack", "."], "git upload-pack"),
            (&["git"], "git"),
            (&["git", "--version"], "git"),
            (&["git", "https://user:token@host/"], "git"),
            (&["curl", "-u", "user:password"], "curl"),
            (&["-bash"], "bash"),
            (&["/usr/bin/python3", "x.py"], "python3"),
            (&["sshd: user@pts/0 secret"], "sshd"),
        ];
        for (words, expected) in cases {
            assert_eq!(told(words).as_deref(), Some(*expected), "{words:?}");
        }
        assert_eq!(told(&["/opt/a\u{7}b"]).as_deref(), Some("ab"), "no control characters");
        assert_eq!(told(&["/opt/\u{e9}".repeat(99).as_str()]).map(|s| s.len()), Some(2));
        assert_eq!(told(&["x".repeat(99).as_str()]).map(|s| s.len()), Some(64));
        assert_eq!(told(&[""]), None);
        assert_eq!(told(&[]), None);
        assert_eq!(
            name_of_told("git  push https://user:token@host"),
            Some("git push".to_owned())
        );
        assert_eq!(name_of_told(" "), None);
    }
}
