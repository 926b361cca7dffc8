//! What one transaction writes.

pub mod values;
