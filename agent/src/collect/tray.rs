//! Where inputs with a pace of their own leave what they read, until the window ends.
//!
//! Readings lie here packed: one text for all names and labels of a read, a few bytes beside each
//! value. A target with 500 series costs 60 KB so, and not the 250 KB of 500 [`Reading`]s; and
//! every byte is reserved from one budget *before* it is there, by all inputs together. Whoever
//! finds the budget spent is told [`Full`]: nothing that lies here is ever pushed out.

use std::borrow::Cow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use spillway_proto::{Kind, limits};

use super::{Labels, Reading};

/// The budget is spent, or the agent stops: try again later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no room: more was read than collect.tray_bytes_max can hold until it is handed on")]
pub struct Full;

/// What makes a reading one that no batch can carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unpackable {
    #[error(transparent)]
    Full(#[from] Full),
    #[error("a name or its labels are longer than a batch can carry")]
    TooLong,
}

/// The tray; all clones are one.
#[derive(Clone, Debug)]
pub struct Tray {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    bytes: AtomicUsize,
    bytes_max: usize,
    /// None once it was closed.
    packs: Mutex<Option<Vec<Pack>>>,
}

impl Tray {
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let packs = Mutex::new(Some(Vec::new()));
        Self { inner: Arc::new(Inner { bytes: AtomicUsize::new(0), bytes_max, packs }) }
    }

    /// An empty pack whose readings all carry `shared` labels.
    #[must_use]
    pub fn pack(&self, mut shared: Labels) -> Pack {
        shared.sort();
        shared.dedup_by(|later, kept| later.0 == kept.0);
        Pack {
            tray: Arc::clone(&self.inner),
            reserved: 0,
            shared: shared.into(),
            text: String::new(),
            lengths: Vec::new(),
            samples: Vec::new(),
        }
    }

    /// Leaves a pack. After this its readings are the agent's to hand on.
    ///
    /// # Errors
    /// The tray was closed.
    pub fn put(&self, mut pack: Pack) -> Result<(), Full> {
        if pack.samples.is_empty() {
            return Ok(());
        }
        pack.shrink();
        match self.packs().as_mut() {
            Some(packs) => packs.push(pack),
            None => return Err(Full),
        }
        Ok(())
    }

    /// What was left since the last time.
    #[must_use]
    pub fn drain(&self) -> Vec<Pack> {
        self.packs().as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// The last time: whatever comes later is refused.
    #[must_use]
    pub fn close(&self) -> Vec<Pack> {
        self.packs().take().unwrap_or_default()
    }

    /// Bytes reserved at this moment, by packs here, on their way here and on their way on.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.inner.bytes.load(Ordering::Relaxed)
    }

    fn packs(&self) -> std::sync::MutexGuard<'_, Option<Vec<Pack>>> {
        self.inner.packs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One value of one series, on its way into a pack.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    pub metric: &'a str,
    /// In any order; of two with the same name the later one counts. An empty value is no label.
    pub labels: &'a [(Cow<'a, str>, Cow<'a, str>)],
    pub kind: Kind,
    pub unit: &'static str,
    pub ts_ms: i64,
    pub value: f64,
}

