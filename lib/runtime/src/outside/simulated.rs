//! The outside of one simulation: it belongs to the thread that began it, and to nobody else.

use std::cell::RefCell;
use std::time::Duration;

use tokio::time::Instant;
use uuid::{Builder, Uuid};

thread_local! {
    static WORLD: RefCell<Option<World>> = const { RefCell::new(None) };
}

struct World {
    random: u64,
    wall_ms: i64,
    began: Instant,
    /// For a simulation that must find out: every id of a time is the same one.
    one_epoch: bool,
}

/// As long as it lives, this thread's outside is decided by its seed.
#[derive(Debug)]
#[must_use]
pub struct Simulation(());

impl Simulation {
    /// To be called within the runtime whose (paused) clock is the simulation's; its wall clock
    /// shows `wall_ms` now.
    pub fn begin(seed: u64, wall_ms: i64) -> Self {
        let world = World { random: seed, wall_ms, began: Instant::now(), one_epoch: false };
        let before = WORLD.replace(Some(world));
        assert!(before.is_none(), "one simulation a thread");
        Self(())
    }

    /// From now on [`super::uuid_v7`] gives one id again and again: a lie to be found.
    pub fn repeat_epochs(&self) {
        WORLD.with_borrow_mut(|world| {
            if let Some(world) = world {
                world.one_epoch = true;
            }
        });
    }
}

impl Drop for Simulation {
    fn drop(&mut self) {
        WORLD.set(None);
    }
}

pub(super) fn is_on() -> bool {
    WORLD.with_borrow(Option::is_some)
}

pub(super) fn fill(bytes: &mut [u8]) -> bool {
    WORLD.with_borrow_mut(|world| {
        let Some(world) = world else { return false };
        for chunk in bytes.chunks_mut(8) {
            let random = world.next().to_le_bytes();
            chunk.iter_mut().zip(random).for_each(|(to, from)| *to = from);
        }
        true
    })
}

pub(super) fn uuid_v4() -> Option<Uuid> {
    let mut random = [0; 16];
    fill(&mut random).then(|| Builder::from_random_bytes(random).into_uuid())
}

pub(super) fn uuid_v7() -> Option<Uuid> {
    let millis = u64::try_from(wall_ms()?).unwrap_or_default();
    let one = WORLD.with_borrow(|world| world.as_ref().is_some_and(|world| world.one_epoch));
    if one {
        return Some(Builder::from_unix_timestamp_millis(1, &[7; 10]).into_uuid());
    }
    let mut random = [0; 10];
    fill(&mut random).then(|| Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
}

pub(super) fn wall_ms() -> Option<i64> {
    WORLD.with_borrow(|world| {
        let world = world.as_ref()?;
        let passed: Duration = world.began.elapsed();
        Some(world.wall_ms.saturating_add(i64::try_from(passed.as_millis()).unwrap_or(i64::MAX)))
    })
}

impl World {
    /// splitmix64 (Steele, Lea, Flood 2014): short, and good enough to choose faults by.
    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{fill, wall_ms};
    use super::Simulation;

    #[tokio::test(start_paused = true)]
    async fn the_seed_decides_chance_and_the_paused_clock_moves_the_wall_clock() {
        let draw = |seed| {
            let _simulation = Simulation::begin(seed, 5_000);
            let mut bytes = [0; 11];
            fill(&mut bytes).unwrap();
            (bytes, wall_ms())
        };
        assert_eq!(draw(7), draw(7));
        assert_ne!(draw(7).0, draw(8).0);
        let _simulation = Simulation::begin(7, 5_000);
        tokio::time::advance(std::time::Duration::from_secs(3)).await;
        assert_eq!(wall_ms(), 8_000);
    }
}
