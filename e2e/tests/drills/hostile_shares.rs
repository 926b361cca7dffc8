//! Fair shares: what one environment's flood does to another's answers. Alone and beside take turns
//! within one run, round by round, so that what else the machine does falls on both; judged is the
//! median of the rounds' ratios. The consumer is stopped meanwhile: it is not what is measured, and
//! it would share the processors. About two minutes.

use std::sync::Arc;
use std::time::Duration;

use spillway_e2e::recipe::series_of_window;
use spillway_e2e::rig::Rig;
use spillway_proto::frame::Encoder;
use spillway_proto::{Batch, BatchId};
use spillway_testkit::stack::StackOptions;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::hostile_load::{Neighbour, Timed, percentile_ms};
use crate::hostile_wire::{frame_of_zeros, post_as};

const ROUNDS: usize = 5;
const PHASE: Duration = Duration::from_secs(3);
/// Connections of a flood; the neighbour has one, with pauses.
const FLOOD: usize = 32;
/// Far beyond what is fair: on two processors that all share, noise alone makes three of one.
const RATIO_MAX: f64 = 25.0;

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

/// Sends `request` again and again, as fast as answers come.
async fn flood(address: String, request: Arc<Vec<u8>>) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let Ok(mut stream) = TcpStream::connect(&address).await else { continue };
        while stream.write_all(&request).await.is_ok() {
            match stream.read(&mut buffer).await {
                Ok(count) if count > 0 => {}
                Ok(_) | Err(_) => break,
            }
        }
    }
}

async fn phase(neighbour: &Neighbour) -> Vec<Timed> {
    let _from_before = neighbour.take();
    tokio::time::sleep(PHASE).await;
    neighbour.take()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers.get(numbers.len() / 2).copied().unwrap_or(f64::NAN)
}

#[tokio::test(flavor = "multi_thread")]
async fn one_environments_hostile_flood_leaves_anothers_answers_as_they_were() {
    let rig = Rig::start(StackOptions { keeper: false, ..StackOptions::default() }).await;
    rig.stack.kill("consumer-0").await.expect("it runs");
    let file = rig.stack.file();
    let url = file.api.first().expect("there is an API").trim_start_matches("http://").to_owned();
    let token = |name: &str| file.tokens.get(name).expect("it has a token").clone();
    let acme = token("acme");
    let neighbour = Neighbour::start(url.clone(), token("globex"), "globex");
    let floods = [
        ("batches of 2,000 points", batch(&acme)),
        ("line protocol of 5,000 lines", lines(&acme)),
        ("128 MiB in 32 kilobytes", post_as(&acme, &[], &frame_of_zeros().repeat(32))),
    ];
    println!("| flood | alone p50, p99 (ms) | beside p50, p99 (ms) | ratio p50, p99 |");
    println!("|---|---|---|---|");
    for (name, request) in floods {
        let request = Arc::new(request);
        let (mut rounds, mut refused) = (Vec::new(), 0);
        for _ in 0..ROUNDS {
            let alone = phase(&neighbour).await;
            let mut crowd = JoinSet::new();
            for _ in 0..FLOOD {
                crowd.spawn(flood(url.clone(), Arc::clone(&request)));
            }
            let beside = phase(&neighbour).await;
            crowd.shutdown().await;
            refused += beside.iter().filter(|(_, status)| *status != 200).count();
            let all = [(&alone, 50), (&alone, 99), (&beside, 50), (&beside, 99)];
            rounds.push(all.map(|(timed, percent)| percentile_ms(timed, percent)));
        }
        let middle = |of: fn(&[f64; 4]) -> f64| median(rounds.iter().map(of).collect());
        let (p50, p99) = (middle(|round| round[2] / round[0]), middle(|round| round[3] / round[1]));
        println!(
            "| {name} | {:.0}, {:.0} | {:.0}, {:.0} | {p50:.1}, {p99:.1} |",
            middle(|round| round[0]),
            middle(|round| round[1]),
            middle(|round| round[2]),
            middle(|round| round[3]),
        );
        assert_eq!(refused, 0, "{name}: the neighbour was refused");
        assert!(p50 < RATIO_MAX, "{name}: {p50} times as long");
    }
}
