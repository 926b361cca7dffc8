//! The status page: the pipeline drawn as it is, each environment's freshness and gaps, ninety
//! days of history, incidents; once for operators and once, without names, for everybody.
//! "Delayed" (it is on its way) and "lost" (it will not come) are never one word.

pub mod metrics_text;
pub mod component;
pub mod gather;
pub mod snapshot;
pub mod verdict;

pub mod history;
pub mod incidents;

pub mod words;
pub mod address;
pub mod assets;
pub mod pipeline;
pub mod component_rows;
pub mod page;
pub mod feed;
pub mod rendered;
pub mod hosts;

pub mod routes;
pub mod serve;
pub mod export;
pub mod probe;
pub mod watch;

#[cfg(test)]
mod tests;

use crate::answer::Answer;
use crate::desk::Desk;
use crate::failure::Failure;

/// The page's content once, for a terminal; rates need two looks.
pub async fn show(desk: &Desk) -> Result<Answer, Failure> {
    let mut gatherer = gather::Gatherer::new(&desk.settings)?;
    gatherer.look().await;
    tokio::time::sleep(desk.settings.status.refresh.get()).await;
    Ok(gatherer.look().await.to_answer())
}
