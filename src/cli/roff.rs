//! Man pages as plain text, for where there is no man(1) or nobody to page: the part of man(7) that our pages use.

/// The width of the text.
const WIDTH: usize = 78;
/// The indent of a paragraph.
const INDENT: usize = 7;
/// The further indent of a level of .RS, and of what is below a tag.
const STEP: usize = 7;

/// Renders a page written in man(7).
pub fn plain(page: &str) -> String {
    let mut out = Page::default();
    for line in page.lines() {
        out.line(line);
    }
    out.end_paragraph();
    out.text
}

#[derive(Default)]
struct Page {
    text: String,
    words: Vec<String>,
    /// Levels of .RS.
    level: usize,
    below_tag: bool,
    /// The next line is a tag.
    tag_next: bool,
    /// Between .nf and .fi.
    verbatim: bool,
    /// Between .TS and .TE; `Some(true)` once its format has been read.
    table: Option<bool>,
}

impl Page {
    fn line(&mut self, line: &str) {
        if line.starts_with(r#"'\""#) || line.starts_with(r#".\""#) {
            return;
        }
        match line.strip_prefix('.') {
            Some(request) => {
                let (name, rest) = request.split_once(' ').unwrap_or((request, ""));
                self.request(name, rest.trim_start());
            }
            None if self.table.is_some() => self.table_line(line),
            None => self.content(&unescape(line)),
        }
    }

    fn request(&mut self, name: &str, rest: &str) {
        match name {
            "B" | "I" | "SM" => self.content(&arguments(rest).join(" ")),
            "BR" | "RB" | "BI" | "IB" | "IR" | "RI" => self.content(&arguments(rest).concat()),
            "TH" => {
                let title = arguments(rest);
                let word = |index: usize| title.get(index).map_or("", String::as_str);
                self.text += &format!("{}({})  {}  {}\n", word(0), word(1), word(3), word(2));
            }
            "SH" | "SS" => {
                self.paragraph();
                self.level = 0;
                let indent = if name == "SS" { "   " } else { "" };
                self.text += &format!("{indent}{}\n", arguments(rest).join(" "));
            }
            "TP" => {
                self.paragraph();
                self.tag_next = true;
            }
            "TQ" => {
                self.end_paragraph();
                self.tag_next = true;
            }
            "IP" => {
                self.paragraph();
                if let Some(tag) = arguments(rest).first() {
                    self.tag(tag);
                }
            }
            "RS" => {
                self.end_paragraph();
                self.level += 1;
            }
            "RE" => {
                self.end_paragraph();
                self.level = self.level.saturating_sub(1);
            }
            "PP" | "P" | "LP" => self.paragraph(),
            "nf" | "EX" => {
                self.end_paragraph();
                self.verbatim = true;
            }
            "fi" | "EE" => self.verbatim = false,
            "TS" => {
                self.end_paragraph();
                self.table = Some(false);
            }
            "TE" => self.table = None,
            "br" | "sp" => self.end_paragraph(),
            // What else there is sets type, not text.
            _ => {}
        }
    }

