//! Logs go to stderr: text on a terminal, one JSON object per line otherwise.
//!
//! librdkafka's lines arrive through rdkafka's `tracing` feature under the target `librdkafka`, so
//! `log.level = "info,librdkafka=debug"` governs them like our own.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::util::TryInitError;

use crate::settings::{LogFormat, LogSettings};

/// What `log.level` lets through.
pub fn filter(level: &str) -> Result<EnvFilter, ParseError> {
    EnvFilter::builder().parse(level)
}

/// Why logging did not start.
#[derive(Debug, thiserror::Error)]
pub enum LoggingError {
    #[error("log.level: {0}")]
    Level(#[from] ParseError),
    #[error("logging was started twice: {0}")]
    Twice(#[from] TryInitError),
}

/// Starts logging for the whole process, panics included.
pub fn start(settings: &LogSettings) -> Result<(), LoggingError> {
    use tracing_subscriber::util::SubscriberInitExt;

    let json = match settings.format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter(&settings.level)?)
        .with_writer(std::io::stderr)
        .with_ansi(!json && std::io::stderr().is_terminal());
    if json {
        let lines = lines.json().flatten_event(true).with_current_span(true);
        lines.with_span_list(false).finish().try_init()?;
    } else {
        lines.finish().try_init()?;
    }
    log_panics();
    Ok(())
}

/// A panic in a task must not vanish between JSON lines.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let place = panic.location().map(ToString::to_string);
        tracing::error!(
            place = place.as_deref().unwrap_or("unknown"),
            "panic: {}",
            text.unwrap_or("(no message)")
        );
    }));
}
