//! Looking at everything at once: the programs' admin pages and each shard's views. What can't be
//! asked within the deadline is told, and hides nothing else.

mod programs;
mod shards;
mod legs;
mod judge;
mod awaited;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use spillway_runtime::settings::Dur;
use spillway_runtime::shards::ShardMap;
use tokio::task::JoinSet;

use super::component::DeepReport;
use super::metrics_text::Readings;
use super::snapshot::{EnvironmentState, ProgramState, Snapshot};
use crate::failure::Failure;
use crate::reach::http::{Http, HttpFault};
use crate::settings::ConsoleSettings;
use awaited::Awaited;
use shards::ShardLook;

/// The page is for the hour in which servers hang: one look waits no longer than this for any.
const LOOK_DEADLINE: Duration = Duration::from_secs(4);

/// Agents send every ten seconds: a rate over less than this would jump between nothing and much.
const RATES_OVER: Duration = Duration::from_secs(30);
/// Looks that rates are kept for, however often the page looks.
const LOOKS_MAX: usize = 64;

/// Keeps what rates are computed from.
#[derive(Debug)]
pub struct Gatherer {
    settings: Arc<ConsoleSettings>,
    http: Http,
    /// Oldest first.
    before: VecDeque<(Instant, BTreeMap<String, Readings>)>,
    /// What each shard told last, and when: for as long as it can't be asked.
    told: BTreeMap<String, (i64, Vec<EnvironmentState>)>,
    awaited: Awaited,
}

/// One program's answers.
#[derive(Debug)]
struct ProgramLook {
    state: ProgramState,
    readings: Option<Readings>,
    deep: DeepReport,
}

/// All programs now and some half a minute ago, and the time between.
#[derive(Debug)]
struct Flow<'a> {
    now: &'a BTreeMap<String, Readings>,
    before: Option<&'a BTreeMap<String, Readings>>,
    seconds: f64,
}

impl Gatherer {
    pub fn new(settings: &ConsoleSettings) -> Result<Self, HttpFault> {
        let mut settings = settings.clone();
        let deadline = settings.remote_deadline.get().min(LOOK_DEADLINE);
        settings.remote_deadline = Dur::from_millis(deadline.as_millis() as u64);
        let http = Http::new(deadline)?;
        let (before, told) = (VecDeque::new(), BTreeMap::new());
        let (settings, awaited) = (Arc::new(settings), Awaited::default());
        Ok(Self { settings, http, before, told, awaited })
    }

    /// The settings it looks with: the caller's, with a deadline fit for a page.
    pub fn settings(&self) -> &Arc<ConsoleSettings> {
        &self.settings
    }

    /// One look.
    pub async fn look(&mut self) -> Snapshot {
        let mut snapshot =
            Snapshot { at_ms: jiff::Timestamp::now().as_millisecond(), ..Snapshot::default() };
        let (programs, shards) = tokio::join!(self.programs(), self.shards(&mut snapshot.troubles));
        let mut now = BTreeMap::new();
        let mut deep = BTreeMap::new();
        for look in programs {
            if let Some(readings) = look.readings {
                now.insert(look.state.name.clone(), readings);
            }
            deep.insert(look.state.name.clone(), look.deep);
            snapshot.programs.push(look.state);
        }
        for look in shards {
            snapshot.environments.extend(self.environments(&look, snapshot.at_ms));
            snapshot.troubles.extend(look.trouble);
            snapshot.shards.push(look.state);
        }
        let flow = self.flow(&now);
        snapshot.hops = legs::hops(&flow, &snapshot);
        snapshot.components = judge::components(&flow, &deep, &snapshot);
        snapshot.redis_down = judge::redis_is_down(&deep);
        self.awaited.note(&mut snapshot);
        self.remember(now);
        snapshot
    }

    /// What the shard tells, or told when it last did: an environment does not vanish from the page
    /// in the hour in which everybody looks for it.
    fn environments(&mut self, look: &ShardLook, now_ms: i64) -> Vec<EnvironmentState> {
        let shard = &look.state.shard;
        if look.state.reachable {
            self.told.insert(shard.clone(), (now_ms, look.environments.clone()));
            return look.environments.clone();
        }
        let Some((at_ms, told)) = self.told.get(shard) else { return Vec::new() };
        let older_s = (now_ms - at_ms).max(0) / 1_000;
        let aged = |e: &EnvironmentState| EnvironmentState {
            freshest_s: e.freshest_s.map(|age| age + older_s),
            stalest_s: e.stalest_s.map(|age| age + older_s),
            unseen_since_ms: Some(*at_ms),
            ..e.clone()
        };
        told.iter().map(aged).collect()
    }

