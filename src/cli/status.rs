//! `git lockfs status`: `metrics/locks.json` as a table for people.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::Result;

use super::client::Mount;
use super::locks_json::{Held, Holder, Lock, Snapshot, Ticket, Waiter};
use super::report;
use crate::types::Mode;

/// The pause between two looks of `--watch`.
const WATCH_PAUSE: Duration = Duration::from_secs(1);
/// The width of a table that no terminal shows.
const WIDTH_DEFAULT: usize = 80;
/// Narrower tables could not name their locks.
const WIDTH_MIN: usize = 60;

/// Show who holds and who waits
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print metrics/locks.json as it is
    #[arg(long)]
    json: bool,
    /// Go on showing, once a second, until interrupted
    #[arg(long)]
    watch: bool,
}

/// Carries out the subcommand.
pub fn run(args: &Args) -> Result<ExitCode> {
    let mount = Mount::find()?;
    let mut out = io::stdout();
    let in_place = args.watch && out.is_terminal();
    loop {
        let text = mount.locks_text()?;
        let mut shown = if args.json {
            text
        } else {
            render(&Snapshot::parse(&text)?, width()).into_bytes()
        };
        if shown.last() != Some(&b'\n') {
            shown.push(b'\n');
        }
        if in_place {
            // Home, each line cleared as it is overwritten, then what is left of a longer picture.
            let lines = String::from_utf8_lossy(&shown).replace('\n', "\x1b[K\n");
            shown = format!("\x1b[H{lines}\x1b[J").into_bytes();
        } else if args.watch {
            shown.push(b'\n');
        }
        out.write_all(&shown)?;
        out.flush()?;
        if !args.watch {
            return Ok(ExitCode::SUCCESS);
        }
        thread::sleep(WATCH_PAUSE);
    }
}

/// The width of the terminal; [`WIDTH_DEFAULT`] when there is none.
fn width() -> usize {
    // SAFETY: an all-zero `winsize` is valid, and TIOCGWINSZ fills it or fails.
    let (done, size) = unsafe {
        let mut size: libc::winsize = std::mem::zeroed();
        (libc::ioctl(libc::STDOUT_FILENO, libc::TIOCGWINSZ, &mut size) == 0, size)
    };
    match usize::from(size.ws_col) {
        columns if done && columns > 0 => columns.max(WIDTH_MIN),
        _ => WIDTH_DEFAULT,
    }
}

const HEADER: [&str; COLUMNS] = ["LOCK", "MODE", "HELD", "PID", "SESSION", "SINCE", "WAITERS", "OP"];
const COLUMNS: usize = 8;
const LOCK: usize = 0;
const SESSION: usize = 4;
const OP: usize = 7;

/// The whole picture.
fn render(snapshot: &Snapshot, width: usize) -> String {
    let mut text = String::new();
    if snapshot.drained {
        text += "Drained: nothing new is granted (`resume` in control ends that).\n";
    }
    if snapshot.locks.is_empty() {
        text += "No lock is taken.\n";
    } else {
        text += &table(&snapshot.locks, width);
    }
    if !snapshot.tickets.is_empty() {
        text += "\nAbsent tickets:\n";
        for ticket in &snapshot.tickets {
            text += &fit(&ticket_line(ticket), width);
            text.push('\n');
        }
    }
    text
}

fn table(locks: &[Lock], width: usize) -> String {
    let rows: Vec<Vec<[String; COLUMNS]>> = locks.iter().map(holder_rows).collect();
    let widths = widths(rows.iter().flatten(), width);
    let mut text = line(&HEADER.map(str::to_owned), &widths);
    for (lock, rows) in locks.iter().zip(&rows) {
        for row in rows {
            text += &line(row, &widths);
        }
        for waiter in &lock.waiters {
            text += &fit(&waiter_line(waiter), width);
            text.push('\n');
        }
    }
    text
}

/// A row for each holder; one row without a holder for a lock that is only waited for.
fn holder_rows(lock: &Lock) -> Vec<[String; COLUMNS]> {
    let waiters = match lock.waiters.len() {
        0 => "-".to_owned(),
        number => number.to_string(),
    };
    if lock.holders.is_empty() {
        let dash = || "-".to_owned();
        return vec![[
            lock.name.clone(),
            dash(),
            dash(),
            dash(),
            dash(),
            dash(),
            waiters,
            dash(),
        ]];
    }
    let row = |(index, holder): (usize, &Holder)| {
        let first = index == 0;
        [
            if first { lock.name.clone() } else { String::new() },
            mode(holder.mode).to_owned(),
            held(holder.held).to_owned(),
            pid(holder.pid),
            holder.session.clone().unwrap_or_else(|| "-".to_owned()),
            report::span(holder.age()),
            if first { waiters.clone() } else { String::new() },
            holder.op.clone().unwrap_or_else(|| "-".to_owned()),
        ]
    };
    lock.holders.iter().enumerate().map(row).collect()
}

