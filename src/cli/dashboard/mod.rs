//! `git lockfs dashboard`: where the page is, shown in a browser, or served over loopback with live push.

mod http;
mod server;

use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result};

use super::client::Mount;
use server::Server;

/// Print the dashboard's URL and open it
///
/// The page is a file of the mount and needs no network. It is opened with xdg-open(1) where there is a display.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only print the URL
    #[arg(long)]
    no_open: bool,
    /// Serve the page over HTTP at this address of the loopback interface, with live push, until interrupted; port 0
    /// takes a free one. The URL has a random token in it and is all that a browser needs
    #[arg(long, value_name = "IP:PORT", value_parser = loopback)]
    serve: Option<SocketAddr>,
}

fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "not of the form 127.0.0.1:8080 or [::1]:8080".to_owned())?;
    if !address.ip().is_loopback() {
        return Err(
            "only addresses of the loopback interface are served, 127.0.0.1 or [::1]: for another machine, \
                    forward the port with ssh -L"
                .to_owned(),
        );
    }
    Ok(address)
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mount = Mount::find()?;
    let server = match args.serve {
        Some(address) => Some(Server::bind(address).with_context(|| format!("cannot listen on {address}"))?),
        None => None,
    };
    let url = match &server {
        Some(server) => server.url(),
        None => file_url(&mount.file("metrics/dashboard.html")),
    };
    let mut out = io::stdout();
    writeln!(out, "{url}")?;
    out.flush()?;
    if !args.no_open && has_display() {
        open(&url);
    }
    match server {
        Some(server) => server.serve(&mount),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The URL of a file, its path escaped byte by byte.
fn file_url(path: &Path) -> String {
    let mut url = "file://".to_owned();
    for &byte in path.as_os_str().as_bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'-' | b'.' | b'_' | b'~' => url.push(char::from(byte)),
            _ => url += &format!("%{byte:02X}"),
        }
    }
    url
}

fn has_display() -> bool {
    ["WAYLAND_DISPLAY", "DISPLAY"]
        .into_iter()
        .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()))
}

/// Shows the URL in the user's browser, which outlives us. That it could not be started is worth a word, not a failure:
/// the URL is printed.
fn open(url: &str) {
    let mut command = Command::new("xdg-open");
    command
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.process_group(0);
    if let Err(error) = command.spawn() {
        eprintln!("git-lockfs: xdg-open could not be started ({error}): open the URL yourself");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_served() {
        for address in ["127.0.0.1:0", "127.8.9.1:80", "[::1]:8080"] {
            assert!(loopback(address).is_ok(), "{address}");
        }
        for address in ["0.0.0.0:80", "192.168.1.1:80", "[::]:80", "[::ffff:10.0.0.1]:80"] {
            assert!(
                loopback(address).is_err_and(|error| error.contains("loopback")),
                "{address}"
            );
        }
        for address in ["127.0.0.1", "localhost:80", "80", ""] {
            assert!(
                loopback(address).is_err_and(|error| error.contains("form")),
                "{address}"
            );
        }
    }

    #[test]
    fn a_path_is_escaped_byte_by_byte() {
        assert_eq!(
            file_url(Path::new("/a b/ü#?%/x.html")),
            "file:///a%20b/%C3%BC%23%3F%25/x.html"
        );
    }
}
