//! `git lockfs dashboard --serve`: the same page over loopback, to those who know the token.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::browser::Browser;
use crate::holder;
use crate::support::{Mount, Running, Said, wait_until};

/// A server, with its URL.
fn serving(mount: &Mount) -> (Running, String) {
    let running = mount.spawn_sh("exec $LOCKFS dashboard --no-open --serve 127.0.0.1:0");
    let mut url = String::new();
    wait_until("it prints its URL", || {
        url = running.said().trim_end().to_owned();
        url.ends_with("/dashboard.html")
    });
    (running, url)
}

/// The whole answer to a request, as the wire has it.
fn ask(url: &str, request: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(address(url))?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map(|_| answer)
}

fn address(url: &str) -> &str {
    url.strip_prefix("http://")
        .and_then(|rest| rest.split('/').next())
        .expect("a URL")
}

fn path(url: &str) -> &str {
    url.strip_prefix("http://")
        .and_then(|rest| rest.split_once('/'))
        .expect("a URL")
        .1
}

fn get(url: &str, path: &str) -> String {
    try_get(url, path).expect("it answers and closes")
}

fn try_get(url: &str, path: &str) -> io::Result<String> {
    ask(url, &format!("GET /{path} HTTP/1.1\r\nHost: {}\r\n\r\n", address(url)))
}

/// The figures are pushed: what is taken appears, without a script being loaded again.
#[test]
fn a_browser_is_told_at_once() {
    let mount = Mount::new();
    let (_server, url) = serving(&mount);
    let browser = Browser::start(&mount);
    browser.open(&url);
    browser.wait_for("it is live", "document.querySelector('#news.live')");
    let (_holding, _) = holder(&mount, "<b>x</b>.lock".replace('/', "%2F").as_str());
    browser.wait_for(
        "the lock",
        "document.querySelector('#lock-rows .name')?.textContent === '<b>x<%2Fb>.lock'",
    );
    browser.wait_for("the charts", "document.querySelectorAll('.picture svg').length === 6");
    assert_eq!(browser.console(), Vec::<String>::new());
    let asked = browser.asked_for();
    assert!(asked.iter().all(|address| address.ends_with("/events")), "{asked:?}");
}

/// Only with the token, only under our own name, only to read.
#[test]
fn strangers_get_nothing() {
    let mount = Mount::new();
    let (_server, url) = serving(&mount);
    let page = path(&url);
    let (token, _) = page.split_once('/').expect("a token");
    assert_eq!(token.len(), 32, "128 bits");
    let answer = get(&url, page);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    for header in [
        "Content-Security-Policy: frame-ancestors 'none'",
        "Referrer-Policy: no-referrer",
        "nosniff",
    ] {
        assert!(answer.contains(header), "{header}");
    }
    for wrong in [
        "",
        "dashboard.html",
        "x/dashboard.html",
        &page.to_uppercase(),
        &page.replace(token, &"0".repeat(32)),
    ] {
        let answer = get(&url, wrong);
        assert!(
            answer.starts_with("HTTP/1.1 404 ") && !answer.contains(token),
            "{wrong}: {answer}"
        );
    }
    for path in [
        "",
        "events.csv",
        "../control",
        "charts/../locks.json",
        "charts/none.svg",
    ] {
        assert!(
            get(&url, &format!("{token}/{path}")).starts_with("HTTP/1.1 404 "),
            "{path}"
        );
    }
    assert!(get(&url, &format!("{token}/charts/heatmap.svg")).contains("image/svg+xml"));
    let elsewhere = ask(&url, &format!("GET /{page} HTTP/1.1\r\nHost: evil.example\r\n\r\n")).expect("an answer");
    assert!(elsewhere.starts_with("HTTP/1.1 421 "), "{elsewhere}");
    let nameless = ask(&url, &format!("GET /{page} HTTP/1.0\r\n\r\n")).expect("an answer");
    assert!(nameless.starts_with("HTTP/1.1 421 "), "{nameless}");
    let posted = ask(
        &url,
        &format!("POST /{page} HTTP/1.1\r\nHost: {}\r\n\r\n", address(&url)),
    )
    .expect("an answer");
    assert!(posted.starts_with("HTTP/1.1 405 "), "{posted}");
}

/// Sixteen connections, and the next is told so.
#[test]
fn connections_are_bounded() {
    const CONNECTIONS_MAX: usize = 16;
    let mount = Mount::new();
    let (_server, url) = serving(&mount);
    let (token, _) = path(&url).split_once('/').expect("a token");
    let listen = |_| {
        let mut stream = TcpStream::connect(address(&url)).expect("it listens");
        let request = format!("GET /{token}/events HTTP/1.1\r\nHost: {}\r\n\r\n", address(&url));
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).expect("it answers");
        (begin, stream)
    };
    let streams: Vec<_> = (0..CONNECTIONS_MAX).map(listen).collect();
    assert!(streams.iter().all(|(begin, _)| begin == b"HTTP/1.1 200"));
    let refused = TcpStream::connect(address(&url)).and_then(|mut stream| {
        let mut answer = String::new();
        stream.read_to_string(&mut answer).map(|_| answer)
    });
    assert!(
        refused.as_ref().is_ok_and(|answer| answer.starts_with("HTTP/1.1 503 ")),
        "{refused:?}"
    );
    drop(streams);
    wait_until("their places are given back", || {
        // One that is refused unread is reset.
        try_get(&url, path(&url)).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
    });
}

/// Addresses that others could reach are refused, as is one that is in use.
#[test]
fn other_addresses_are_refused() {
    let mount = Mount::new();
    let output = mount.lockfs(&["dashboard", "--serve", "0.0.0.0:8080"]);
    assert_eq!(output.code(), 2);
    assert!(output.error().contains("loopback"), "{}", output.error());
    let (_server, url) = serving(&mount);
    let output = mount.lockfs(&["dashboard", "--serve", address(&url)]);
    assert_eq!(output.code(), 1);
    assert!(output.error().contains("cannot listen"), "{}", output.error());
}

/// The URL is opened where there is a display, by xdg-open, and only printed elsewhere or with --no-open.
#[test]
fn the_url_is_opened_where_there_is_a_display() {
    let mount = Mount::new();
    mount
        .sh(
            "mkdir $T/bin; printf '#!/bin/sh\\nprintf %%s \"$1\" > $T/opened.new; mv $T/opened.new $T/opened\\n' > \
              $T/bin/xdg-open; chmod +x $T/bin/xdg-open",
        )
        .ok();
    let opened = mount.dir().join("opened");
    for quiet in ["$LOCKFS dashboard", "DISPLAY=:7 $LOCKFS dashboard --no-open"] {
        let output = mount.sh(&format!("PATH=$T/bin:$PATH; {quiet}")).ok();
        assert!(output.text().starts_with("file:///") && !opened.exists(), "{quiet}");
    }
    let output = mount.sh("PATH=$T/bin:$PATH; DISPLAY=:7 $LOCKFS dashboard").ok();
    wait_until("it is opened", || opened.exists());
    assert_eq!(std::fs::read_to_string(&opened).expect("written whole"), output.text());
    assert_eq!(output.error(), "");
}

/// 69 when no daemon answers.
#[test]
fn without_a_daemon_it_exits_69() {
    let repository = crate::support::Repository::new();
    let output = repository.lockfs(&["dashboard", "--no-open"]);
    assert_eq!(output.code(), 69, "{}", output.error());
}
