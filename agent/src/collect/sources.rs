//! All inputs with a pace of their own that the settings name.

use super::exec::Exec;
use super::mysql::Server;
use super::paced::Source;
use super::scrape;
use super::statsd::Listener;
use crate::deliver::http_client::BuildError;
use crate::settings::Settings;

/// Names of sources that are shown one by one in `status`; of more, their number.
const SHOWN_MAX: usize = 8;

/// The sources of `settings`.
///
/// # Errors
/// Certificates of a target can't be read.
pub fn all(settings: &Settings, listener: &Listener) -> Result<Vec<Box<dyn Source>>, BuildError> {
    let mut all: Vec<Box<dyn Source>> = Vec::new();
    for scrape in &settings.scrape {
        let targets = scrape::targets(scrape)?;
        all.extend(targets.into_iter().map(|target| Box::new(target) as Box<dyn Source>));
    }
    for mysql in &settings.mysql {
        all.push(Box::new(Server::new(mysql)));
    }
    for exec in &settings.exec {
        all.push(Box::new(Exec::new(exec, listener.clone())));
    }
    Ok(all)
}

/// How they are named in a list.
#[must_use]
pub fn shown(sources: &[Box<dyn Source>]) -> Vec<String> {
    let mut names: Vec<_> = sources.iter().take(SHOWN_MAX).map(|source| source.name()).collect();
    if let Some(more) = sources.len().checked_sub(SHOWN_MAX).filter(|more| *more > 0) {
        names.push(format!("{more} more"));
    }
    names
}
