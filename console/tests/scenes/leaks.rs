//! What leaves the house is searched for what must not.

use spillway_console::status::export;
use spillway_console::status::page::Facts;
use spillway_console::status::rendered::Rendered;

use super::{
    history, hostile, incidents, keeper_down, lost, many, outage, quiet, recovery, shard_down, well,
};

/// What everybody may fetch or be handed: the page, its live part, JSON, feed, and the copy.
pub fn nothing_public_names_anybody() {
    let scenes = [
        well(),
        outage(),
        recovery(),
        lost(),
        shard_down(),
        quiet(),
        keeper_down(),
        hostile(),
        many(),
    ];
    let secrets = [
        "acme",
        "globex",
        "initech",
        "umbrella",
        "pwned",
        "shard-zero",
        "ingest-api-0",
        "consumer-0",
        "recovery-worker-0",
        "no broker answers",
        "can't be asked",
        "moves to another",
    ];
    for snapshot in &scenes {
        let (history, incidents) = (history(snapshot), incidents(true, true));
        let facts = Facts { snapshot, history: &history, incidents: &incidents };
        let rendered = Rendered::new("Spillway", 1, facts).unwrap();
        let copy = export::files("Spillway", facts, true).unwrap();
        let served = ["public", "public/fragment", "public/status.json", "public/incidents.atom"];
        let served =
            served.iter().filter_map(|path| Some((*path, rendered.find(path)?.1.to_vec())));
        let public: Vec<(String, Vec<u8>)> =
            served.map(|(path, bytes)| (path.to_owned(), bytes)).chain(copy).collect();
        assert!(public.len() > 8, "there is something to search: {}", public.len());
        for (path, bytes) in public.iter().filter(|(path, _)| !path.starts_with("assets/")) {
            let text = String::from_utf8_lossy(bytes);
            for secret in secrets {
                assert!(!text.contains(secret), "{path} tells of {secret}");
            }
        }
        let own = rendered.find("").unwrap().1;
        assert!(String::from_utf8_lossy(&own).contains("acme"), "the search would find it");
    }
}
