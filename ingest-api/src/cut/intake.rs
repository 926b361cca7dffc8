//! What a foreign body holds, series by series, held against the rules of a frame as it comes in
//! and against one budget for all of it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use spillway_proto::frame::{NameFault, check_host_name, check_names};
use spillway_proto::limits::{EDGE_FUTURE_MS_MAX, TS_MS_MAX};
use spillway_proto::{Kind, Point};
use xxhash_rust::xxh3::Xxh3;

/// Points of one request. Prometheus sends 2,000, vmagent 10,000.
pub const POINTS_MAX: usize = 500_000;
/// Names and points of one request, as they are held here: a few bytes that refer to a long text
/// many times may not unfold without limit.
pub const HELD_BYTES_MAX: usize = 48 << 20;
/// Hosts of one request: each is a record in Kafka.
pub const HOSTS_MAX: usize = 10_000;
/// Refusals that are told one by one; the others are counted.
const TOLD_MAX: usize = 100;
/// What one refusal may say.
const TOLD_BYTES_MAX: usize = 200;
/// What a series takes here beside its texts and points.
const ENTRY_BYTES: usize = 200;
/// What a label takes here beside its texts.
const LABEL_BYTES: usize = 48;

/// A body unfolds to more than is held at a time: nothing of it is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body has too many {what}, the limit is {max}: send less at a time")]
pub struct TooMuch {
    pub what: &'static str,
    pub max: usize,
}

/// A series as a sender names it.
#[derive(Clone, Copy, Debug)]
pub struct Naming<'a> {
    /// Where in the body it stands, for people: `series 3`, `line 7`.
    pub place: (&'static str, usize),
    /// `None` when the body names no host: then the token stands for it.
    pub host: Option<&'a str>,
    pub metric: &'a str,
    /// Sorted by name.
    pub labels: &'a [(&'a str, &'a str)],
    pub kind: Kind,
    pub unit: &'a str,
}

/// What was refused of a body, for good.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusals {
    pub points: usize,
    pub told: Vec<String>,
}

impl Refusals {
    /// Counts `points` that are refused, and notes why.
    pub fn add(
        &mut self,
        points: usize,
        place: (&'static str, usize),
        why: &dyn std::fmt::Display,
    ) {
        self.points += points;
        if self.told.len() < TOLD_MAX {
            let text = format!("{} {}: {why}", place.0, place.1);
            self.told.push(text.chars().take(TOLD_BYTES_MAX).collect());
        }
    }

    /// How many were refused and why, as long as fits `bytes_max`.
    #[must_use]
    pub fn text(&self, bytes_max: usize) -> String {
        let mut text = format!("{} points refused", self.points);
        for (index, why) in self.told.iter().enumerate() {
            let mark = if index == 0 { ": " } else { "; " };
            if text.len() + mark.len() + why.len() > bytes_max {
                break;
            }
            text.push_str(mark);
            text.push_str(why);
        }
        text
    }
}

/// One series and its points, as they came.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub host: String,
    pub metric: String,
    pub labels: Vec<(String, String)>,
    pub kind: Kind,
    pub unit: String,
    pub points: Vec<Point>,
}

/// Takes in a body.
#[derive(Debug)]
pub struct Intake {
    /// The host of whatever names none.
    token: Arc<str>,
    /// When the body arrived: the time of whatever states none.
    pub now_ms: i64,
    pub refusals: Refusals,
    entries: Vec<Entry>,
    places: HashMap<u128, usize>,
    hosts: HashSet<String>,
    points: usize,
    bytes: usize,
}

impl Intake {
    #[must_use]
    pub fn new(token: Arc<str>, now_ms: i64) -> Self {
        Self {
            token,
            now_ms,
            refusals: Refusals::default(),
            entries: Vec::new(),
            places: HashMap::new(),
            hosts: HashSet::new(),
            points: 0,
            bytes: 0,
        }
    }

    /// Points taken in so far.
    #[must_use]
    pub fn points(&self) -> usize {
        self.points
    }

    /// Takes the points of one series; whatever is not allowed is in [`Self::refusals`]. Returns
    /// how many were taken.
    ///
    /// # Errors
    /// [`TooMuch`], which ends the whole body.
    pub fn put(&mut self, naming: &Naming<'_>, points: &[Point]) -> Result<usize, TooMuch> {
        if points.is_empty() {
            return Ok(0);
        }
        let Some(at) = self.entry(naming, points.len())? else { return Ok(0) };
        let latest_ms = self.now_ms.saturating_add(EDGE_FUTURE_MS_MAX).min(TS_MS_MAX);
        let in_time = |point: &&Point| (0..=latest_ms).contains(&point.ts_ms);
        let taken = points.iter().filter(in_time).count();
        if taken < points.len() {
            self.refuse_times(points, naming.place);
        }
        self.points = within("points", self.points + taken, POINTS_MAX)?;
        self.hold(taken * size_of::<Point>())?;
        if let Some(entry) = self.entries.get_mut(at) {
            entry.points.extend(points.iter().filter(in_time));
        }
        Ok(taken)
    }

