//! A real browser, Chromium without a window, driven through ChromeDriver (W3C WebDriver over
//! plain HTTP). Debian: `apt-get install chromium chromium-driver`; .ci/run does.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::{Value as Json, json};
use spillway_console::reach::http::Http;

/// A page that does not load by then is wrong.
const DEADLINE: Duration = Duration::from_secs(120);

pub struct Browser {
    driver: Child,
    http: Http,
    base: String,
    session: String,
    _profile: tempfile::TempDir,
}

impl Browser {
    pub async fn start() -> Self {
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver is installed: apt-get install chromium chromium-driver");
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.ok()?;
            let (_, port) = line.split_once("successfully on port ")?;
            port.trim_end_matches('.').parse::<u16>().ok()
        });
        let base = format!("http://127.0.0.1:{}", port.expect("chromedriver tells its port"));
        let profile = tempfile::tempdir().unwrap();
        let http = Http::new(DEADLINE).unwrap();
        let session = String::new();
        let mut browser = Self { driver, http, base, session, _profile: profile };
        let profile = format!("--user-data-dir={}", browser._profile.path().display());
        let arguments = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--hide-scrollbars",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--no-first-run",
            &profile,
        ];
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "timeouts": { "script": 110_000 },
            "goog:loggingPrefs": { "browser": "ALL" },
            "goog:chromeOptions": { "args": arguments },
        }}});
        let made = browser.post("/session", &wanted).await;
        browser.session = format!("/session/{}", made["sessionId"].as_str().unwrap());
        browser
    }

    async fn post(&self, path: &str, body: &Json) -> Json {
        let url = format!("{}{path}", self.base);
        let answer =
            self.http.post(&url, &[("content-type", "application/json")], body.to_string().into());
        let answer = answer.await.unwrap();
        let json: Json = serde_json::from_slice(&answer.body).unwrap();
        assert!(answer.status.is_success(), "{path}: {json}");
        json["value"].clone()
    }

    async fn tell(&self, command: &str, body: Json) -> Json {
        self.post(&format!("{}{command}", self.session), &body).await
    }

    /// A screen of this size, light or dark.
    pub async fn screen(&self, width: u32, height: u32, dark: bool) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.cdp("Emulation.setDeviceMetricsOverride", size).await;
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.cdp("Emulation.setEmulatedMedia", json!({ "features": features })).await;
    }

    async fn cdp(&self, command: &str, parameters: Json) -> Json {
        self.tell("/goog/cdp/execute", json!({ "cmd": command, "params": parameters })).await
    }

    pub async fn open(&self, url: &str) {
        self.tell("/url", json!({ "url": url })).await;
    }

    /// The value of an expression in the page; a promise is awaited.
    pub async fn value(&self, expression: &str) -> Json {
        let script = format!("return {expression};");
        self.tell("/execute/sync", json!({ "script": script, "args": [] })).await
    }

    pub async fn text(&self, selector: &str) -> String {
        let expression = format!("document.querySelector({selector:?})?.innerText ?? ''");
        self.value(&expression).await.as_str().unwrap_or_default().to_owned()
    }

    /// Waits in the page itself until `condition` is true.
    pub async fn until(&self, condition: &str) {
        let script = format!(
            "return new Promise((done) => {{ const look = () => ({condition}) ? done(true) : \
             setTimeout(look, 50); look(); }});"
        );
        self.tell("/execute/sync", json!({ "script": script, "args": [] })).await;
    }

    /// Nothing sticks out at the side, and the browser had nothing to complain of.
    pub async fn assert_sound(&self, page: &str) {
        let root = "document.documentElement";
        let wide = self.value(&format!("{root}.scrollWidth - {root}.clientWidth")).await;
        assert_eq!(wide, 0, "{page} sticks out at the side by {wide} px");
        let log = self.tell("/se/log", json!({ "type": "browser" })).await;
        assert_eq!(log, json!([]), "{page}: the browser complains");
        assert_eq!(self.value("window.pwned ?? null").await, Json::Null, "{page} ran a name");
    }

    /// The whole page as target/pictures/NAME.png, or in the folder SPILLWAY_PICTURES.
    pub async fn picture(&self, name: &str) {
        self.shoot(name, true).await;
    }

    /// What the screen shows before anybody scrolls.
    pub async fn glimpse(&self, name: &str) {
        self.shoot(name, false).await;
    }

    async fn shoot(&self, name: &str, whole: bool) {
        use base64::Engine;
        let parameters = json!({ "format": "png", "captureBeyondViewport": whole });
        let shot = self.cdp("Page.captureScreenshot", parameters).await;
        let bytes =
            base64::engine::general_purpose::STANDARD.decode(shot["data"].as_str().unwrap());
        let folder = std::env::var_os("SPILLWAY_PICTURES").map(PathBuf::from);
        let folder = folder.unwrap_or_else(|| {
            PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../target/pictures")
        });
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), bytes.unwrap()).unwrap();
    }
}

impl Drop for Browser {
    /// Also after a failed assertion: the driver ends its browser, and then itself.
    fn drop(&mut self) {
        let address = self.base.trim_start_matches("http://");
        let asked = TcpStream::connect(address).and_then(|mut stream| {
            stream.write_all(b"GET /shutdown HTTP/1.1\r\nHost: localhost\r\n\r\n")?;
            stream.set_read_timeout(Some(DEADLINE))?;
            stream.read(&mut [0; 64])
        });
        if asked.is_err() {
            drop(self.driver.kill());
        }
        drop(self.driver.wait());
    }
}
