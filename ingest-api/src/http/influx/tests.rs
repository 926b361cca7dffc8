//! Lines as points: any text ends in points or faults, and each fault costs its own line.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::cut;

proptest! {
    #[test]
    fn any_text_ends_in_points_or_faults(body in "[a-c,= \\\\\"\n0-9i]{0,60}") {
        let mut intake = Intake::new(Arc::from("token"), 5);
        read(body.as_bytes(), Precision::Seconds, &mut intake).unwrap();
        prop_assert_eq!(cut::frames("demo", intake).1, 0);
    }
}
