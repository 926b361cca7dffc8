//! Protobuf of strangers, walked in place: field by field, as slices of the body.
//!
//! A decoder that builds messages turns two bytes (an empty message) into a struct of a hundred,
//! so 16 MiB may become a gigabyte before anything is judged. Walking allocates nothing; what is
//! kept is counted by [`crate::cut::Intake`]. The primitives are prost's.

use prost::encoding::{WireType, decode_key, decode_varint};

/// Bytes that are no protobuf of the expected kind; says where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no protobuf of this kind: {0}")]
pub struct Malformed(pub &'static str);

/// The value of a field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(&'a [u8]),
}

/// The fields of one message, in the order of its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Fields<'a>(pub &'a [u8]);

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u32, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = take_field(&mut self.0);
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn take_field<'a>(rest: &mut &'a [u8]) -> Result<(u32, Value<'a>), Malformed> {
    let (tag, wire) = decode_key(rest).map_err(|_| Malformed("a field's key"))?;
    let value = match wire {
        WireType::Varint => Value::Varint(take_varint(rest)?),
        WireType::SixtyFourBit => Value::Fixed64(u64::from_le_bytes(take(rest)?)),
        WireType::ThirtyTwoBit => Value::Fixed32(u32::from_le_bytes(take(rest)?)),
        WireType::LengthDelimited => {
            let cut_off = Malformed("a length beyond the end");
            let bytes = usize::try_from(take_varint(rest)?).map_err(|_| cut_off)?;
            let (value, after) = rest.split_at_checked(bytes).ok_or(cut_off)?;
            *rest = after;
            Value::Bytes(value)
        }
        WireType::StartGroup | WireType::EndGroup => return Err(Malformed("a group")),
    };
    Ok((tag, value))
}

fn take_varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    decode_varint(rest).map_err(|_| Malformed("a number"))
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], Malformed> {
    let (value, after) = rest.split_first_chunk::<N>().ok_or(Malformed("cut off"))?;
    *rest = after;
    Ok(*value)
}

impl<'a> Value<'a> {
    /// The bytes of a string, a message or packed numbers.
    ///
    /// # Errors
    /// [`Malformed`], as of all that follow, when the field is of another wire type.
    pub fn bytes(self) -> Result<&'a [u8], Malformed> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Malformed("a field of the wrong type")),
        }
    }

    pub fn message(self) -> Result<Fields<'a>, Malformed> {
        Ok(Fields(self.bytes()?))
    }

    pub fn text(self) -> Result<&'a str, Malformed> {
        std::str::from_utf8(self.bytes()?).map_err(|_| Malformed("a text that is not UTF-8"))
    }

    pub fn uint(self) -> Result<u64, Malformed> {
        match self {
            Self::Varint(number) => Ok(number),
            _ => Err(Malformed("a field of the wrong type")),
        }
    }

    pub fn int(self) -> Result<i64, Malformed> {
        Ok(self.uint()?.cast_signed())
    }

    /// A `sint32` or `sint64`.
    pub fn zigzag(self) -> Result<i64, Malformed> {
        Ok(unzigzag(self.uint()?))
    }

    pub fn fixed(self) -> Result<u64, Malformed> {
        match self {
            Self::Fixed64(number) => Ok(number),
            _ => Err(Malformed("a field of the wrong type")),
        }
    }

    pub fn double(self) -> Result<f64, Malformed> {
        Ok(f64::from_bits(self.fixed()?))
    }

    /// A field that lies in 32 bits, fixed or not.
    pub fn flags(self) -> Result<u64, Malformed> {
        match self {
            Self::Fixed32(number) => Ok(u64::from(number)),
            other => other.uint(),
        }
    }

    /// Appends repeated varints, packed or one by one. Of more than `max`, one is kept beyond, by
    /// which the reader sees that there are too many.
    pub fn push_varints(self, to: &mut Vec<u64>, max: usize) -> Result<(), Malformed> {
        let mut push = |number| {
            if to.len() <= max {
                to.push(number);
            }
        };
        match self {
            Self::Bytes(mut packed) => {
                while !packed.is_empty() {
                    push(take_varint(&mut packed)?);
                }
            }
            one => push(one.uint()?),
        }
        Ok(())
    }

    /// Appends repeated 64-bit fields, packed or one by one; else as [`Self::push_varints`].
    pub fn push_fixed(self, to: &mut Vec<u64>, max: usize) -> Result<(), Malformed> {
        let mut push = |number| {
            if to.len() <= max {
                to.push(number);
            }
        };
        match self {
            Self::Bytes(mut packed) => {
                while !packed.is_empty() {
                    push(u64::from_le_bytes(take(&mut packed)?));
                }
            }
            one => push(one.fixed()?),
        }
        Ok(())
    }
}

/// The signed number that a zigzag varint stands for.
#[must_use]
pub fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_end_in_fields_or_one_error(bytes: Vec<u8>) {
            let fields: Vec<_> = Fields(&bytes).collect();
            prop_assert!(fields.len() <= bytes.len());
            prop_assert!(fields.iter().filter(|field| field.is_err()).count() <= 1);
        }

        #[test]
        fn a_zigzag_number_is_read_back(number: i64) {
            let zigzag = (number.wrapping_shl(1) ^ (number >> 63)).cast_unsigned();
            prop_assert_eq!(unzigzag(zigzag), number);
        }
    }
}
