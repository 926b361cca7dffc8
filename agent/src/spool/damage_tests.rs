//! A spool cut and flipped at every byte: it opens, and damage costs what it hits.

use std::sync::Arc;

use super::disk_fake::FakeDisk;
use super::record;
use super::store_tests::{Bench, limits};

const BATCHES: u64 = 5;
const FRAME_BYTES: usize = 50;

/// A small segment as a crash leaves it, without its unused space.
fn small_segment() -> (String, Vec<u8>) {
    let mut bench = Bench::new();
    for seq in 1..=BATCHES {
        bench.append(seq, FRAME_BYTES).unwrap();
    }
    let (name, mut bytes) = bench.disk.contents().pop_first().unwrap();
    bytes.truncate(BATCHES as usize * record::record_bytes(FRAME_BYTES) + 64);
    (name, bytes)
}

fn open(name: &str, bytes: Vec<u8>) -> Bench {
    Bench::on(FakeDisk::with_contents([(name.to_owned(), bytes)].into()), limits(), 0)
}

fn damaged_seqs(bench: &Bench) -> Vec<u64> {
    bench.found.damaged.iter().map(|lost| lost.first_seq).collect()
}

#[test]
fn a_flip_at_any_byte_costs_at_most_the_record_it_hits() {
    let (name, bytes) = small_segment();
    let record_bytes = record::record_bytes(FRAME_BYTES);
    for at in 0..bytes.len() {
        for bit in [0x01, 0x80, 0xff] {
            let mut damaged = bytes.clone();
            damaged[at] ^= bit;
            let mut bench = open(&name, damaged);
            let hit = (at / record_bytes) as u64 + 1;
            let waiting = bench.waiting();
            let others: Vec<_> = (1..=BATCHES).filter(|seq| *seq != hit).collect();
            let all: Vec<_> = (1..=BATCHES).collect();
            assert!(waiting == all || waiting == others, "{at}: {waiting:?}");
            if waiting == others {
                let in_payload = at % record_bytes >= record::HEADER_BYTES;
                let named = damaged_seqs(&bench);
                assert_eq!(named, if in_payload { vec![hit] } else { vec![] }, "{at}");
            }
        }
    }
}

#[test]
fn a_cut_at_any_byte_costs_at_most_what_lies_behind_it() {
    let (name, bytes) = small_segment();
    let record_bytes = record::record_bytes(FRAME_BYTES);
    for cut in 0..bytes.len() {
        let mut bench = open(&name, bytes[..cut].to_vec());
        let whole = (cut / record_bytes) as u64;
        let waiting = bench.waiting();
        let most = (1..=BATCHES.min(whole + 1)).collect::<Vec<_>>();
        let least = (1..=BATCHES.min(whole)).collect::<Vec<_>>();
        assert!(waiting == most || waiting == least, "{cut}: {waiting:?}");
        if whole < BATCHES && cut % record_bytes >= record::HEADER_BYTES && waiting == least {
            assert_eq!(damaged_seqs(&bench), [whole + 1], "{cut}");
        }
    }
}

#[test]
fn a_hole_of_zeros_anywhere_costs_at_most_the_records_it_touches() {
    let (name, bytes) = small_segment();
    let record_bytes = record::record_bytes(FRAME_BYTES);
    for start in 0..bytes.len() - 40 {
        let mut damaged = bytes.clone();
        damaged[start..start + 40].fill(0);
        let (first, last) = (start / record_bytes + 1, (start + 39) / record_bytes + 1);
        let waiting = open(&name, damaged).waiting();
        let untouched = (1..=BATCHES).filter(|s| !(first..=last).contains(&(*s as usize)));
        assert!(untouched.into_iter().all(|seq| waiting.contains(&seq)), "{start}: {waiting:?}");
    }
}

#[test]
fn a_payload_that_holds_a_forged_record_is_read_as_a_payload() {
    // Somebody who can choose metric names writes records of his own into a payload, and then
    // the real header is damaged, so that the reader searches inside.
    let mut forged = Vec::new();
    let id = super::store_tests::id(999);
    let header = record::Header::of(record::Kind::Batch, id, b"forged").unwrap();
    header.write_record(0, b"forged", &mut forged);
    let mut bench = Bench::new();
    let gate = super::index::Gate::closed();
    gate.open();
    let frame = forged.into();
    let new = super::NewRecord { id: super::store_tests::id(1), window_ts: 0, points: 0, frame };
    let incoming = super::write::Incoming::new(new, gate).unwrap_or_else(|_| panic!());
    let log = Arc::clone(&bench.log);
    assert!(bench.store.append(vec![incoming], &log).iter().all(Result::is_ok));
    let (name, mut bytes) = bench.disk.contents().pop_first().unwrap();
    bytes[20] ^= 1;
    assert!(open(&name, bytes).waiting().is_empty());
}

#[test]
fn files_that_are_none_of_ours_are_left_alone() {
    let disk = FakeDisk::with_contents([("notes.txt".to_owned(), b"mine".to_vec())].into());
    let mut bench = Bench::on(disk, limits(), 0);
    bench.append(1, 10).unwrap();
    assert!(bench.disk.contents().contains_key("notes.txt"));
}
