//! The pages in a real browser: normal, outage and recovery, wide and narrow, light and dark.

use std::collections::BTreeMap;
use std::sync::{Arc, RwLock};

use spillway_console::settings::ConsoleSettings;
use spillway_console::status::component::{Component, Condition, Part};
use spillway_console::status::history::History;
use spillway_console::status::incidents::{Impact, Incident, Opening, Phase, Update};
use spillway_console::status::page::Facts;
use spillway_console::status::rendered::Rendered;
use spillway_console::status::routes::{Desk, Door};
use spillway_console::status::serve;
use spillway_console::status::snapshot::{
    EnvironmentState, Hop, ProgramState, ShardState, Snapshot,
};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::browser::Browser;

mod leaks;

pub use leaks::nothing_public_names_anybody;

const NOW_MS: i64 = 1_795_296_000_000;
const HOSTILE: &str = "<script>window.pwned=1</script>";

fn well() -> Snapshot {
    let part = |part, response_ms, error_ratio| Component {
        part,
        condition: Condition::Up,
        response_ms: Some(response_ms),
        error_ratio: Some(error_ratio),
        why: None,
    };
    let hop = |key, per_second, held, oldest_s| Hop {
        key,
        name: key,
        unit: "points",
        total: Some(1e6),
        per_second: Some(per_second),
        held,
        oldest_s,
        ..Hop::default()
    };
    let environment = |name: &str, hosts, freshest_s| EnvironmentState {
        environment: name.to_owned(),
        shard: "shard-zero".to_owned(),
        hosts,
        freshest_s: Some(freshest_s),
        stalest_s: Some(freshest_s + 3),
        ..EnvironmentState::default()
    };
    let program =
        |name: &str| ProgramState { name: name.to_owned(), state: "ready", answered_ms: Some(0.8) };
    Snapshot {
        at_ms: NOW_MS,
        components: vec![
            part(Part::Intake, 9.4, 0.0),
            part(Part::Log, 4.1, 0.0),
            part(Part::Detour, 12.0, 0.0),
            part(Part::Storing, 61.0, 0.0),
            part(Part::Storage, 3.2, 0.0),
            part(Part::Keeping, 0.7, 0.0),
        ],
        programs: ["ingest-api-0", "consumer-0", "recovery-worker-0", "keeper"].map(program).into(),
        hops: vec![
            hop("measured", 18_420.0, Some(4.0), Some(6.0)),
            hop("direct", 18_400.0, None, None),
            hop("parked", 0.0, None, None),
            hop("accepted", 18_400.0, None, None),
            hop("drained", 0.0, Some(0.0), None),
            hop("applied", 18_380.0, Some(12.0), Some(0.4)),
        ],
        shards: vec![ShardState {
            shard: "shard-zero".to_owned(),
            reachable: true,
            ..ShardState::default()
        }],
        environments: vec![
            environment("acme", 240, 4),
            environment("globex", 1_312, 5),
            environment("initech", 57, 6),
        ],
        redis_down: false,
        troubles: Vec::new(),
    }
}

fn set(snapshot: &mut Snapshot, key: &str, rate: f64, held: Option<f64>, oldest_s: Option<f64>) {
    let hop = snapshot.hops.iter_mut().find(|hop| hop.key == key).unwrap();
    (hop.per_second, hop.held, hop.oldest_s) = (Some(rate), held, oldest_s);
}

fn judge(snapshot: &mut Snapshot, part: Part, condition: Condition, why: &str) {
    let component = snapshot.components.iter_mut().find(|c| c.part == part).unwrap();
    component.condition = condition;
    component.why = Some(why.to_owned());
}

/// Kafka is down for four minutes.
fn outage() -> Snapshot {
    let mut snapshot = well();
    judge(&mut snapshot, Part::Log, Condition::Down, "ingest-api-0: no broker answers");
    judge(&mut snapshot, Part::Intake, Condition::Degraded, "it answers 5xx");
    snapshot.components[0].error_ratio = Some(1.0);
    set(&mut snapshot, "measured", 18_420.0, Some(9.0), Some(41.0));
    set(&mut snapshot, "direct", 0.0, None, None);
    set(&mut snapshot, "accepted", 0.0, None, None);
    set(&mut snapshot, "parked", 18_100.0, None, None);
    set(&mut snapshot, "drained", 0.0, Some(3_105.0), Some(221.0));
    set(&mut snapshot, "applied", 0.0, None, None);
    for e in &mut snapshot.environments {
        e.freshest_s = Some(240);
    }
    snapshot.troubles.push("consumer-0 can't be asked: it does not answer".to_owned());
    snapshot
}

