//! `spillway dead-letters ls`: how many there are, of what and of whom, and the newest of them.

use std::collections::BTreeMap;

use serde_json::Value as Json;
use spillway_proto::frame::Decoder;

use super::letter::Letter;
use super::{Progress, Topic, Wanted};
use crate::answer::{Answer, Verdict};
use crate::cli::ListLetters;
use crate::commands::trace::time;
use crate::desk::Desk;
use crate::failure::Failure;

/// Pairs of reason and environment that are counted each by itself.
const COUNTS_MAX: usize = 1_000;
/// Where the others are counted.
const OTHERS: &str = "(others)";

const COUNTS: [&str; 6] = ["reason", "environment", "letters", "points", "oldest", "newest"];
const NEWEST: [&str; 6] = ["at", "reason", "environment", "host", "batch", "from"];

/// Letters of one kind.
#[derive(Debug, Default)]
struct Count {
    letters: u64,
    points: u64,
    oldest_ms: Option<i64>,
    newest_ms: Option<i64>,
}

impl Count {
    fn add(&mut self, letter: &Letter) {
        self.letters += 1;
        self.points = self.points.saturating_add(letter.points());
        if let Some(at) = letter.at_ms {
            self.oldest_ms = Some(self.oldest_ms.map_or(at, |oldest| oldest.min(at)));
            self.newest_ms = self.newest_ms.max(Some(at));
        }
    }
}

/// Everything that is kept of the topic.
struct Tally {
    all: Count,
    of: BTreeMap<(String, String), Count>,
    /// By time and place, the newest last.
    newest: BTreeMap<(Option<i64>, i32, i64), Vec<Json>>,
    newest_max: usize,
}

impl Tally {
    fn add(&mut self, letter: &Letter, decoder: &mut Decoder) {
        self.all.add(letter);
        let kind = |reason: &str, environment: &str| (reason.to_owned(), environment.to_owned());
        let mut key = kind(letter.reason(), letter.environment().unwrap_or_default());
        if self.of.len() >= COUNTS_MAX && !self.of.contains_key(&key) {
            key = kind(OTHERS, OTHERS);
        }
        self.of.entry(key).or_default().add(letter);
        let place = (letter.at_ms, letter.partition, letter.offset);
        let is_newer = self.newest.first_key_value().is_none_or(|(oldest, _)| place > *oldest);
        if self.newest_max > 0 && (self.newest.len() < self.newest_max || is_newer) {
            self.newest.insert(place, row(letter, decoder));
        }
        if self.newest.len() > self.newest_max {
            self.newest.pop_first();
        }
    }
}

pub async fn run(desk: &Desk, options: &ListLetters) -> Result<Answer, Failure> {
    let wanted = Wanted { letters: &options.letters, batch: None };
    let newest_max = usize::try_from(options.limit).unwrap_or(usize::MAX);
    let mut tally =
        Tally { all: Count::default(), of: BTreeMap::new(), newest: BTreeMap::new(), newest_max };
    let mut topic = Topic::of(desk).await?;
    let (mut decoder, mut progress) = (Decoder::new(), Progress::new());
    let mut looked_at = 0_u64;
    while let Some(letters) = topic.next().await? {
        looked_at += letters.len() as u64;
        for letter in letters.iter().filter(|letter| wanted.takes(letter)) {
            tally.add(letter, &mut decoder);
        }
        progress.tell(|| format!("{looked_at} letters read, {} chosen", tally.all.letters));
    }
    Ok(answer(tally, looked_at))
}

fn answer(tally: Tally, looked_at: u64) -> Answer {
    let mut answer = Answer::default();
    answer
        .fact("letters", tally.all.letters)
        .fact("points", tally.all.points)
        .fact("oldest", tally.all.oldest_ms.map(time))
        .fact("newest", tally.all.newest_ms.map(time))
        .fact("looked_at", looked_at);
    let section = answer.section("counts", &COUNTS);
    for ((reason, environment), count) in &tally.of {
        section.row([
            reason.clone().into(),
            Some(environment.clone()).filter(|name| !name.is_empty()).into(),
            count.letters.into(),
            count.points.into(),
            count.oldest_ms.map(time).into(),
            count.newest_ms.map(time).into(),
        ]);
    }
    answer.section("newest_letters", &NEWEST).rows = tally.newest.into_values().rev().collect();
    if tally.of.contains_key(&(OTHERS.to_owned(), OTHERS.to_owned())) {
        let text = format!("more than {COUNTS_MAX} kinds: the rest is counted under {OTHERS}");
        answer.trouble(Verdict::Warning, text);
    }
    if tally.all.letters > 0 {
        answer.note(
            "Letters stay here, also after a replay; `spillway gaps` tells what is still missing, \
             `spillway dead-letters replay --dry-run` what could go once more.",
        );
    }
    answer
}

fn row(letter: &Letter, decoder: &mut Decoder) -> Vec<Json> {
    vec![
        letter.at_ms.map(time).into(),
        letter.reason().into(),
        letter.environment().into(),
        letter.host(decoder).into(),
        letter.id().map(|id| id.to_string()).into(),
        letter.from().into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_of_all_and_rows_of_the_newest_whatever_partition_comes_first() {
        let (of, newest) = (BTreeMap::new(), BTreeMap::new());
        let mut tally = Tally { all: Count::default(), of, newest, newest_max: 2 };
        for (partition, at_ms) in [(0, 50), (0, 70), (1, 10), (1, 60)] {
            let letter = Letter { partition, at_ms: Some(at_ms), ..Letter::default() };
            tally.add(&letter, &mut Decoder::new());
        }
        let json = answer(tally, 4).to_json();
        assert_eq!((&json["letters"], &json["looked_at"]), (&4.into(), &4.into()));
        assert_eq!(json["counts"][0]["oldest"], time(10));
        let rows = json["newest_letters"].as_array().unwrap();
        let at: Vec<_> = rows.iter().map(|row| row["at"].as_str().unwrap().to_owned()).collect();
        assert_eq!(at, [time(70), time(60)]);
    }

    #[test]
    fn with_too_many_kinds_the_rest_is_counted_together() {
        let (of, newest) = (BTreeMap::new(), BTreeMap::new());
        let mut tally = Tally { all: Count::default(), of, newest, newest_max: 0 };
        for n in 0..COUNTS_MAX {
            tally.of.insert((n.to_string(), String::new()), Count::default());
        }
        for _ in 0..3 {
            tally.add(&Letter::default(), &mut Decoder::new());
        }
        assert_eq!(tally.of.len(), COUNTS_MAX + 1);
        let told = answer(tally, 3).to_json();
        assert!(told["notes"].to_string().contains("1000 kinds"), "{told:#}");
    }
}
