//! A real browser, headless, driven over its DevTools protocol: opens pages, presses keys, reads the page, and collects
//! complaints of the pages.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tungstenite::stream::MaybeTlsStream;
use tungstenite::{Message, WebSocket};

/// Program names of Chromium.
const PROGRAMS: [&str; 4] = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/// Timeout of every step, on a loaded machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Interval of checks for a condition that the test waits for.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A running browser with one page. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    child: Child,
    socket: WebSocket<MaybeTlsStream<TcpStream>>,
    calls: u64,
    /// Session of the page; `None` for calls to the browser itself.
    session: Option<String>,
    complaints: Vec<String>,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser.
    pub fn start() -> Self {
        let profile =
            tempfile::Builder::new().prefix("p2pool-browser-").tempdir().expect("the temporary folder can be written");
        let mut child = PROGRAMS
            .iter()
            .find_map(|program| launch(program, &profile))
            .unwrap_or_else(|| panic!("none of {PROGRAMS:?} is installed; tests/run.sh installs `chromium`"));
        let stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut lines = stderr.lines();
        let url = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("DevTools listening on ").map(str::to_owned))
            .expect("the browser says where it listens");
        // A full pipe would block it.
        std::thread::spawn(move || lines.for_each(drop));
        let (socket, _) = tungstenite::connect(url.trim()).expect("the browser can be driven");
        if let MaybeTlsStream::Plain(stream) = socket.get_ref() {
            stream.set_read_timeout(Some(PATIENCE)).expect("a timeout can be set");
        }
        let (calls, session) = (0, None);
        let mut browser = Self { child, socket, calls, session, complaints: Vec::new(), _profile: profile };
        let made = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = browser.call("Target.attachToTarget", json!({"targetId": made["targetId"], "flatten": true}));
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log", "Network"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        browser
    }

    /// Sets the window's size in CSS pixels; a phone's has touch.
    pub fn resize(&mut self, width: u32, height: u32, is_phone: bool) {
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": is_phone}),
        );
    }

    /// Sets the reader's preferences: `dark` or `light`, and no motion, so that pictures do not differ.
    pub fn prefer(&mut self, scheme: &str) {
        let features = json!([
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// Opens a page, and waits until it is loaded.
    pub fn open(&mut self, url: &str) {
        let went = self.call("Page.navigate", json!({"url": url}));
        assert!(went.get("errorText").is_none(), "{url}: {went}");
        self.wait_for(&format!("{url} is loaded"), "document.readyState === 'complete'");
    }

    /// Evaluates an expression.
    pub fn evaluate(&mut self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", asked);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Text shown by an element, or by the first of several.
    pub fn text(&mut self, selector: &str) -> String {
        let value = self.evaluate(&format!("document.querySelector({})?.innerText ?? null", json!(selector)));
        value.as_str().unwrap_or_else(|| panic!("no {selector} on {}", self.url())).to_owned()
    }

    /// Number of elements.
    pub fn count(&mut self, selector: &str) -> u64 {
        self.evaluate(&format!("document.querySelectorAll({}).length", json!(selector))).as_u64().unwrap_or_default()
    }

    /// Address of the page.
    pub fn url(&mut self) -> String {
        self.evaluate("location.href").as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true, even across page changes.
    pub fn wait_for(&mut self, what: &str, expression: &str) {
        let until = Instant::now() + PATIENCE;
        let asked = json!({"expression": format!("Boolean({expression})"), "returnByValue": true});
        while self.call("Runtime.evaluate", asked.clone())["result"]["value"] != true {
            if Instant::now() > until {
                let page = self.evaluate("location.href + '\\n' + document.body.innerText");
                panic!("{what}: not within {PATIENCE:?}; the page is {page}, and it said {:?}", self.complaints);
            }
            std::thread::sleep(LOOK_INTERVAL);
        }
    }

    /// Clicks in the middle of an element, as a mouse does.
    pub fn click(&mut self, selector: &str) {
        let (x, y) = self.middle(selector);
        for kind in ["mousePressed", "mouseReleased"] {
            self.mouse(kind, x, y);
        }
    }

    /// Moves the mouse to the middle of an element.
    pub fn point_at(&mut self, selector: &str) {
        let (x, y) = self.middle(selector);
        self.mouse("mouseMoved", x, y);
    }

    /// Drags from one place in an element to another; both are fractions of its width.
    pub fn drag(&mut self, selector: &str, from: f64, to: f64) {
        let (x, y) = self.middle(selector);
        let width =
            self.evaluate(&format!("document.querySelector({}).getBoundingClientRect().width", json!(selector)));
        let width = width.as_f64().unwrap_or_default();
        let at = |part: f64| x + (part - 0.5) * width;
        self.mouse("mouseMoved", at(from), y);
        self.mouse("mousePressed", at(from), y);
        self.mouse("mouseMoved", at((from + to) / 2.0), y);
        self.mouse("mouseMoved", at(to), y);
        self.mouse("mouseReleased", at(to), y);
    }

    /// Presses a key, such as `Tab`, `Enter`, `ArrowLeft` or `a`.
    pub fn press(&mut self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            "End" => 35,
            "Home" => 36,
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            _ => 0,
        };
        let text = match key {
            "Enter" => Some("\r"),
            _ if code == 0 => Some(key),
            _ => None,
        };
        let mut down = json!({"type": "keyDown", "key": key, "code": key, "windowsVirtualKeyCode": code});
        if let Some(text) = text {
            down["text"] = json!(text);
        }
        self.call("Input.dispatchKeyEvent", down);
        self.call(
            "Input.dispatchKeyEvent",
            json!({"type": "keyUp", "key": key, "code": key, "windowsVirtualKeyCode": code}),
        );
    }

    /// Types where the focus is.
    pub fn write(&mut self, text: &str) {
        self.call("Input.insertText", json!({"text": text}));
    }

    /// Screenshot of the window as PNG.
    pub fn picture(&mut self) -> Vec<u8> {
        let answer = self.call("Page.captureScreenshot", json!({"format": "png"}));
        base64(answer["data"].as_str().expect("a picture"))
    }

    /// Complaints of pages so far: errors, failed loads, breaches of their policy.
    pub fn complaints(&mut self) -> &[String] {
        // Pending complaints arrive before the next answer.
        self.evaluate("1");
        &self.complaints
    }

    fn middle(&mut self, selector: &str) -> (f64, f64) {
        let place = self.evaluate(&format!(
            "(() => {{ const e = document.querySelector({}); if (!e) return null; \
             e.scrollIntoView({{block: 'center', inline: 'center', behavior: 'instant'}}); \
             const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()",
            json!(selector)
        ));
        match (place[0].as_f64(), place[1].as_f64()) {
            (Some(x), Some(y)) => (x, y),
            _ => panic!("no {selector} on {}", self.url()),
        }
    }

    fn mouse(&mut self, kind: &str, x: f64, y: f64) {
        let pressed = u8::from(kind == "mousePressed");
        let button = if kind == "mouseMoved" { "none" } else { "left" };
        let event = json!({"type": kind, "x": x, "y": y, "button": button, "buttons": pressed, "clickCount": 1});
        self.call("Input.dispatchMouseEvent", event);
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        let id = self.calls;
        let mut message = json!({"id": id, "method": method, "params": params});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        self.socket.send(Message::text(message.to_string())).expect("the browser listens");
        loop {
            let message = self.socket.read().unwrap_or_else(|error| panic!("{method}: {error}"));
            let Message::Text(text) = message else { continue };
            let told: Value = serde_json::from_str(&text).expect("the browser speaks JSON");
            if told["id"] == id {
                assert!(told.get("error").is_none(), "{method}: {told}");
                return told["result"].clone();
            }
            self.note(&told);
        }
    }

    fn note(&mut self, told: &Value) {
        let params = &told["params"];
        match told["method"].as_str() {
            Some("Runtime.exceptionThrown") => {
                self.complaints.push(format!("exception: {}", params["exceptionDetails"]))
            }
            Some("Runtime.consoleAPICalled") if params["type"] == "error" || params["type"] == "warning" => {
                self.complaints.push(format!("console: {}", params["args"]));
            }
            Some("Log.entryAdded") if params["entry"]["level"] == "error" => {
                self.complaints.push(format!("log: {} {}", params["entry"]["text"], params["entry"]["url"]));
            }
            Some("Page.javascriptDialogOpening") => self.complaints.push(format!("dialog: {}", params["message"])),
            _ => {}
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Its child processes end with it.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn launch(program: &str, profile: &TempDir) -> Option<Child> {
    Command::new(program)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"])
        .args([
            "--no-first-run",
            "--disable-extensions",
            "--disable-background-networking",
            "--disable-component-update",
        ])
        .args(["--disable-sync", "--disable-default-apps", "--mute-audio", "--force-color-profile=srgb"])
        // No host outside of the test may be reached.
        .arg("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
        .arg("--remote-debugging-port=0")
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .arg("about:blank")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .ok()
}

/// Decodes base64.
fn base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.decode(text).expect("the browser writes base64")
}
