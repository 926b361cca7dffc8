//! The judge of the whole pipeline: a load whose every point is known, and the comparison after.
//!
//! `sender` plays agents (with seq and epoch, re-sending until a 2xx), `ledger` remembers what
//! was attempted and what the system said of it, `compare` holds MySQL against it: L1 nothing
//! lost, L2 nothing made up, L3 nothing twice, L4 nothing changed, L8 honest gaps. `rig` is what
//! every scenario does alike; `oracle` is all of it at volume, with L5 to L7, as a program.

#![expect(clippy::expect_used, reason = "a judge that can't judge fails loudly")]

pub mod recipe;
pub mod mix;
pub mod ledger;
pub mod random_faults;
pub mod sender;
pub mod expect;
pub mod verdict;
pub mod books;
pub mod compare;
pub mod rig;
pub mod rollups;
pub mod oracle;
pub mod mutants;

pub use compare::{compare, settled};
pub use ledger::{Fate, Ledger};
pub use sender::{Sender, SenderOptions};
pub use verdict::Verdict;
