//! The neighbour: an honest, steady load of another environment, each answer timed.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use spillway_e2e::recipe::series_of_window;
use spillway_proto::frame::Encoder;
use spillway_proto::{Batch, BatchId};
use tokio::io::AsyncWriteExt as _;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use crate::hostile_way::Way;
use crate::hostile_wire::{answer, post_as};

/// Between two requests: enough for a percentile in a second or two, little for the server.
const PACE: Duration = Duration::from_millis(15);

/// One request: when it began, how long its answer took, its status.
pub type Timed = (Duration, u16);

pub struct Neighbour {
    timed: Arc<Mutex<Vec<Timed>>>,
    task: JoinHandle<()>,
}

impl Neighbour {
    pub fn start(address: String, token: String, environment: &str) -> Self {
        Self::over(Way::Plain, &address, token, environment)
    }

    /// A new connection of this kind for each request.
    pub fn over(way: Way, address: &str, token: String, environment: &str) -> Self {
        let timed = Arc::new(Mutex::new(Vec::new()));
        let way = (way, address.parse().expect("an address"));
        let task = tokio::spawn(play(way, token, environment.to_owned(), Arc::clone(&timed)));
        Self { timed, task }
    }

    /// What was answered since the last look.
    pub fn take(&self) -> Vec<Timed> {
        std::mem::take(&mut *self.timed.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The start of a window that is neither too old to be kept nor in the future, s.
pub fn recent_window() -> u32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = since.map_or(0, |since| since.as_secs());
    u32::try_from(now / 10 * 10).unwrap_or(0).saturating_sub(3_600)
}

/// The time that 99 of 100 answers did not exceed, in milliseconds.
pub fn p99_ms(timed: &[Timed]) -> f64 {
    percentile_ms(timed, 99)
}

/// The time that so many of 100 answers did not exceed, in milliseconds.
pub fn percentile_ms(timed: &[Timed], percent: usize) -> f64 {
    let mut took: Vec<Duration> = timed.iter().map(|(took, _)| *took).collect();
    took.sort_unstable();
    let at = (took.len() * percent).div_ceil(100).saturating_sub(1);
    took.get(at).map_or(f64::NAN, |took| took.as_secs_f64() * 1e3)
}

async fn play(
    (way, address): (Way, SocketAddr),
    token: String,
    environment: String,
    timed: Arc<Mutex<Vec<Timed>>>,
) {
    let (agent_id, epoch) = (Uuid::new_v4(), Uuid::now_v7());
    let mut encoder = Encoder::new();
    for seq in 1.. {
        let window_ts = 1_760_000_000 + seq as u32 % 300_000 * 10;
        let batch = Batch {
            id: BatchId::Sequenced { agent_id, epoch, seq },
            environment: environment.clone(),
            host: "neighbour".to_owned(),
            window_ts,
            series: series_of_window(window_ts, 3, 2),
            previous: None,
            declarations: Vec::new(),
            closing: false,
            host_info: None,
        };
        let frame = encoder.encode(&batch).expect("a made-up batch is valid");
        let request = post_as(&token, &[("Connection", "close")], &frame);
        let began = Instant::now();
        let status = match way.connect(address, None).await {
            Ok(mut stream) => match stream.write_all(&request).await {
                Ok(()) => answer(&mut stream).await,
                Err(_) => 0,
            },
            Err(_) => 0,
        };
        let one = (began.elapsed(), status);
        timed.lock().unwrap_or_else(PoisonError::into_inner).push(one);
        tokio::time::sleep(PACE).await;
    }
}
