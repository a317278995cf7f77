//! A command line of git, read as git reads it: its own options, the command, the command's arguments.
//!
//! Knows nothing of repositories; arguments that are no UTF-8 are read with replacement characters, which fit no name.

/// Options of git itself that take the next word as their value.
const VALUED: &[&str] = &[
    "-C",
    "-c",
    "--git-dir",
    "--work-tree",
    "--namespace",
    "--config-env",
    "--super-prefix",
    "--attr-source",
];
/// Options of git itself after which no command runs.
const ANSWERED_BY_GIT: &[&str] = &[
    "--version",
    "-v",
    "--help",
    "-h",
    "--html-path",
    "--man-path",
    "--info-path",
];

/// git's own options, the command and its arguments.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Invocation {
    /// git's own options, as they stand before the command.
    pub options: Vec<String>,
    /// The command; `None` when git itself answers.
    pub command: Option<String>,
    /// What follows the command.
    pub args: Vec<String>,
}

impl Invocation {
    /// Reads the words after `git`.
    pub fn parse(words: impl IntoIterator<Item = impl Into<String>>) -> Self {
        let mut words = words.into_iter().map(Into::into);
        let mut this = Self::default();
        while let Some(word) = words.next() {
            if !word.starts_with('-') {
                this.command = Some(word);
                this.args = words.collect();
                return this;
            }
            let stops = ANSWERED_BY_GIT.contains(&word.as_str())
                || word.starts_with("--list-cmds=")
                // With `=` it sets the path, without it asks for it.
                || word == "--exec-path";
            let takes_next = VALUED.contains(&word.as_str());
            this.options.push(word);
            if stops {
                this.args = words.collect();
                return this;
            }
            if takes_next {
                this.options.extend(words.next());
            }
        }
        this
    }

    /// The values of an option of git's own, given as `NAME VALUE` or `NAME=VALUE`, in order.
    pub fn values_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let mut words = self.options.iter().map(String::as_str);
        std::iter::from_fn(move || {
            while let Some(word) = words.next() {
                if word == name {
                    return words.next();
                }
                if name.starts_with("--")
                    && let Some(value) = word.strip_prefix(name).and_then(|rest| rest.strip_prefix('='))
                {
                    return Some(value);
                }
                if VALUED.contains(&word) {
                    words.next();
                }
            }
            None
        })
    }

    /// Whether git only shows the help of the command.
    pub fn is_help(&self) -> bool {
        matches!(
            self.args.first().map(String::as_str),
            Some("-h" | "--help" | "--help-all")
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Invocation {
        Invocation::parse(line.split_ascii_whitespace())
    }

    #[test]
    fn the_command_is_found_behind_gits_own_options() {
        for (line, command) in [
            ("status", Some("status")),
            ("-C /r -c user.name=x --no-pager commit -m status", Some("commit")),
            ("--git-dir /r/.git --work-tree=/r add f", Some("add")),
            ("--config-env a=b push", Some("push")),
            ("--exec-path=/x log", Some("log")),
            ("--exec-path", None),
            ("--version", None),
            ("--list-cmds=main", None),
            ("", None),
            ("-C", None),
        ] {
            assert_eq!(parse(line).command.as_deref(), command, "{line}");
        }
    }

    #[test]
    fn values_are_found_in_both_spellings_and_nowhere_else() {
        let git = parse("-C a -c core.x=-C -C b --git-dir=g --git-dir h add -C c");
        assert_eq!(git.values_of("-C").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(git.values_of("--git-dir").collect::<Vec<_>>(), ["g", "h"]);
        assert_eq!(git.args, ["-C", "c"]);
    }
}
