//! Fair shares: what one environment's flood does to another's answers. The neighbour alone, beside
//! a placebo and beside the flood take turns within one run, round by round, so that what else the
//! machine does falls on all; judged is the median of the rounds' ratios. The placebo is the same
//! flood at the same pace against a sink: what it does to the neighbour is what strangers cost who
//! share its processors, and beyond it is what the server lets them do. A second neighbour sends
//! what is refused by name, and so never waits for Kafka: what it feels is the API's doing alone.
//! The consumer is stopped meanwhile: it is not what is measured, and it would share the
//! processors. About four minutes.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use spillway_e2e::recipe::series_of_window;
use spillway_e2e::rig::Rig;
use spillway_proto::frame::Encoder;
use spillway_proto::{Batch, BatchId};
use spillway_testkit::stack::StackOptions;
use uuid::Uuid;

use crate::hostile_crowd::{Sink, Strangers};
use crate::hostile_load::{Neighbour, Timed, percentile_ms};
use crate::hostile_wire::{frame_of_zeros, post_as};

const ROUNDS: usize = 7;
const PHASE: Duration = Duration::from_secs(3);
/// Between two phases: what the last one left with Kafka is done.
const CALM: Duration = Duration::from_millis(500);
/// Connections of a flood; the neighbour has one, with pauses.
const FLOOD: usize = 32;
/// Far beyond what is fair: on two processors that all share, noise alone makes three of one.
const RATIO_MAX: f64 = 10.0;

/// A request that is large for its kind: 200 series of ten points.
fn batch(token: &str) -> Vec<u8> {
    let window_ts = 1_760_000_000;
    let batch = Batch {
        id: BatchId::Sequenced { agent_id: Uuid::new_v4(), epoch: Uuid::now_v7(), seq: 1 },
        environment: "acme".to_owned(),
        host: "flood".to_owned(),
        window_ts,
        series: series_of_window(window_ts, 200, 10),
        previous: None,
        declarations: Vec::new(),
        closing: false,
        host_info: None,
    };
    let frame = Encoder::new().encode(&batch).expect("a made-up batch is valid");
    post_as(token, &[], &frame)
}

fn lines(token: &str) -> Vec<u8> {
    let lines = (0..5_000).map(|n| format!("m,host=flood,n={n} f={n} 1760000000000000000\n"));
    let request = post_as(token, &[], lines.collect::<String>().as_bytes());
    String::from_utf8_lossy(&request).replacen("/v1/batches", "/write", 1).into_bytes()
}

/// The neighbour, and the one whose batches are of another environment than its token.
struct Neighbours([Neighbour; 2]);

impl Neighbours {
    async fn phase(&self) -> [Vec<Timed>; 2] {
        let _from_before = self.0.each_ref().map(Neighbour::take);
        tokio::time::sleep(PHASE).await;
        self.0.each_ref().map(Neighbour::take)
    }
}

/// One round: the neighbours alone, beside the placebo, beside the flood.
struct Round {
    alone: [Vec<Timed>; 2],
    placebo: [Vec<Timed>; 2],
    beside: [Vec<Timed>; 2],
    /// Answers that the flood had in a second, of the server and of the sink.
    per_second: [f64; 2],
}

impl Round {
    async fn play(
        neighbours: &Neighbours,
        address: &str,
        request: &Arc<Vec<u8>>,
        sink: &Sink,
    ) -> Self {
        let flooded = async |address: &str| {
            let answers = Arc::new(AtomicU64::new(0));
            let flood = Strangers::flood(address, request, FLOOD, &answers);
            tokio::time::sleep(CALM).await;
            answers.store(0, Ordering::Relaxed);
            let timed = neighbours.phase().await;
            let per_second = answers.load(Ordering::Relaxed) as f64 / PHASE.as_secs_f64();
            drop(flood);
            tokio::time::sleep(CALM).await;
            (timed, per_second)
        };
        let alone = neighbours.phase().await;
        let (beside, by_server) = flooded(address).await;
        sink.pace(by_server);
        let (placebo, by_sink) = flooded(&sink.address.to_string()).await;
        Self { alone, placebo, beside, per_second: [by_server, by_sink] }
    }

    fn ratio(&self, who: usize, percent: usize) -> f64 {
        percentile_ms(&self.beside[who], percent) / percentile_ms(&self.placebo[who], percent)
    }
}

fn median(numbers: impl Iterator<Item = f64>) -> f64 {
    let mut numbers: Vec<f64> = numbers.collect();
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Two rows of docs/security.md; returns the ratio of the medians' times, beside to placebo.
fn tell(name: &str, rounds: &[Round]) -> f64 {
    let middle = |of: &dyn Fn(&Round) -> f64| median(rounds.iter().map(of));
    for (who, by) in ["", ", without Kafka"].into_iter().enumerate() {
        let both = |of: fn(&Round) -> &[Vec<Timed>; 2]| {
            let at = |percent| middle(&|round| percentile_ms(&of(round)[who], percent));
            format!("{:.0}, {:.0}", at(50), at(99))
        };
        let ratio = |percent| middle(&|round| round.ratio(who, percent));
        println!(
            "| {name}{by} | {:.0}, {:.0} | {} | {} | {} | {:.2}, {:.2} |",
            middle(&|round| round.per_second[0]),
            middle(&|round| round.per_second[1]),
            both(|round| &round.alone),
            both(|round| &round.placebo),
            both(|round| &round.beside),
            ratio(50),
            ratio(99),
        );
    }
    middle(&|round| round.ratio(0, 50))
}

#[tokio::test(flavor = "multi_thread")]
async fn one_environments_hostile_flood_leaves_anothers_answers_as_they_were() {
    let rig = Rig::start(StackOptions { keeper: false, ..StackOptions::default() }).await;
    rig.stack.kill("consumer-0").await.expect("it runs");
    let file = rig.stack.file();
    let url = file.api.first().expect("there is an API").trim_start_matches("http://").to_owned();
    let token = |name: &str| file.tokens.get(name).expect("it has a token").clone();
    let acme = token("acme");
    let of = |environment| Neighbour::start(url.clone(), token("globex"), environment);
    let neighbours = Neighbours([of("globex"), of("nobody")]);
    let floods = [
        ("batches of 2,000 points", batch(&acme)),
        ("line protocol of 5,000 lines", lines(&acme)),
        ("128 MiB in 32 kilobytes", post_as(&acme, &[], &frame_of_zeros().repeat(32))),
    ];
    println!("| flood | answers a second, of API and sink | alone | placebo | beside | ratio |");
    println!("|---|---|---|---|---|---|");
    for (name, request) in floods {
        let sink = Sink::start(request.len());
        let request = Arc::new(request);
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            rounds.push(Round::play(&neighbours, &url, &request, &sink).await);
        }
        let ratio = tell(name, &rounds);
        let of = |round: &Round| {
            round.beside.iter().flatten().filter(|(_, status)| *status != 200).count()
        };
        assert_eq!(rounds.iter().map(of).sum::<usize>(), 0, "{name}: the neighbour was refused");
        assert!(ratio < RATIO_MAX, "{name}: {ratio} times as long");
    }
}