/// Readings of one read of one input.
#[derive(Debug)]
pub struct Pack {
    tray: Arc<Inner>,
    reserved: usize,
    shared: Arc<[(Cow<'static, str>, String)]>,
    /// Names and values, one after the other.
    text: String,
    /// Lengths of the pieces of `text`: metric, then name and value of each label.
    lengths: Vec<u16>,
    samples: Vec<Packed>,
}

#[derive(Clone, Copy, Debug)]
struct Packed {
    ts_ms: i64,
    value: f64,
    unit: &'static str,
    kind: Kind,
    labels: u8,
}

const _: () = assert!(limits::METRIC_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(limits::LABEL_VALUE_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(limits::LABELS_MAX <= u8::MAX as usize);

impl Pack {
    /// Adds one reading.
    ///
    /// # Errors
    /// There is no room for it, or no batch could carry it; the pack is as before.
    pub fn push(&mut self, sample: &Sample<'_>) -> Result<(), Unpackable> {
        let named =
            |(name, value): &&(Cow<'_, str>, Cow<'_, str>)| !name.is_empty() && !value.is_empty();
        let labels = || sample.labels.iter().filter(named);
        let count = labels().count();
        let long = |text: &str, most: usize| text.len() > most;
        let fits = !sample.metric.is_empty()
            && !long(sample.metric, limits::METRIC_BYTES_MAX)
            && count + self.shared.len() <= limits::LABELS_MAX
            && labels().all(|(name, value)| {
                !long(name, limits::LABEL_NAME_BYTES_MAX)
                    && !long(value, limits::LABEL_VALUE_BYTES_MAX)
            });
        if !fits {
            return Err(Unpackable::TooLong);
        }
        let text = sample.metric.len() + labels().map(|(n, v)| n.len() + v.len()).sum::<usize>();
        self.make_room(text, 1 + 2 * count)?;
        self.piece(sample.metric);
        for (name, value) in labels() {
            self.piece(name);
            self.piece(value);
        }
        let Sample { ts_ms, value, unit, kind, .. } = *sample;
        let labels = u8::try_from(count).unwrap_or(u8::MAX);
        self.samples.push(Packed { ts_ms, value, unit, kind, labels });
        Ok(())
    }

    /// Forgets what it holds; its labels stay.
    pub fn clear(&mut self) {
        (self.text, self.lengths, self.samples) = Default::default();
        self.settle();
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.samples.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.samples.is_empty()
    }

    /// What it holds, one by one, each with its time.
    pub fn readings(&self) -> Unpacking<'_> {
        Unpacking { pack: self, text: &self.text, lengths: self.lengths.iter(), next: 0 }
    }

    fn piece(&mut self, text: &str) {
        self.text.push_str(text);
        self.lengths.push(u16::try_from(text.len()).unwrap_or(u16::MAX));
    }

    /// Grows what is too small, by half, once the budget agrees.
    fn make_room(&mut self, text: usize, lengths: usize) -> Result<(), Full> {
        let grown = |capacity: usize, len: usize, more: usize| {
            let wanted = len + more;
            if wanted <= capacity { capacity } else { wanted.max(capacity + capacity / 2) }
        };
        let text = grown(self.text.capacity(), self.text.len(), text);
        let lengths = grown(self.lengths.capacity(), self.lengths.len(), lengths);
        let samples = grown(self.samples.capacity(), self.samples.len(), 1);
        let wanted = text + lengths * size_of::<u16>() + samples * size_of::<Packed>();
        if let Some(more) = wanted.checked_sub(self.reserved).filter(|more| *more > 0) {
            let add = |now: usize| now.checked_add(more).filter(|sum| *sum <= self.tray.bytes_max);
            let bytes = &self.tray.bytes;
            bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).map_err(|_| Full)?;
            self.reserved = wanted;
        }
        self.text.reserve_exact(text - self.text.len());
        self.lengths.reserve_exact(lengths - self.lengths.len());
        self.samples.reserve_exact(samples - self.samples.len());
        Ok(())
    }

    fn shrink(&mut self) {
        self.text.shrink_to_fit();
        self.lengths.shrink_to_fit();
        self.samples.shrink_to_fit();
        self.settle();
    }

    /// Gives back what was reserved beyond what it takes.
    fn settle(&mut self) {
        let taken = self.text.capacity()
            + self.lengths.capacity() * size_of::<u16>()
            + self.samples.capacity() * size_of::<Packed>();
        if let Some(over) = self.reserved.checked_sub(taken) {
            self.tray.bytes.fetch_sub(over, Ordering::Relaxed);
            self.reserved = taken;
        }
    }
}

impl Drop for Pack {
    fn drop(&mut self) {
        self.tray.bytes.fetch_sub(self.reserved, Ordering::Relaxed);
    }
}

/// Goes through a pack.
pub struct Unpacking<'a> {
    pack: &'a Pack,
    text: &'a str,
    lengths: std::slice::Iter<'a, u16>,
    next: usize,
}

impl Unpacking<'_> {
    fn piece(&mut self) -> String {
        let length = self.lengths.next().map_or(0, |length| usize::from(*length));
        let (piece, rest) = self.text.split_at_checked(length).unwrap_or((self.text, ""));
        self.text = rest;
        piece.to_owned()
    }
}

impl Iterator for Unpacking<'_> {
    /// Time in ms, and what was read.
    type Item = (i64, Reading);

    fn next(&mut self) -> Option<Self::Item> {
        let sample = *self.pack.samples.get(self.next)?;
        self.next += 1;
        let metric = Cow::Owned(self.piece());
        let mut labels: Labels =
            Vec::with_capacity(usize::from(sample.labels) + self.pack.shared.len());
        for _ in 0..sample.labels {
            let name = self.piece();
            labels.push((Cow::Owned(name), self.piece()));
        }
        // The later of two counts: what the source said stands behind what all of it share.
        labels.reverse();
        labels.extend(self.pack.shared.iter().cloned());
        labels.sort_by(|a, b| a.0.cmp(&b.0));
        labels.dedup_by(|later, kept| later.0 == kept.0);
        let Packed { ts_ms, value, unit, kind, .. } = sample;
        Some((ts_ms, Reading { metric, labels, kind, unit, value }))
    }
}

#[cfg(test)]
#[path = "tray_tests.rs"]
mod tests;
