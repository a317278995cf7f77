//! The man pages say what the program does: pages, command line, settings, errno table and the mounted tree agree, and
//! where the contract that they were written from lies beside the repository, they agree with it too.

#[path = "support/mod.rs"]
mod support;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use clap::CommandFactory;
use git_lockfs::cli::Cli;
use git_lockfs::types::KEYS;
use serde_json::Value;
use support::{Mount, names_in};

/// What the contract promises and this version does not have yet; the pages must not mention it.
const NOT_YET: &[&str] = &["queue/", "predict/", "worktrees/"];

/// Settings that the contract leaves to the parts they belong to ("and those of the parts").
const OF_THE_PARTS: &[&str] = &[
    "scopes",
    "scope",
    "require",
    "validate",
    "enforce",
    "onUnavailable",
    "alertWait",
    "alertHold",
    "alertStale",
];

/// Keys of acquire that the contract does not have: one request for what git needs shared and what it needs alone.
const KEYS_BEYOND_THE_CONTRACT: &[&str] = &["shared"];

/// Verbs of control that the contract does not have: what clients find out and metrics count.
const VERBS_BEYOND_THE_CONTRACT: &[&str] = &["note"];

type Words = BTreeSet<String>;

/// A man page as text, section by section.
struct Page {
    source: String,
}

impl Page {
    fn read(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("man").join(name);
        let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self { source }
    }

    /// The source lines below a heading, up to the next of its level.
    fn below(&self, section: &str, subsection: Option<&str>) -> Vec<&str> {
        let heading =
            |macro_name: &str, title: &str| [format!(".{macro_name} {title}"), format!(".{macro_name} \"{title}\"")];
        let mut lines = self.source.lines();
        let wanted = heading("SH", section);
        assert!(
            lines.any(|line| wanted.iter().any(|w| w == line)),
            "no section {section}"
        );
        let mut lines = lines.take_while(|line| !line.starts_with(".SH "));
        let Some(subsection) = subsection else {
            return lines.collect();
        };
        let wanted = heading("SS", subsection);
        assert!(
            lines.any(|line| wanted.iter().any(|w| w == line)),
            "no part {subsection} in {section}"
        );
        lines.take_while(|line| !line.starts_with(".SS ")).collect()
    }

    /// The tags of the tagged paragraphs there, as a reader sees them.
    fn tags(&self, section: &str, subsection: Option<&str>) -> Vec<String> {
        let lines = self.below(section, subsection);
        let is_tag = |pair: &&[&str]| pair[0] == ".TP" || pair[0] == ".TQ";
        lines.windows(2).filter(is_tag).map(|pair| shown(pair[1])).collect()
    }

    /// The first word of each tag, without the `=` that a key may end in.
    fn first_words(&self, section: &str, subsection: Option<&str>) -> Words {
        let first = |tag: String| {
            tag.split(' ')
                .next()
                .unwrap_or_default()
                .trim_end_matches('=')
                .to_owned()
        };
        self.tags(section, subsection).into_iter().map(first).collect()
    }
}

/// A line of roff as text: a font macro is taken away, escapes become what they stand for.
fn shown(line: &str) -> String {
    let (name, rest) = match line.strip_prefix('.').and_then(|line| line.split_once(' ')) {
        Some((name, rest)) => (name, rest),
        None => ("", line),
    };
    let text = if name.len() == 2 {
        arguments(rest).concat()
    } else {
        rest.replace('"', "")
    };
    let mut text = text.replace("\\-", "-").replace("\\~", " ").replace("\\&", "");
    for font in ["\\fR", "\\fB", "\\fI", "\\fP"] {
        text = text.replace(font, "");
    }
    text
}

/// The arguments of a macro, which quotes hold together.
fn arguments(line: &str) -> Vec<String> {
    let mut arguments = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ' ' if !quoted => arguments.push(String::new()),
            c => arguments.last_mut().expect("never empty").push(c),
        }
    }
    arguments
}

fn words<'a>(names: impl IntoIterator<Item = &'a str>) -> Words {
    names.into_iter().map(str::to_owned).collect()
}

