//! Events that nobody takes out in time are dropped, and every file that shows figures says so.

use git_lockfs::metrics::EVENTS_MAX;
use git_lockfs::service::api::{Answer, Call};
use git_lockfs::types::Settings;
use serde_json::Value;

use crate::world::{READ, ROOT, World, by, me};

impl World {
    /// A file below `metrics/`, whole.
    fn figures(&self, name: &str) -> String {
        let metrics = self.node(ROOT, "metrics");
        let handle = self.open(me(), self.node(metrics, name), READ).expect("it is read");
        let (offset, size) = (0, u32::MAX);
        let Answer::Data(data) = self.call(me(), Call::Read { handle, offset, size }) else {
            panic!("{name}: text");
        };
        self.close(handle);
        String::from_utf8(data).expect("text")
    }
}

#[test]
fn what_does_not_fit_is_counted_and_shown_in_every_file() {
    // Without a recorder nobody takes events out before the first reader.
    let mut world = World::bare(Settings::default(), true);
    let pairs = EVENTS_MAX / 2 + 500;
    for _ in 0..pairs {
        let held = world.take(by(0), "x.lock");
        world.close(held);
    }
    world.inspect();
    let dropped = 2 * pairs - EVENTS_MAX;
    let summary: Value = serde_json::from_str(&world.figures("summary.json")).expect("JSON");
    assert_eq!(summary["dropped"], dropped);
    let counted = &summary["windows"][3];
    assert_eq!(counted["acquires"], EVENTS_MAX / 2, "what did fit is there");
    assert_eq!(counted["releases"], EVENTS_MAX / 2);
    let expected = [
        ("summary", format!("\n{dropped} events were dropped; ")),
        ("summary", "ALERT dropped-events".to_owned()),
        ("alerts", "dropped-events  firing".to_owned()),
        ("metrics.prom", format!("\nlockfs_dropped_events_total {dropped}\n")),
        (
            "metrics.prom",
            "\nlockfs_alert_firing{alert=\"dropped-events\"} 1\n".to_owned(),
        ),
        ("live.js", format!("{dropped} events were dropped")),
        ("live.js", "events not counted".to_owned()),
    ];
    for (file, words) in expected {
        let text = world.figures(file);
        assert!(text.contains(&words), "{file} has {words:?}: {text}");
    }
    // And there is room again.
    let held = world.take(by(0), "x.lock");
    world.close(held);
    assert!(
        world
            .figures("metrics.prom")
            .contains(&format!("\nlockfs_acquires_total {}\n", EVENTS_MAX / 2 + 1))
    );
}
