//! `metrics/dashboard.html`, opened as a file of a live mount.

use std::io::ErrorKind;
use std::net::TcpListener;

use crate::browser::Browser;
use crate::support::{Mount, Said};
use crate::{TAKE, holder, pictures};

/// A browser with the dashboard of the mount in it, and its figures shown.
fn opened(mount: &Mount) -> Browser {
    let url = mount.lockfs(&["dashboard", "--no-open"]).ok().text();
    assert!(
        url.starts_with("file:///") && url.ends_with("/metrics/dashboard.html"),
        "{url}"
    );
    let browser = Browser::start(mount);
    browser.open(&url);
    browser.wait_for("it is live", "document.querySelector('#news.live')");
    browser
}

/// The console is empty, and nothing but the file beside the page was asked for.
#[track_caller]
fn all_quiet(browser: &Browser) {
    assert_eq!(browser.console(), Vec::<String>::new());
    for address in browser.asked_for() {
        assert!(
            address.starts_with("file:///") && address.contains("/metrics/live.js?"),
            "{address}"
        );
    }
}

const NAMES: &str = "[...document.querySelectorAll('#lock-rows .name')].map((name) => name.textContent)";

/// A lock that is taken appears by itself, and goes when it is released.
#[test]
fn the_page_shows_what_comes_and_goes() {
    let mount = Mount::new();
    let browser = opened(&mount);
    assert_eq!(browser.run("return document.getElementById('lock-none').hidden"), false);
    // If the page were loaded anew, this would be lost.
    browser.run("window.mine = 7");
    let (mut holding, fd) = holder(&mount, "x.lock");
    let mut waiting = mount.client();
    waiting.begin_open(mount.lock("x.lock"), TAKE);
    browser.wait_for("the lock", &format!("{NAMES}.includes('x.lock')"));
    browser.wait_for(
        "its waiter",
        "document.querySelector('#lock-rows .pill')?.textContent === '1'",
    );
    let row = browser.run("return document.querySelector('#lock-rows tr').innerText");
    let pid = holding.pid().to_string();
    assert!(row.as_str().is_some_and(|row| row.contains(&pid)), "{row}");
    drop(waiting);
    holding.close(fd);
    browser.wait_for("it is free", &format!("!{NAMES}.includes('x.lock')"));
    assert_eq!(browser.run("return window.mine"), 7);
    all_quiet(&browser);
}

/// Names of locks, operations and sessions are text, whatever is in them; and the page looks well.
#[test]
fn hostile_names_are_text() {
    let mount = Mount::new();
    let name = "<img-src=x-onerror=alert(1)>&amp;${7*7}{{7}}.lock";
    let op = "<script>document.title=1<img-src=x>\\u202e<td>";
    let script = format!(
        r#"exec 9<> acquire; printf '%s\n' '{{"locks":["{name}"],"session":"s-<b>1<b>","op":"{op}"}}' >&9 || exit 75
        echo taken; exec sleep 60"#
    );
    // Something to draw: ten that want the same lock, one after another.
    mount
        .sh("for i in 1 2 3 4 5 6 7 8 9 10; do (exec 9> $L/busy.lock; sleep 0.05) & done; wait")
        .ok();
    let holding = mount.spawn_sh(&format!("cd $M && {script}"));
    holding.wait_for_line("taken");
    let (_second, _) = holder(&mount, "global.lock");
    let mut line: Vec<_> = (0..3).map(|_| mount.client()).collect();
    for waiting in &mut line {
        waiting.begin_open(mount.lock("global.lock"), TAKE);
    }
    mount.wait_for_waiters("global.lock", 3);
    let browser = opened(&mount);
    browser.wait_for("the lock", &format!("{NAMES}.includes({name:?})"));
    browser.run("document.querySelectorAll('#lock-rows button').forEach((button) => button.click())");
    let shown = browser.run("return document.querySelector('#lock-rows').innerText");
    let shown = shown.as_str().expect("text");
    for text in ["s-<b>1<b>", "<script>document.title=1<img-src=x>"] {
        assert!(shown.contains(text), "{text}: {shown}");
    }
    assert!(
        !shown.contains('\u{202e}'),
        "a name cannot turn what follows around: {shown}"
    );
    assert_eq!(
        browser.run("return document.querySelectorAll('main img, main b, main script').length"),
        0
    );
    assert_eq!(browser.run("return document.title"), "git-lockfs");
    for scheme in ["light", "dark"] {
        browser.prefer(scheme);
        browser.picture(&pictures().join(format!("{scheme}.png")));
    }
    all_quiet(&browser);
}

