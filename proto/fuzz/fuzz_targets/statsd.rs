//! A datagram from any program on the host: never a panic, and what is taken is a reading that
//! a batch can hold.

#![no_main]

use libfuzzer_sys::fuzz_target;
use spillway_agent::collect::statsd::parse::{Parsed, parse};
use spillway_proto::limits::METRIC_BYTES_MAX;

fuzz_target!(|data: &[u8]| {
    let mut labels = Vec::new();
    for line in data.split(|byte| *byte == b'\n') {
        let Ok(Parsed::Metric(line)) = parse(line) else { continue };
        assert!(!line.name.is_empty() && line.name.len() <= METRIC_BYTES_MAX);
        assert!(line.rate > 0.0 && line.rate <= 1.0);
        assert!(line.values().all(|value| value.is_ok()));
        line.labels(&mut labels);
        assert!(labels.is_sorted_by(|a, b| a.0 < b.0));
    }
});
