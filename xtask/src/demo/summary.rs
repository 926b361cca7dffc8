//! The end of a demo: agents stop in order and close their epochs, everything on its way arrives,
//! and the result is read from the views, with the SQL by which anyone can read it again.

use std::time::Duration;

use spillway_testkit::stack::ENVIRONMENTS;
use spillway_testkit::{Stack, StackError};
use tokio::time::Instant;

use super::look::{
    FRESHNESS_SQL, GAPS_SQL, LAG_SQL, LEDGER_SQL, LedgerAccount, Look, Looker, Views,
};

/// An agent's own drain deadline is 25 s.
const AGENT_STOP_DEADLINE: Duration = Duration::from_secs(35);
/// From the agents' end until spool, S3 and Kafka must be empty and every gap closed.
const SETTLE_DEADLINE: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A lag that was measured longer ago says nothing about now.
const LAG_AGE_MAX_S: i64 = 10;

/// Stops the agents, waits, and prints the summary. True if nothing is missing.
pub async fn end(stack: &Stack) -> Result<bool, StackError> {
    let looker = Looker::new(stack)?;
    let before = looker.look().await;
    println!("stopping the agents: each closes its epoch");
    let mut left = Vec::new();
    for name in before.agents.keys().filter(|name| stack.is_running(name)) {
        let code = stack.terminate(name, AGENT_STOP_DEADLINE).await?;
        if code != Some(0) {
            left.push(format!("{name} ended with {code:?}: batches stayed in its spool"));
        }
    }
    println!("waiting at most {} s until everything has arrived", SETTLE_DEADLINE.as_secs());
    let stopped = Instant::now();
    let mut faults;
    loop {
        let look = looker.look().await;
        let measured_since = stopped.elapsed().as_secs().try_into().unwrap_or(i64::MAX);
        faults = faults_of(&look, measured_since);
        if faults.is_empty() || stopped.elapsed() > SETTLE_DEADLINE {
            print(&look, &before);
            break;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    faults.extend(left);
    println!("{:.1} s after the agents' end:", stopped.elapsed().as_secs_f64());
    for fault in &faults {
        println!("  MISSING  {fault}");
    }
    if faults.is_empty() {
        println!("  nothing is missing, nothing is on its way: everything measured is in MySQL");
    }
    Ok(faults.is_empty())
}

/// Everything that stands between now and "nothing is missing".
fn faults_of(look: &Look, since_stop_s: i64) -> Vec<String> {
    let Some(views) = &look.views else {
        let why = look.trouble.as_deref().unwrap_or("no reason is known");
        return vec![format!("MySQL does not answer: {why}")];
    };
    let mut faults = Vec::new();
    for environment in ENVIRONMENTS {
        let Some(ledger) = views.ledger.get(environment) else {
            faults.push(format!("{environment}: nothing arrived at all"));
            continue;
        };
        faults.extend(ledger_faults(environment, ledger));
        if let Some(count @ 1..) = views.gaps.get(environment) {
            faults.push(format!("{environment}: {count} gaps"));
        }
    }
    if look.objects_in_s3 > 0 {
        faults.push(format!("{} objects are in S3", look.objects_in_s3));
    }
    faults.extend(lag_fault(views, since_stop_s));
    faults
}

fn ledger_faults(environment: &str, ledger: &LedgerAccount) -> Vec<String> {
    let counts = [
        ("batches missing", ledger.missing),
        ("batches given up", ledger.declared),
        ("batches in quarantine", ledger.quarantined),
        ("epochs without their closing record", ledger.open_epochs),
    ];
    let faults = counts.iter().filter(|(_, count)| *count != 0);
    faults.map(|(what, count)| format!("{environment}: {count} {what}")).collect()
}

fn lag_fault(views: &Views, since_stop_s: i64) -> Option<String> {
    let lag = views.lag;
    if lag.records > 0 {
        return Some(format!("{} records in Kafka are not applied", lag.records));
    }
    // A measurement from before the agents' last batch proves nothing.
    let fresh = lag.measured_ago_s < since_stop_s.min(LAG_AGE_MAX_S);
    (!fresh).then(|| "the lag has not been measured since".to_owned())
}

fn print(look: &Look, before: &Look) {
    println!("\nread by SQL, as any reader with --all can (database spillway):");
    let views = look.views.clone().unwrap_or_default();
    for environment in ENVIRONMENTS {
        let ledger = views.ledger.get(environment).cloned().unwrap_or_default();
        let gaps = views.gaps.get(environment).copied().unwrap_or(0);
        println!(
            "  {environment:8} {} points in {} batches applied, {} duplicates, {} missing, \
             {} given up, {} quarantined, {gaps} gaps",
            ledger.points,
            ledger.batches,
            ledger.duplicates,
            ledger.missing,
            ledger.declared,
            ledger.quarantined
        );
    }
    println!("  lag      {} records", views.lag.records);
    for (what, sql) in
        [("totals", LEDGER_SQL), ("gaps", GAPS_SQL), ("freshness", FRESHNESS_SQL), ("lag", LAG_SQL)]
    {
        println!("  {what:8} {sql}");
    }
    println!("read from the agents' /metrics before their last window and closing record:");
    for (name, agent) in &before.agents {
        println!(
            "  {name:12} {} points in {} batches measured, {} points accepted by the API, {} by S3",
            agent.points_emitted, agent.batches_emitted, agent.points_acked, agent.points_parked
        );
    }
    println!("in S3: {} objects under spill/", look.objects_in_s3);
}
