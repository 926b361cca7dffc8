//! What settings promise to someone who writes a file by hand.

use std::path::PathBuf;

use serde::Deserialize;

use super::*;

/// Settings with one of each kind of key.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Sample {
    /// What to log.
    log: LogSettings,
    /// Health and metrics.
    admin: AdminSettings,
    /// How it stops.
    shutdown: ShutdownSettings,
    /// The brokers.
    kafka: Kafka,
    /// Where metrics come from.
    inputs: Vec<Input>,
    /// Encryption, if wanted.
    tls: Option<Encryption>,
}

/// The brokers.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Kafka {
    /// Addresses, host:port.
    brokers: Vec<String>,
    /// The password.
    password: Secret,
    /// A file with the password.
    password_file: Option<PathBuf>,
    /// How long to wait.
    timeout: Dur,
    /// How much to queue.
    queue: Size,
    /// How often to try.
    attempts: u32,
    /// Part of all traffic.
    share: f64,
    /// Whether to compress.
    compress: bool,
    /// An address with a password in it.
    url: String,
}

impl Default for Kafka {
    fn default() -> Self {
        Self {
            brokers: vec!["127.0.0.1:9092".to_owned()],
            password: Secret::default(),
            password_file: None,
            timeout: Dur::from_secs(90),
            queue: Size::mib(64),
            attempts: 3,
            share: 0.5,
            compress: true,
            url: String::new(),
        }
    }
}

/// A source.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Input {
    /// Where to ask.
    url: String,
    /// How often.
    every: Dur,
}

/// Encryption.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct Encryption {
    /// The certificate.
    cert: PathBuf,
}

impl Settings for Sample {
    const PROGRAM: &'static str = "sample";
    const ABOUT: &'static str = "shows settings";

    fn process(&self) -> Process<'_> {
        Process { log: &self.log, admin: &self.admin, shutdown: &self.shutdown }
    }

    fn validate(&self) -> Vec<Problem> {
        let bad = self.kafka.attempts == 0;
        let problem = || Problem::new("kafka.attempts", "must be at least 1");
        bad.then(problem).into_iter().collect()
    }
}

fn no_env() -> Vec<(String, String)> {
    Vec::new()
}

fn problems_of(toml: &str, env: &[(&str, &str)]) -> Vec<String> {
    let env = env.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let errors = load_from::<Sample>(toml, env).unwrap_err();
    errors.problems().iter().map(ToString::to_string).collect()
}

#[test]
fn an_unknown_key_names_the_nearest_known_key() {
    assert_eq!(
        problems_of("[kafka]\nbrokrs = []", &[]),
        ["kafka.brokrs: unknown key; did you mean `brokers`?"]
    );
}

#[test]
fn a_key_in_the_wrong_section_names_the_right_one() {
    assert_eq!(
        problems_of("compress = true", &[]),
        ["compress: unknown key here; did you mean `kafka.compress`?"]
    );
}

#[test]
fn a_key_like_nothing_else_still_names_the_nearest() {
    let problems = problems_of("[shutdown]\nxyzzy = 1", &[]);
    assert_eq!(
        problems,
        ["shutdown.xyzzy: unknown key; the nearest known key is `drain_deadline`"]
    );
}

#[test]
fn all_problems_come_at_once_each_with_its_path() {
    let text = r#"
        nonsense_key = 1
        [log]
        level = "loud=nois=y"
        [kafka]
        timeout = 10
        queue = "many"
        attempts = -1
        compress = "perhaps"
        [[inputs]]
        url = "http://a"
        [[inputs]]
        every = "often"
        utl = "http://b"
    "#;
    let problems = problems_of(text, &[]).join("\n");
    for expected in [
        "nonsense_key: unknown key",
        "inputs[1].utl: unknown key; did you mean `url`?",
        "kafka.timeout: invalid type: integer `10`, expected a duration with its unit",
        "kafka.queue: \"many\" is no size",
        "kafka.attempts: invalid value: integer `-1`",
        "kafka.compress: invalid type: string \"perhaps\"",
        "inputs[1].every: \"often\" is no duration",
    ] {
        assert!(problems.contains(expected), "{expected}\nis not in\n{problems}");
    }
}

#[test]
fn unknown_keys_and_failed_checks_are_told_together() {
    let problems = problems_of("colour = 1\n[kafka]\nattempts = 0\n[log]\nlevel = \"a=b=c\"", &[]);
    assert_eq!(problems.len(), 3, "{problems:?}");
}

#[test]
fn text_that_is_no_toml_names_its_line() {
    let problems = problems_of("[kafka]\nattempts = = 3", &[]);
    assert!(problems[0].starts_with("line 2 is no TOML"), "{problems:?}");
}

#[test]
fn a_missing_file_is_told_with_its_name() {
    let error = load::<Sample>(Some(Path::new("/nowhere/sample.toml"))).unwrap_err();
    let text = error.to_string();
    assert!(text.contains("/nowhere/sample.toml") && text.contains("cannot be read"));
}

