//! How much the spool may take: pure arithmetic, asked before each new segment.
//!
//! - All segments together never take more than `bytes_max`.
//! - Backlog never takes more than `bytes_max - live_reserve`: an outage of days leaves room for
//!   the batch of this minute.
//! - The file system keeps `free_floor` bytes for its owner.

/// The operator's bounds, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    pub bytes_max: u64,
    pub live_reserve: u64,
    pub free_floor: u64,
}

/// What is taken at this moment, in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Taken {
    /// By all segments.
    pub all: u64,
    /// By segments in which everything is backlog.
    pub backlog: u64,
    /// What the file system still has.
    pub free: u64,
}

/// Why there is no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Full {
    #[error("the spool takes all it may")]
    Cap,
    #[error("backlog takes all it may")]
    Reserve,
    #[error("the file system has reached its free-space floor")]
    Floor,
}

impl Budget {
    /// Whether a segment of `wanted` bytes may be made.
    pub fn room_for(&self, wanted: u64, taken: Taken) -> Result<(), Full> {
        if taken.all.saturating_add(wanted) > self.bytes_max {
            return Err(Full::Cap);
        }
        if taken.backlog > self.bytes_max.saturating_sub(self.live_reserve) {
            return Err(Full::Reserve);
        }
        if taken.free < self.free_floor.saturating_add(wanted) {
            return Err(Full::Floor);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_granted_breaks_no_bound(
            max in 0..1_000_u64, reserve in 0..1_000_u64, free_floor in 0..1_000_u64,
            wanted in 0..1_000_u64, all in 0..1_000_u64, backlog in 0..1_000_u64,
            free in 0..1_000_u64,
        ) {
            let budget = Budget { bytes_max: max, live_reserve: reserve, free_floor };
            if budget.room_for(wanted, Taken { all, backlog, free }).is_ok() {
                prop_assert!(all + wanted <= max);
                prop_assert!(free - wanted >= free_floor);
                prop_assert!(backlog + reserve.min(max) <= max);
            }
        }
    }

    #[test]
    fn the_first_reason_is_the_one_giving_up_can_help() {
        let budget = Budget { bytes_max: 100, live_reserve: 20, free_floor: 50 };
        let taken = Taken { all: 95, backlog: 90, free: 0 };
        assert_eq!(budget.room_for(10, taken), Err(Full::Cap));
        assert_eq!(budget.room_for(5, taken), Err(Full::Reserve));
        assert_eq!(budget.room_for(5, Taken { backlog: 80, ..taken }), Err(Full::Floor));
    }
}