/// Kafka is back: live data first, history behind it.
fn recovery() -> Snapshot {
    let mut snapshot = well();
    set(&mut snapshot, "drained", 42_300.0, Some(1_812.0), Some(377.0));
    set(&mut snapshot, "applied", 60_100.0, Some(9_412.0), Some(11.0));
    for (e, late) in snapshot.environments.iter_mut().zip([310, 1_498, 4]) {
        e.late = late;
    }
    snapshot
}

fn lost() -> Snapshot {
    let mut snapshot = well();
    snapshot.environments[0].lost = 2;
    snapshot
}

/// One of two shards is down: what waits for it nobody can count, nor what is lost there.
fn shard_down() -> Snapshot {
    let mut snapshot = well();
    judge(&mut snapshot, Part::Storage, Condition::Degraded, "shard-zero-b can't be asked");
    let shard = "shard-zero-b".to_owned();
    snapshot.shards.push(ShardState { shard, ..ShardState::default() });
    snapshot.environments[2].unseen_since_ms = Some(NOW_MS - 40_000);
    snapshot.environments[0].declared = 6;
    let applied = snapshot.hops.iter_mut().find(|hop| hop.key == "applied").unwrap();
    (applied.held, applied.oldest_s) = (None, None);
    (applied.held_least, applied.oldest_least_s) = (Some(9_412.0), Some(1_500.0));
    snapshot
}

/// One environment sends nothing, one has ended, and of one no point is stored.
fn quiet() -> Snapshot {
    let mut snapshot = well();
    let fourth =
        EnvironmentState { environment: "umbrella".to_owned(), ..snapshot.environments[1].clone() };
    snapshot.environments.push(fourth);
    let states = [(Some(200), Some(1)), (Some(90_000), Some(0)), (None, None)];
    for (e, (age, open)) in snapshot.environments.iter_mut().skip(1).zip(states) {
        (e.freshest_s, e.stalest_s, e.open_epochs) = (age, age, open);
    }
    snapshot
}

/// No data waits for the keeper.
fn keeper_down() -> Snapshot {
    let mut snapshot = well();
    judge(&mut snapshot, Part::Keeping, Condition::Down, "keeper is down");
    snapshot.programs[3].state = "down";
    set(&mut snapshot, "applied", 18_380.0, None, None);
    snapshot
}

/// Names that are markup.
fn hostile() -> Snapshot {
    let mut snapshot = outage();
    snapshot.environments[2].environment = HOSTILE.to_owned();
    snapshot.programs[0].name = HOSTILE.to_owned();
    snapshot.troubles.push(format!("consumer-0 {HOSTILE} can't be asked"));
    snapshot
}

/// Two hundred environments, some with names as long as names may be and without a place to break.
fn many() -> Snapshot {
    let mut snapshot = recovery();
    let example = snapshot.environments[1].clone();
    snapshot.environments = (0..200)
        .map(|i| EnvironmentState {
            environment: match i % 50 {
                7 => format!("{i}-{}", "acmeglobex".repeat(12)),
                _ => format!("acme-globex-{i:03}"),
            },
            late: i64::from(i % 40 == 3) * 1_234_567,
            ..example.clone()
        })
        .collect();
    snapshot
}

/// A new installation: nobody looked yet, nobody sent.
fn empty() -> Snapshot {
    let unknown = Part::ALL.map(Component::unknown).into();
    Snapshot { at_ms: NOW_MS, components: unknown, ..Snapshot::default() }
}

