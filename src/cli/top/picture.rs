//! What `top` shows: a table of locks, and below it those who hold and await the chosen one.
//!
//! Knows no terminal and no clock, so it is tested on a sheet in memory. The choice is a lock's name, not a row, and
//! survives each new look.

use std::cmp::Reverse;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Modifier, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, Borders, Paragraph, Row, Table, TableState};

use super::super::locks_json::{Held, Holder, Lock, Snapshot, Waiter};
use super::super::report;
use super::summary::Summary;

const KEYS: &str = "q end  ↑↓ choose  s sort  p pause";
/// The part of the screen that is left to the table of locks.
const TABLE_LINES_MIN: u16 = 6;
/// The figures are shown on screens that have room for this much beside them.
const BESIDE_FIGURES_MIN: u16 = 14;
/// How many alerts are shown; there are four kinds.
const ALERTS_MAX: usize = 4;

/// What is shown, and what was chosen.
pub struct Picture {
    place: String,
    locks: Vec<Lock>,
    drained: bool,
    summary: Option<Summary>,
    sort: Sort,
    paused: bool,
    chosen: Option<String>,
    table: TableState,
    /// How many rows the table had at the last drawing.
    rows: usize,
}

/// What a key asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// So many rows down.
    Rows(isize),
    /// So many screens down.
    Pages(isize),
    /// To the first lock.
    First,
    /// To the last lock.
    Last,
    /// By something else.
    Sort,
    /// Stop looking, or go on.
    Pause,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Name,
    Waiters,
    Age,
}

impl Picture {
    /// Nothing yet of the mount at that place.
    pub fn new(place: String) -> Self {
        Self {
            place,
            locks: Vec::new(),
            drained: false,
            summary: None,
            sort: Sort::Name,
            paused: false,
            chosen: None,
            table: TableState::default(),
            rows: 1,
        }
    }

    /// Whether the user wants to look at this for a while.
    pub fn is_paused(&self) -> bool {
        self.paused
    }

    /// Takes a new look.
    pub fn show(&mut self, snapshot: Snapshot, summary: Option<Summary>) {
        self.summary = summary;
        self.drained = snapshot.drained;
        self.locks = snapshot.locks;
        self.arrange();
    }

    /// Does what a key asks for.
    pub fn step(&mut self, step: Step) {
        let page = isize::try_from(self.rows).unwrap_or(1).max(1);
        match step {
            Step::Rows(rows) => self.choose(self.place_of_choice().saturating_add(rows)),
            Step::Pages(pages) => self.choose(self.place_of_choice().saturating_add(pages * page)),
            Step::First => self.choose(0),
            Step::Last => self.choose(isize::MAX),
            Step::Pause => self.paused = !self.paused,
            Step::Sort => {
                self.sort = match self.sort {
                    Sort::Name => Sort::Waiters,
                    Sort::Waiters => Sort::Age,
                    Sort::Age => Sort::Name,
                };
                self.arrange();
            }
        }
    }

    /// The row of the chosen lock; -1 before the first choice, so that one step down is the first row.
    fn place_of_choice(&self) -> isize {
        self.table
            .selected()
            .and_then(|row| isize::try_from(row).ok())
            .unwrap_or(-1)
    }

    fn choose(&mut self, row: isize) {
        let last = self.locks.len().saturating_sub(1);
        let row = usize::try_from(row).unwrap_or(0).min(last);
        self.chosen = self.locks.get(row).map(|lock| lock.name.clone());
        self.table.select(self.chosen.is_some().then_some(row));
    }

    fn arrange(&mut self) {
        self.locks.sort_by(|a, b| a.name.cmp(&b.name));
        match self.sort {
            Sort::Name => {}
            Sort::Waiters => self.locks.sort_by_key(|lock| Reverse(lock.waiters.len())),
            Sort::Age => self.locks.sort_by_key(|lock| Reverse(held_ms(lock))),
        }
        let row = |name: &String| self.locks.iter().position(|lock| lock.name == *name);
        let row = self.chosen.as_ref().and_then(row);
        self.table.select(row);
    }

    /// Draws it.
    pub fn draw(&mut self, frame: &mut Frame<'_>) {
        let detail = self.detail();
        let past = self.past(frame.area().height);
        let past_height = u16::try_from(past.len()).unwrap_or(u16::MAX);
        let room = frame.area().height.saturating_sub(TABLE_LINES_MIN + 2 + past_height);
        let height = u16::try_from(detail.len())
            .unwrap_or(u16::MAX)
            .saturating_add(1)
            .min(room);
        let [top, figures, middle, below, bottom] = Layout::vertical([
            Constraint::Length(1),
            Constraint::Length(past_height),
            Constraint::Min(1),
            Constraint::Length(if detail.is_empty() { 0 } else { height }),
            Constraint::Length(1),
        ])
        .areas(frame.area());
        frame.render_widget(self.headline(), top);
        frame.render_widget(Paragraph::new(past), figures);
        self.draw_table(frame, middle);
        if !detail.is_empty() {
            let title = self.chosen.as_deref().unwrap_or_default();
            let block = Block::new().borders(Borders::TOP).title(format!(" {title} ").bold());
            frame.render_widget(Paragraph::new(detail).block(block), below);
        }
        frame.render_widget(Line::from(KEYS).dim(), bottom);
    }

