//! What waits in the bucket, oldest first: the first hop of a parked batch's way back.
//!
//! The whole prefix is listed, page by page, since names say nothing of age. However many objects
//! there are, only the oldest are kept in memory; the others are counted.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use crate::bucket::{Bucket, Listed};
use crate::bucket_error::BucketError;

/// Oldest objects that one listing keeps: enough work until the next one, about 4 MB.
const OBJECTS_KEPT_MAX: usize = 20_000;
/// Pages of one listing, 1,000 objects each. A service that never ends its list is stopped here.
const PAGES_MAX: usize = 10_000;

/// What a listing found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Discovery {
    /// The oldest objects, oldest first.
    pub oldest: Vec<Listed>,
    /// All objects, kept or not.
    pub pending: u64,
    pub pending_bytes: u64,
    /// Keys under the prefix that no agent makes: they are left alone and shown.
    pub foreign: u64,
    /// Whether the listing reached its end and `oldest` holds everything.
    pub whole: bool,
}

/// Orders by age; the youngest is the heap's top.
#[derive(PartialEq, Eq)]
struct ByAge(Listed);

impl Ord for ByAge {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.0.modified_ms, &self.0.key).cmp(&(other.0.modified_ms, &other.0.key))
    }
}

impl PartialOrd for ByAge {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Lists the whole prefix.
pub async fn discover(bucket: &Bucket) -> Result<Discovery, BucketError> {
    let mut gathered = Gathered::default();
    let mut after = None;
    for _ in 0..PAGES_MAX {
        let page = bucket.list_spill(after).await?;
        gathered.foreign += page.foreign;
        page.objects.into_iter().for_each(|object| gathered.add(object));
        after = page.next;
        if after.is_none() {
            return Ok(gathered.into_discovery(true));
        }
    }
    Ok(gathered.into_discovery(false))
}

#[derive(Default)]
struct Gathered {
    kept: BinaryHeap<ByAge>,
    pending: u64,
    pending_bytes: u64,
    foreign: u64,
}

impl Gathered {
    fn add(&mut self, object: Listed) {
        self.pending += 1;
        self.pending_bytes = self.pending_bytes.saturating_add(object.bytes);
        self.kept.push(ByAge(object));
        if self.kept.len() > OBJECTS_KEPT_MAX {
            self.kept.pop();
        }
    }

    fn into_discovery(self, ended: bool) -> Discovery {
        let oldest: Vec<Listed> =
            self.kept.into_sorted_vec().into_iter().map(|ByAge(object)| object).collect();
        Discovery {
            whole: ended && oldest.len() as u64 == self.pending,
            oldest,
            pending: self.pending,
            pending_bytes: self.pending_bytes,
            foreign: self.foreign,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use spillway_proto::object_key::ObjectKey;

    fn object(name: u128, modified_ms: i64) -> Listed {
        let key = ObjectKey::from_random(name);
        Listed { key, etag: String::new(), bytes: 10, modified_ms }
    }

    #[test]
    fn the_oldest_objects_come_first_whatever_their_names() {
        let mut gathered = Gathered::default();
        for (name, modified_ms) in [(1, 30), (2, 10), (3, 20)] {
            gathered.add(object(name, modified_ms));
        }
        let found = gathered.into_discovery(true);
        let ages: Vec<i64> = found.oldest.iter().map(|object| object.modified_ms).collect();
        assert_eq!((ages, found.pending, found.pending_bytes), (vec![10, 20, 30], 3, 30));
        assert!(found.whole);
    }

    #[test]
    fn a_huge_listing_is_counted_and_only_its_oldest_part_is_kept() {
        let mut gathered = Gathered::default();
        let all = OBJECTS_KEPT_MAX + 5;
        for index in 0..all {
            gathered.add(object(index as u128, (all - index) as i64));
        }
        let found = gathered.into_discovery(true);
        assert_eq!((found.oldest.len(), found.pending), (OBJECTS_KEPT_MAX, all as u64));
        assert_eq!(found.oldest.last().map(|o| o.modified_ms), Some(OBJECTS_KEPT_MAX as i64));
        assert!(!found.whole);
    }
}