/// Ninety days with two bad ones.
fn history(last: &Snapshot) -> History {
    let mut history = History::default();
    const MINUTE_MS: i64 = 60_000;
    for day in (2..90).rev() {
        let bad = match day {
            17 => Some((Part::Storage, Condition::Down)),
            52 => Some((Part::Intake, Condition::Degraded)),
            _ => None,
        };
        for minute in 0..20 {
            let mut look = well();
            look.at_ms = NOW_MS - day * 1_440 * MINUTE_MS + minute * MINUTE_MS;
            if let Some((part, condition)) = bad.filter(|_| minute > 12) {
                judge(&mut look, part, condition, "then");
                look.environments[0].freshest_s = Some(600);
                look.environments[0].late = 3;
            }
            history.note(&look);
        }
    }
    for minute in (0..1_440).rev() {
        let mut look = well();
        look.at_ms = NOW_MS - minute * MINUTE_MS;
        let wave = 1.0 + 0.3 * (minute as f64 / 230.0).sin() + 0.05 * (minute as f64 / 7.0).cos();
        set(&mut look, "applied", 18_000.0 * wave, Some(10.0), Some(0.5 * wave));
        look.components.iter_mut().for_each(|c| c.response_ms = c.response_ms.map(|ms| ms * wave));
        history.note(&look);
    }
    history.note(last);
    history
}

fn incidents(open: bool, hostile: bool) -> Vec<Incident> {
    let at = |minutes: i64| jiff::Timestamp::from_millisecond(NOW_MS - minutes * 60_000).unwrap();
    let update =
        |minutes, phase, text: &str| Update { at: at(minutes), phase, text: text.to_owned() };
    let opening = |title: &str, impact, public| Opening {
        title: title.to_owned(),
        impact,
        parts: vec![Part::Log],
        public,
    };
    let past = Incident {
        id: Uuid::from_u128(1),
        opening: opening("Dashboards were delayed", Impact::Major, true),
        updates: vec![
            update(
                24_480,
                Phase::Investigating,
                "MySQL does not answer. Nothing is lost; data waits in Kafka.",
            ),
            update(24_470, Phase::Resolved, "A disk was full. All data has arrived."),
        ],
    };
    let private = Incident {
        id: Uuid::from_u128(2),
        opening: opening("acme moves to another shard", Impact::Maintenance, false),
        updates: vec![update(
            9_000,
            Phase::Resolved,
            &format!("Done. {}", if hostile { HOSTILE } else { "" }),
        )],
    };
    let current = Incident {
        id: Uuid::from_u128(3),
        opening: opening("Data is delayed", Impact::Major, true),
        updates: vec![update(
            3,
            Phase::Investigating,
            "Kafka is down. Agents keep all data; it arrives when Kafka is back.",
        )],
    };
    [vec![past, private], if open { vec![current] } else { Vec::new() }].concat()
}

/// A page server whose look can be changed.
struct Page {
    shared: serve::Shared,
    address: String,
    history: BTreeMap<&'static str, History>,
}

impl Page {
    async fn serve() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shared: serve::Shared = Arc::new(RwLock::new(Rendered::default()));
        let desk = Desk::new(Arc::new(ConsoleSettings::default()), Arc::clone(&shared));
        tokio::spawn(serve::accept(listener, desk, Door::Operators));
        Self { shared, address, history: BTreeMap::new() }
    }

    fn show(&mut self, name: &'static str, snapshot: &Snapshot) {
        let first_look = || match name {
            "empty" => History::default(),
            _ => history(snapshot),
        };
        let history = self.history.entry(name).or_insert_with(first_look);
        let incidents = match name {
            "empty" => Vec::new(),
            _ => incidents(["outage", "hostile"].contains(&name), name == "hostile"),
        };
        let facts = Facts { snapshot, history, incidents: &incidents };
        *self.shared.write().unwrap() = Rendered::new("Spillway", 1, facts).unwrap();
    }
}

/// Width, and whether it is dark.
const SCREENS: [(u32, bool); 5] =
    [(1280, false), (1280, true), (768, false), (390, true), (360, false)];

