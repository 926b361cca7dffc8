//! What a load sends besides plain batches in a row: both ways, both at once, gaps on purpose,
//! values that come twice, and batches that must be refused.

use spillway_agent::deliver::S3Park;
use spillway_agent::settings::{AgentSettings, Settings, SpillSettings};
use spillway_runtime::settings::Secret;
use spillway_testkit::stack::StackFile;

/// How a window's batch goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// To the API.
    Plain,
    /// Sealed into S3, and not to the API.
    Parked,
    /// To the API, and then into S3 as well, as agents do to keep that way warm.
    Both,
    /// Not at all, and the next batch to the API says so.
    Declared,
    /// Not at all.
    Withheld,
}

/// How often; 0 is never. The default is none of it.
#[derive(Clone, Debug, Default)]
pub struct Mix {
    pub s3: Option<S3Door>,
    pub park_every: usize,
    pub both_every: usize,
    pub declare_every: usize,
    pub withhold_every: usize,
    /// One more batch, of another environment than the token's.
    pub refuse_every: usize,
    /// Whether windows' values are sent twice ([`crate::recipe::REVISED`]).
    pub revises: bool,
}

impl Mix {
    /// Everything there is, for loads of some dozens of windows and more.
    #[must_use]
    pub fn everything(s3: S3Door) -> Self {
        Self {
            s3: Some(s3),
            park_every: 8,
            both_every: 11,
            declare_every: 40,
            withhold_every: 50,
            refuse_every: 25,
            revises: true,
        }
    }

    /// How window number `window` of `windows` goes. The last one closes the epoch, and the first
    /// makes it known: they go to the API.
    #[must_use]
    pub fn role(&self, window: usize, windows: usize) -> Role {
        let turn = |every: usize, at: usize| every > 0 && window % every == at % every;
        if window == 0 || window + 1 >= windows {
            Role::Plain
        } else if turn(self.declare_every, 19) {
            Role::Declared
        } else if turn(self.withhold_every, 29) {
            Role::Withheld
        } else if turn(self.park_every, 5) && self.s3.is_some() {
            Role::Parked
        } else if turn(self.both_every, 7) && self.s3.is_some() {
            Role::Both
        } else {
            Role::Plain
        }
    }

    /// Whether a batch that must be refused goes with this window.
    #[must_use]
    pub fn refuses(&self, window: usize) -> bool {
        self.refuse_every > 0 && window % self.refuse_every == 11 % self.refuse_every
    }
}

/// The way to S3, as an agent is told of it.
#[derive(Clone, Debug)]
pub struct S3Door {
    pub endpoint: String,
    pub bucket: String,
    pub access_key: String,
    pub secret_key: Secret,
    /// The recovery worker's, 64 hex digits.
    pub public_key: String,
}

impl S3Door {
    /// A stack's, if it says to whom objects are sealed.
    #[must_use]
    pub fn of(stack: &StackFile) -> Option<Self> {
        Some(Self {
            endpoint: stack.s3.endpoint.clone(),
            bucket: stack.s3.bucket.clone(),
            access_key: stack.s3.agent_access_key.clone(),
            secret_key: Secret::new(stack.s3.agent_secret_key.as_str()),
            public_key: stack.seal.clone().filter(|key| !key.is_empty())?,
        })
    }

    /// The agent's own sealing and putting, for a sender with this token.
    #[must_use]
    pub fn park(&self, token: &str) -> S3Park {
        let settings = Settings {
            agent: AgentSettings { token: Secret::new(token), ..AgentSettings::default() },
            spill: SpillSettings {
                enabled: true,
                endpoint: self.endpoint.clone(),
                bucket: self.bucket.clone(),
                access_key: self.access_key.clone(),
                secret_key: self.secret_key.clone(),
                public_key: self.public_key.clone(),
                ..SpillSettings::default()
            },
            ..Settings::default()
        };
        let park = S3Park::new(&settings).expect("the stack's key and address are sound");
        park.expect("it is enabled")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_takes_its_turn_and_the_ends_are_plain() {
        let s3 = S3Door {
            endpoint: String::new(),
            bucket: String::new(),
            access_key: String::new(),
            secret_key: Secret::default(),
            public_key: String::new(),
        };
        let mix = Mix::everything(s3);
        let roles: Vec<Role> = (0..60).map(|window| mix.role(window, 60)).collect();
        for role in [Role::Plain, Role::Parked, Role::Both, Role::Declared, Role::Withheld] {
            assert!(roles.contains(&role), "{role:?}");
        }
        assert_eq!((roles[0], roles[59]), (Role::Plain, Role::Plain));
        assert_eq!(Mix::default().role(5, 60), Role::Plain);
    }
}
