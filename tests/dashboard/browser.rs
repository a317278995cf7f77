//! A real browser: headless Chromium, driven by WebDriver over loopback.
//!
//! It never asks the network for anything: it has no profile, no updates and no sync, and the pages are our own.

use std::path::Path;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::support::process::holds_within;
use crate::support::{Mount, Running, require};

/// How long the driver and the browser may take to start on a busy machine.
const START_MAX: Duration = Duration::from_secs(60);
/// How long the page may take to show something: a refresh comes each 5 s.
const SHOW_MAX: Duration = Duration::from_secs(20);

/// One window; the browser ends with it.
pub struct Browser {
    session: String,
    agent: ureq::Agent,
    _driver: Running,
}

impl Browser {
    /// Opens an empty window.
    pub fn start(mount: &Mount) -> Self {
        let profile = mount.dir().join("chromium");
        let mut driver = mount.command(require("chromedriver"));
        driver.arg("--port=0").env("TMPDIR", mount.dir());
        let driver = mount.spawn(driver);
        let mut port = None;
        let started = || {
            // "ChromeDriver was started successfully on port 40711."
            let said = driver.said();
            let number = said
                .split("successfully on port ")
                .nth(1)
                .and_then(|rest| rest.split('.').next());
            port = number.and_then(|number| number.parse::<u16>().ok());
            port.is_some()
        };
        assert!(holds_within(START_MAX, started), "chromedriver said: {}", driver.said());
        let config = ureq::Agent::config_builder()
            .timeout_global(Some(START_MAX))
            .http_status_as_error(false);
        let mut this = Self {
            session: format!("http://127.0.0.1:{}/session", port.expect("just found")),
            agent: config.build().new_agent(),
            _driver: driver,
        };
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--disable-dev-shm-usage",
            "--window-size=1280,900",
            &format!("--user-data-dir={}", profile.display()),
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "binary": require("chromium"), "args": arguments },
        } } });
        let session = this.ask("", &wanted);
        let id = session["sessionId"]
            .as_str()
            .unwrap_or_else(|| panic!("no session: {session}"));
        this.session = format!("{}/{id}", this.session);
        this
    }

    /// Loads a page.
    pub fn open(&self, url: &str) {
        self.ask("/url", &json!({ "url": url }));
    }

    /// The value of a function body.
    pub fn run(&self, script: &str) -> Value {
        self.ask("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// Returns once an expression is true.
    #[track_caller]
    pub fn wait_for(&self, what: &str, expression: &str) {
        let script = format!("return !!({expression})");
        if !holds_within(SHOW_MAX, || self.run(&script) == true) {
            panic!(
                "not within {SHOW_MAX:?}: {what}\n{}",
                self.run("return document.body.innerText")
            );
        }
    }

    /// Presses a key on the focused element; `\u{e007}` is Enter, `\u{e004}` Tab.
    pub fn press(&self, key: char) {
        let key = |kind| json!({ "type": kind, "value": key });
        let keys = json!({ "type": "key", "id": "keyboard", "actions": [key("keyDown"), key("keyUp")] });
        self.ask("/actions", &json!({ "actions": [keys] }));
    }

    /// As if the user preferred `light` or `dark`.
    pub fn prefer(&self, scheme: &str) {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        self.devtools("Emulation.setEmulatedMedia", json!({ "features": [feature] }));
    }

    /// As if the window were so large, in pixels.
    pub fn resize(&self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size);
    }

    /// A picture of the whole page.
    pub fn picture(&self, file: &Path) {
        let size = self.run("return [innerWidth, document.documentElement.scrollHeight]");
        let clip = json!({ "x": 0, "y": 0, "width": size[0], "height": size[1], "scale": 1 });
        let shot = json!({ "format": "png", "captureBeyondViewport": true, "clip": clip });
        let shot = self.devtools("Page.captureScreenshot", shot);
        let data = shot["data"].as_str().expect("a picture");
        let bytes = base64::engine::general_purpose::STANDARD.decode(data).expect("base64");
        std::fs::write(file, bytes).expect("a picture for people");
    }

    /// Everything that the browser's console has said since the last look.
    pub fn console(&self) -> Vec<String> {
        let said = self.ask("/se/log", &json!({ "type": "browser" }));
        let lines = said.as_array().expect("a log").iter();
        lines
            .map(|line| format!("{}: {}", line["level"], line["message"]))
            .collect()
    }

    /// Which addresses the page has asked for, other than its own.
    pub fn asked_for(&self) -> Vec<String> {
        let entries = self.run("return performance.getEntriesByType('resource').map((entry) => entry.name)");
        let entries = entries.as_array().expect("a list").iter();
        entries
            .map(|entry| entry.as_str().expect("a name").to_owned())
            .collect()
    }

    fn devtools(&self, command: &str, parameters: Value) -> Value {
        self.ask("/goog/cdp/execute", &json!({ "cmd": command, "params": parameters }))
    }

    #[track_caller]
    fn ask(&self, path: &str, body: &Value) -> Value {
        let url = format!("{}{path}", self.session);
        let mut answer = self
            .agent
            .post(&url)
            .send_json(body)
            .unwrap_or_else(|error| panic!("{url}: {error}"));
        let value: Value = answer.body_mut().read_json().expect("WebDriver speaks JSON");
        assert!(answer.status().is_success(), "{url}: {value}");
        value["value"].clone()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser; what is left then carries the mark of the test.
        let _ = self.agent.delete(&self.session).call();
    }
}