/// Both pages as the screens of people show them.
pub async fn look_at_everything() {
    let browser = Browser::start().await;
    let mut page = Page::serve().await;
    let scenes = [
        ("normal", well()),
        ("outage", outage()),
        ("recovery", recovery()),
        ("lost", lost()),
        ("shard-down", shard_down()),
        ("quiet", quiet()),
        ("keeper-down", keeper_down()),
        ("hostile", hostile()),
        ("many", many()),
        ("empty", empty()),
    ];
    for (name, snapshot) in &scenes {
        page.show(name, snapshot);
        for (path, audience) in [("/", "operators"), ("/public", "public")] {
            let screens = match *name {
                "normal" | "outage" | "recovery" => &SCREENS[..],
                // What is special in the others is their text: light, the widest and the narrowest.
                _ => &[SCREENS[0], SCREENS[4]],
            };
            for &(width, dark) in screens {
                browser.screen(width, 900, dark).await;
                browser.open(&format!("{}{path}", page.address)).await;
                let shade = if dark { "dark" } else { "light" };
                let file = format!("status-{name}-{audience}-{width}-{shade}");
                browser.assert_sound(&file).await;
                if *name != "lost" && (audience == "operators" || !dark) {
                    browser.picture(&file).await;
                }
                if width == 1280 && audience == "operators" {
                    browser.screen(width, 1_120, dark).await;
                    browser.glimpse(&format!("status-{name}-{width}-{shade}-top")).await;
                }
            }
            assert_told(&browser, name, audience).await;
        }
    }
    page.show("normal", &scenes[0].1);
    keeps_itself_current(&browser, &mut page, &scenes[1].1).await;
}

async fn assert_told(browser: &Browser, scene: &str, audience: &str) {
    let headline = browser.text("#headline").await;
    let (delayed, lost) =
        (browser.text("#tile-delayed .value").await, browser.text("#tile-lost .value").await);
    let expected = match scene {
        "normal" => ("Everything arrives", "nothing", "nothing"),
        "outage" | "hostile" => ("Kafka is down; data is kept and delayed", "4 min", "nothing"),
        "recovery" => ("Delayed: some data is still on its way", "6 min", "nothing"),
        "shard-down" => {
            ("MySQL is partly down; data for that part is kept and delayed", "25 min", "–")
        }
        "quiet" => ("Everything arrives", "nothing", "nothing"),
        "keeper-down" => (
            "Keeper is down; data arrives, rollups and the measurement of lag stand still",
            "nothing",
            "nothing",
        ),
        "many" => ("Delayed: some data is still on its way", "6 min", "nothing"),
        "empty" => ("Nothing is known yet", "–", "–"),
        _ => ("Some data is lost", "nothing", "2"),
    };
    assert_eq!((headline.as_str(), delayed.as_str(), lost.as_str()), expected, "{scene}");
    let all = browser.value("document.documentElement.outerHTML").await.to_string();
    let names = match scene {
        "empty" => &[][..],
        "hostile" => &["acme", "globex", "pwned", "consumer-0"],
        _ => &["acme", "globex", "ingest-api-0", "consumer-0"],
    };
    for name in names {
        // What the operators see shows that the search would find it.
        let shown = all.contains(name);
        assert_eq!(shown, audience == "operators", "{name} on the {audience} page of {scene}");
    }
    assert!(audience == "operators" || !all.contains("shard-zero"));
    let bars = browser.value("document.querySelectorAll('#component-log .days rect').length").await;
    assert_eq!(bars, 90);
}

async fn keeps_itself_current(browser: &Browser, page: &mut Page, outage: &Snapshot) {
    browser.screen(1280, 900, false).await;
    browser.open(&page.address).await;
    assert_eq!(browser.text("#headline").await, "Everything arrives");
    page.show("outage", outage);
    browser
        .until("document.getElementById('headline').innerText.startsWith('Kafka is down')")
        .await;
    browser.until("document.title.startsWith('Kafka is down')").await;
    browser.assert_sound("the page after its live part was renewed").await;
    stays_where_it_is(browser, page, outage).await;
}

/// Other figures move nothing, and whoever scrolled stays there.
async fn stays_where_it_is(browser: &Browser, page: &mut Page, outage: &Snapshot) {
    let place = "[document.getElementById('component-keeping').getBoundingClientRect().top, \
        document.documentElement.scrollHeight].map(Math.round)";
    browser.value("scrollTo(0, 700)").await;
    let before = browser.value(place).await;
    let mut later = outage.clone();
    set(&mut later, "measured", 9.0, Some(1_234_567.0), Some(86_000.0));
    set(&mut later, "parked", 1_234_567.0, None, None);
    later.components.iter_mut().for_each(|one| one.response_ms = Some(12_345.6));
    page.show("outage", &later);
    browser.until("document.getElementById('live').innerText.includes('12.3 s')").await;
    assert_eq!(browser.value(place).await, before, "the page jumps under its reader");
}