    fn content(&mut self, text: &str) {
        if self.tag_next {
            self.tag_next = false;
            self.tag(text);
        } else if self.verbatim {
            let indent = self.indent();
            self.text += format!("{:indent$}{text}", "").trim_end();
            self.text.push('\n');
        } else {
            self.words
                .extend(text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned));
        }
    }

    /// Below a table's format, cells are separated by `|`.
    fn table_line(&mut self, line: &str) {
        match self.table {
            Some(true) => {
                let cells: Vec<String> = line.split('|').map(|cell| format!("{:16}", unescape(cell))).collect();
                let indent = self.indent();
                self.text += format!("{:indent$}{}", "", cells.concat()).trim_end();
                self.text.push('\n');
            }
            // The format ends with a full stop.
            _ => self.table = Some(line.trim_end().ends_with('.')),
        }
    }

    fn tag(&mut self, tag: &str) {
        self.below_tag = false;
        let indent = self.indent();
        self.text += &format!("{:indent$}{tag}\n", "");
        self.below_tag = true;
    }

    /// A new paragraph, at the indent of its level.
    fn paragraph(&mut self) {
        self.end_paragraph();
        self.below_tag = false;
        if !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    fn end_paragraph(&mut self) {
        let indent = self.indent();
        let mut line = String::new();
        for word in std::mem::take(&mut self.words) {
            let length = indent + line.chars().count() + 1 + word.chars().count();
            if !line.is_empty() && length > WIDTH {
                self.text += &format!("{:indent$}{line}\n", "");
                line.clear();
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line += &word;
        }
        if !line.is_empty() {
            self.text += &format!("{:indent$}{line}\n", "");
        }
    }

    fn indent(&self) -> usize {
        INDENT + STEP * (self.level + usize::from(self.below_tag))
    }
}

/// The arguments of a request: words, or quoted, with `""` for a quote inside.
fn arguments(rest: &str) -> Vec<String> {
    let mut arguments = Vec::new();
    let mut chars = rest.chars().peekable();
    loop {
        while chars.next_if_eq(&' ').is_some() {}
        if chars.peek().is_none() {
            return arguments;
        }
        let quoted = chars.next_if_eq(&'"').is_some();
        let mut argument = String::new();
        while let Some(c) = chars.next() {
            match c {
                '"' if quoted && chars.next_if_eq(&'"').is_none() => break,
                ' ' if !quoted => break,
                '\\' => {
                    // `\ ` and `\"` are characters of the argument.
                    argument.push(c);
                    argument.extend(chars.next());
                }
                c => argument.push(c),
            }
        }
        arguments.push(unescape(&argument));
    }
}

/// Resolves the escapes of groff_char(7) that our pages use, and drops fonts.
fn unescape(line: &str) -> String {
    let mut text = String::with_capacity(line.len());
    let mut rest = line;
    while let Some(at) = rest.find('\\') {
        text += &rest[..at];
        rest = &rest[at + 1..];
        let mut chars = rest.chars();
        let Some(c) = chars.next() else { break };
        rest = chars.as_str();
        match c {
            '-' => text.push('-'),
            // A space that does not break: the words are split at plain spaces only.
            '~' | ' ' | '0' => text.push('\u{a0}'),
            'e' => text.push('\\'),
            'f' => rest = rest.get(1..).unwrap_or_default(),
            '(' => {
                let (name, tail) = rest.split_at_checked(2).unwrap_or((rest, ""));
                rest = tail;
                text += match name {
                    "dq" => "\"",
                    "aq" => "'",
                    "bu" => "•",
                    "lq" => "“",
                    "rq" => "”",
                    "ga" => "`",
                    "ha" => "^",
                    "ti" => "~",
                    "rs" => "\\",
                    "em" | "en" => "–",
                    other => other,
                };
            }
            // A comment ends the line.
            '"' => return text,
            // \& and the like have no width.
            _ => {}
        }
    }
    text + rest
}

#[cfg(test)]
mod tests {
    use super::super::man;
    use super::*;

    const PAGE: &str = r#"'\" t
.TH GIT\-LOCKFS 1 2026-11-20 "git\-lockfs 0.1.0" "Git Manual"
.SH NAME
git\-lockfs \- locks
.SH COMMANDS
.SS mount
Mounts the locks, see
.BR git\-lockfs (5),
.B now .
.TP
.BR \-f ", " \-\-foreground
Stay in the \fIforeground\fP.
.PP
.RS
.nf
exec 9>\(dq$(git lockfs path)\(dq
.fi
.RE
.TS
tab(|);
l l.
nice|priority
.TE
"#;

    #[test]
    fn a_page_reads_as_text() {
        let expected = "\
GIT-LOCKFS(1)  git-lockfs 0.1.0  2026-11-20

NAME
       git-lockfs - locks

COMMANDS

   mount
       Mounts the locks, see git-lockfs(5), now .

       -f, --foreground
              Stay in the foreground.

              exec 9>\"$(git lockfs path)\"
       nice            priority
";
        assert_eq!(plain(PAGE), expected);
    }

    #[test]
    fn our_own_pages_leave_no_markup_behind() {
        for page in [man::COMMANDS, man::FILES] {
            let text = plain(page);
            assert!(text.contains("\nNAME\n"), "{text}");
            for line in text.lines() {
                assert!(!line.contains("\\f") && !line.contains("\\-"), "{line}");
                assert!(!line.starts_with('.'), "{line}");
            }
        }
    }
}
