//! How each part does, from what its programs and its users say.

use std::collections::BTreeMap;

use super::Flow;
use crate::status::component::{Component, Condition, DeepReport, Part, together};
use crate::status::snapshot::Snapshot;

type Deep = BTreeMap<String, DeepReport>;

pub fn components(flow: &Flow<'_>, deep: &Deep, snapshot: &Snapshot) -> Vec<Component> {
    let one = |part| match part {
        Part::Intake => intake(flow, snapshot),
        Part::Log => log(flow, deep),
        Part::Detour => detour(flow, deep, snapshot),
        Part::Storing => storing(flow, snapshot),
        Part::Storage => storage(snapshot),
        Part::Keeping => keeping(flow, snapshot),
    };
    Part::ALL.into_iter().map(one).collect()
}

fn intake(flow: &Flow<'_>, snapshot: &Snapshot) -> Component {
    const REQUESTS: &str = "spillway_ingest_requests_total";
    let requests = flow.risen_sum(REQUESTS);
    let refused = flow.risen(|readings| Some(readings.refusals(REQUESTS)));
    let mut component = of_programs(Part::Intake, snapshot);
    component.response_ms =
        flow.mean_ms("spillway_ingest_request_seconds").or(component.response_ms);
    component.error_ratio = ratio(refused, requests);
    if component.error_ratio.is_some_and(|ratio| ratio > 0.0) {
        worsen(&mut component, Condition::Degraded, "it answers 5xx");
    }
    component
}

fn log(flow: &Flow<'_>, deep: &Deep) -> Component {
    let mut component = of_dependency(Part::Log, deep, |name| name == "kafka");
    let latency = component.response_ms;
    component.response_ms = flow.mean_ms("spillway_ingest_ack_seconds").or(latency);
    let failed = flow.risen_sum("spillway_ingest_records_failed_total");
    let published = flow.risen_sum("spillway_ingest_records_published_total");
    let tried = published.map(|n| n + failed.unwrap_or(0.0));
    component.error_ratio = ratio(failed.or(published.map(|_| 0.0)), tried);
    component
}

fn detour(flow: &Flow<'_>, deep: &Deep, snapshot: &Snapshot) -> Component {
    let bucket = of_dependency(Part::Detour, deep, |name| name == "s3");
    let mut component = of_programs(Part::Detour, snapshot);
    component.response_ms = bucket.response_ms;
    component.error_ratio =
        flow.risen_sum("spillway_recovery_objects_postponed_total").and_then(|postponed| {
            let drained = flow.risen_sum("spillway_recovery_objects_drained_total")?;
            ratio(Some(postponed), Some(postponed + drained))
        });
    if let Some(why) = bucket.why.filter(|_| bucket.condition > Condition::Up) {
        worsen(&mut component, bucket.condition, &why);
    }
    component
}

fn storing(flow: &Flow<'_>, snapshot: &Snapshot) -> Component {
    let mut component = of_programs(Part::Storing, snapshot);
    component.response_ms =
        flow.mean_ms("spillway_consumer_transaction_seconds").or(component.response_ms);
    let errors = flow.risen_sum("spillway_consumer_errors_total").unwrap_or(0.0);
    let done = flow.risen_sum("spillway_consumer_transactions_total");
    component.error_ratio = ratio(Some(errors), done.map(|done| done + errors));
    if flow.sum("spillway_consumer_partitions_held").is_some_and(|held| held > 0.0) {
        worsen(&mut component, Condition::Degraded, "partitions are held until an operator acts");
    }
    component
}

fn storage(snapshot: &Snapshot) -> Component {
    let mut component = Component::unknown(Part::Storage);
    let shards = &snapshot.shards;
    component.condition = together(shards.iter().map(|shard| match shard.reachable {
        true => Condition::Up,
        false => Condition::Down,
    }));
    component.response_ms = shards.iter().filter_map(|shard| shard.answered_ms).reduce(f64::max);
    let cut: Vec<&str> = shards.iter().filter(|s| !s.reachable).map(|s| s.shard.as_str()).collect();
    component.error_ratio = ratio(Some(cut.len() as f64), Some(shards.len() as f64));
    component.why = (!cut.is_empty()).then(|| format!("{} can't be asked", cut.join(", ")));
    component
}

fn keeping(flow: &Flow<'_>, snapshot: &Snapshot) -> Component {
    let mut component = of_programs(Part::Keeping, snapshot);
    let errors = flow.risen_sum("spillway_keeper_duty_errors_total");
    let runs = flow.risen_sum("spillway_keeper_duty_runs_total");
    component.error_ratio = ratio(errors.or(runs.map(|_| 0.0)), runs);
    if component.error_ratio.is_some_and(|ratio| ratio > 0.0) {
        worsen(&mut component, Condition::Degraded, "a duty fails; its log says which");
    }
    component
}

/// Redis as those who write to it say; where none of them uses it, it is not missed.
pub fn redis_is_down(deep: &Deep) -> bool {
    of_dependency(Part::Storing, deep, |name| name == "redis").condition == Condition::Down
}