    fn headline(&self) -> Line<'_> {
        let waiters: usize = self.locks.iter().map(|lock| lock.waiters.len()).sum();
        let mut spans = vec![
            Span::from("git lockfs").bold(),
            Span::from(format!("  {} in use", self.locks.len())),
            Span::styled(
                format!("  {waiters} waiting"),
                if waiters > 0 { warm() } else { Style::new() },
            ),
        ];
        if self.drained {
            spans.push(Span::styled("  drained: nothing new is granted", hot()));
        }
        if self.paused {
            spans.push(Span::styled("  paused", warm()));
        }
        spans.push(Span::from(format!("  {}", self.place)).dim());
        Line::from(spans)
    }

    /// The alerts, and where there is room the figures, with a line between them and what is below.
    fn past(&self, height: u16) -> Vec<Line<'static>> {
        let Some(summary) = &self.summary else {
            return Vec::new();
        };
        let alerts = summary.alerts().take(ALERTS_MAX);
        let mut lines: Vec<Line<'static>> = alerts
            .map(|sentence| Line::styled(format!("! {sentence}"), hot()))
            .collect();
        let figures = summary.lines();
        if usize::from(height.saturating_sub(BESIDE_FIGURES_MIN)) >= lines.len() + figures.len() {
            let mut figures = figures.into_iter().map(Line::from);
            lines.extend(figures.next().map(Stylize::dim));
            lines.extend(figures);
        }
        if !lines.is_empty() {
            lines.push(Line::default());
        }
        lines
    }

    fn draw_table(&mut self, frame: &mut Frame<'_>, area: Rect) {
        self.rows = usize::from(area.height.saturating_sub(1));
        if self.locks.is_empty() {
            return frame.render_widget(Line::from("No lock is taken.").dim(), area);
        }
        let mark = |sort: Sort, name: &str| match self.sort == sort {
            true => format!("{name}▾"),
            false => name.to_owned(),
        };
        let header = Row::new([
            mark(Sort::Name, "LOCK"),
            "MODE".to_owned(),
            "PID".to_owned(),
            "SESSION".to_owned(),
            mark(Sort::Age, "HELD"),
            mark(Sort::Waiters, "WAIT"),
            "OPERATION".to_owned(),
        ]);
        let widths = [
            Constraint::Fill(3),
            Constraint::Length(9),
            Constraint::Length(8),
            Constraint::Fill(1),
            Constraint::Length(7),
            Constraint::Length(5),
            Constraint::Fill(2),
        ];
        let table = Table::new(self.locks.iter().map(row), widths)
            .header(header.style(Style::new().add_modifier(Modifier::DIM)))
            .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
        frame.render_stateful_widget(table, area, &mut self.table);
    }

    /// Who holds the chosen lock, and the line for it.
    fn detail(&self) -> Vec<Line<'static>> {
        let Some(name) = &self.chosen else { return Vec::new() };
        let Some(lock) = self.locks.iter().find(|lock| lock.name == *name) else {
            return vec![Line::from("free").dim()];
        };
        let holders = lock.holders.iter().map(|holder| Line::from(holder_line(holder)));
        let waiters = lock
            .waiters
            .iter()
            .map(|waiter| Line::styled(waiter_line(waiter), warm()));
        holders.chain(waiters).collect()
    }
}

fn row(lock: &Lock) -> Row<'static> {
    let dash = || "-".to_owned();
    let first = lock.holders.first();
    let more = match lock.holders.len() {
        0 | 1 => String::new(),
        number => format!("+{}", number - 1),
    };
    let cells = [
        lock.name.clone(),
        first.map_or_else(dash, |holder| holder.mode.to_string()),
        first.map_or_else(dash, |holder| format!("{}{more}", process(holder.pid))),
        first.and_then(|holder| holder.session.clone()).unwrap_or_else(dash),
        first.map_or_else(dash, |holder| report::span(holder.age())),
        match lock.waiters.len() {
            0 => dash(),
            number => number.to_string(),
        },
        first.and_then(|holder| holder.op.clone()).unwrap_or_else(dash),
    ];
    let style = if lock.waiters.is_empty() { Style::new() } else { warm() };
    Row::new(cells).style(style)
}

fn holder_line(holder: &Holder) -> String {
    let how = match holder.held {
        Held::Owner => "as its owner",
        Held::Descriptor => "by a descriptor",
        Held::Lease => "by a lease",
    };
    let mut line = format!(
        "{} holds {} for {} {how}, token {}",
        report::who(holder.pid, holder.session.as_deref()),
        holder.mode,
        report::span(holder.age()),
        holder.token,
    );
    if let Some(op) = &holder.op {
        line += &format!(": {op}");
    }
    line
}

