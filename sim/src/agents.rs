//! Agents: the real assembler, identity, spool and delivery on a machine of this simulation,
//! started again whenever it dies.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use spillway_agent::assemble::{self, Assembler, Ended, Kept, Window};
use spillway_agent::collect::Reading;
use spillway_agent::credential::Credential;
use spillway_agent::deliver::{self, DeliveryStatus, Stop};
use spillway_agent::identity::{Binding, CustodyLog, GivenUpReason, Identity};
use spillway_agent::metrics::{Metrics, Reason};
use spillway_agent::settings::Settings;
use spillway_agent::spool::{Opened, Spool, SpoolTask};
use spillway_proto::batch::window_of;
use spillway_proto::{BatchId, Kind};
use spillway_runtime::outside;
use spillway_runtime::program::Context;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::chance;
use crate::machine::{Life, Machine, SimDisk};
use crate::network::{Places, Wire};
use crate::oracle::MARKER;
use crate::weather::Fault;
use crate::world::{ENVIRONMENT, World};

/// What a clean stop may take.
const DRAIN: Duration = Duration::from_secs(60);
/// Markers of different agents lie this far apart.
const MARKERS_APART: u64 = 1_000_000;

/// One agent and its machine.
pub struct Agent {
    pub number: usize,
    pub machine: Machine,
    places: Places,
    settings: Arc<Settings>,
    /// Incompressible bytes in a window, at most.
    ballast_max: u64,
    /// Between windows.
    pub window_every: Duration,
    marker: AtomicU64,
    /// Wall clock minus the world's.
    pub clock_off_ms: AtomicI64,
    /// Asked to stop in order, for good.
    pub stopping: CancellationToken,
    /// Asked to stop in order, and to start again.
    pub restart: AtomicBool,
    waiting: AtomicU64,
}

/// What runs between a start and an end.
struct Run {
    life: Life,
    identity: Arc<Identity>,
    log: Arc<dyn CustodyLog>,
    spool: Spool,
    metrics: Metrics,
    assembler: Assembler,
    stop: Stop,
    delivering: tokio::task::JoinHandle<Result<deliver::Leftover, deliver::StartError>>,
    /// Batches that spool and quarantine held at the start, and those it could only name.
    found: u64,
}

impl Agent {
    #[must_use]
    pub fn new(number: usize, places: &Places, settings: Settings, ballast_max: u64) -> Arc<Self> {
        let mut settings = settings;
        settings.agent.host = format!("host-{number}");
        Arc::new(Self {
            number,
            machine: Machine::new(&places.world, number),
            places: places.clone(),
            settings: Arc::new(settings),
            ballast_max,
            window_every: chance::ms(800, 2_500),
            marker: AtomicU64::new(MARKERS_APART * (number as u64 + 1)),
            clock_off_ms: AtomicI64::default(),
            stopping: CancellationToken::new(),
            restart: AtomicBool::new(false),
            waiting: AtomicU64::new(u64::MAX),
        })
    }

    fn world(&self) -> &Arc<World> {
        &self.places.world
    }

    /// Batches in its spool and quarantine; none is known while it is down.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Lives until it is asked to stop.
    pub async fn run(self: Arc<Self>) {
        loop {
            let life = self.machine.begin();
            match self.begin(&life) {
                Some(run) => self.live(run).await,
                None => crate::note!(self.world().history, "agent {}: can't start", self.number),
            }
            self.waiting.store(u64::MAX, Ordering::Relaxed);
            if self.stopping.is_cancelled() && life.is_on() {
                return;
            }
            self.machine.kill();
            tokio::time::sleep(chance::ms(200, 6_000)).await;
        }
    }