/// A part that is our own programs.
fn of_programs(part: Part, snapshot: &Snapshot) -> Component {
    let ours: Vec<_> =
        snapshot.programs.iter().filter(|p| Part::of_program(&p.name) == Some(part)).collect();
    let condition = together(ours.iter().map(|program| match program.state {
        "ready" => Condition::Up,
        "down" => Condition::Down,
        _ => Condition::Degraded,
    }));
    let unwell: Vec<String> = ours
        .iter()
        .filter(|program| program.state != "ready")
        .map(|program| format!("{} is {}", program.name, program.state))
        .collect();
    Component {
        part,
        condition,
        response_ms: ours.iter().filter_map(|program| program.answered_ms).reduce(f64::max),
        error_ratio: None,
        why: (!unwell.is_empty()).then(|| unwell.join(", ")),
    }
}

/// A part that is not ours: those who use it say how it does.
fn of_dependency(part: Part, deep: &Deep, is_it: impl Fn(&str) -> bool) -> Component {
    let mut component = Component::unknown(part);
    let (mut conditions, mut latencies) = (Vec::new(), Vec::new());
    // An agent may be cut off by its own network: that says nothing of the part.
    let servers = deep.iter().filter(|(program, _)| Part::of_program(program).is_some());
    for (program, report) in servers {
        for (_, dependency) in report.dependencies.iter().filter(|(name, _)| is_it(name)) {
            conditions.push(match dependency.state.as_str() {
                "ok" => Condition::Up,
                "failed" => Condition::Down,
                _ => Condition::Unknown,
            });
            latencies.extend(dependency.latency_ms);
            if let Some(error) = &dependency.error {
                component.why.get_or_insert_with(|| format!("{program}: {error}"));
            }
        }
    }
    component.condition = together(conditions);
    component.response_ms = latencies.into_iter().reduce(f64::max);
    component
}

fn worsen(component: &mut Component, condition: Condition, why: &str) {
    component.condition = component.condition.max(condition);
    component.why.get_or_insert_with(|| why.to_owned());
}

fn ratio(part: Option<f64>, whole: Option<f64>) -> Option<f64> {
    let (part, whole) = (part?, whole?);
    (whole > 0.0).then(|| (part / whole).clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::component::Dependency;
    use crate::status::metrics_text::Readings;
    use crate::status::snapshot::ProgramState;

    fn deep(said: &[(&str, &str)]) -> Deep {
        let report = |state: &str| {
            let error = (state == "failed").then(|| "no broker".to_owned());
            let dependency = Dependency { state: state.to_owned(), latency_ms: Some(3.0), error };
            DeepReport { dependencies: [("kafka".to_owned(), dependency)].into() }
        };
        said.iter().map(|(program, state)| ((*program).to_owned(), report(state))).collect()
    }

    #[test]
    fn kafka_is_what_our_programs_say_of_it_and_an_agents_network_is_not_kafka() {
        let none = BTreeMap::new();
        let flow = Flow { now: &none, before: None, seconds: 1.0 };
        let down = log(&flow, &deep(&[("ingest-api-0", "failed"), ("agent", "ok")]));
        assert_eq!(down.condition, Condition::Down);
        assert!(down.why.unwrap().contains("no broker"));
        let partly = deep(&[("ingest-api-0", "ok"), ("consumer-0", "failed"), ("agent", "failed")]);
        assert_eq!(log(&flow, &partly).condition, Condition::Degraded);
        assert_eq!(log(&flow, &deep(&[("agent", "failed")])).condition, Condition::Unknown);
    }

    #[test]
    fn redis_is_down_if_all_who_write_to_it_say_so_and_not_missed_where_nobody_does() {
        let said = |states: &[(&str, &str)]| {
            let mut said = deep(states);
            for report in said.values_mut() {
                let kafka = report.dependencies.remove("kafka").unwrap();
                report.dependencies.insert("redis".to_owned(), kafka);
            }
            redis_is_down(&said)
        };
        assert!(said(&[("consumer-0", "failed"), ("consumer-1", "failed")]));
        assert!(!said(&[("consumer-0", "failed"), ("consumer-1", "ok")]));
        assert!(!said(&[]));
    }

    #[test]
    fn an_api_that_refuses_is_impaired_though_it_is_ready() {
        let page = |refused: u32| {
            let text = format!(
                "spillway_ingest_requests_total{{status=\"200\"}} 8\n\
                 spillway_ingest_requests_total{{status=\"503\"}} {refused}\n"
            );
            BTreeMap::from([("ingest-api-0".to_owned(), Readings::parse(&text))])
        };
        let (before, now) = (page(0), page(4));
        let flow = Flow { now: &now, before: Some(&before), seconds: 2.0 };
        let ready = ProgramState { name: "ingest-api-0".into(), state: "ready", answered_ms: None };
        let snapshot = Snapshot { programs: vec![ready], ..Snapshot::default() };
        let component = intake(&flow, &snapshot);
        assert_eq!((component.condition, component.error_ratio), (Condition::Degraded, Some(1.0)));
    }
}