    /// Notes why points with such times are refused. What the consumer would find too far ahead is
    /// refused here, by itself: there it would cost its whole batch.
    fn refuse_times(&mut self, points: &[Point], place: (&'static str, usize)) {
        let latest_ms = self.now_ms.saturating_add(EDGE_FUTURE_MS_MAX);
        let possible = |point: &&Point| (0..=TS_MS_MAX).contains(&point.ts_ms);
        let ahead = points.iter().filter(possible).filter(|point| point.ts_ms > latest_ms).count();
        let outside = points.iter().filter(|point| !possible(point)).count();
        if outside > 0 {
            self.refusals.add(outside, place, &"a time is outside 1970..2106");
        }
        if ahead > 0 {
            let minutes = EDGE_FUTURE_MS_MAX / 60_000;
            let why = format!("its time is more than {minutes} min ahead of now");
            self.refusals.add(ahead, place, &why);
        }
    }

    /// Whether the series may be called so, without taking anything of it.
    fn allowed(&mut self, naming: &Naming<'_>, host: &str, points: usize) -> bool {
        let labels = naming.labels.iter().copied();
        let fault = check_host_name(host)
            .and_then(|()| check_names(naming.metric, naming.unit, labels))
            .and_then(|()| without_nul(naming, host))
            .err();
        if let Some(fault) = &fault {
            self.refusals.add(points, naming.place, fault);
        }
        fault.is_none()
    }

    fn entry(&mut self, naming: &Naming<'_>, points: usize) -> Result<Option<usize>, TooMuch> {
        let token = Arc::clone(&self.token);
        let host = naming.host.unwrap_or(&token);
        // First of all: a few bytes may refer to a text of megabytes, and again and again.
        if !self.allowed(naming, host, points) {
            return Ok(None);
        }
        let key = key(naming, host);
        if let Some(at) = self.places.get(&key) {
            return Ok(Some(*at));
        }
        let texts = naming.labels.iter().map(|(name, value)| name.len() + value.len());
        let texts = texts.sum::<usize>() + host.len() + naming.metric.len() + naming.unit.len();
        self.hold(ENTRY_BYTES + texts + naming.labels.len() * LABEL_BYTES)?;
        if !self.hosts.contains(host) {
            self.hosts.insert(host.to_owned());
            within("hosts", self.hosts.len(), HOSTS_MAX)?;
        }
        let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let at = self.entries.len();
        self.entries.push(Entry {
            host: host.to_owned(),
            metric: naming.metric.to_owned(),
            labels: naming.labels.iter().map(own).collect(),
            kind: naming.kind,
            unit: naming.unit.to_owned(),
            points: Vec::new(),
        });
        self.places.insert(key, at);
        Ok(Some(at))
    }

    fn hold(&mut self, bytes: usize) -> Result<(), TooMuch> {
        self.bytes = within("bytes of names and points", self.bytes + bytes, HELD_BYTES_MAX)?;
        Ok(())
    }

    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries
    }
}

/// A frame's table of texts holds none with a NUL byte: one such name must cost its own series, not
/// the batch that it would have been in.
fn without_nul(naming: &Naming<'_>, host: &str) -> Result<(), NameFault> {
    let labels = naming.labels.iter().flat_map(|(name, value)| [*name, *value]);
    let mut texts = labels.chain([host, naming.metric, naming.unit]);
    if texts.any(|text| text.contains('\0')) {
        return Err(NameFault::Wrong("a name contains a NUL byte"));
    }
    Ok(())
}

fn within(what: &'static str, got: usize, max: usize) -> Result<usize, TooMuch> {
    if got <= max { Ok(got) } else { Err(TooMuch { what, max }) }
}

/// Two series of a body are one when they agree in all that a frame says of them.
fn key(naming: &Naming<'_>, host: &str) -> u128 {
    let mut hasher = Xxh3::new();
    let mut put = |text: &str| {
        hasher.update(&(text.len() as u64).to_le_bytes());
        hasher.update(text.as_bytes());
    };
    [host, naming.metric, naming.unit].into_iter().for_each(&mut put);
    for (name, value) in naming.labels {
        put(name);
        put(value);
    }
    hasher.update(&[naming.kind as u8]);
    hasher.digest128()
}