fn waiter_line(waiter: &Waiter) -> String {
    let mut line = format!(
        "{}. {} waits {} {}, priority {}",
        waiter.position,
        report::who(waiter.pid, waiter.session.as_deref()),
        waiter.mode,
        report::span_ms(waiter.waited_ms),
        waiter.effective_priority,
    );
    if let Some(estimate) = waiter.estimated_wait_ms {
        line += &format!(", about {} to go", report::span_ms(estimate));
    }
    if let Some(op) = &waiter.op {
        line += &format!(": {op}");
    }
    line
}

fn held_ms(lock: &Lock) -> u64 {
    lock.holders.iter().map(|holder| holder.held_ms).max().unwrap_or(0)
}

fn process(pid: u32) -> String {
    match pid {
        0 => "?".to_owned(),
        pid => pid.to_string(),
    }
}

/// What deserves a look; the terminal's own colours, which its user has chosen to be readable.
fn warm() -> Style {
    Style::new().fg(Color::Yellow)
}

/// What is bad.
fn hot() -> Style {
    Style::new().fg(Color::Red)
}

#[cfg(test)]
mod tests {
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::super::locks_json::SAMPLE;
    use super::*;

    fn sample() -> Snapshot {
        Snapshot::parse(SAMPLE.as_bytes()).expect("sample")
    }

    fn figures() -> Option<Summary> {
        Summary::parse(super::super::summary::SAMPLE.as_bytes())
    }

    /// The lines of a screen of that size.
    fn screen(picture: &mut Picture, width: u16, height: u16) -> Vec<String> {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).expect("in memory");
        terminal.draw(|frame| picture.draw(frame)).expect("in memory");
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(|y| line(y).trim_end().to_owned()).collect()
    }

    #[test]
    fn the_table_and_the_line_of_the_chosen_lock() {
        let mut picture = Picture::new("/repo/.git/.git-locks".to_owned());
        picture.show(sample(), None);
        picture.step(Step::Last);
        let lines = screen(&mut picture, 80, 16);
        assert_eq!(lines[0], "git lockfs  2 in use  2 waiting  /repo/.git/.git-locks");
        assert!(lines[1].starts_with("LOCK▾"), "{lines:#?}");
        assert!(
            lines[2].starts_with("global.lock") && lines[2].contains("?+1"),
            "{lines:#?}"
        );
        assert!(
            lines[3].starts_with("x.lock") && lines[3].contains("3m12s"),
            "{lines:#?}"
        );
        let all = lines.join("\n");
        assert!(
            all.contains("4242 (agent-7) holds exclusive for 3m12s as its owner, token 918: git merge"),
            "{all}"
        );
        assert!(
            all.contains("1. 4250 waits exclusive 0.5s, priority 9, about 1.2s to go"),
            "{all}"
        );
        assert!(lines[15].starts_with("q end"), "{all}");
    }

    #[test]
    fn alerts_come_first_and_figures_where_there_is_room() {
        let mut picture = Picture::new(String::new());
        picture.show(sample(), figures());
        let small = screen(&mut picture, 80, 12);
        assert_eq!(small[1], "! requests wait long");
        assert!(small[3].starts_with("LOCK"), "{small:#?}");
        let large = screen(&mut picture, 80, 24);
        assert!(large[2].starts_with("LAST") && large[3].starts_with("1h"), "{large:#?}");
        assert!(large[5].starts_with("LOCK"), "{large:#?}");
    }

    #[test]
    fn the_choice_is_a_lock_and_survives_a_new_look() {
        let mut picture = Picture::new(String::new());
        picture.show(sample(), None);
        picture.step(Step::Rows(1));
        assert_eq!(picture.chosen.as_deref(), Some("global.lock"));
        picture.step(Step::Rows(1));
        picture.step(Step::Rows(1));
        assert_eq!(picture.chosen.as_deref(), Some("x.lock"), "the last row is the last");
        picture.step(Step::Sort);
        assert_eq!(picture.table.selected(), Some(0), "its line is the longest");
        picture.show(Snapshot::parse(br#"{"version":1,"locks":[]}"#).expect("parse"), None);
        assert!(screen(&mut picture, 80, 16).join("\n").contains("free"));
        picture.show(sample(), None);
        assert_eq!(picture.table.selected(), Some(0), "it is taken again");
    }

    #[test]
    fn a_small_screen_and_hostile_names_do_no_harm() {
        let hostile = SAMPLE.replace("git merge", "\\u001b[2J\\u0007git\\nmerge");
        for (width, height) in [(1, 1), (10, 3), (80, 5), (300, 80)] {
            let mut picture = Picture::new("/repo".to_owned());
            picture.show(Snapshot::parse(hostile.as_bytes()).expect("sample"), figures());
            picture.step(Step::Last);
            picture.step(Step::Pages(-1));
            picture.step(Step::Last);
            let all = screen(&mut picture, width, height).join("\n");
            assert!(!all.contains(['\u{1b}', '\u{7}']), "{all:?}");
        }
    }
}
