//! What the targets of foreign bodies share: whatever was read is cut into frames, and every one of
//! them is what the consumer accepts.

use std::sync::Arc;

use spillway_ingest_api::cut::{self, Intake};
use spillway_ingest_api::http::foreign::Unreadable;
use spillway_proto::frame::Decoder;

pub fn check<T>(read: impl FnOnce(&mut Intake) -> Result<T, Unreadable>) {
    let mut intake = Intake::new(Arc::from("token"), 1_760_000_000_000);
    if read(&mut intake).is_err() {
        return;
    }
    let taken = intake.points();
    let (frames, misfits) = cut::frames("demo", intake);
    assert_eq!(misfits, 0, "what was taken in fits a frame");
    let mut decoder = Decoder::new();
    let mut points = 0;
    for frame in frames {
        points += decoder.decode(&frame).expect("a frame that is accepted").header.points;
    }
    assert!(points <= taken, "only repeated times may be fewer");
}