/// The options among the tags: `-f, --foreground` gives both.
fn options(tags: &[String]) -> Words {
    let all = tags.iter().flat_map(|tag| tag.split([' ', ',']));
    words(all.filter(|word| word.starts_with('-') && *word != "--"))
}

/// The contract, when it lies beside the repository.
fn contract() -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/FILESYSTEM.md");
    fs::read_to_string(path).ok()
}

/// What stands in the contract below `## TITLE`.
fn chapter<'a>(contract: &'a str, title: &str) -> &'a str {
    let heading = format!("\n## {title}\n");
    let start = contract
        .find(&heading)
        .unwrap_or_else(|| panic!("the contract has no chapter {title}"));
    let body = &contract[start + heading.len()..];
    &body[..body.find("\n## ").unwrap_or(body.len())]
}

fn in_backticks(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn every_command_and_option_has_its_place_in_the_manual() {
    let page = Page::read("git-lockfs.1");
    let mut missing = Vec::new();
    for command in Cli::command()
        .get_subcommands()
        .filter(|command| !command.is_hide_set())
    {
        let name = command.get_name();
        let documented = options(&page.tags("COMMANDS", Some(name)));
        let mut defined = Words::new();
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            defined.extend(arg.get_long().map(|long| format!("--{long}")));
            defined.extend(arg.get_short().map(|short| format!("-{short}")));
        }
        let differ = documented.symmetric_difference(&defined);
        missing.extend(differ.map(|option| {
            let where_it_is = if defined.contains(option) {
                "not in the manual"
            } else {
                "not in the program"
            };
            format!("{name} {option}: {where_it_is}")
        }));
        let synopsis = page.below("SYNOPSIS", None).join("\n");
        assert!(
            synopsis.contains(&format!("git lockfs {name}\"")),
            "{name} is in the synopsis"
        );
    }
    assert!(missing.is_empty(), "{missing:#?}");
}

#[test]
fn every_setting_is_documented_with_its_variable_and_default() {
    let page = Page::read("git-lockfs.5");
    let expected: Words = KEYS
        .iter()
        .map(|key| {
            let default = if key.default.is_empty() { "none" } else { key.default };
            format!("{} ({default}; {})", key.name, key.env)
        })
        .collect();
    let documented: Words = page.tags("CONFIGURATION", None).into_iter().collect();
    assert_eq!(documented, expected);

    let variables = page_1_variables();
    for key in KEYS {
        assert!(
            variables.contains(key.env),
            "{} is in ENVIRONMENT of git-lockfs(1)",
            key.env
        );
    }
}

fn page_1_variables() -> Words {
    let tags = Page::read("git-lockfs.1").tags("ENVIRONMENT", None).join(", ");
    words(tags.split(", "))
}

#[test]
fn every_errno_that_the_program_answers_is_explained() {
    let table = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/fuse/errno.rs");
    let table = fs::read_to_string(&table).unwrap_or_else(|error| panic!("{}: {error}", table.display()));
    let name = |rest: &str| {
        rest.split(|c: char| !c.is_ascii_alphanumeric())
            .next()
            .unwrap_or_default()
            .to_owned()
    };
    let answered: Words = table
        .split("libc::")
        .skip(1)
        .map(name)
        .filter(|name| name.starts_with('E'))
        .collect();
    let explained = Page::read("git-lockfs.5").first_words("ERRORS", None);
    let unexplained: Vec<_> = answered.difference(&explained).collect();
    assert!(unexplained.is_empty(), "not in git-lockfs(5): {unexplained:?}");
    let invented: Vec<_> = explained
        .difference(&answered)
        .filter(|name| *name != "ENOTCONN")
        .collect();
    assert!(
        invented.is_empty(),
        "the program never answers {invented:?} (ENOTCONN is the kernel's)"
    );
}

