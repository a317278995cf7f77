//! The dashboard over loopback HTTP: the same files, and the figures pushed as events.
//!
//! 1. **Who may read.** Any process of this machine can connect, so the URL carries a random token; a page from elsewhere
//!    in the same browser cannot, for it would have to name us in `Host`.
//! 2. **What it costs.** A thread a connection, at most [`CONNECTIONS_MAX`]; each read and write has a limit, so that a
//!    browser that sleeps gives its place back.
//! 3. **A daemon that goes and comes.** The event stream stays open and says nothing; the page tells its reader how old
//!    its figures are.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;

use super::http::{self, Request, Status, read_request, refuse};
use crate::cli::client::Mount;
use crate::view::charts::Chart;
use crate::view::dashboard::live;

/// How many connections are answered at a time; a page holds one.
const CONNECTIONS_MAX: usize = 16;
/// How long a client may take to ask, or to read what it was sent.
const PATIENCE: Duration = Duration::from_secs(5);
/// The pause between two pushes.
const PUSH_PAUSE: Duration = Duration::from_secs(1);
/// The length of the token, in bytes before they are text.
const TOKEN_BYTES: usize = 16;

/// A socket that listens, and the token that it wants.
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    token: String,
}

impl Server {
    /// Listens; the kernel keeps early connections until [`Self::serve`].
    pub fn bind(address: SocketAddr) -> Result<Self> {
        let listener = TcpListener::bind(address)?;
        let mut random = [0; TOKEN_BYTES];
        let urandom = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut random));
        urandom.context("/dev/urandom")?;
        Ok(Self {
            address: listener.local_addr()?,
            listener,
            token: random.iter().map(|byte| format!("{byte:02x}")).collect(),
        })
    }

    /// What a browser needs to know.
    pub fn url(&self) -> String {
        format!("http://{}/{}/dashboard.html", self.address, self.token)
    }

    /// Answers until a signal ends the program.
    pub fn serve(self, mount: &Mount) -> Result<ExitCode> {
        let site = Arc::new(Site {
            mount: mount.clone(),
            hosts: [self.address.to_string(), format!("localhost:{}", self.address.port())],
            token: self.token,
        });
        let open = Arc::new(AtomicUsize::new(0));
        for stream in self.listener.incoming() {
            let Ok(mut stream) = stream else {
                // One that was taken back, or no descriptor is left: neither concerns the next one.
                thread::sleep(Duration::from_millis(10));
                continue;
            };
            let limits = stream
                .set_read_timeout(Some(PATIENCE))
                .and_then(|()| stream.set_write_timeout(Some(PATIENCE)));
            if limits.is_err() {
                continue;
            }
            let Some(place) = Place::take(&open) else {
                let _ = refuse(&mut stream, Status::Unavailable);
                continue;
            };
            let site = Arc::clone(&site);
            let answer = move || {
                // A client that goes away is no error of ours.
                let _ = site.answer(stream);
                drop(place);
            };
            // Without a thread this connection is closed, and a browser asks again.
            let _ = thread::Builder::new().name("connection".to_owned()).spawn(answer);
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// One of the connections that are answered; given back when it goes.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn take(open: &Arc<AtomicUsize>) -> Option<Self> {
        let place = Self(Arc::clone(open));
        (place.0.fetch_add(1, Ordering::Relaxed) < CONNECTIONS_MAX).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What is served, and to whom.
struct Site {
    mount: Mount,
    hosts: [String; 2],
    token: String,
}

impl Site {
    fn answer(&self, mut stream: TcpStream) -> io::Result<()> {
        let request = match read_request(&mut stream)? {
            Ok(request) => request,
            Err(status) => return refuse(&mut stream, status),
        };
        if !request.host.as_ref().is_some_and(|host| self.hosts.contains(host)) {
            return refuse(&mut stream, Status::Misdirected);
        }
        let Some(file) = self.below_token(&request) else {
            return refuse(&mut stream, Status::NotFound);
        };
        let chart = Chart::ALL
            .into_iter()
            .find(|chart| file.strip_prefix("charts/") == Some(chart.file_name()));
        let kind = match (file, chart) {
            ("events", _) => return self.push(stream, request.head_only),
            ("dashboard.html", _) => "text/html; charset=utf-8",
            ("live.js", _) => "text/javascript; charset=utf-8",
            (_, Some(_)) => "image/svg+xml",
            _ => return refuse(&mut stream, Status::NotFound),
        };
        let Ok(text) = self.read(file) else {
            return refuse(&mut stream, Status::Unavailable);
        };
        stream.write_all(http::head(Status::Ok, kind, Some(text.len())).as_bytes())?;
        if !request.head_only {
            stream.write_all(&text)?;
        }
        Ok(())
    }

    /// The path after the token, if the token is right. It takes as long for a wrong one, wherever it differs.
    fn below_token<'a>(&self, request: &'a Request) -> Option<&'a str> {
        let (token, file) = request.path.strip_prefix('/')?.split_once('/')?;
        let differs = token
            .bytes()
            .zip(self.token.bytes())
            .fold(0, |differs, (one, other)| differs | (one ^ other));
        (token.len() == self.token.len() && differs == 0).then_some(file)
    }

    /// Sends the figures again and again (server-sent events). The charts are most of them and change seldom, so they
    /// are left out while they are what was sent before.
    fn push(&self, mut stream: TcpStream, head_only: bool) -> io::Result<()> {
        stream.write_all(http::head(Status::Ok, "text/event-stream", None).as_bytes())?;
        if head_only {
            return Ok(());
        }
        let mut charts = Value::Null;
        loop {
            let event = match self.figures() {
                Some(mut figures) => {
                    if figures["charts"] == charts {
                        figures.as_object_mut().map(|figures| figures.remove("charts"));
                    } else {
                        charts = figures["charts"].clone();
                    }
                    format!("data: {figures}\n\n")
                }
                // A comment: it finds out whether anybody still listens.
                None => ": no daemon answers\n\n".to_owned(),
            };
            stream.write_all(event.as_bytes())?;
            thread::sleep(PUSH_PAUSE);
        }
    }

    fn figures(&self) -> Option<Value> {
        let text = String::from_utf8(self.read("live.js").ok()?).ok()?;
        serde_json::from_str(live::value(&text)?).ok()
    }

    fn read(&self, file: &str) -> io::Result<Vec<u8>> {
        fs::read(self.mount.file("metrics").join(file))
    }
}
