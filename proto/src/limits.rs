//! Every bound that two programs must agree on, with its unit in its name.
//!
//! A relation between two bounds that something depends on is asserted at compile time below.

/// The grid on which stored windows lie: a row of `points` never crosses it.
pub const WINDOW_S: u32 = 10;
/// [`WINDOW_S`] in milliseconds.
pub const WINDOW_MS: i64 = WINDOW_S as i64 * 1_000;

/// A whole frame, header included. Fits Kafka's default `message.max.bytes` (1,048,588 bytes)
/// with room for the record's key, headers and framing.
pub const FRAME_BYTES_MAX: usize = 960 * 1024;
/// The body once decompressed; checked in the header, before anything is allocated.
pub const FRAME_RAW_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Kafka's default `message.max.bytes`, which topics are created with.
pub const KAFKA_MESSAGE_BYTES_MAX: usize = 1_048_588;
/// What key, headers and record framing may add to a frame in Kafka.
pub const KAFKA_RECORD_OVERHEAD_BYTES: usize = 16 * 1024;
/// `max.message.bytes` of the dead letters' topic: the largest record that the others take, and the
/// reason why it is there. Else a record of just that size could neither be applied nor go.
pub const DEAD_LETTER_BYTES_MAX: usize = KAFKA_MESSAGE_BYTES_MAX + KAFKA_RECORD_OVERHEAD_BYTES;

/// Frames in one `POST /v1/batches`, or in one sealed object.
pub const FRAMES_PER_BODY_MAX: usize = 256;
/// The body of one `POST /v1/batches`.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;

/// Points in one batch.
pub const BATCH_POINTS_MAX: usize = 50_000;
/// Series in one batch.
pub const BATCH_SERIES_MAX: usize = 10_000;
/// Entries in a frame's string table: a few per series, plus the fixed ones.
pub const BATCH_STRINGS_MAX: usize = 65_536;
/// Declarations one batch may carry; more wait for the next carrier.
pub const BATCH_DECLARATIONS_MAX: usize = 256;

/// An environment's name. ASCII letters, digits, `-`, `_` and `.` only.
pub const ENVIRONMENT_BYTES_MAX: usize = 64;
/// A host's name (as in DNS).
pub const HOST_BYTES_MAX: usize = 255;
/// A metric's name.
pub const METRIC_BYTES_MAX: usize = 512;
/// A label's name.
pub const LABEL_NAME_BYTES_MAX: usize = 255;
/// A label's value.
pub const LABEL_VALUE_BYTES_MAX: usize = 1_024;
/// Labels of one series.
pub const LABELS_MAX: usize = 64;
/// All label names and values of one series together; fits a MySQL `TEXT` even when escaped.
pub const LABELS_BYTES_MAX: usize = 8 * 1024;
/// A unit's name.
pub const UNIT_BYTES_MAX: usize = 64;
/// The reason of a declaration.
pub const REASON_BYTES_MAX: usize = 255;
/// An agent's version string.
pub const VERSION_BYTES_MAX: usize = 64;

/// The latest time a point may carry, in ms since the Unix epoch: the last whole window whose
/// start fits the `INT UNSIGNED` seconds of MySQL (2106-02-07).
pub const TS_MS_MAX: i64 = (u32::MAX as i64 / WINDOW_S as i64) * WINDOW_MS;

/// Above this a seq can't have been counted; what is computed from seqs is signed and has 64 bits.
pub const SEQ_MAX: u64 = 1 << 62;
/// How far ahead of its append a point is taken at least: the least and the usual value of the
/// consumer's `store.future_max`. Whatever lies further ahead costs its whole batch there.
pub const FUTURE_MS_MAX: i64 = 3_600_000;
/// How far ahead of its own clock an edge (ingest-api for foreign bodies, the agent for times that
/// its inputs state) lets a point through. A batch is appended after it was judged, so only a
/// broker's clock that is behind the edge's can make it look further ahead: by as much as is left.
pub const EDGE_FUTURE_MS_MAX: i64 = FUTURE_MS_MAX - 5 * 60_000;

/// Partitions of each topic, unless chosen otherwise at `topics create`. Fixed for life.
pub const PARTITIONS_DEFAULT: u16 = 64;
/// Partitions of one group: an environment's hosts spread over one group. Fixed for life.
pub const PARTITION_GROUP_DEFAULT: u16 = 4;
/// Partitions a topic may have at most.
pub const PARTITIONS_MAX: u16 = 4_096;

/// A token, `spw_<id>_<secret>`, as text.
pub const TOKEN_BYTES_MAX: usize = 256;
/// A sealed object in S3, header and padding included; larger ones are never fetched.
pub const SEALED_OBJECT_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Frames in a sealed object, in bytes, before padding.
pub const SEALED_FRAMES_BYTES_MAX: usize = 8 * 1024 * 1024;

const _: () = assert!(FRAME_BYTES_MAX + KAFKA_RECORD_OVERHEAD_BYTES <= KAFKA_MESSAGE_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX <= FRAME_RAW_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX <= BODY_BYTES_MAX);
const _: () = assert!(FRAME_BYTES_MAX <= SEALED_FRAMES_BYTES_MAX);
// Padding grows an object by at most an eighth; token and headers are far below the rest.
const _: () = assert!(SEALED_FRAMES_BYTES_MAX * 9 / 8 + 4_096 <= SEALED_OBJECT_BYTES_MAX);
const _: () = assert!(BATCH_SERIES_MAX <= BATCH_POINTS_MAX);
const _: () = assert!(BATCH_SERIES_MAX < BATCH_STRINGS_MAX);
// Every point costs at least nine bytes (a double and a one-byte time) before compression.
const _: () = assert!(BATCH_POINTS_MAX * 9 <= FRAME_RAW_BYTES_MAX);
const _: () = assert!(PARTITIONS_DEFAULT.is_multiple_of(PARTITION_GROUP_DEFAULT));
const _: () = assert!(PARTITIONS_DEFAULT <= PARTITIONS_MAX);
const _: () = assert!(0 < EDGE_FUTURE_MS_MAX && EDGE_FUTURE_MS_MAX < FUTURE_MS_MAX);
const _: () = assert!(LABEL_NAME_BYTES_MAX + LABEL_VALUE_BYTES_MAX <= LABELS_BYTES_MAX);
const _: () = assert!(TS_MS_MAX / 1_000 <= u32::MAX as i64);
