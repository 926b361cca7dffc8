//! JSON of strangers, with a budget: three bytes (`{},`) may stand for a struct of hundreds.

use std::cell::Cell;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{DeserializeOwned, Deserializer, Error, SeqAccess, Visitor};
use serde::{Deserialize, de};

use crate::http::foreign::Unreadable;

/// Bytes that the entries of all lists of one body may take once they are built.
const BUILT_BYTES_MAX: usize = 96 << 20;
/// What an entry takes beside its own place: the least that an allocator gives, for its text.
const ALLOCATED_BYTES: usize = 32;
/// What an error says of a body, at most.
const ERROR_BYTES_MAX: usize = 200;

thread_local! {
    /// What is left for the body that this thread reads.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

/// Reads a body; its lists are [`Few`].
///
/// # Errors
/// [`Unreadable::NotJson`].
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Unreadable> {
    LEFT.set(BUILT_BYTES_MAX);
    serde_json::from_slice(body).map_err(|error| {
        let text: String = error.to_string().chars().take(ERROR_BYTES_MAX).collect();
        Unreadable::NotJson(text)
    })
}

/// A field that may be null, which in protobuf's JSON is as if it were not there
/// (<https://protobuf.dev/programming-guides/json/>).
///
/// # Errors
/// What stands there is neither null nor a `T`.
pub fn or_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de> + Default,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

/// A list whose entries are counted against the body's budget. Null is an empty one.
#[derive(Debug)]
pub struct Few<T>(pub Vec<T>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Few<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Counting(PhantomData))
    }
}

struct Counting<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Counting<T> {
    type Value = Few<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_unit<E: de::Error>(self) -> Result<Few<T>, E> {
        Ok(Few::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Few<T>, A::Error> {
        let mut few = Vec::new();
        while let Some(entry) = list.next_element()? {
            // Twice: a growing list holds its old and its new place for a moment.
            let left = LEFT.get().checked_sub(2 * size_of::<T>() + ALLOCATED_BYTES);
            LEFT.set(left.ok_or_else(|| A::Error::custom("the body has too many entries"))?);
            few.push(entry);
        }
        Ok(Few(few))
    }
}

/// A 64-bit integer, as a number or as text.
#[derive(Clone, Copy, Debug, Default)]
pub struct Integer(pub i64);

impl Integer {
    /// The bits of an unsigned number.
    #[must_use]
    pub fn unsigned(self) -> u64 {
        self.0.cast_unsigned()
    }
}

/// A double, as a number or as text: JSON has no NaN and no infinity.
#[derive(Clone, Copy, Debug, Default)]
pub struct Double(pub f64);

#[derive(Deserialize)]
#[serde(untagged)]
enum Either {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Text(String),
}

impl<'de> Deserialize<'de> for Integer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let wrong = || D::Error::custom("an integer is expected");
        let number = match Either::deserialize(deserializer)? {
            Either::Unsigned(number) => number.cast_signed(),
            Either::Signed(number) => number,
            Either::Float(number) if number.fract() == 0.0 => number as i64,
            Either::Float(_) => return Err(wrong()),
            Either::Text(text) => match text.parse::<u64>() {
                Ok(number) => number.cast_signed(),
                Err(_) => text.parse().map_err(|_| wrong())?,
            },
        };
        Ok(Self(number))
    }
}

impl<'de> Deserialize<'de> for Double {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match Either::deserialize(deserializer)? {
            Either::Unsigned(number) => Ok(Self(number as f64)),
            Either::Signed(number) => Ok(Self(number as f64)),
            Either::Float(number) => Ok(Self(number)),
            Either::Text(text) => {
                let number = text.parse().map_err(|_| D::Error::custom("a number is expected"));
                number.map(Self)
            }
        }
    }
}
