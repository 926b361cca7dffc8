//! Wiring and shutdown: every shard gets every duty, each in a task of its own.

use spillway_runtime::admin::DependencyProbe;
use spillway_runtime::program::{Context, Drained, RunError};
use spillway_runtime::shards::ShardFile;
use tokio::task::JoinSet;

use crate::anomalies::Anomalies;
use crate::duty::{Duty, Frame};
use crate::kafka::Kafka;
use crate::lag::Lag;
use crate::last_seen::LastSeen;
use crate::metrics::Metrics;
use crate::pace::Pace;
use crate::partitions::Partitions;
use crate::readers::Readers;
use crate::retention::Retention;
use crate::rollups::Rollups;
use crate::settings::KeeperSettings;
use crate::shard::ShardHandle;
use crate::trim::Trim;

/// What all shards' duties share.
struct Parts {
    settings: KeeperSettings,
    ctx: Context,
    metrics: Metrics,
    kafka: Kafka,
}

/// Runs until shutdown. Duties write nothing that must be finished, so nothing can be left.
pub async fn run(settings: KeeperSettings, ctx: Context) -> Result<Drained, RunError> {
    let metrics = Metrics::register(&ctx.metrics);
    let shards = ShardFile::watch(&settings.shards_file, ctx.reload.clone())?;
    let (kafka, _thread) = Kafka::start(&settings.kafka)?;
    let mut changed = shards.subscribe();
    let parts = Parts { settings, ctx: ctx.clone(), metrics, kafka };
    ctx.health.set_ready(true);
    while !ctx.shutdown.requested() {
        changed.mark_unchanged();
        let mut duties = JoinSet::new();
        for shard in ShardHandle::all(&shards.current(), &parts.settings.mysql)? {
            parts.attend(&mut duties, shard)?;
        }
        // A changed map (a failover, a moved group) starts all duties anew; each may be dropped
        // at any await.
        tokio::select! {
            () = ctx.shutdown.wait() => {}
            _ = changed.changed() => tracing::info!("the shard map changed"),
            // A duty that failed would never be done again, in silence.
            Some(Err(failed)) = duties.join_next() => return Err(failed.into()),
        }
        duties.shutdown().await;
    }
    Ok(Drained::Everything)
}

impl Parts {
    fn attend(&self, duties: &mut JoinSet<()>, shard: ShardHandle) -> Result<(), RunError> {
        let Self { settings, metrics, kafka, .. } = self;
        self.start(duties, &shard, Partitions::new(shard.clone(), settings, metrics));
        self.start(duties, &shard, Retention::new(shard.clone(), settings, metrics));
        let pace = Pace::new(&shard.name, &settings.pace, metrics);
        let rollups = Rollups::new(shard.clone(), &settings.rollups, pace.clone(), metrics);
        self.start(duties, &shard, rollups);
        let anomalies = Anomalies::new(shard.clone(), &settings.anomalies, pace, metrics);
        self.start(duties, &shard, anomalies);
        self.start(duties, &shard, Readers::new(shard.clone(), &settings.readers, metrics));
        self.start(duties, &shard, Lag::new(shard.clone(), kafka.clone(), &settings.lag, metrics));
        if let Some(last_seen) = LastSeen::new(shard.clone(), &settings.redis, metrics) {
            self.start(duties, &shard, last_seen);
        }
        if settings.trim.enabled {
            let ages = (settings.trim.interval, settings.ages.replay_window);
            let kafka = (kafka.clone(), &settings.kafka);
            self.start(duties, &shard, Trim::new(shard.clone(), kafka, ages, metrics)?);
        }
        Ok(())
    }

    fn start<D: Duty>(&self, duties: &mut JoinSet<()>, shard: &ShardHandle, duty: D) {
        let frame = Frame {
            shard: shard.name.clone(),
            metrics: self.metrics.clone(),
            probe: self.probe::<D>(shard),
            shutdown: self.ctx.shutdown.clone(),
        };
        duties.spawn(frame.attend(duty));
    }

    fn probe<D: Duty>(&self, shard: &ShardHandle) -> DependencyProbe {
        self.ctx.health.register(&format!("{}-{}", D::NAME, shard.name))
    }
}
