//! What was sent and what the system said of it, kept outside the system under test.
//!
//! Values are a function of (series, ts), so the ledger keeps recipes and recomputes points. In
//! memory it serves the judge; with a [`Recorder`] each note is on disk, in another process,
//! before the sender goes on, and the judge reads it from there.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use spillway_proto::BatchId;

use crate::oracle::note::{Note, read_notes};
use crate::oracle::recorder::Recorder;
use crate::recipe::Recipe;

/// What is known of a batch that was given a seq.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fate {
    /// A 2xx said the system has it.
    Ok,
    /// A typed refusal said it will never have it.
    Fail,
    /// No answer, or one that does not say: it may be there or not.
    Info,
    /// Never sent, and the agent said so: a declared gap.
    Declared,
    /// Never sent, and nobody said so: a gap that stays late.
    Withheld,
}

/// By which way a batch was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Way {
    Http,
    S3,
}

/// One batch that was given a seq.
#[derive(Clone, Debug)]
pub struct Attempted {
    pub recipe: Arc<Recipe>,
    pub fate: Fate,
    /// Requests that carried it to the API.
    pub attempts: u32,
    /// Objects that were put with it.
    pub puts: u32,
}

/// All batches that were given a seq, by id. Clones share it.
#[derive(Clone, Default)]
pub struct Ledger {
    entries: Arc<Mutex<BTreeMap<BatchId, Attempted>>>,
    recorder: Option<Recorder>,
}

impl Ledger {
    /// A ledger whose notes are on disk before the sender goes on.
    #[must_use]
    pub fn recorded_by(recorder: Recorder) -> Self {
        Self { recorder: Some(recorder), ..Self::default() }
    }

    /// What a recorder's file holds.
    ///
    /// # Errors
    /// The file can't be read, or is damaged before its end.
    pub fn read(file: &Path) -> io::Result<Self> {
        let ledger = Self::default();
        for note in read_notes(file)? {
            ledger.take(&note);
        }
        Ok(ledger)
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<BatchId, Attempted>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes an attempt before it is made: until more is known its fate is open.
    pub async fn attempt(&self, recipe: &Arc<Recipe>, way: Way) {
        self.note(Note::Attempt { recipe: Recipe::clone(recipe), way }).await;
    }

    /// Notes an answer. What was once accepted stays accepted.
    pub async fn answered(&self, id: &BatchId, fate: Fate) {
        self.note(Note::Answer { id: *id, fate }).await;
    }

    /// Notes a batch that was given a seq and is not sent, on purpose.
    pub async fn withheld(&self, recipe: Recipe, fate: Fate) {
        self.note(Note::Withheld { recipe, fate }).await;
    }

    async fn note(&self, note: Note) {
        if let Some(recorder) = &self.recorder {
            recorder.note(&note).await;
        }
        self.take(&note);
    }

    fn take(&self, note: &Note) {
        let mut entries = self.entries();
        let fresh = |recipe: &Recipe, fate| Attempted {
            recipe: Arc::new(recipe.clone()),
            fate,
            attempts: 0,
            puts: 0,
        };
        match note {
            Note::Attempt { recipe, way } => {
                let entry = entries.entry(recipe.id).or_insert_with(|| fresh(recipe, Fate::Info));
                match way {
                    Way::Http => entry.attempts += 1,
                    Way::S3 => entry.puts += 1,
                }
            }
            Note::Answer { id, fate } => {
                if let Some(entry) = entries.get_mut(id).filter(|entry| entry.fate != Fate::Ok) {
                    entry.fate = *fate;
                }
            }
            Note::Withheld { recipe, fate } => {
                entries.entry(recipe.id).or_insert_with(|| fresh(recipe, *fate));
            }
        }
    }

    /// All batches, by id.
    #[must_use]
    pub fn all(&self) -> Vec<Attempted> {
        self.entries().values().cloned().collect()
    }

    /// What is known of one batch.
    #[must_use]
    pub fn get(&self, id: &BatchId) -> Option<Attempted> {
        self.entries().get(id).cloned()
    }

    /// Batches with this fate.
    #[must_use]
    pub fn batches(&self, fate: Fate) -> Vec<Attempted> {
        self.entries().values().filter(|entry| entry.fate == fate).cloned().collect()
    }

    /// How many batches have this fate.
    #[must_use]
    pub fn count(&self, fate: Fate) -> usize {
        self.entries().values().filter(|entry| entry.fate == fate).count()
    }

    /// Points in batches with this fate.
    #[must_use]
    pub fn points(&self, fate: Fate) -> usize {
        let entries = self.entries();
        let of_fate = entries.values().filter(|entry| entry.fate == fate);
        of_fate.map(|entry| entry.recipe.points()).sum()
    }

    /// Requests beyond the first one of each batch.
    #[must_use]
    pub fn repeats(&self) -> u32 {
        self.entries().values().map(|entry| entry.attempts.saturating_sub(1)).sum()
    }

    /// One line for a test's output.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "{} batches ok ({} points), {} refused, {} open, {} repeats",
            self.count(Fate::Ok),
            self.points(Fate::Ok),
            self.count(Fate::Fail),
            self.count(Fate::Info),
            self.repeats(),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_once_accepted_stays_accepted() {
        let ledger = Ledger::default();
        let recipe = Arc::new(Recipe {
            id: BatchId::Content { hash: 1 },
            environment: "demo".into(),
            host: "h".into(),
            window_ts: 0,
            series: 3,
            points: 10,
            revises: false,
            declares: vec![],
            closing: false,
        });
        ledger.attempt(&recipe, Way::Http).await;
        assert_eq!(ledger.points(Fate::Info), 30);
        ledger.answered(&recipe.id, Fate::Ok).await;
        ledger.answered(&recipe.id, Fate::Info).await;
        assert_eq!(ledger.points(Fate::Ok), 30);
    }
}
