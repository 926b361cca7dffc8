//! Whether to drain at all just now: a pure decision over what is known, with its reason.

/// What the decision rests on.
#[derive(Clone, Copy, Debug, Default)]
pub struct Known {
    /// Records that consumers have not stored, or `None` if Kafka did not tell.
    pub lag: Option<u64>,
    /// Whether a good tokens file was ever read.
    pub tokens: bool,
    /// Objects that are in Kafka and not yet retired.
    pub awaiting: usize,
}

/// Why nothing is drained.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Closed {
    KafkaSilent,
    NoTokens,
    ConsumersLag,
    TooManyAwaiting,
}

impl Closed {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KafkaSilent => "Kafka does not tell how far consumers are",
            Self::NoTokens => "there is no good tokens file",
            Self::ConsumersLag => "consumers lag behind the backlog",
            Self::TooManyAwaiting => "too many drained objects wait for consumers",
        }
    }
}

/// Opens and closes; once closed by lag it opens again only at half the mark, so that it does not
/// flutter.
#[derive(Debug)]
pub struct Gate {
    lag_max: u64,
    awaiting_max: usize,
    lagging: bool,
}

impl Gate {
    #[must_use]
    pub fn new(lag_max: u64, awaiting_max: usize) -> Self {
        Self { lag_max, awaiting_max, lagging: false }
    }

    /// `None` when draining may go on.
    pub fn judge(&mut self, known: Known) -> Option<Closed> {
        let Some(lag) = known.lag else { return Some(Closed::KafkaSilent) };
        self.lagging = lag > if self.lagging { self.lag_max / 2 } else { self.lag_max };
        if !known.tokens {
            Some(Closed::NoTokens)
        } else if self.lagging {
            Some(Closed::ConsumersLag)
        } else if known.awaiting >= self.awaiting_max {
            Some(Closed::TooManyAwaiting)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known(lag: u64) -> Known {
        Known { lag: Some(lag), tokens: true, awaiting: 0 }
    }

    #[test]
    fn draining_stops_above_the_mark_and_resumes_at_half_of_it() {
        let mut gate = Gate::new(100, 10);
        assert_eq!(gate.judge(known(100)), None);
        assert_eq!(gate.judge(known(101)), Some(Closed::ConsumersLag));
        assert_eq!(gate.judge(known(60)), Some(Closed::ConsumersLag));
        assert_eq!(gate.judge(known(50)), None);
        assert_eq!(gate.judge(known(60)), None);
    }

    #[test]
    fn what_is_not_known_closes_the_gate() {
        let mut gate = Gate::new(100, 10);
        assert_eq!(gate.judge(Known { lag: None, ..known(0) }), Some(Closed::KafkaSilent));
        assert_eq!(gate.judge(Known { tokens: false, ..known(0) }), Some(Closed::NoTokens));
        assert_eq!(gate.judge(Known { awaiting: 10, ..known(0) }), Some(Closed::TooManyAwaiting));
    }
}
