//! Incidents as an Atom feed (RFC 4287).

use askama::Template;
use uuid::Uuid;
use xxhash_rust::xxh3::xxh3_128;

use super::incidents::Incident;
use super::words::rfc3339;

/// Entries in the feed, newest first.
const ENTRIES_MAX: usize = 50;

#[derive(Template)]
#[template(path = "incidents.atom.xml")]
struct FeedTemplate<'a> {
    id: String,
    title: String,
    updated: String,
    self_link: Option<&'a str>,
    entries: Vec<Entry>,
}

struct Entry {
    id: String,
    title: String,
    published: String,
    updated: String,
    impact: &'static str,
    summary: String,
    text: String,
}

/// The feed's name: it stays, so that readers know it again.
#[derive(Debug, Clone, Copy)]
pub struct Naming<'a> {
    pub title: &'a str,
    /// `operators` or `public`: two feeds are two.
    pub variant: &'a str,
    /// Where it can be fetched, if that is known.
    pub self_link: Option<&'a str>,
}

/// `incidents` in the order of their opening.
pub fn atom(naming: Naming<'_>, incidents: &[&Incident]) -> Result<String, askama::Error> {
    let newest = incidents.iter().map(|one| one.updated_at()).max().unwrap_or_default();
    let feed = FeedTemplate {
        id: stable_id(&format!("{}\n{}", naming.title, naming.variant)),
        title: allowed(naming.title),
        updated: rfc3339(newest.as_millisecond()),
        self_link: naming.self_link,
        entries: incidents.iter().rev().take(ENTRIES_MAX).map(|one| entry(one)).collect(),
    };
    feed.render()
}

fn entry(incident: &Incident) -> Entry {
    let told = incident.updates.iter().rev();
    let told: Vec<String> = told
        .map(|u| format!("{} {}: {}", rfc3339(u.at.as_millisecond()), u.phase.words(), u.text))
        .collect();
    let parts: Vec<_> = incident.opening.parts.iter().map(|part| part.title()).collect();
    let phase = incident.phase().words();
    Entry {
        id: incident.id.urn().to_string(),
        title: allowed(&incident.opening.title),
        published: rfc3339(incident.opened_at().as_millisecond()),
        updated: rfc3339(incident.updated_at().as_millisecond()),
        impact: incident.opening.impact.words(),
        summary: match parts.is_empty() {
            true => phase.to_owned(),
            false => format!("{phase}: {}", parts.join(", ")),
        },
        text: allowed(&told.join("\n\n")),
    }
}

/// XML 1.0 has no way to write most control characters, not even escaped.
fn allowed(text: &str) -> String {
    text.chars().filter(|c| matches!(c, '\t' | '\n' | '\r') || !c.is_control()).collect()
}

/// A UUIDv8 (RFC 9562) made of a name.
fn stable_id(name: &str) -> String {
    let bytes = xxh3_128(name.as_bytes()).to_be_bytes();
    uuid::Builder::from_custom_bytes(bytes).into_uuid().urn().to_string()
}

/// The id of an incident that is opened now.
pub fn new_id() -> Uuid {
    Uuid::new_v4()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::incidents::{Opening, Phase, Update};

    #[test]
    fn the_feed_has_what_rfc_4287_requires_and_no_ones_markup() {
        let update = Update {
            at: "2026-11-21T10:00:00Z".parse().unwrap(),
            phase: Phase::Investigating,
            text: "a <b> & \u{1}c".to_owned(),
        };
        let opening = Opening { title: "</title><script>".to_owned(), ..Opening::default() };
        let incident = Incident { id: Uuid::from_u128(7), opening, updates: vec![update] };
        let naming = Naming { title: "Spillway", variant: "public", self_link: None };
        let feed = atom(naming, &[&incident]).unwrap();
        // 4.1.1: id, title, updated, and an author for entries without one; 4.1.2 for entries.
        let (head, entry) = feed.split_once("<entry>").unwrap();
        for part in ["<id>urn:uuid:", "<title>Spillway: incidents</title>", "<author><name>"] {
            assert!(head.contains(part), "{part} is not in {head}");
        }
        assert!(head.contains("<updated>2026-11-21T10:00:00Z</updated>"));
        for part in ["<id>urn:uuid:00000000-0000-0000-0000-000000000007</id>", "<content type"] {
            assert!(entry.contains(part), "{part} is not in {entry}");
        }
        assert!(!feed.contains("<script>") && !feed.contains("<b>") && !feed.contains('\u{1}'));
        assert_eq!(atom(naming, &[&incident]).unwrap(), feed, "ids stay");
    }
}
