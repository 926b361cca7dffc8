//! Protobuf, field by field, as clients write it.

use prost::encoding::{bytes, double, fixed64, int64, sint32, string, uint64};

/// A message in the making.
#[derive(Clone, Debug, Default)]
pub struct Message(pub Vec<u8>);

impl Message {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn text(mut self, tag: u32, value: &str) -> Self {
        string::encode(tag, &value.to_owned(), &mut self.0);
        self
    }

    pub fn double(mut self, tag: u32, value: f64) -> Self {
        double::encode(tag, &value, &mut self.0);
        self
    }

    pub fn int(mut self, tag: u32, value: i64) -> Self {
        int64::encode(tag, &value, &mut self.0);
        self
    }

    pub fn zigzag(mut self, tag: u32, value: i32) -> Self {
        sint32::encode(tag, &value, &mut self.0);
        self
    }

    pub fn fixed(mut self, tag: u32, value: u64) -> Self {
        fixed64::encode(tag, &value, &mut self.0);
        self
    }

    pub fn message(mut self, tag: u32, message: &Self) -> Self {
        bytes::encode(tag, &message.0, &mut self.0);
        self
    }

    pub fn packed(mut self, tag: u32, values: &[u64]) -> Self {
        uint64::encode_packed(tag, values, &mut self.0);
        self
    }

    pub fn packed_fixed(mut self, tag: u32, values: &[u64]) -> Self {
        fixed64::encode_packed(tag, values, &mut self.0);
        self
    }

    pub fn packed_double(mut self, tag: u32, values: &[f64]) -> Self {
        double::encode_packed(tag, values, &mut self.0);
        self
    }
}

pub fn snappy(plain: &[u8]) -> Vec<u8> {
    snap::raw::Encoder::new().compress_vec(plain).unwrap()
}