#[test]
fn the_manual_and_the_contract_agree() {
    let Some(contract) = contract() else {
        eprintln!("the contract is not here; the pages were compared with the program only");
        return;
    };
    let page = Page::read("git-lockfs.5");

    let verbs = in_backticks(chapter(&contract, "control")).map(|verb| verb.split(' ').next().unwrap_or(verb));
    let (documented, verbs) = (page.first_words("CONTROL", None), words(verbs));
    assert!(documented.is_superset(&verbs), "verbs of control");
    let more: Vec<_> = documented.difference(&verbs).cloned().collect();
    assert_eq!(more, VERBS_BEYOND_THE_CONTRACT, "verbs of control");

    let keys = chapter(&contract, "acquire");
    let keys = keys
        .split("Keys: ")
        .nth(1)
        .and_then(|keys| keys.split(". JSON").next())
        .expect("the keys of acquire");
    let keys = keys
        .split('(')
        .flat_map(|part| part.split(')').next_back())
        .flat_map(|part| part.split([',', ' ']));
    let keys = keys.filter(|key| !key.is_empty());
    let documented = page.first_words("ACQUIRE", None);
    let keys = words(keys);
    assert!(documented.is_superset(&keys), "keys of acquire");
    let more: Vec<_> = documented.difference(&keys).cloned().collect();
    assert_eq!(more, KEYS_BEYOND_THE_CONTRACT, "keys of acquire");

    let settings = chapter(&contract, "Configuration");
    let settings: Words = in_backticks(settings)
        .map(|key| key.split('.').next().unwrap_or(key).to_owned())
        .collect();
    for key in KEYS.iter().filter(|key| !OF_THE_PARTS.contains(&key.name)) {
        assert!(settings.contains(key.name), "the contract has the setting {}", key.name);
    }

    let errors = chapter(&contract, "Errors, in one place");
    let errors = errors.lines().skip(3).filter_map(|row| row.split('|').nth(1));
    let errors = words(
        errors
            .flat_map(|cell| cell.split([',', '/', ' ']))
            .filter(|name| !name.is_empty()),
    );
    let explained = page.first_words("ERRORS", None);
    assert_eq!(
        errors.difference(&explained).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "errnos"
    );

    let roots = contract
        .lines()
        .filter_map(|line| line.trim_start().split("── ").nth(1)?.split(' ').next());
    let roots = words(roots.filter(|root| !NOT_YET.contains(root)));
    assert_eq!(documented_roots(&page), roots, "what lies at the root");
}

/// The names at the root, directories with a slash.
fn documented_roots(page: &Page) -> Words {
    let top = |path: &String| match path.split_once('/') {
        Some((directory, _)) => format!("{directory}/"),
        None => path.clone(),
    };
    page.first_words("THE TREE", None).iter().map(top).collect()
}

#[test]
fn the_pages_promise_nothing_that_is_not_there_yet() {
    for name in ["git-lockfs.1", "git-lockfs.5"] {
        let page = Page::read(name).source;
        for absent in NOT_YET {
            assert!(!page.contains(absent), "{name} mentions {absent}");
        }
    }
}

#[test]
fn both_pages_render_without_a_warning() {
    if Command::new("man").arg("--version").output().is_err() {
        eprintln!("there is no man(1) here to render with");
        return;
    }
    for name in ["git-lockfs.1", "git-lockfs.5"] {
        let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("man").join(name);
        let output = Command::new("man")
            .args(["--warnings", "-E", "UTF-8", "-l"])
            .arg(&page)
            .env("LC_ALL", "C.UTF-8")
            .env("MANWIDTH", "80")
            .env_remove("MANPAGER")
            .output()
            .expect("man(1) starts");
        let warnings = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && warnings.is_empty(), "{name}: {warnings}");
        assert!(output.stdout.len() > 2000, "{name} has a text");
    }
}

/// "The root lists only what works."
#[test]
fn the_mounted_tree_is_the_documented_one() {
    let mount = Mount::new();
    let page = Page::read("git-lockfs.5");
    let root = names_in(&mount.mountpoint());
    let root: Words = root
        .into_iter()
        .map(|name| match mount.path(&name).is_dir() {
            true => name + "/",
            false => name,
        })
        .collect();
    assert_eq!(root, documented_roots(&page));
    for path in page.first_words("THE TREE", None) {
        assert!(mount.path(&path).exists(), "{path} is there");
    }
    let in_metrics = |path: &String| {
        path.strip_prefix("metrics/")
            .map(|name| name.trim_end_matches('/').to_owned())
    };
    let documented: Words = page
        .first_words("THE TREE", None)
        .iter()
        .filter_map(in_metrics)
        .collect();
    assert_eq!(
        words(names_in(&mount.path("metrics")).iter().map(String::as_str)),
        documented
    );
    assert_eq!(
        words(names_in(&mount.path("metrics/charts")).iter().map(String::as_str)),
        page.first_words("METRICS", Some("dashboard.html, live.js and charts/"))
    );
}