fn waiter_line(waiter: &Waiter) -> String {
    let mut line = format!(
        "  {}. {} {} priority {}",
        waiter.position,
        report::who(waiter.pid, waiter.session.as_deref()),
        mode(waiter.mode),
        waiter.priority,
    );
    if waiter.effective_priority != waiter.priority {
        line += &format!(" aged to {}", waiter.effective_priority);
    }
    line += &format!(", waits {}", report::span_ms(waiter.waited_ms));
    if let Some(limit) = waiter.limit_ms {
        line += &format!(" of {}", report::span_ms(limit));
    }
    if let Some(estimate) = waiter.estimated_wait_ms {
        line += &format!(", about {} to go", report::span_ms(estimate));
    }
    if let Some(ticket) = &waiter.ticket {
        line += &format!(", ticket {ticket}");
    }
    if let Some(op) = &waiter.op {
        line += &format!(": {op}");
    }
    line
}

fn ticket_line(ticket: &Ticket) -> String {
    let session = ticket.session.as_deref().unwrap_or("-");
    format!(
        "  {} ({session}) for {}, in line {}, given up in {}",
        ticket.name,
        ticket.locks.join(","),
        report::span_ms(ticket.age_ms),
        report::span_ms(ticket.expires_ms),
    )
}

/// As wide as their content, LOCK, SESSION and OP less where the line would be too long.
fn widths<'a>(rows: impl Iterator<Item = &'a [String; COLUMNS]>, width: usize) -> [usize; COLUMNS] {
    let mut widths = HEADER.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    // The least that is useful of each column that gives way, the least useful one first.
    for (column, least) in [(OP, 10), (SESSION, 10), (LOCK, 16), (OP, 2), (SESSION, 7), (LOCK, 8)] {
        let total: usize = widths.iter().sum::<usize>() + COLUMNS - 1;
        let excess = total.saturating_sub(width);
        widths[column] -= excess.min(widths[column].saturating_sub(least));
    }
    widths
}

fn line(cells: &[String; COLUMNS], widths: &[usize; COLUMNS]) -> String {
    let padded: Vec<String> = cells
        .iter()
        .zip(widths)
        .map(|(cell, &width)| format!("{:width$}", fit(cell, width)))
        .collect();
    padded.join(" ").trim_end().to_owned() + "\n"
}

/// The text, with its end cut off where it is too long.
fn fit(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    let mut cut: String = text.chars().take(width.saturating_sub(1)).collect();
    cut.push('…');
    cut
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Shared => "shared",
        Mode::Exclusive => "exclusive",
    }
}

fn held(held: Held) -> &'static str {
    match held {
        Held::Owner => "owner",
        Held::Descriptor => "fd",
        Held::Lease => "lease",
    }
}

fn pid(pid: u32) -> String {
    match pid {
        0 => "?".to_owned(),
        pid => pid.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::locks_json::SAMPLE;
    use super::*;

    const PICTURE: &str = "\
LOCK        MODE      HELD  PID  SESSION SINCE WAITERS OP
x.lock      exclusive owner 4242 agent-7 3m12s 2       git merge
  1. 4250 exclusive priority 8 aged to 9, waits 0.5s of 30s, about 1.2s to go
  2. 4251 (agent-9) shared priority 5, waits 1m01s, ticket t: git fetch
global.lock shared    lease ?    -       1s    -       -
            shared    fd    77   sid-70  0.9s          make

Absent tickets:
  t2 (agent-7) for x.lock,y.lock, in line 1s, given up in 59s
";

    #[test]
    fn the_table_shows_holders_waiters_and_absent_tickets() {
        let snapshot = Snapshot::parse(SAMPLE.as_bytes()).expect("sample");
        assert_eq!(render(&snapshot, 80), PICTURE);
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        let long = SAMPLE
            .replace("x.lock", &format!("ref-refs%2Fheads%2F{}.lock", "x".repeat(200)))
            .replace("agent-7", &"s".repeat(128))
            .replace("git merge", &"m".repeat(300));
        let snapshot = Snapshot::parse(long.as_bytes()).expect("sample");
        for width in [60, 80, 200] {
            let picture = render(&snapshot, width);
            let widest = picture.lines().map(|line| line.chars().count()).max();
            assert!(widest <= Some(width), "{width}:\n{picture}");
        }
    }

    #[test]
    fn an_idle_mount_says_so() {
        let snapshot = Snapshot::parse(br#"{"version":1,"drained":true,"locks":[]}"#).expect("parse");
        let picture = render(&snapshot, 80);
        assert!(picture.contains("Drained"), "{picture}");
        assert!(picture.contains("No lock is taken."), "{picture}");
    }
}
