//! The protobuf message inside a frame, as the encoder writes it.
//!
//! A string table and columns: one entry a series in the series columns, one a point in the
//! point columns. Field numbers are the format: they are never reused, and a field that this
//! list does not have is refused, because it could carry what we would drop in silence.

/// Field numbers, for [`super::columns`], which reads the message in place.
pub mod field {
    pub const STRINGS: u32 = 1;
    pub const ENVIRONMENT: u32 = 2;
    pub const HOST: u32 = 3;
    pub const METRIC: u32 = 4;
    pub const LABEL_COUNT: u32 = 5;
    pub const LABEL_REFS: u32 = 6;
    pub const KIND: u32 = 7;
    pub const UNIT: u32 = 8;
    pub const POINT_COUNT: u32 = 9;
    pub const TS_DELTA_MS: u32 = 10;
    pub const VALUES: u32 = 11;
    pub const PREVIOUS: u32 = 12;
    pub const DECLARATIONS: u32 = 13;
    pub const CLOSING: u32 = 14;
    pub const HOST_INFO: u32 = 15;
}

/// All of a batch but what the header holds.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Body {
    #[prost(string, repeated, tag = "1")]
    pub strings: Vec<String>,
    /// Index into `strings`, like every reference below.
    #[prost(uint32, tag = "2")]
    pub environment: u32,
    #[prost(uint32, tag = "3")]
    pub host: u32,
    #[prost(uint32, repeated, packed = "true", tag = "4")]
    pub metric: Vec<u32>,
    #[prost(uint32, repeated, packed = "true", tag = "5")]
    pub label_count: Vec<u32>,
    /// Name and value of each label of each series, in series order.
    #[prost(uint32, repeated, packed = "true", tag = "6")]
    pub label_refs: Vec<u32>,
    #[prost(uint32, repeated, packed = "true", tag = "7")]
    pub kind: Vec<u32>,
    #[prost(uint32, repeated, packed = "true", tag = "8")]
    pub unit: Vec<u32>,
    #[prost(uint32, repeated, packed = "true", tag = "9")]
    pub point_count: Vec<u32>,
    /// Per point: ms since the series' previous point, the first one since the window's start.
    #[prost(sint64, repeated, packed = "true", tag = "10")]
    pub ts_delta_ms: Vec<i64>,
    #[prost(double, repeated, packed = "true", tag = "11")]
    pub values: Vec<f64>,
    #[prost(message, optional, tag = "12")]
    pub previous: Option<PreviousEpochMessage>,
    #[prost(message, repeated, tag = "13")]
    pub declarations: Vec<DeclarationMessage>,
    #[prost(bool, tag = "14")]
    pub closing: bool,
    #[prost(message, optional, tag = "15")]
    pub host_info: Option<HostInfoMessage>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PreviousEpochMessage {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub epoch: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub last_seq: u64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct DeclarationMessage {
    /// 16 bytes.
    #[prost(bytes = "vec", tag = "1")]
    pub epoch: Vec<u8>,
    #[prost(uint64, tag = "2")]
    pub first_seq: u64,
    #[prost(uint64, tag = "3")]
    pub last_seq: u64,
    #[prost(string, tag = "4")]
    pub reason: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct HostInfoMessage {
    #[prost(string, tag = "1")]
    pub agent_version: String,
    #[prost(sint64, optional, tag = "2")]
    pub clock_skew_ms: Option<i64>,
    /// Name and value alternate.
    #[prost(string, repeated, tag = "3")]
    pub labels: Vec<String>,
    #[prost(uint64, optional, tag = "4")]
    pub backlog_batches: Option<u64>,
}
