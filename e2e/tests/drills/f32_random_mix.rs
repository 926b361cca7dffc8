//! Two or three faults at a time, chosen by a seed: `cargo xtask drill random --seed N`.

use std::time::Duration;

use futures_util::future::join_all;
use spillway_e2e::random_faults::{Fault, Injection, Mix, WIRES};
use spillway_e2e::rig::Rig;
use spillway_e2e::{Fate, Sender, SenderOptions};
use spillway_testkit::proxy::Mode;
use spillway_testkit::stack::{End, StackOptions};
use tokio::time::{Instant, sleep};

/// Between two batches of one played host.
const PACE: Duration = Duration::from_millis(400);
/// A supervisor starts again what can't start yet, so often.
const STARTS_MAX: u32 = 20;
/// The group forgets a dead member soon; the proxies can recognise a COMMIT.
const CONSUMER: &str = "[group]\nsession_timeout = \"10s\"\n[mysql]\ntls = \"disabled\"";

fn variable(name: &str, or: u64) -> u64 {
    std::env::var(name).map_or(or, |text| text.parse().expect("a number"))
}

#[tokio::test(flavor = "multi_thread")]
async fn after_any_mix_of_faults_everything_arrived_once() {
    let length = Duration::from_secs(60 * variable("SPILLWAY_DRILL_MINUTES", 1));
    let mix = Mix::of(variable("SPILLWAY_DRILL_SEED", 1), length);
    eprintln!("{mix}");
    let options = StackOptions {
        shards: 2,
        apis: 2,
        consumers: 2,
        recovery_workers: 2,
        links: WIRES.to_vec(),
        ..StackOptions::default()
    };
    let rig = Rig::start(options.set("consumer", CONSUMER)).await;
    let agents =
        [rig.agent("mix-agent-demo", "demo").await, rig.agent("mix-agent-globex", "globex").await];
    let loads = ["demo", "globex"].map(|environment| load(&rig, environment, length));

    for burst in &mix.bursts {
        join_all(burst.injections.iter().map(|one| inject(&rig, one))).await;
        sleep(burst.pause).await;
    }
    let healed = Instant::now();
    let mut points = 0;
    for load in loads {
        let (ledger, _) = rig.judge(load).await;
        points += ledger.points(Fate::Ok);
    }
    for agent in &agents {
        rig.judge_agent(agent).await;
    }
    rig.until("recovery-worker-0", "spillway_recovery_objects_pending", |n| n == 0.0).await;
    let (seed, faults) = (mix.seed, mix.faults());
    let took = healed.elapsed().as_secs_f64();
    println!(
        "seed {seed}: {faults} faults, {points} points and 2 agents, 0 lost, 0 twice, \
         all there {took:.1} s after the last fault"
    );
}

/// As long as the mix, through the wires that it breaks.
fn load(rig: &Rig, environment: &str, length: Duration) -> Sender {
    let wire = rig.stack.link(End::Agent, End::IngestApi).expect("the wire is laid");
    let api = wire.proxies().iter().map(|proxy| format!("http://{}", proxy.address())).collect();
    let windows = (length.as_millis() / PACE.as_millis()) as usize;
    let usual = rig.load(environment);
    // Windows end before now, however many there are.
    let first_window_ts = usual.first_window_ts - windows as u32 * 10;
    Sender::start(SenderOptions { api, windows, pace: PACE, first_window_ts, ..usual })
}

/// One fault, from its beginning to its end.
async fn inject(rig: &Rig, one: &Injection) {
    sleep(one.begins).await;
    match one.fault {
        Fault::Kill(name) => {
            rig.stack.kill(name).await.expect("it runs");
            sleep(one.lasts).await;
            revive(rig, name).await;
        }
        Fault::Freeze(name) => {
            rig.stack.freeze(name).expect("it runs");
            sleep(one.lasts).await;
            rig.stack.thaw(name).expect("it is only frozen");
        }
        Fault::Wire { from, to, mode } => {
            let wire = rig.stack.link(from, to).expect("the wire is laid");
            wire.set(mode);
            sleep(one.lasts).await;
            wire.set(Mode::Reset);
            wire.set(Mode::Pass);
        }
    }
}

/// Starts a process as its supervisor would: again, while what it needs is away itself.
async fn revive(rig: &Rig, name: &str) {
    for _ in 1..STARTS_MAX {
        let Err(error) = rig.stack.start_process(name).await else { return };
        assert!(!rig.stack.is_running(name), "{name} runs and is not ready: {error}");
        eprintln!("{name} ended while others are away: {error}");
    }
    rig.stack.start_process(name).await.expect("it starts, since everything else is back");
}