/// Whatever got into the page, the browser would refuse it: markup, scripts, styles, and all that is elsewhere.
#[test]
fn the_policy_refuses_what_is_not_the_pages_own() {
    let mount = Mount::new();
    let browser = opened(&mount);
    let elsewhere = TcpListener::bind("127.0.0.1:0").expect("a port");
    elsewhere.set_nonblocking(true).expect("it is a socket");
    let address = elsewhere.local_addr().expect("it is bound");
    let attempts = format!(
        "window.refused = new Set();
         document.addEventListener('securitypolicyviolation', (event) => refused.add(event.effectiveDirective));
         const url = 'http://{address}/', add = (name, change) => {{
           const node = document.createElement(name);
           change(node);
           document.body.append(node);
         }};
         for (const attempt of [
           () => {{ document.querySelector('main').innerHTML = '<b>markup</b>'; }},
           () => trustedTypes.createPolicy('another', {{ createHTML: (text) => text }}),
           () => add('script', (script) => script.append('window.injected = 1')),
           () => add('style', (style) => style.append('body {{ display: none }}')),
           () => add('img', (image) => {{ image.src = url; }}),
           () => add('iframe', (frame) => {{ frame.src = 'data:text/html,frame'; }}),
           () => fetch(url).catch(() => {{}}),
           () => add('base', (base) => {{ base.href = url; }}),
         ]) try {{ attempt(); }} catch {{ /* The refusal is counted. */ }}"
    );
    browser.run(&attempts);
    for directive in [
        "require-trusted-types-for",
        "trusted-types",
        "style-src-elem",
        "img-src",
        "frame-src",
        "connect-src",
        "base-uri",
    ] {
        browser.wait_for(directive, &format!("window.refused.has({directive:?})"));
    }
    assert_eq!(browser.run("return window.injected"), serde_json::Value::Null);
    let asked = elsewhere.accept().map(|(_, from)| from);
    assert!(
        asked.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock),
        "{asked:?}"
    );
}

/// A refresh takes away neither selection nor scroll nor focus nor what was opened.
#[test]
fn a_refresh_leaves_the_reader_alone() {
    let mount = Mount::new();
    let holders: Vec<_> = (0..60)
        .map(|number| holder(&mount, &format!("{number:02}.lock")))
        .collect();
    let browser = opened(&mount);
    browser.run(
        "const [opened, chosen] = [40, 41].map((n) => document.querySelectorAll('#lock-rows .name')[n]);
         opened.click();
         opened.parentElement.focus();
         getSelection().selectAllChildren(chosen);
         chosen.scrollIntoView();
         window.chosen = chosen;
         window.top_before = chosen.getBoundingClientRect().top;",
    );
    let (_new, _) = holder(&mount, "30a.lock");
    browser.wait_for("a refresh", &format!("{NAMES}.includes('30a.lock')"));
    let after = browser.run(
        "return [String(getSelection()), document.activeElement.querySelector('.name')?.textContent,
                 document.querySelectorAll('#lock-rows [aria-expanded=true]').length,
                 Math.abs(window.chosen.getBoundingClientRect().top - window.top_before) < 3]",
    );
    assert_eq!(after, serde_json::json!(["41.lock", "40.lock", 1, true]));
    drop(holders);
    browser.wait_for(
        "one that is looked at stays",
        &format!("{NAMES}.join() === '30a.lock,40.lock'"),
    );
    all_quiet(&browser);
}

/// With the keyboard alone: to the filter, to a lock, and open it.
#[test]
fn the_keyboard_suffices() {
    let mount = Mount::new();
    let _holders = [holder(&mount, "one.lock"), holder(&mount, "two.lock")];
    let browser = opened(&mount);
    browser.press('/');
    "two".chars().for_each(|key| browser.press(key));
    assert_eq!(browser.run(&format!("return {NAMES}.join()")), "two.lock");
    // The region that scrolls, then the button.
    browser.press('\u{e004}');
    browser.press('\u{e004}');
    browser.press('\u{e007}');
    browser.wait_for("it is open", "document.querySelector('#lock-rows .detail')");
    // What a screen reader is told: a name for every control, table and region.
    let nameless = browser.run(
        "return [...document.querySelectorAll('table')].filter((table) => !table.caption?.textContent).length
              + [...document.querySelectorAll('section')].filter((s) => !s.ariaLabel && !s.getAttribute('aria-labelledby')).length
              + [...document.querySelectorAll('svg')].filter((svg) => !svg.querySelector('title')).length
              + [...document.querySelectorAll('input')].filter((input) => !input.labels.length).length",
    );
    assert_eq!(nameless, 0);
    all_quiet(&browser);
}

/// A page whose daemon has ended says so.
#[test]
fn old_figures_are_called_old() {
    let mount = Mount::new();
    let browser = opened(&mount);
    mount.lockfs(&["umount"]).ok();
    browser.wait_for(
        "it says so",
        "document.querySelector('#news.late')?.innerText.includes('No news since')",
    );
}

/// A browser reads as much as fstat(2) says: that is the length of what was opened, whatever happens meanwhile.
#[test]
fn an_open_file_is_as_long_as_its_text() {
    let mount = Mount::new();
    let mut file = std::fs::File::open(mount.path("metrics/live.js")).expect("it is there");
    let (_holding, _) = holder(&mount, "x.lock");
    let size = file.metadata().expect("fstat").len();
    let mut text = Vec::new();
    std::io::Read::read_to_end(&mut file, &mut text).expect("it is read");
    assert_eq!(size, text.len() as u64);
}
