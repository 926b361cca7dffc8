//! The pace of background work on one shard, shared by the duties that do it. A background service
//! was part of VividCortex's outage: so each step is followed by a rest at least as long as the
//! step, the rest doubles while a commit on the shard takes longer than it should and shrinks
//! slowly once it does not (as TCP does with its window), and an operator can hold it all still.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use spillway_runtime::mysql::Session;

use crate::metrics::{Metrics, OfDuty, OfShard};
use crate::settings::PaceSettings;
use crate::shard::{ShardError, answer};

/// Between two looks at the shard: pauses are honoured within this and one step.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The first rest after a slow commit, and what it shrinks by after each good one.
const REST_STEP: Duration = Duration::from_millis(50);

/// What goes at this pace, as `keeper_pauses` names it.
pub const BACKGROUND: [&str; 4] = ["rollups", "anomalies", "repair", "reprocess"];

/// Handle on a shard's pace; clones share it.
#[derive(Clone, Debug)]
pub struct Pace {
    shard: String,
    settings: PaceSettings,
    metrics: Metrics,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    looked_at: Option<Instant>,
    /// Duties held still, `*` for all.
    paused: Vec<String>,
    rest: Duration,
}

impl State {
    fn is_paused(&self, duty: &str) -> bool {
        self.paused.iter().any(|name| name == "*" || name == duty)
    }

    /// Doubles or shrinks the rest by what a commit took.
    fn judge(&mut self, took: Duration, settings: &PaceSettings) {
        self.rest = if took > settings.commit_target.get() {
            self.rest.saturating_mul(2).clamp(REST_STEP, settings.rest_max.get().max(REST_STEP))
        } else {
            self.rest.saturating_sub(REST_STEP)
        };
    }
}

impl Pace {
    #[must_use]
    pub fn new(shard: &str, settings: &PaceSettings, metrics: &Metrics) -> Self {
        let (settings, metrics) = (settings.clone(), metrics.clone());
        Self { shard: shard.to_owned(), settings, metrics, state: Arc::default() }
    }

    /// Whether this duty may take another step now. Looks at the shard once a second.
    pub async fn may(&self, session: &mut Session, duty: &'static str) -> Result<bool, ShardError> {
        let is_due = self.with(|state| {
            state.looked_at.is_none_or(|looked_at| looked_at.elapsed() >= LOOK_EVERY)
        });
        if is_due {
            let paused = paused(session).await?;
            let took = probe(session).await?;
            self.with(|state| {
                state.looked_at = Some(Instant::now());
                state.paused = paused;
                state.judge(took, &self.settings);
            });
            self.tell(took);
        }
        Ok(!self.with(|state| state.is_paused(duty)))
    }

    fn tell(&self, took: Duration) {
        let label = OfShard { shard: self.shard.clone() };
        self.metrics.commit_seconds.get_or_create(&label).set(took.as_secs_f64());
        let rest = self.with(|state| state.rest);
        self.metrics.rest_seconds.get_or_create(&label).set(rest.as_secs_f64());
        for duty in BACKGROUND {
            let is_paused = self.with(|state| state.is_paused(duty));
            let label = OfDuty { duty, shard: self.shard.clone() };
            self.metrics.duty_paused.get_or_create(&label).set(i64::from(is_paused));
        }
    }

    /// Rests after a step that took this long.
    pub async fn rest(&self, worked: Duration) {
        let rest = self.with(|state| state.rest).max(worked.min(self.settings.rest_max.get()));
        tokio::time::sleep(rest).await;
    }

    fn with<T>(&self, look: impl FnOnce(&mut State) -> T) -> T {
        // Nothing panics while it is held; and half a judgement would only rest too long.
        look(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// How long a commit of one small row takes: what the consumer's own commits wait for as well.
async fn probe(session: &mut Session) -> Result<Duration, ShardError> {
    let began = Instant::now();
    let sql = "INSERT INTO keeper_probe (id, probed_at) VALUES (1, ?)
               ON DUPLICATE KEY UPDATE probed_at = VALUES(probed_at)";
    let query = sqlx::query(sql).bind(jiff::Timestamp::now().as_millisecond());
    answer(query.execute(&mut **session)).await?;
    Ok(began.elapsed())
}

/// The duties an operator holds still now.
async fn paused(session: &mut Session) -> Result<Vec<String>, ShardError> {
    let sql = "SELECT duty FROM keeper_pauses WHERE until_at IS NULL OR until_at > ?";
    let query = sqlx::query(sql).bind(jiff::Timestamp::now().as_millisecond());
    let rows = answer(query.fetch_all(&mut **session)).await?;
    let name = |row| spillway_runtime::mysql::text(row, 0);
    Ok(rows.iter().map(name).collect::<Result<_, _>>()?)
}

#[cfg(test)]
mod tests {
    use spillway_runtime::settings::Dur;

    use super::*;

    #[test]
    fn rest_doubles_while_commits_are_slow_and_shrinks_step_by_step_once_they_are_not() {
        let settings =
            PaceSettings { commit_target: Dur::from_millis(10), rest_max: Dur::from_secs(1) };
        let (slow, quick) = (Duration::from_millis(11), Duration::from_millis(10));
        let mut state = State::default();
        let mut rests = Vec::new();
        for took in [quick, slow, slow, slow, quick, quick] {
            state.judge(took, &settings);
            rests.push(state.rest.as_millis());
        }
        assert_eq!(rests, [0, 50, 100, 200, 150, 100]);
        for _ in 0..20 {
            state.judge(slow, &settings);
        }
        assert_eq!(state.rest, Duration::from_secs(1), "never longer than the longest rest");
    }
}
