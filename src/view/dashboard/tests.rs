//! The value that the page shows: its bounds, and that no name of a user leaves its string.

use serde_json::Value;

use super::live::{LOCKS_MAX, Locks, PARTIES_MAX, Pictures, render, value};
use crate::engine::{Acquire, Bounds, Claim, Command, Engine, Party, Taking, Wait};
use crate::metrics::Figures;
use crate::predict::HoldTimes;
use crate::types::{HandleId, LockName, Mode, Moment, Priority, Settings, Token, Unique};
use crate::view::{Now, sample};

const HOSTILE: &str = "</script><script>alert(1)</script>${x}`&amp;'\"\\\u{2028}.lock";
/// The same as an operation, of which only what follows its slashes is told.
const HOSTILE_OP: &str = "<script>alert(1)<!--${x}`&amp;'\"\\\u{2028}";

/// An engine and how many requests it has had.
struct World(Engine, u64);

impl World {
    fn new() -> Self {
        let tokens = Token(1)..Token(1_000_000);
        Self(Engine::new(Settings::default(), Bounds::default(), tokens), 0)
    }

    fn ask(&mut self, lock: &str, mode: Mode, op: &str) {
        self.1 += 1;
        let lock = LockName::parse_lock(lock.as_bytes()).expect("test name");
        let asked = self.0.handle(
            Moment::at_millis(0),
            Command::Acquire(Acquire {
                id: Unique(self.1),
                claims: vec![Claim::whole(lock, mode)],
                taking: Taking::Open(HandleId(self.1)),
                party: Party {
                    tid: self.1 as u32 + 100,
                    pid: self.1 as u32 + 100,
                    op: Some(op.into()),
                    ..Party::default()
                },
                priority: Priority::new(5).expect("level"),
                wait: Wait::Forever,
                ticket: None,
                lineage: Vec::new(),
            }),
        );
        asked.expect("granted or waiting");
        while self.0.poll_effect().is_some() {}
    }

    fn file(&self, figures: &Figures) -> String {
        let now = Now {
            moment: Moment::at_millis(1500),
            wall_ns: 1_795_183_200_000_000_000,
        };
        let locks = Locks::of(&self.0, &HoldTimes::default(), now);
        String::from_utf8(render(locks, &Pictures::draw(figures))).expect("UTF-8")
    }
}

fn parse(file: &str) -> Value {
    serde_json::from_str(value(file).expect("one call")).expect("JSON")
}

#[test]
fn the_file_is_one_call_on_one_line() {
    let file = World::new().file(&sample::week());
    assert_eq!(file.lines().count(), 1);
    let shown = parse(&file);
    assert_eq!(shown["version"], 1);
    assert_eq!(shown["charts"].as_array().map(Vec::len), Some(6));
    assert_eq!(shown["windows"][3][1], "1\u{202f}000\u{202f}000");
    assert!(file.len() < 160 * 1024, "{} bytes for an idle repository", file.len());
}

#[test]
fn a_name_stays_in_its_string() {
    let name = HOSTILE.replace('/', "%2F").replace(['\'', '"', '`', '\u{2028}'], "");
    let mut world = World::new();
    world.ask(&name, Mode::Exclusive, HOSTILE_OP);
    let mut figures = sample::week();
    figures.slowest[0].name = HOSTILE.to_owned();
    figures.alerts[0].sentence = HOSTILE.to_owned();
    let file = world.file(&figures);
    assert!(!file.contains('<'), "no tag can begin");
    assert!(!file.contains('\u{2028}'), "no line ends inside a string");
    let shown = parse(&file);
    assert_eq!(shown["locks"][0]["name"], name.as_str());
    assert_eq!(shown["locks"][0]["holders"][0]["op"], HOSTILE_OP);
    assert_eq!(shown["alerts"][0]["sentence"], HOSTILE);
}

#[test]
fn what_is_shown_is_bounded_and_the_rest_is_counted() {
    let mut world = World::new();
    for number in 0..LOCKS_MAX + 5 {
        world.ask(&format!("{number:04}.lock"), Mode::Shared, "git fetch");
    }
    for _ in 0..PARTIES_MAX + 7 {
        world.ask("0204.lock", Mode::Exclusive, "git merge");
    }
    let shown = parse(&world.file(&sample::empty()));
    let locks = shown["locks"].as_array().expect("locks");
    assert_eq!(locks.len(), LOCKS_MAX);
    assert_eq!(shown["locks_total"], LOCKS_MAX + 5);
    assert_eq!(shown["waiters_total"], PARTIES_MAX + 7);
    let last = locks.last().expect("locks");
    assert_eq!(last["name"], "0204.lock", "a lock that is waited for is not left out");
    assert_eq!(last["waiters"].as_array().map(Vec::len), Some(PARTIES_MAX));
    assert_eq!(last["waiters_total"], PARTIES_MAX + 7);
}
