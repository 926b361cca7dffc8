//! Another machine's clock against this one's.

use jiff::Timestamp;

/// Beyond this, times of different machines can't be compared.
pub const SKEW_MS_MAX: i64 = 2_000;

/// How far this clock is ahead of one that said `theirs_ms` when it was asked at `asked_ms` and had
/// answered by `now_ms` (all in ms since the Unix epoch): only what the way there and back can't
/// explain.
#[must_use]
pub fn ahead_ms(asked_ms: i64, theirs_ms: i64, now_ms: i64) -> i64 {
    match theirs_ms {
        theirs if theirs < asked_ms => asked_ms - theirs,
        theirs if theirs > now_ms => now_ms - theirs,
        _ => 0,
    }
}

/// Now, as this machine has it, in ms since the Unix epoch.
#[must_use]
pub fn now_ms() -> i64 {
    Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_answer_is_no_wrong_clock() {
        assert_eq!(ahead_ms(1_000, 1_000, 9_000), 0);
        assert_eq!(ahead_ms(1_000, 9_000, 9_000), 0);
        assert_eq!(ahead_ms(5_000, 1_000, 9_000), 4_000);
        assert_eq!(ahead_ms(5_000, 12_000, 9_000), -3_000);
    }
}
