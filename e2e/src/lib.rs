//! The judge of the whole pipeline: a load whose every point is known, and the comparison after.
//!
//! `sender` plays agents (with seq and epoch, re-sending until a 2xx), `ledger` remembers what
//! was attempted and what the system said of it, `compare` holds MySQL against it: L1 nothing
//! lost, L2 nothing made up, L3 nothing twice. `rig` is what every scenario does alike.

#![expect(clippy::expect_used, reason = "a judge that can't judge fails loudly")]

pub mod compare;
pub mod ledger;
pub mod random_faults;
pub mod rig;
pub mod sender;

pub use compare::{Verdict, compare, settled};
pub use ledger::{Fate, Ledger};
pub use sender::{Sender, SenderOptions};