    fn begin(&self, life: &Life) -> Option<Run> {
        let (settings, metrics) = (&self.settings, Metrics::default());
        let elsewhere = deliver::quarantined(&*life.folder("quarantine"));
        let opened = Spool::simulated(settings, life.disk(), &metrics, &elsewhere);
        let (Opened { spool, found }, task) = opened.ok()?;
        let binding =
            Binding { environment: ENVIRONMENT.to_owned(), host: settings.agent.host.clone() };
        let state = life.folder("state");
        let identity = Identity::begin(state, binding, &found.highest_seq, metrics.clone());
        let identity = Arc::new(identity.ok()?);
        let (epoch, _) = identity.position();
        crate::note!(
            self.world().history,
            "agent {}: epoch {epoch}, {} found, {} damaged",
            self.number,
            found.batches,
            found.damaged.len()
        );
        for lost in found.damaged {
            identity.gone(&lost);
        }
        // A crash may bring back what an earlier life has named: only what is news came here.
        let named = declared(&metrics);
        tokio::spawn(keep_spool(task, life.clone(), Arc::clone(self.world())));
        let delivery = Arc::new(DeliveryStatus::new());
        let stop = Stop { drain: CancellationToken::new(), now: CancellationToken::new() };
        let context = Context::for_test("agent");
        let parts = deliver::Parts {
            settings: Arc::clone(settings),
            spool: spool.clone(),
            log: identity.clone(),
            metrics: metrics.clone(),
            status: Arc::clone(&delivery),
            api_health: context.health.register("ingest-api"),
            s3_health: context.health.register("s3"),
            network: Arc::new(Wire { places: self.places.clone(), life: life.clone() }),
            credential: Credential::fixed(settings.agent.token.clone()),
            quarantine: life.folder("quarantine"),
        };
        let delivering = tokio::spawn(deliver::run(parts, stop.clone()));
        let assembler = Assembler::new(assemble::Parts {
            identity: Arc::clone(&identity),
            spool: spool.clone(),
            delivery,
            metrics: metrics.clone(),
            labels: Vec::new(),
            spread: Duration::ZERO,
        });
        let (life, found) = (life.clone(), found.batches + named + refused(life));
        let log: Arc<dyn CustodyLog> = identity.clone();
        Some(Run { life, identity, log, spool, metrics, assembler, stop, delivering, found })
    }

    async fn live(&self, mut run: Run) {
        let life = run.life.clone();
        let ended = tokio::select! {
            biased;
            () = life.ended() => true,
            () = self.measure(&mut run) => false,
        };
        let (epoch, seq) = run.identity.position();
        self.world().oracle().gave(epoch, seq);
        if ended {
            // What its tasks still do has no effect; they end by themselves.
            crate::note!(self.world().history, "agent {}: dies", self.number);
            run.stop.now.cancel();
            return;
        }
        tokio::select! {
            biased;
            () = life.ended() => run.stop.now.cancel(),
            () = self.end(&mut run) => {}
        }
        // Also the closing batch's, if the end came before its answer.
        let (epoch, seq) = run.identity.position();
        self.world().oracle().gave(epoch, seq);
    }

    /// Window after window, until it is asked to stop.
    async fn measure(&self, run: &mut Run) {
        while !self.stopping.is_cancelled() && !self.restart.swap(false, Ordering::Relaxed) {
            let (window, ended, marker) = self.window(&run.metrics);
            let window_ts = window_of(ended.ts_ms).unwrap_or_default();
            let kept = run.assembler.assemble(window, ended, window_ts).await;
            if kept.len() != 1 {
                self.world().violate(format!("one window became {} batches", kept.len()));
            }
            for kept in kept {
                self.kept(&run.life, kept, marker);
            }
            tokio::time::sleep(self.window_every).await;
            self.look(run);
        }
    }

    fn look(&self, run: &Run) {
        let waiting = run.spool.totals().batches + refused(&run.life);
        self.waiting.store(waiting, Ordering::Relaxed);
        let (bytes, most) = (self.machine.spool_bytes(), self.settings.spool.bytes_max.get());
        if bytes > most {
            self.world().violate(format!("the spool takes {bytes} bytes of {most}"));
        }
        let dropped = Reason { reason: "dropped-in-hand" };
        if run.metrics.spool_errors.get_or_create(&dropped).get() > 0 {
            self.world().violate("a batch in hand was dropped".to_owned());
        }
    }

    fn kept(&self, life: &Life, kept: Kept, marker: u64) {
        let (id, custody) = (kept.id, kept.custody);
        crate::note!(self.world().history, "agent {}: {id} is {custody:?}", self.number);
        // What a process says after its end was never said.
        if life.is_on() {
            self.world().oracle().kept(kept, marker);
        } else if let BatchId::Sequenced { epoch, seq, .. } = id {
            self.world().oracle().gave(epoch, seq);
        }
    }

