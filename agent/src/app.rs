//! Wiring and shutdown order, nothing else.
//!
//! Up: spool → identity → delivery → inputs. Down, the same way a batch travels: inputs stop and
//! hand on their last window → assembly makes its batch and closes the epoch → delivery sends
//! what it can until the deadline → the spool keeps the rest.

use std::sync::Arc;
use std::time::Duration;

use spillway_runtime::program::{Context, Drained, Misconfigured, RunError, chain};
use tokio::sync::mpsc;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::assemble::{self, Assembler};
use crate::clock::{Clock, SystemClock};
use crate::collect::influx::Influx;
use crate::collect::rounds::{Rounds, WINDOWS_WAITING_MAX};
use crate::collect::sample::Sampler;
use crate::collect::statsd::Listener;
use crate::collect::tray::Tray;
use crate::collect::{host, paced, sources};
use crate::credential::Credential;
use crate::deliver::http_client::Internet;
use crate::deliver::{self, DeliveryStatus, Leftover, QUARANTINE_DIR, Stop};
use crate::folder::RealFolder;
use crate::identity::{Binding, CustodyLog, Identity};
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::spool::{Opened, Spool};
use crate::status;

/// Kept of the drain deadline for closing the spool and saying what was left.
const CLOSING_TIME: Duration = Duration::from_secs(2);

/// Runs the agent until it is told to stop.
///
/// # Errors
/// The state directory, the spool or what delivery needs can't be used.
pub async fn run(settings: Settings, ctx: Context) -> Result<Drained, RunError> {
    let token_file = settings.agent.token_file.clone().filter(|_| !settings.agent.token.is_set());
    let settings = Arc::new(settings.resolved().map_err(|e| Misconfigured(e.to_string()))?);
    let token = settings.agent.token.clone();
    let credential = match token_file {
        Some(file) => Credential::in_file(token, file, ctx.reload.clone()),
        None => Credential::fixed(token),
    };
    let metrics = ctx.metrics.register(Metrics::register);
    let (spool, identity) = open(&settings, &metrics).await?;
    let delivery = Arc::new(DeliveryStatus::new());
    let stop = Stop { drain: CancellationToken::new(), now: CancellationToken::new() };
    let log: Arc<dyn CustodyLog> = identity.clone();
    let parts = deliver::Parts {
        settings: Arc::clone(&settings),
        spool: spool.clone(),
        log: Arc::clone(&log),
        metrics: metrics.clone(),
        status: Arc::clone(&delivery),
        api_health: ctx.health.register("ingest-api"),
        s3_health: ctx.health.register("s3"),
        network: Arc::new(Internet),
        credential,
        quarantine: Arc::new(quarantine(&settings)),
    };
    let mut delivering = tokio::spawn(deliver::run(parts, stop.clone()));
    let mut inputs = Inputs::start(&settings, &identity, &spool, &delivery, &metrics)?;
    let state_dir = settings.agent.state_dir.clone();
    let page = inputs.status(settings, identity, spool.clone(), delivery, metrics);
    let serving = status::socket::serve(state_dir, move || page.page());
    let serving = tokio::spawn(serving);
    ctx.health.set_ready(true);

    // Delivery ends early only if it could not start, inputs only by a bug.
    let failed = tokio::select! {
        () = ctx.shutdown.wait() => None,
        ended = inputs.failed() => Some(ended),
        ended = &mut delivering => {
            ended?.map_err(|cause| Misconfigured(chain(&cause)))?;
            return Err(EndedEarly("delivery", None).into());
        }
    };
    inputs.stop().await;
    serving.abort();
    stop.drain.cancel();
    let budget = ctx.shutdown.drain_until() - CLOSING_TIME;
    let drained = tokio::time::timeout_at(budget, &mut delivering).await;
    let leftover = match drained {
        Ok(ended) => ended??,
        Err(_) => {
            stop.now.cancel();
            delivering.await??
        }
    };
    spool.close(&log).await;
    match failed {
        Some(cause) => Err(cause),
        None => Ok(verdict(leftover)),
    }
}

fn verdict(leftover: Leftover) -> Drained {
    match leftover {
        Leftover { batches: 0, .. } => Drained::Everything,
        Leftover { batches, volatile_batches: 0 } => Drained::Left(format!(
            "{batches} batches stay in the spool; they are sent after the next start"
        )),
        Leftover { batches, volatile_batches } => Drained::Left(format!(
            "{batches} batches were not sent; {volatile_batches} of them were in memory alone, are \
             lost with this process, and will be declared by the next one"
        )),
    }
}

