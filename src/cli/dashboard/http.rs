//! As much of HTTP as a browser needs that reads one page: the head of a GET, and answers that close the connection.
//!
//! The grammar is httparse's. What is larger, slower or other than expected is refused: the page never sends a body.

use std::io::{self, Read, Write};

/// The longest head of a request, in bytes.
const HEAD_MAX: usize = 8 * 1024;
/// The most header lines.
const HEADERS_MAX: usize = 64;

/// A request, as far as we look at it.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// Without what follows `?`.
    pub path: String,
    /// The `Host` line.
    pub host: Option<String>,
    /// Whether only the head of the answer is wanted.
    pub head_only: bool,
}

/// The answers that we give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// What was asked for follows.
    Ok,
    /// Not HTTP, or too much of it.
    BadRequest,
    /// Nothing here, or the token is missing.
    NotFound,
    /// Neither GET nor HEAD.
    MethodNotAllowed,
    /// Addressed to another host: a page of somebody else that points its name to us.
    Misdirected,
    /// Too many connections, or no daemon.
    Unavailable,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::Misdirected => "421 Misdirected Request",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

/// Reads the head of a request; `Err` of a status refuses it.
pub fn read_request(stream: &mut impl Read) -> io::Result<Result<Request, Status>> {
    let mut head = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        head.extend_from_slice(piece.get(..length).unwrap_or_default());
        if let Some(parsed) = parse(&head) {
            return Ok(parsed);
        }
        if head.len() >= HEAD_MAX {
            return Ok(Err(Status::BadRequest));
        }
    }
}

/// The request, once its head is complete.
fn parse(head: &[u8]) -> Option<Result<Request, Status>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(head) {
        Ok(httparse::Status::Partial) => return None,
        Ok(httparse::Status::Complete(_)) => {}
        Err(_) => return Some(Err(Status::BadRequest)),
    }
    let head_only = match request.method {
        Some("GET") => false,
        Some("HEAD") => true,
        _ => return Some(Err(Status::MethodNotAllowed)),
    };
    let target = request.path.unwrap_or_default();
    let path = target.split_once('?').map_or(target, |(path, _)| path).to_owned();
    let mut hosts = request
        .headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("host"));
    let host = hosts.next().and_then(|header| std::str::from_utf8(header.value).ok());
    if hosts.next().is_some() {
        return Some(Err(Status::BadRequest));
    }
    Some(Ok(Request {
        path,
        host: host.map(str::to_owned),
        head_only,
    }))
}

/// The head of every answer: nothing is kept, framed, guessed or told to others.
pub fn head(status: Status, kind: &str, length: Option<usize>) -> String {
    let length = length.map_or_else(String::new, |length| format!("Content-Length: {length}\r\n"));
    format!(
        "HTTP/1.1 {}\r\nContent-Type: {kind}\r\n{length}Connection: close\r\nCache-Control: no-store\r\n\
         X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n\
         Cross-Origin-Resource-Policy: same-origin\r\nCross-Origin-Opener-Policy: same-origin\r\n\
         Content-Security-Policy: frame-ancestors 'none'\r\n\r\n",
        status.line()
    )
}

/// A refusal, in its own words.
pub fn refuse(stream: &mut impl Write, status: Status) -> io::Result<()> {
    let words = format!("{}\n", status.line());
    let head = head(status, "text/plain; charset=utf-8", Some(words.len()));
    stream.write_all((head + &words).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> io::Result<Result<Request, Status>> {
        read_request(&mut text.as_bytes())
    }

    #[test]
    fn a_request_is_its_path_and_its_host() {
        let request = read("GET /t/live.js?7 HTTP/1.1\r\nhost: 127.0.0.1:80\r\nAccept: */*\r\n\r\n");
        let expected = Request {
            path: "/t/live.js".to_owned(),
            host: Some("127.0.0.1:80".to_owned()),
            head_only: false,
        };
        assert_eq!(request.expect("read"), Ok(expected));
    }

    #[test]
    fn what_is_no_such_request_is_refused() {
        let refused = |text: &str| read(text).expect("read").expect_err("refused");
        assert_eq!(refused("POST / HTTP/1.1\r\nHost: x\r\n\r\n"), Status::MethodNotAllowed);
        assert_eq!(refused("GET /\u{7} HTTP/1.1\r\n\r\n"), Status::BadRequest);
        assert_eq!(
            refused("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
            Status::BadRequest
        );
        let many = "X: y\r\n".repeat(HEADERS_MAX + 1);
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\n{many}\r\n")), Status::BadRequest);
        let long = "y".repeat(HEAD_MAX);
        assert_eq!(refused(&format!("GET / HTTP/1.1\r\nX: {long}")), Status::BadRequest);
        assert!(read("GET / HTTP/1.1\r\n").is_err(), "an end in the middle is an error");
    }
}
