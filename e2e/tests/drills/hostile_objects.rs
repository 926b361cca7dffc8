//! Hostile objects in the bucket, against a running recovery worker whose memory is limited: each
//! ends in quarantine with its reason, byte for byte, and what is honest beside them is drained.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use spillway_e2e::rig::{Rig, SETTLED_WITHIN};
use spillway_proto::limits::SEALED_OBJECT_BYTES_MAX;
use spillway_proto::object_key::ObjectKey;
use spillway_proto::sealed_object::CLEAR_BYTES;
use spillway_testkit::proxy::Mode;
use spillway_testkit::stack::{End, StackOptions};
use tokio::time::Instant;
use uuid::Uuid;

use crate::hostile_target::{MEMORY_BYTES_MAX, Target};

const WORKER: &str = "recovery-worker-0";
/// Objects of the largest size there may be, in the bucket together.
const LARGEST: usize = 8;
/// Stands for 5 GB: size is judged by the listing, before a byte is read.
const TOO_LARGE_BYTES: u64 = 64 * 1024 * 1024;

struct Bucket {
    dir: PathBuf,
}

impl Bucket {
    /// Puts bytes under a new name, as somebody with the agents' key could.
    fn put(&self, bytes: &[u8], size: u64) -> String {
        let key = ObjectKey::from_random(Uuid::new_v4().as_u128());
        let file = fs::File::create(self.dir.join(key.as_str())).expect("the bucket is a folder");
        std::os::unix::fs::FileExt::write_all_at(&file, bytes, 0).expect("it is written");
        file.set_len(size.max(bytes.len() as u64)).expect("it has its size");
        key.name().to_owned()
    }

    fn reason(&self, name: &str) -> Option<String> {
        let told = fs::read(self.dir.join(format!("quarantine/{name}.json"))).ok()?;
        let told: serde_json::Value = serde_json::from_slice(&told).ok()?;
        told["reason"].as_str().map(str::to_owned)
    }
}

/// An object as an agent sealed it.
fn honest(dir: &Path) -> Vec<u8> {
    let entries = fs::read_dir(dir.join("spill")).expect("agents have parked").flatten();
    // s3s keeps its own notes in files whose names start with a dot.
    let is_object = |path: &PathBuf| ObjectKey::parse(&key_of(path)).is_some();
    let first = entries.map(|entry| entry.path()).find(is_object);
    fs::read(first.expect("one object at least")).expect("it is readable")
}

fn key_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    format!("spill/{name}")
}

/// Each with the reason that it must end with.
fn hostile(bucket: &Bucket, honest: &[u8]) -> Vec<(&'static str, &'static str, String)> {
    let changed = |at: usize| {
        let mut bytes = honest.to_vec();
        bytes[at] ^= 1;
        bytes
    };
    let clear = &honest[..CLEAR_BYTES];
    let most = SEALED_OBJECT_BYTES_MAX as u64;
    let mut made = vec![
        ("a flipped tag", "broken-seal", bucket.put(&changed(honest.len() - 1), 0)),
        ("a flipped ciphertext", "broken-seal", bucket.put(&changed(CLEAR_BYTES), 0)),
        ("a wrong key id", "unknown-key", bucket.put(&changed(16), 0)),
        ("another object's name", "broken-seal", bucket.put(honest, 0)),
        ("cut in the middle", "broken-seal", bucket.put(&honest[..honest.len() / 2], 0)),
        ("random bytes", "not-sealed", bucket.put(&[0xa5; 5_000], 0)),
        ("nothing at all", "not-sealed", bucket.put(&[], 0)),
        ("64 MiB (for 5 GB)", "too-large", bucket.put(clear, TOO_LARGE_BYTES)),
        ("a byte over the limit", "too-large", bucket.put(clear, most + 1)),
    ];
    made.extend((0..LARGEST).map(|_| ("16 MiB of zeros", "broken-seal", bucket.put(clear, most))));
    made
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_objects_end_in_quarantine_with_their_reason_and_bounded_memory() {
    let rig = Rig::start(StackOptions::default().link(End::Agent, End::IngestApi)).await;
    rig.stack.kill(WORKER).await.expect("it runs");
    let link = rig.stack.link(End::Agent, End::IngestApi).expect("it was asked for");
    link.set(Mode::Reset);
    let agent = rig.agent("honest-agent", "demo").await;
    rig.until("honest-agent", "spillway_agent_batches_parked_total", |parked| parked >= 2.0).await;
    let bucket = Bucket { dir: rig.stack.bucket_dir() };
    let objects = hostile(&bucket, &honest(&bucket.dir));
    rig.stack.start_process(WORKER).await.expect("it starts again");
    let file = rig.stack.file();
    let process = file.processes.iter().find(|process| process.name == WORKER);
    let pid = process.and_then(|process| process.pid).expect("it runs");
    let log = rig.stack.log_path(WORKER).expect("it has a log");
    let target = Target::limited(pid, log, MEMORY_BYTES_MAX);
    target.forget_peak();

    let until = Instant::now() + SETTLED_WITHIN;
    for (what, reason, name) in &objects {
        while bucket.reason(name).is_none() {
            assert!(Instant::now() < until, "{what} is not judged");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(bucket.reason(name).as_deref(), Some(*reason), "{what}");
        assert!(bucket.dir.join("quarantine").join(name).is_file(), "{what}: the bytes are kept");
        println!("| {what} | quarantine: {reason} |");
    }
    link.set(Mode::Pass);
    rig.until(WORKER, "spillway_recovery_objects_pending", |pending| pending == 0.0).await;
    let (peak, lines) = (target.peak(), target.complaints());
    println!("{} objects, peak {:.0} MiB, {lines} lines", objects.len(), peak as f64 / 1_048_576.0);
    assert!(peak < MEMORY_BYTES_MAX, "{peak} bytes");
    assert!(lines <= objects.len(), "{lines} lines for {} objects", objects.len());
    drop(target);
    rig.judge_agent(&agent).await;
}
