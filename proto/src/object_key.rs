//! The name of a sealed object in S3: `spill/` and 32 random hex digits.
//!
//! No tenant, host, agent or clock is in it, so whoever can list the bucket learns nothing.

use std::fmt;

/// The one prefix an agent's credential may write under.
pub const SPILL_PREFIX: &str = "spill/";

/// A well-formed object name under [`SPILL_PREFIX`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// The name made of 128 random bits, which the caller draws.
    #[must_use]
    pub fn from_random(random: u128) -> Self {
        Self(format!("{SPILL_PREFIX}{random:032x}"))
    }

    /// Accepts exactly what [`Self::from_random`] makes.
    #[must_use]
    pub fn parse(key: &str) -> Option<Self> {
        let digits = key.strip_prefix(SPILL_PREFIX)?;
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        (digits.len() == 32 && digits.bytes().all(hex)).then(|| Self(key.to_owned()))
    }

    /// The whole key, prefix included.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The 32 hex digits after the prefix.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.strip_prefix(SPILL_PREFIX).unwrap_or(&self.0)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_we_would_name_is_a_name() {
        let key = ObjectKey::from_random(0xab);
        assert_eq!(key.as_str(), "spill/000000000000000000000000000000ab");
        assert_eq!(ObjectKey::parse(key.as_str()), Some(key));
        for bad in ["spill/", "spill/AB", "x/000000000000000000000000000000ab", "spill/../../etc"] {
            assert_eq!(ObjectKey::parse(bad), None, "{bad}");
        }
    }
}