#[test]
fn the_environment_overrides_the_file_with_the_keys_own_types() {
    let env = [
        ("SPILLWAY__KAFKA__BROKERS", "a:1, b:2"),
        ("SPILLWAY__KAFKA__PASSWORD", "123"),
        ("SPILLWAY__KAFKA__PASSWORD_FILE", "/p"),
        ("SPILLWAY__KAFKA__TIMEOUT", "1m30s"),
        ("SPILLWAY__KAFKA__QUEUE", "1 KiB"),
        ("SPILLWAY__KAFKA__ATTEMPTS", "7"),
        ("SPILLWAY__KAFKA__SHARE", "1"),
        ("SPILLWAY__KAFKA__COMPRESS", "false"),
        ("SPILLWAY__ADMIN__LISTEN", "[::1]:9"),
        ("SPILLWAY__LOG__LEVEL", "debug"),
        ("SPILLWAY__INPUTS", "[{ url = \"http://x\", every = \"5s\" }]"),
        ("SPILLWAY__TLS__CERT", "/c"),
        ("OTHER__KEY", "ignored"),
    ];
    let env = env.map(|(k, v)| (k.to_owned(), v.to_owned()));
    let loaded: Sample = load_from("[kafka]\nattempts = 2\nurl = \"u\"", env).unwrap();
    assert_eq!(loaded.kafka.brokers, ["a:1", "b:2"]);
    assert_eq!(loaded.kafka.password.reveal(), "123");
    assert_eq!(loaded.kafka.password_file, Some(PathBuf::from("/p")));
    assert_eq!(loaded.kafka.timeout, Dur::from_secs(90));
    assert_eq!(loaded.kafka.queue, Size::kib(1));
    assert_eq!(loaded.kafka.attempts, 7);
    assert!((loaded.kafka.share - 1.0).abs() < f64::EPSILON);
    assert!(!loaded.kafka.compress);
    assert_eq!(loaded.kafka.url, "u");
    assert_eq!(loaded.admin.listen, "[::1]:9".parse().unwrap());
    assert_eq!(loaded.log.level, "debug");
    assert_eq!(loaded.inputs[0].every, Dur::from_secs(5));
    assert_eq!(loaded.tls.unwrap().cert, PathBuf::from("/c"));
}

#[test]
fn a_misspelt_or_wrong_variable_is_an_error_with_its_name() {
    let problems = problems_of(
        "",
        &[
            ("SPILLWAY__KAFKA__ATEMPTS", "1"),
            ("SPILLWAY__KAFKA", "x"),
            ("SPILLWAY__LOG__FORMAT", "loud"),
        ],
    );
    let text = problems.join("\n");
    assert!(
        text.contains(
            "SPILLWAY__KAFKA__ATEMPTS (environment): unknown key; did you mean `attempts`?"
        )
    );
    assert!(text.contains("SPILLWAY__KAFKA (environment): names a section"));
    assert!(text.contains("log.format: unknown variant `loud`"), "{text}");
}

#[test]
fn shown_settings_mask_secrets_and_passwords_in_urls() {
    let text = "[kafka]\npassword = \"hunter2\"\nurl = \"mysql://root:hunter2@db:1\"";
    let loaded: Sample = load_from(text, no_env()).unwrap();
    let (shown, debug) = (show(&loaded), format!("{:?}", loaded.kafka.password));
    assert!(!shown.contains("hunter2") && !debug.contains("hunter2"), "{shown}{debug}");
    assert!(shown.contains("mysql://root:********@db:1"), "{shown}");
}

#[test]
fn the_sample_loads_as_it_stands_and_means_the_defaults() {
    let sample = sample_toml::<Sample>();
    let loaded: Sample = load_from(&sample, no_env()).unwrap();
    assert_eq!(show(&loaded), show(&Sample::default()), "{sample}");
    for expected in ["# How long to wait.\ntimeout = \"1m30s\"", "# [[inputs]]", "# [tls]"] {
        assert!(sample.contains(expected), "{expected} is not in\n{sample}");
    }
}

#[test]
fn the_sample_loads_with_every_commented_key_made_active_too() {
    let sample = sample_toml::<Sample>();
    let key = |line: &str| line.starts_with('[') || line.contains(" = ");
    let active: String = sample
        .lines()
        .map(|line| match line.strip_prefix("# ") {
            Some(rest) if key(rest) && !rest.starts_with('#') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        })
        .collect();
    let loaded: Sample = load_from(&active, no_env()).unwrap();
    assert_eq!(loaded.inputs.len(), 1, "{active}");
    assert!(loaded.tls.is_some());
}

#[test]
fn the_reference_page_has_every_key_with_type_default_and_meaning() {
    let page = reference_markdown::<Sample>();
    for expected in [
        "| `timeout` | duration | `\"1m30s\"` | How long to wait. |",
        "| `queue` | size | `\"64 MiB\"` | How much to queue. |",
        "| `password_file` | text | not set | A file with the password. |",
        "| `format` | `auto`, `text`, `json` | `\"auto\"` |",
        "## `[[inputs]]`",
        "## `[tls]`",
    ] {
        assert!(page.contains(expected), "{expected} is not in\n{page}");
    }
}
