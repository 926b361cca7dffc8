//! The oracle: the recorder that keeps the ledger outside the system, the observer that looks
//! while the load runs, and the judge of L1–L8 afterwards.

pub mod note;
pub mod recorder;
pub mod site;
pub mod log;
pub mod store;
pub mod offsets;
pub mod conserve;
pub mod watch;
pub mod honest;
pub mod memory;
pub mod way;
pub mod report;
pub mod trial;
pub mod run;
