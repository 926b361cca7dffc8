//! What a series is, and the numbers that stand for it and for its host.
//!
//! A series is (environment, host, metric, sorted labels), compared as bytes. Its canonical form
//! gives every part its length first, so no two series share one. These hashes are persisted in
//! MySQL: changing them orphans every stored row (`golden/series_ids.txt` holds them still).

use xxhash_rust::xxh3::{Xxh3, Xxh3Builder};

/// The name of a series in MySQL, and the 128 bits by which a collision of names is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct SeriesIdentity {
    /// xxh3-64 of the canonical form: the key of `points` and `series`.
    pub id: u64,
    /// xxh3-128 of the canonical form, seeded apart from `id`: compared at first sight.
    pub identity: u128,
}

/// Seeds the 128-bit identity, so that it and the 64-bit id do not collide together.
const IDENTITY_SEED: u64 = 0x5350_494c_4c57_4159;

/// Writes canonical forms, reusing one buffer: `identify` is called once per series and batch.
#[derive(Default)]
pub struct Canonical {
    form: Vec<u8>,
    host_prefix: usize,
}

impl Canonical {
    /// A writer for the series of one host of one environment.
    #[must_use]
    pub fn of_host(environment: &str, host: &str) -> Self {
        let mut canonical = Self::default();
        canonical.set_host(environment, host);
        canonical
    }

    /// Starts over for another host, keeping the buffer.
    pub fn set_host(&mut self, environment: &str, host: &str) {
        self.form.clear();
        put(&mut self.form, environment);
        put(&mut self.form, host);
        self.host_prefix = self.form.len();
    }

    /// The identity of the series `metric{labels}` of this host. Labels come sorted by name.
    pub fn identify<'a>(
        &mut self,
        metric: &str,
        labels: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> SeriesIdentity {
        self.form.truncate(self.host_prefix);
        put(&mut self.form, metric);
        for (name, value) in labels {
            put(&mut self.form, name);
            put(&mut self.form, value);
        }
        SeriesIdentity { id: hash64(&self.form), identity: hash128(&self.form) }
    }
}

/// The key of `hosts`: xxh3-64 of the canonical form of (environment, host).
#[must_use]
pub fn host_id(environment: &str, host: &str) -> u64 {
    hash64(&Canonical::of_host(environment, host).form)
}

fn put(form: &mut Vec<u8>, part: &str) {
    let bytes = part.len() as u32;
    form.extend_from_slice(&bytes.to_le_bytes());
    form.extend_from_slice(part.as_bytes());
}

fn hash64(form: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(form)
}

fn hash128(form: &[u8]) -> u128 {
    let mut hasher: Xxh3 = Xxh3Builder::new().with_seed(IDENTITY_SEED).build();
    hasher.update(form);
    hasher.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moving_a_byte_between_two_parts_makes_another_series() {
        let mut of_host = Canonical::of_host("demo", "web-1");
        let a = of_host.identify("cpu", [("mode", "user")].into_iter());
        let b = of_host.identify("cpum", [("ode", "user")].into_iter());
        let c = of_host.identify("cpu", [("mode", "use"), ("r", "")].into_iter());
        assert!(a != b && a != c && b != c);
        assert_eq!(a, of_host.identify("cpu", [("mode", "user")].into_iter()));
    }

    #[test]
    fn stored_ids_never_change() {
        let mut of_host = Canonical::of_host("demo", "web-1");
        let got = of_host.identify("cpu.usage", [("mode", "user")].into_iter());
        let line =
            format!("{:016x} {:032x} {:016x}\n", got.id, got.identity, host_id("demo", "web-1"));
        assert_eq!(line, include_str!("../golden/series_ids.txt"));
    }
}
