//! Prometheus targets: each is asked at its own pace, and what it says carries its `job` and
//! `instance`. With it go `up`, `scrape_duration_seconds` and `scrape_samples_scraped`, also when
//! nothing came. An answer over a limit counts as none, whole, as in Prometheus: half of a target
//! would look like all of it.

use std::sync::Arc;

use async_trait::async_trait;
use http::Uri;
use spillway_proto::Kind;
use spillway_runtime::deadline::within;

use self::answer::{Answer, Limits};
use self::fetch::{Credential, Question, fetch};
use super::Labels;
use super::paced::{Done, Pace, ReadError, Source};
use super::tray::{Pack, Sample};
use crate::deliver::http_client::{BuildError, Connections, Wanted};
use crate::settings::ScrapeSettings;

pub mod parse;

pub mod answer;

pub mod fetch;

/// One target.
pub struct Target {
    job: String,
    question: Question,
    pace: Pace,
    labels: Labels,
    /// Names of `labels`.
    own: Vec<String>,
    limits: Limits,
    connections: Arc<Connections>,
    samples: usize,
}

/// All targets of one `[[scrape]]`; they share a client.
///
/// # Errors
/// The certificates can't be read.
pub fn targets(settings: &ScrapeSettings) -> Result<Vec<Target>, BuildError> {
    let uris = settings.uris()?;
    let tls = uris.iter().any(|uri| uri.scheme_str() == Some("https"));
    let pace = Pace { interval: settings.interval.get(), deadline: settings.read_timeout() };
    let wanted = Wanted {
        tls,
        ca_file: settings.ca_file.as_deref(),
        own: None,
        proxy: None,
        connect_timeout: pace.deadline,
    };
    let connections = Arc::new(Connections::build(wanted)?);
    let credential = match (&settings.bearer_token_file, &settings.password_file) {
        (Some(file), _) => Credential::Bearer(file.clone()),
        (None, Some(file)) => {
            Credential::Basic { user: settings.user.clone(), password_file: file.clone() }
        }
        (None, None) => Credential::None,
    };
    let limits = Limits {
        samples: settings.samples_max as usize,
        labels: settings.labels_max as usize,
        label_value_bytes: settings.label_value_bytes_max as usize,
    };
    let target = |uri: Uri| {
        let instance = instance_of(&uri);
        let mut labels: Labels =
            settings.labels.iter().map(|(k, v)| (k.clone().into(), v.clone())).collect();
        let given = |name: &str| settings.labels.contains_key(name);
        let ours = [("job", settings.job.clone()), ("instance", instance)];
        labels.extend(
            ours.into_iter().filter(|(k, _)| !given(k)).map(|(name, value)| (name.into(), value)),
        );
        Target {
            job: settings.job.clone(),
            question: Question {
                uri,
                credential: credential.clone(),
                timeout_s: pace.deadline.as_secs_f64(),
                body_bytes_max: settings.body_bytes_max.get(),
            },
            pace,
            own: labels.iter().map(|(name, _)| name.to_string()).collect(),
            labels,
            limits,
            connections: Arc::clone(&connections),
            samples: 0,
        }
    };
    Ok(uris.into_iter().map(target).collect())
}

/// `host:port`, the port always named, as in Prometheus.
fn instance_of(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    let https = uri.scheme_str() == Some("https");
    let port = uri.port_u16().unwrap_or(if https { 443 } else { 80 });
    format!("{host}:{port}")
}

#[async_trait]
impl Source for Target {
    fn name(&self) -> String {
        format!("scrape {} {}", self.job, self.question.uri)
    }

    fn input(&self) -> &'static str {
        "scrape"
    }

    fn pace(&self) -> Pace {
        self.pace
    }

    fn labels(&self) -> Labels {
        self.labels.clone()
    }

    async fn read(&mut self, ts_ms: i64, out: &mut Pack) -> Result<(), ReadError> {
        self.samples = 0;
        let own: Vec<_> = self.own.iter().map(String::as_str).collect();
        let answer = Answer::new(out, ts_ms, self.limits, &own);
        let fetched = fetch(&self.connections, &self.question, answer);
        self.samples = within(self.pace.deadline, fetched).await??;
        Ok(())
    }

    fn after(&mut self, done: Done, out: &mut Pack) {
        let samples = if done.ok { self.samples } else { 0 };
        let facts = [
            ("up", "1", f64::from(u8::from(done.ok))),
            ("scrape_duration_seconds", "seconds", done.took.as_secs_f64()),
            ("scrape_samples_scraped", "1", samples as f64),
        ];
        for (metric, unit, value) in facts {
            let (kind, ts_ms, labels) = (Kind::Gauge, done.ts_ms, &[]);
            if let Err(cause) = out.push(&Sample { metric, labels, kind, unit, ts_ms, value }) {
                tracing::debug!(%cause, metric, "no room to say how a scrape went");
            }
        }
    }
}

#[cfg(test)]
#[path = "scrape_tests.rs"]
mod tests;