#[test]
fn the_documented_fields_of_a_lock_are_the_shown_ones() {
    let mount = Mount::new();
    let holder = mount.spawn_sh("exec 9> $L/x.lock && echo taken && exec sleep 60");
    holder.wait_for_line("taken");
    let page = Page::read("git-lockfs.5");
    let documented = page.first_words("LOCKS", Some("Reading a lock"));
    let text = mount.text_of("x.lock").expect("it is taken");
    let fields = words(text.lines().filter_map(|line| Some(line.split_once('=')?.0)));
    assert_eq!(fields, documented);
    let attributes = page.first_words("LOCKS", Some("Extended attributes"));
    let expected: Words = documented.iter().map(|field| format!("user.lockfs.{field}")).collect();
    assert_eq!(attributes, expected);
}

#[test]
fn the_verbs_that_need_no_holder_work_as_documented() {
    let mount = Mount::new();
    for verb in ["drain", "resume", "reload", "flush-metrics"] {
        let said = mount.sh(&format!("echo {verb} > $M/control"));
        assert!(said.status.success(), "{verb}: {said:?}");
    }
    assert!(!mount.sh("echo frobnicate > $M/control").status.success());
    let help = fs::read_to_string(mount.path("acquire")).expect("its help text");
    for key in Page::read("git-lockfs.5").first_words("ACQUIRE", None) {
        assert!(help.contains(&key), "the help of acquire names {key}");
    }
}

#[test]
fn the_documented_form_of_locks_json_is_the_rendered_one() {
    let mount = Mount::new();
    let holder = mount.spawn_sh("exec 9> $L/x.lock && echo taken && exec sleep 60");
    holder.wait_for_line("taken");
    let _waiter = mount.spawn_sh("exec 9<> $M/acquire; echo locks=x.lock wait=60s ticket=t session=s >&9");
    mount.wait_for_waiters("x.lock", 1);

    let page = Page::read("git-lockfs.5");
    let json = mount.locks_json();
    let lock = &json["locks"][0];
    let parts = [
        ("The object", &json),
        ("A lock", lock),
        ("A holder", &lock["holders"][0]),
        ("A waiter", &lock["waiters"][0]),
        ("An edge", &json["edges"][0]),
    ];
    for (part, value) in parts {
        assert_eq!(keys_of(value), page.first_words("METRICS", Some(part)), "{part}");
    }
}

#[test]
fn the_documented_forms_of_the_figures_are_the_rendered_ones() {
    let mount = Mount::new();
    assert!(mount.sh("flock $F/x.lock true").status.success());
    let page = Page::read("git-lockfs.5");
    let read = |name: &str| {
        let path = mount.path("metrics").join(name);
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let json: Value = serde_json::from_str(&read("summary.json")).expect("JSON");
    let heatmap: Value = serde_json::from_str(&read("heatmap.json")).expect("JSON");
    let window = &json["windows"][0];
    let parts = [
        ("summary.json", &json),
        ("A window", window),
        ("Waits and holds", &window["hold"]),
        ("An alert", &json["alerts"][0]),
        ("heatmap.json", &heatmap),
    ];
    for (part, value) in parts {
        assert_eq!(keys_of(value), page.first_words("METRICS", Some(part)), "{part}");
    }
    let of_lock = names_in(&mount.path("metrics/by-lock/x.lock"));
    assert_eq!(
        words(of_lock.iter().map(String::as_str)),
        page.first_words("METRICS", Some("by\\-lock"))
    );
    let columns = read("events.csv").lines().next().map(str::to_owned).expect("a header");
    assert!(page.source.contains(&columns), "{columns}");
}

fn keys_of(value: &Value) -> Words {
    let object = value.as_object().unwrap_or_else(|| panic!("an object, not {value}"));
    object.keys().cloned().collect()
}