    fn window(&self, metrics: &Metrics) -> (Window, Ended, u64) {
        let marker = self.marker.fetch_add(1, Ordering::Relaxed);
        let wall_ms = outside::wall_ms() + self.clock_off_ms.load(Ordering::Relaxed);
        // One window of the grid each, however quickly they follow.
        let ts_ms =
            (outside::wall_ms() / 10_000 + i64::try_from(marker).unwrap_or_default()) * 10_000;
        let mut window = Window::default();
        let gauge = |metric: &'static str, value: f64| Reading {
            metric: Cow::Borrowed(metric),
            labels: Vec::new(),
            kind: Kind::Gauge,
            unit: "1",
            value,
        };
        window.add(ts_ms, gauge(MARKER, marker as f64), metrics);
        for part in 0..chance::below(self.ballast_max / 512 + 1) {
            let noise: String =
                (0..60).map(|_| format!("{:016x}", chance::below(u64::MAX))).collect();
            let labels =
                vec![(Cow::Borrowed("noise"), noise), (Cow::Borrowed("part"), part.to_string())];
            window.add(ts_ms, Reading { labels, ..gauge("sim.ballast", 1.0) }, metrics);
        }
        let at = Instant::now().into_std();
        let boot_ms = outside::wall_ms() - crate::world::WALL_MS + 1_000_000;
        (window, Ended { ts_ms, wall_ms, boot_ms, at }, marker)
    }

    /// A clean end, in the order of the agent's own `app.rs`.
    async fn end(&self, run: &mut Run) {
        let last = window_of(outside::wall_ms()).unwrap_or_default();
        if let Some(kept) = run.assembler.close(last).await
            && let BatchId::Sequenced { epoch, seq, .. } = kept.id
        {
            crate::note!(self.world().history, "agent {}: closes with {seq}", self.number);
            self.world().oracle().gave(epoch, seq);
        }
        run.stop.drain.cancel();
        let drained = tokio::time::timeout(DRAIN, &mut run.delivering).await;
        if drained.is_err() {
            run.stop.now.cancel();
            let _ended = (&mut run.delivering).await.is_ok();
        }
        let left = run.spool.settled_totals().await.batches;
        if run.life.is_on() && !self.machine.state_failed() {
            self.conserve(run, left);
        }
        run.spool.clone().close(&run.log).await;
        crate::note!(self.world().history, "agent {}: stops, {left} left", self.number);
    }

    /// What came in is what went out and what is left, by the agent's own numbers.
    fn conserve(&self, run: &Run, left: u64) {
        let metrics = &run.metrics;
        let declared = declared(metrics);
        let found = run.found + metrics.spool_late_batches.get();
        let came = found + metrics.batches_emitted.get();
        let (acked, parked) = (metrics.batches_acked.get(), metrics.batches_parked.get());
        let left = left + refused(&run.life);
        // To count what is in quarantine takes the disk, and the power may go meanwhile.
        if run.life.is_on() && came != acked + parked + declared + left {
            self.world().violate(format!(
                "agent {}: {came} came, {acked} acked, {parked} parked, {declared} declared, \
                 {left} left",
                self.number
            ));
        }
    }
}

/// Batches that this life gave up, by the agent's own numbers.
fn declared(metrics: &Metrics) -> u64 {
    let reasons = GivenUpReason::ALL.iter().map(|reason| Reason { reason: reason.as_str() });
    reasons.map(|reason| metrics.batches_declared.get_or_create(&reason).get()).sum()
}

/// Batches in quarantine that were not given up yet.
fn refused(life: &Life) -> u64 {
    let folder = life.folder("quarantine");
    let names = folder.names().unwrap_or_default();
    let notes = names.iter().filter(|name| name.ends_with(".json"));
    let notes = notes.filter_map(|name| folder.read(name, u64::MAX).ok());
    notes.filter(|note| note.windows(16).any(|text| text == br#""declared":false"#)).count() as u64
}

/// What the spool's thread does, at the disk's own speed.
async fn keep_spool(task: SpoolTask<SimDisk>, life: Life, world: Arc<World>) {
    let mut task = Some(task);
    while let Some(waiting) = task.take() {
        waiting.wait().await;
        if world.weather.strikes(Fault::DiskSlow) {
            tokio::time::sleep(chance::ms(100, 4_000)).await;
        } else {
            tokio::time::sleep(chance::ms(0, 5)).await;
        }
        if !life.is_on() {
            // Nobody answers any more: whoever asks runs into his deadline.
            return std::future::pending().await;
        }
        task = waiting.turn();
    }
}
