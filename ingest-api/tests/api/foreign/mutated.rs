//! Bodies that are almost right: every seed of the fuzz targets, damaged at each byte. Whatever is
//! read of it is cut into frames that decode.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use spillway_ingest_api::cut::{Intake, frames};
use spillway_ingest_api::http::foreign::Unreadable;
use spillway_ingest_api::http::{datadog, influx, otlp, remote_write};
use spillway_ingest_api::unpack::{Coding, unpack};
use spillway_proto::frame::verify;

type Read = fn(&[u8], &mut Intake) -> Result<(), Unreadable>;

/// Folder of seeds, and how its bodies are read.
const READERS: [(&str, Read); 8] = [
    ("remote_write", |body, intake| {
        remote_write::read_v1(body, remote_write::Reading::default(), intake).map(drop)
    }),
    ("remote_write", |body, intake| {
        remote_write::read_v2(body, remote_write::Reading::default(), intake).map(drop)
    }),
    ("otlp", otlp::read_protobuf),
    ("otlp", otlp::read_json),
    ("influx", |body, intake| influx::read(body, influx::Precision::Nanoseconds, intake).map(drop)),
    ("datadog", |body, intake| datadog::read(body, datadog::Form::V1, intake)),
    ("datadog", |body, intake| datadog::read(body, datadog::Form::V2, intake)),
    ("datadog", |body, intake| datadog::read(body, datadog::Form::V2Protobuf, intake)),
];

fn seeds(folder: &str) -> Vec<Vec<u8>> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/fuzz/corpus").join(folder);
    let files = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path());
    files.map(|file| fs::read(file).unwrap()).collect()
}

/// Each byte changed, each end cut off, each byte said twice.
fn damaged(seed: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    (0..seed.len()).flat_map(move |at| {
        let flips = [0x01, 0x7f, 0x80, 0xff].map(|flip| {
            let mut flipped = seed.to_vec();
            flipped[at] ^= flip;
            flipped
        });
        let mut twice = seed.to_vec();
        twice.insert(at, seed[at]);
        flips.into_iter().chain([seed[..at].to_vec(), twice])
    })
}

/// Points that were stored of `body`.
fn stored(read: Read, body: &[u8]) -> usize {
    let mut intake = Intake::new(Arc::from("token"), 1_760_000_000_000);
    if read(body, &mut intake).is_err() {
        return 0;
    }
    let (frames, misfits) = frames("demo", intake);
    assert_eq!(misfits, 0, "what is taken in fits a frame: {body:?}");
    frames.iter().map(|frame| verify(frame).unwrap().header.points).sum()
}

#[test]
fn a_body_damaged_at_any_byte_is_read_or_refused() {
    for (folder, read) in READERS {
        let seeds = seeds(folder);
        assert!(seeds.iter().any(|seed| stored(read, seed) > 0), "{folder}: a seed has points");
        for seed in &seeds {
            damaged(seed).for_each(|body| {
                stored(read, &body);
            });
        }
    }
}

#[test]
fn a_packed_body_damaged_at_any_byte_stays_within_its_limit() {
    for seed in seeds("unpack") {
        for body in damaged(&seed).map(Bytes::from) {
            for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd, Coding::Snappy] {
                let plain = unpack(body.clone(), coding, 64);
                assert!(plain.map_or(0, |plain| plain.len()) <= 64);
            }
        }
    }
}