/// Opens the spool and, knowing what it holds, begins an epoch.
async fn open(
    settings: &Arc<Settings>,
    metrics: &Metrics,
) -> Result<(Spool, Arc<Identity>), RunError> {
    let (settings, metrics) = (Arc::clone(settings), metrics.clone());
    let opening = tokio::task::spawn_blocking(move || {
        let elsewhere = deliver::quarantined(&quarantine(&settings));
        let opened = Spool::open(&settings, &settings.spool_dir(), &metrics, &elsewhere);
        let Opened { spool, found } = opened?;
        let totals = spool.totals();
        metrics.found(totals.batches, totals.points);
        let binding = Binding {
            environment: settings.agent.environment.clone(),
            host: settings.agent.host.clone(),
        };
        let state_dir = &settings.agent.state_dir;
        let identity = Identity::open(state_dir, binding, &found.highest_seq, metrics.clone())?;
        for damaged in found.damaged {
            // Unnoted, it is told by this run, and found again by the next one.
            metrics.found(damaged.last_seq - damaged.first_seq + 1, damaged.points);
            identity.gone(&damaged);
        }
        Ok::<_, RunError>((spool, Arc::new(identity)))
    });
    opening.await?
}

fn quarantine(settings: &Settings) -> RealFolder {
    RealFolder::new(&settings.agent.state_dir.join(QUARANTINE_DIR))
}

/// Part of the way stands still, though nobody asked for that: the process must start again.
#[derive(Debug, thiserror::Error)]
#[error("{0} ended by itself")]
struct EndedEarly(&'static str, #[source] Option<JoinError>);

/// Everything before the spool.
struct Inputs {
    stop: CancellationToken,
    listening: TaskTracker,
    /// Rounds and assembly.
    tasks: JoinSet<()>,
    listener: Listener,
    names: Vec<String>,
    troubles: crate::collect::sample::Troubles,
}

impl Inputs {
    fn start(
        settings: &Arc<Settings>,
        identity: &Arc<Identity>,
        spool: &Spool,
        delivery: &Arc<DeliveryStatus>,
        metrics: &Metrics,
    ) -> Result<Self, Misconfigured> {
        let (stop, listening) = (CancellationToken::new(), TaskTracker::new());
        let (windows, ready) = mpsc::channel(WINDOWS_WAITING_MAX);
        let assembler = Assembler::new(assemble::Parts {
            identity: Arc::clone(identity),
            spool: spool.clone(),
            delivery: Arc::clone(delivery),
            metrics: metrics.clone(),
            labels: settings.agent.labels.clone().into_iter().collect(),
            spread: settings.collect.spread.get(),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(assembler.run(ready));
        let listener = Listener::new(&settings.statsd, metrics.clone());
        listener.start(&settings.statsd, &listening, &stop);
        let collect = &settings.collect;
        let inputs = host::inputs(settings, metrics);
        let sampler = Sampler::new(inputs, collect.input_deadline(), metrics.clone());
        let troubles = sampler.troubles();
        let tray = Tray::new(collect.tray_bytes_max.as_usize());
        let surroundings = paced::Surroundings {
            tray: tray.clone(),
            clock: Arc::new(SystemClock),
            troubles: troubles.clone(),
            metrics: metrics.clone(),
        };
        let paced = sources::all(settings, &listener).map_err(|e| Misconfigured(chain(&e)))?;
        let own = sampler.names().into_iter().map(str::to_owned);
        let influx = Influx::new(&settings.influx, surroundings.clone());
        let names = own.chain(influx.shown()).chain(sources::shown(&paced)).collect();
        surroundings.start(paced, &listening, &stop);
        influx.start(&listening, &stop);
        listening.close();
        let rounds = Rounds {
            sampler,
            listener: listener.clone(),
            tray,
            interval: collect.interval.get(),
            clock: SystemClock,
            metrics: metrics.clone(),
            windows,
        };
        tasks.spawn(rounds.run(stop.clone()));
        Ok(Self { stop, listening, tasks, listener, names, troubles })
    }

    fn status(
        &self,
        settings: Arc<Settings>,
        identity: Arc<Identity>,
        spool: Spool,
        delivery: Arc<DeliveryStatus>,
        metrics: Metrics,
    ) -> status::Sources {
        status::Sources {
            settings,
            identity,
            inputs: self.names.clone(),
            troubles: self.troubles.clone(),
            listener: self.listener.clone(),
            spool,
            delivery,
            metrics,
            started_ms: SystemClock.wall_ms(),
        }
    }

    /// Stops listening and reading, and waits until all that was measured is in the spool. Each
    /// step is bounded: rounds by the inputs' deadline, assembly by the spool's.
    async fn stop(mut self) {
        self.stop.cancel();
        self.listening.wait().await;
        while let Some(ended) = self.tasks.join_next().await {
            if let Err(cause) = ended {
                tracing::error!(%cause, "an input task failed");
            }
        }
    }

    /// Waits for one of them to end before it was told to.
    async fn failed(&mut self) -> RunError {
        match self.tasks.join_next().await {
            Some(Err(cause)) => EndedEarly("an input", Some(cause)).into(),
            Some(Ok(())) | None => EndedEarly("an input", None).into(),
        }
    }
}