    fn flow<'a>(&'a self, now: &'a BTreeMap<String, Readings>) -> Flow<'a> {
        let before = self.before.front();
        Flow {
            now,
            before: before.map(|(_, readings)| readings),
            seconds: before.map_or(1.0, |(then, _)| then.elapsed().as_secs_f64().max(0.001)),
        }
    }

    /// Keeps this look, and as many before it as rates need.
    fn remember(&mut self, readings: BTreeMap<String, Readings>) {
        self.before.push_back((Instant::now(), readings));
        let is_old_enough = |look: Option<&(Instant, _)>| {
            look.is_some_and(|(then, _)| then.elapsed() >= RATES_OVER)
        };
        while is_old_enough(self.before.get(1)) || self.before.len() > LOOKS_MAX {
            self.before.pop_front();
        }
    }

    async fn programs(&self) -> Vec<ProgramLook> {
        let mut asking = JoinSet::new();
        for (order, program) in self.settings.status.programs.iter().enumerate() {
            let (http, program) = (self.http.clone(), program.clone());
            asking.spawn(async move { (order, programs::look(&http, &program).await) });
        }
        in_order(asking).await
    }

    async fn shards(&self, troubles: &mut Vec<String>) -> Vec<ShardLook> {
        let map = match ShardMap::load(&self.settings.shards_file) {
            Ok(map) => map,
            Err(error) => {
                troubles.push(error.to_string());
                return Vec::new();
            }
        };
        let mut asking = JoinSet::new();
        for (order, shard) in map.shards.iter().cloned().enumerate() {
            let settings = Arc::clone(&self.settings);
            asking.spawn(async move { (order, shards::look(&settings, &shard).await) });
        }
        let mut looks = in_order(asking).await;
        for look in &mut looks {
            // What a move left behind grows old at the old shard, and is nobody's delay.
            let home = |name: &str| map.shard_of_environment(name).map(|home| home.name.as_str());
            let shard = look.state.shard.as_str();
            look.environments.retain(|e| home(&e.environment).is_none_or(|home| home == shard));
        }
        looks
    }
}

/// All results, as they were asked for.
async fn in_order<T: 'static>(asking: JoinSet<(usize, T)>) -> Vec<T> {
    let mut answers = asking.join_all().await;
    answers.sort_by_key(|(order, _)| *order);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

impl Flow<'_> {
    /// The sum over all programs, now.
    fn sum(&self, name: &str) -> Option<f64> {
        self.now.values().filter_map(|readings| readings.sum(name)).reduce(|a, b| a + b)
    }

    fn peak(&self, name: &str) -> Option<f64> {
        self.now.values().filter_map(|readings| readings.peak(name)).reduce(f64::max)
    }

    /// How much a counter rose in that time. Per program, so that one that came or went
    /// is no jump; a counter that fell was restarted.
    fn risen(&self, of: impl Fn(&Readings) -> Option<f64>) -> Option<f64> {
        let before = self.before?;
        let risen = self.now.iter().filter_map(|(program, readings)| {
            let (new, old) = (of(readings)?, of(before.get(program)?).unwrap_or(0.0));
            Some(if new >= old { new - old } else { new })
        });
        risen.reduce(|a, b| a + b)
    }

    fn risen_sum(&self, name: &str) -> Option<f64> {
        self.risen(|readings| readings.sum(name))
    }

    fn rate(&self, name: &str) -> Option<f64> {
        self.risen_sum(name).map(|risen| risen / self.seconds)
    }

    /// A histogram's mean over that time, from seconds to milliseconds.
    fn mean_ms(&self, histogram: &str) -> Option<f64> {
        let count = self.risen_sum(&format!("{histogram}_count"))?;
        let sum = self.risen_sum(&format!("{histogram}_sum"))?;
        (count > 0.0).then(|| sum / count * 1e3)
    }
}

/// The first look, for a page that is asked before the second.
pub async fn first(settings: &ConsoleSettings) -> Result<(Gatherer, Snapshot), Failure> {
    let mut gatherer = Gatherer::new(settings)?;
    let snapshot = gatherer.look().await;
    Ok((gatherer, snapshot))
}
