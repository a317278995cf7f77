//! The arguments of a git command, as far as locks depend on them: which options are given, which words are none.

use super::table::VALUED;

/// The arguments of one command.
#[derive(Clone, Copy, Debug)]
pub struct Arguments<'a> {
    words: &'a [String],
    /// The command's options that take the next word.
    valued: &'static str,
}

impl<'a> Arguments<'a> {
    /// The arguments of that command.
    pub fn new(command: &str, words: &'a [String]) -> Self {
        let valued = VALUED.iter().find(|(name, _)| *name == command);
        Self {
            words,
            valued: valued.map_or("", |(_, options)| options),
        }
    }

    /// Whether the condition of a row fits.
    pub fn fit(&self, condition: &str) -> bool {
        match condition {
            "" => true,
            "(0)" => self.plain().next().is_none(),
            "(1)" => self.plain().count() == 1,
            "--" => self.words.iter().any(|word| word == "--"),
            options => options.split(' ').any(|option| self.has(option)),
        }
    }

    /// Whether an option is given: a short one also in a bundle, a long one also abbreviated or with a value.
    pub fn has(&self, option: &str) -> bool {
        self.options().any(|(word, _)| self.is(word, option))
    }

    /// The value of an option.
    pub fn value_of(&self, option: &str) -> Option<&'a str> {
        self.options()
            .find(|(word, _)| self.is(word, option))
            .and_then(|(word, next)| match word.strip_prefix("--") {
                Some(long) => long.split_once('=').map(|(_, value)| value).or(next),
                None => {
                    let attached = word.split_once(&option[1..]).map_or("", |(_, value)| value);
                    if attached.is_empty() { next } else { Some(attached) }
                }
            })
    }

    /// The words that are neither options nor their values.
    pub fn plain(&self) -> impl Iterator<Item = &'a str> {
        let mut words = self.words.iter().map(String::as_str);
        let mut options_end = false;
        let this = *self;
        std::iter::from_fn(move || {
            while let Some(word) = words.next() {
                if options_end || !word.starts_with('-') || word == "-" {
                    return Some(word);
                }
                if word == "--" {
                    options_end = true;
                } else if this.takes_next(word) {
                    words.next();
                }
            }
            None
        })
    }

    /// The options, each with the word after it.
    fn options(&self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let mut words = self.words.iter().map(String::as_str).peekable();
        let this = *self;
        std::iter::from_fn(move || {
            while let Some(word) = words.next() {
                if word == "--" {
                    return None;
                }
                if word.starts_with('-') && word != "-" {
                    let next = words.peek().copied();
                    if this.takes_next(word) {
                        words.next();
                    }
                    return Some((word, next));
                }
            }
            None
        })
    }

    fn is(&self, word: &str, option: &str) -> bool {
        if let Some(wanted) = option.strip_prefix("--") {
            let Some(given) = word.strip_prefix("--") else {
                return false;
            };
            let given = given.split('=').next().unwrap_or(given);
            return !given.is_empty() && wanted.starts_with(given);
        }
        self.letters(word).any(|letter| option[1..].starts_with(letter))
    }

    /// The letters of a bundle of short options, up to the first that takes the rest as its value.
    fn letters(&self, word: &'a str) -> impl Iterator<Item = char> {
        let bundle = word
            .strip_prefix('-')
            .filter(|rest| !rest.starts_with('-'))
            .unwrap_or("");
        let mut ended = false;
        let this = *self;
        bundle.chars().take_while(move |&letter| {
            let go_on = !ended;
            ended |= this.is_valued(letter);
            go_on
        })
    }

    fn is_valued(&self, letter: char) -> bool {
        let short = |option: &str| option.len() == 2 && option.ends_with(letter);
        self.valued.split(' ').any(short)
    }

    fn takes_next(&self, word: &str) -> bool {
        if let Some(long) = word.strip_prefix("--") {
            let known = |option: &str| option.strip_prefix("--").is_some_and(|known| known == long);
            return self.valued.split(' ').any(known);
        }
        word.chars().last().is_some_and(|last| self.is_valued(last))
            && self.letters(word).count() == word.chars().count() - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<T>(command: &str, line: &str, ask: impl FnOnce(Arguments<'_>) -> T) -> T {
        let words: Vec<String> = line.split_ascii_whitespace().map(str::to_owned).collect();
        ask(Arguments::new(command, &words))
    }

    #[test]
    fn options_are_found_bundled_abbreviated_and_with_values() {
        for (command, line, option, expected) in [
            ("branch", "-rd x", "-d", true),
            ("branch", "--del x", "--delete", true),
            ("branch", "--delete x", "-d", false),
            ("fetch", "--depth=1", "--depth", true),
            ("tag", "-mlist v1", "-l", false),
            ("tag", "-am -l v1", "-l", false),
            ("tag", "-l", "-l", true),
            ("branch", "-- -d", "-d", false),
            ("branch", "-", "-d", false),
        ] {
            assert_eq!(
                check(command, line, |args| args.has(option)),
                expected,
                "{command} {line}"
            );
        }
    }

    #[test]
    fn values_are_no_words_of_their_own() {
        let plain = |command: &str, line: &str| {
            check(command, line, |args| {
                args.plain().map(str::to_owned).collect::<Vec<_>>()
            })
        };
        assert_eq!(plain("tag", "-a -m message v1 HEAD"), ["v1", "HEAD"]);
        assert_eq!(plain("tag", "-am message v1"), ["v1"]);
        assert_eq!(plain("tag", "-mmessage v1"), ["v1"]);
        assert_eq!(plain("fetch", "--depth 1 origin -- -x"), ["origin", "-x"]);
        assert_eq!(plain("switch", "-"), ["-"]);
        for (line, value) in [
            ("-c new x", "new"),
            ("-qc new", "new"),
            ("-cnew", "new"),
            ("--create=new", "new"),
            ("--create new", "new"),
        ] {
            let short = check("switch", line, |args| args.value_of("-c").map(str::to_owned));
            let long = check("switch", line, |args| args.value_of("--create").map(str::to_owned));
            assert_eq!(short.or(long).as_deref(), Some(value), "{line}");
        }
    }
}
