//! What one token may send: requests, bytes and points a second, series an hour, as tokens.toml
//! says (`limits`). Its connections are counted where they come in (`http::doors`).
//!
//! Each counts as time: what was sent takes so long at the allowed rate, and a token that is
//! further ahead of the clock than a burst waits. The size of a request is known only once it was
//! read, so it is charged afterwards: one that is large passes, and what follows it waits. Each
//! server counts by itself; behind n of them a token gets n times its limits. Series are not
//! charged but told apart ([`series`]).

mod series;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use spillway_runtime::tokens::TokenLimits;
use tokio::time::Instant;

use self::series::SeriesSeen;
use crate::authenticate::Caller;

/// How far a token may be ahead of its rate.
const BURST: Duration = Duration::from_secs(10);
/// The longest wait that one request can cause: a single one never locks a token out for longer.
const AHEAD_MAX: Duration = Duration::from_secs(60);
/// Tokens that are kept apart; those that are not ahead any more are forgotten first.
const TOKENS_MAX: usize = 100_000;

/// The token has used up one of its limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token's limit of {max} {what} on this server is reached")]
pub struct OverQuota {
    pub what: &'static str,
    pub max: u64,
}

/// Up to when a token has used its time.
#[derive(Clone, Copy, Debug)]
struct Used {
    requests: Instant,
    bytes: Instant,
    points: Instant,
}

/// The tokens that have limits, and how much of them is used.
#[derive(Debug, Default)]
pub struct Quotas {
    used: Mutex<HashMap<Arc<str>, Used>>,
    series: SeriesSeen,
}

impl Quotas {
    /// Counts a request of `caller`, unless it must wait.
    ///
    /// # Errors
    /// [`OverQuota`].
    pub fn request(&self, caller: &Caller) -> Result<(), OverQuota> {
        self.request_at(caller, Instant::now())
    }

    /// Counts what a request held.
    pub fn charge(&self, caller: &Caller, bytes: usize, points: usize) {
        self.charge_at(caller, bytes, points, Instant::now());
    }

    /// Notes the series of a request, unless they are more than the token may have in an hour. One
    /// that names only series which were noted passes.
    ///
    /// # Errors
    /// [`OverQuota`].
    pub fn series(&self, caller: &Caller, series: &[u64]) -> Result<(), OverQuota> {
        let Some(max) = caller.limits.and_then(|limits| limits.series_per_hour) else {
            return Ok(());
        };
        if self.series.note(&caller.token, series, max, Instant::now()) {
            return Ok(());
        }
        Err(OverQuota { what: "series an hour", max })
    }

    fn request_at(&self, caller: &Caller, now: Instant) -> Result<(), OverQuota> {
        let Some(limits) = caller.limits else { return Ok(()) };
        self.with(caller, now, |used| {
            let all = [
                ("requests a second", used.requests, limits.requests_per_second),
                ("bytes a second", used.bytes, limits.bytes_per_second),
                ("points a second", used.points, limits.points_per_second),
            ];
            for (what, until, limit) in all {
                let Some(max) = limit else { continue };
                if until > now + BURST {
                    return Err(OverQuota { what, max });
                }
            }
            spend(&mut used.requests, 1, limits.requests_per_second, now);
            Ok(())
        })
    }

    fn charge_at(&self, caller: &Caller, bytes: usize, points: usize, now: Instant) {
        let Some(limits) = caller.limits else { return };
        self.with(caller, now, |used| {
            spend(&mut used.bytes, bytes, limits.bytes_per_second, now);
            spend(&mut used.points, points, limits.points_per_second, now);
        });
    }

    fn with<T>(&self, caller: &Caller, now: Instant, then: impl FnOnce(&mut Used) -> T) -> T {
        let mut all = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= TOKENS_MAX && !all.contains_key(&caller.token) {
            all.retain(|_, used| used.requests.max(used.bytes).max(used.points) > now);
        }
        let fresh = Used { requests: now, bytes: now, points: now };
        then(all.entry(Arc::clone(&caller.token)).or_insert(fresh))
    }
}

fn spend(until: &mut Instant, amount: usize, per_second: Option<u64>, now: Instant) {
    let Some(per_second) = per_second else { return };
    let seconds = amount as f64 / per_second.max(1) as f64;
    let takes = Duration::try_from_secs_f64(seconds).unwrap_or(AHEAD_MAX).min(AHEAD_MAX);
    *until = (*until).max(now) + takes;
}

/// What a token's row says of its limits; none at all is `None`.
#[must_use]
pub fn limits_of(limits: Option<TokenLimits>) -> Option<TokenLimits> {
    limits.filter(|limits| *limits != TokenLimits::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(limits: TokenLimits) -> Caller {
        let (environment, token) = (Arc::from("demo"), Arc::from("t"));
        Caller { environment, token, limits: Some(limits) }
    }

    #[test]
    fn a_token_that_is_a_burst_ahead_waits_until_it_is_not() {
        let (quotas, now) = (Quotas::default(), Instant::now());
        let caller = caller(TokenLimits { points_per_second: Some(100), ..TokenLimits::default() });
        let over = Err(OverQuota { what: "points a second", max: 100 });
        quotas.charge_at(&caller, 1, 1_000, now);
        assert_eq!(quotas.request_at(&caller, now), Ok(()), "ten seconds' worth are a burst");
        quotas.charge_at(&caller, 1, 1, now);
        assert_eq!(quotas.request_at(&caller, now), over);
        assert_eq!(quotas.request_at(&caller, now + Duration::from_millis(10)), Ok(()));
        quotas.charge_at(&caller, 1, usize::MAX, now);
        assert_eq!(quotas.request_at(&caller, now + Duration::from_secs(30)), over);
        assert_eq!(quotas.request_at(&caller, now + Duration::from_secs(70)), Ok(()));
    }

    #[test]
    fn requests_and_bytes_have_limits_of_their_own_and_no_limit_is_none() {
        let now = Instant::now();
        for (limits, what) in [
            (
                TokenLimits { requests_per_second: Some(1), ..TokenLimits::default() },
                "requests a second",
            ),
            (TokenLimits { bytes_per_second: Some(1), ..TokenLimits::default() }, "bytes a second"),
        ] {
            let (quotas, caller) = (Quotas::default(), caller(limits));
            let ask = |_| {
                quotas.charge_at(&caller, 1, 1_000_000, now);
                quotas.request_at(&caller, now)
            };
            let answers: Vec<_> = (0..20).map(ask).collect();
            let over = OverQuota { what, max: 1 };
            assert_eq!((answers[0], answers[19]), (Ok(()), Err(over)));
        }
        assert_eq!(limits_of(Some(TokenLimits::default())), None);
    }
}
