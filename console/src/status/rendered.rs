//! One look as everything that is served of it: both pages, their live parts, JSON and feeds.
//! Rendered once a look, however many read it.

use bytes::Bytes;
use serde_json::{Value as Json, json};

use super::feed::{self, Naming};
use super::incidents::Incident;
use super::page::{self, Audience, Facts, Frame};
use super::snapshot::{EnvironmentState, ShardState, Snapshot};

pub const HTML: &str = "text/html; charset=utf-8";
const JSON: &str = "application/json";
const ATOM: &str = "application/atom+xml; charset=utf-8";

/// Paths without the leading slash, each with its type and bytes.
#[derive(Debug, Clone, Default)]
pub struct Rendered {
    pages: Vec<(&'static str, &'static str, Bytes)>,
}

impl Rendered {
    /// `refresh_s`: how often a live page looks again.
    pub fn new(title: &str, refresh_s: u64, facts: Facts<'_>) -> Result<Self, askama::Error> {
        let live = |fragment| Some((fragment, refresh_s));
        let front =
            Frame { title, audience: Audience::Operators, root: "", live: live("fragment") };
        let live = live("public/fragment");
        let public = Frame { title, audience: Audience::Everybody, root: "", live };
        let shown: Vec<&Incident> = facts.incidents.iter().collect();
        let public_ones: Vec<&Incident> =
            facts.incidents.iter().filter(|one| one.opening.public).collect();
        let feed = |variant, incidents: &[&Incident]| {
            feed::atom(Naming { title, variant, self_link: None }, incidents)
        };
        let pages = vec![
            ("", HTML, page::document(front, facts)?.into()),
            ("fragment", HTML, page::fragment(front, facts)?.into()),
            ("status.json", JSON, operators_json(facts.snapshot).into()),
            ("incidents.atom", ATOM, feed("operators", &shown)?.into()),
            ("public", HTML, page::document(public, facts)?.into()),
            ("public/fragment", HTML, page::fragment(public, facts)?.into()),
            ("public/status.json", JSON, public_json(facts.snapshot).into()),
            ("public/incidents.atom", ATOM, feed("public", &public_ones)?.into()),
        ];
        Ok(Self { pages })
    }

    pub fn find(&self, path: &str) -> Option<(&'static str, Bytes)> {
        let found = self.pages.iter().find(|(name, _, _)| *name == path);
        found.map(|(_, content_type, bytes)| (*content_type, bytes.clone()))
    }
}

fn operators_json(snapshot: &Snapshot) -> String {
    let mut object = head(snapshot);
    if let (Some(object), Ok(Json::Object(rest))) =
        (object.as_object_mut(), serde_json::to_value(snapshot))
    {
        object.extend(rest);
        object.insert("shards".to_owned(), snapshot.shards.iter().map(shard_json).collect());
        let environments = snapshot.environments.iter().map(|e| environment_json(snapshot, e));
        object.insert("environments".to_owned(), environments.collect());
    }
    format!("{object:#}\n")
}

/// What was measured long ago is not told as if it were so now.
fn shard_json(shard: &ShardState) -> Json {
    let lag = shard.lag();
    json!({
        "shard": shard.shard,
        "reachable": shard.reachable,
        "answered_ms": shard.answered_ms,
        "lag_records": lag.map(|(records, _)| records),
        "lag_s": lag.map(|(_, seconds)| seconds),
        "measured_s": shard.measured_s,
    })
}

/// Null where the page says "unknown".
fn environment_json(snapshot: &Snapshot, e: &EnvironmentState) -> Json {
    let is_seen = e.unseen_since_ms.is_none();
    let seen = |n: i64| is_seen.then_some(n);
    json!({
        "environment": e.environment,
        "shard": e.shard,
        "hosts": e.hosts,
        "state": snapshot.arrival(e).words(),
        "freshest_s": e.freshest_s.filter(|_| is_seen),
        "stalest_s": e.stalest_s.filter(|_| is_seen),
        "backlog_batches": snapshot.hears(e).then_some(e.backlog_batches),
        "late": seen(e.late),
        "unknown_tail": seen(e.unknown_tail),
        "quarantined": seen(e.quarantined),
        "declared": seen(e.declared),
        "lost": seen(e.lost),
        "unseen_since_ms": e.unseen_since_ms,
    })
}

/// Nothing in it tells who the customers are, nor how many.
fn public_json(snapshot: &Snapshot) -> String {
    let mut object = head(snapshot);
    let components = snapshot.components.iter().map(|one| {
        json!({
            "component": one.part.title(),
            "state": one.condition.words(),
            "response_ms": one.response_ms,
            "error_ratio": one.error_ratio,
        })
    });
    if let Some(object) = object.as_object_mut() {
        object.insert("at_ms".to_owned(), snapshot.at_ms.into());
        object.insert("delayed".to_owned(), snapshot.is_delayed().into());
        object.insert("lost".to_owned(), snapshot.is_lost().into());
        object.insert("newest_s".to_owned(), snapshot.newest_s().into());
        object.insert("components".to_owned(), components.collect());
    }
    format!("{object:#}\n")
}

fn head(snapshot: &Snapshot) -> Json {
    json!({ "verdict": snapshot.verdict().as_str(), "headline": snapshot.headline() })
}
