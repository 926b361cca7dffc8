//! Who was heard until the way was cut, and not since. When the way is whole again nobody can tell
//! yet what their agents hold: until they are heard their silence is still a delay.

use std::collections::BTreeMap;

use crate::status::snapshot::{EnvironmentState, Snapshot};

/// An agent is heard again within minutes; one that is not has by now an unknown tail.
const AWAITED_FOR_MS: i64 = 15 * 60 * 1_000;

/// Environments, with the Unix ms until which they are awaited.
#[derive(Debug, Default)]
pub struct Awaited(BTreeMap<String, i64>);

impl Awaited {
    /// Takes one look, and marks in it who is awaited.
    pub fn note(&mut self, snapshot: &mut Snapshot) {
        let now_ms = snapshot.at_ms;
        self.0.retain(|_, until| *until > now_ms);
        let held_up: Vec<bool> =
            snapshot.environments.iter().map(|e| snapshot.may_hold_up(e)).collect();
        for (e, is_held_up) in snapshot.environments.iter_mut().zip(held_up) {
            e.awaited = self.is_awaited(e, is_held_up, now_ms);
        }
    }

    fn is_awaited(&mut self, e: &EnvironmentState, is_held_up: bool, now_ms: i64) -> bool {
        let is_known = self.0.contains_key(&e.environment);
        if is_held_up && (is_known || !e.is_silent()) {
            self.0.insert(e.environment.clone(), now_ms + AWAITED_FOR_MS);
        } else if !e.is_silent() {
            self.0.remove(&e.environment);
        }
        e.is_silent() && self.0.contains_key(&e.environment)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::component::{Component, Condition, Part};

    /// Whether it is delayed, look by look: Unix ms, the age of the newest data, Kafka's state.
    fn delayed(looks: &[(i64, i64, Condition)]) -> Vec<bool> {
        let mut awaited = Awaited::default();
        let look = |&(at_ms, freshest_s, condition): &(i64, i64, Condition)| {
            let freshest_s = Some(freshest_s);
            let e = EnvironmentState { freshest_s, ..EnvironmentState::default() };
            let mut snapshot = Snapshot {
                at_ms,
                components: vec![Component { condition, ..Component::unknown(Part::Log) }],
                environments: vec![e],
                ..Snapshot::default()
            };
            awaited.note(&mut snapshot);
            snapshot.is_delayed()
        };
        looks.iter().map(look).collect()
    }

    #[test]
    fn who_was_cut_off_is_delayed_until_heard_again_and_who_was_quiet_before_is_not() {
        use Condition::{Down, Up};
        let cut_off = [(0, 5, Up), (1_000, 6, Down), (90_000, 95, Down), (95_000, 100, Up)];
        assert_eq!(delayed(&cut_off), [false, false, true, true]);
        let heard = [(0, 5, Down), (90_000, 95, Up), (95_000, 3, Up), (190_000, 98, Up)];
        assert_eq!(delayed(&heard), [false, true, false, false]);
        let quiet = [(0, 100, Up), (1_000, 101, Down), (2_000, 102, Up)];
        assert_eq!(delayed(&quiet), [false, true, false]);
        let gone = [(0, 5, Down), (900_000, 905, Up)];
        assert_eq!(delayed(&gone), [false, false], "no agent is awaited for ever");
    }
}
