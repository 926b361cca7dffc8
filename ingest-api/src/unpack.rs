//! A compressed body becomes plain bytes, bounded before they are allocated: a kilobyte may claim
//! gigabytes.
//!
//! Only foreign senders compress whole bodies; our own frames are compressed each by itself.

use std::io::Read;

use bytes::Bytes;
use http::HeaderMap;
use http::header::CONTENT_ENCODING;

/// What a foreign body may be once decompressed. The largest that known senders make by default
/// are vmagent's blocks of 8 MiB.
pub const UNPACKED_BYTES_MAX: usize = 16 << 20;
/// The window that a zstd stream may ask for, as a power of two: 8 MiB, what encoders use by
/// default at most. The library's own limit is 128 MiB.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;

/// How a body is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
    /// With zlib's header, as HTTP means it.
    Deflate,
    Zstd,
    /// Snappy's block format, which states its length first.
    Snappy,
}

/// Why a body can't be unpacked. None of it is transient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnpackError {
    #[error("the body is longer than {bytes_max} bytes once decompressed")]
    TooLarge { bytes_max: usize },
    #[error("the body is no whole {} data", .0.name())]
    Damaged(Coding),
}

impl Coding {
    const ALL: [Self; 5] = [Self::Identity, Self::Gzip, Self::Deflate, Self::Zstd, Self::Snappy];

    /// Its name in `Content-Encoding`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Deflate => "deflate",
            Self::Zstd => "zstd",
            Self::Snappy => "snappy",
        }
    }

    /// The coding that the head names, or the first of `allowed` when it names none; `None` when
    /// it is not one of them.
    #[must_use]
    pub fn of(head: &HeaderMap, allowed: &[Self]) -> Option<Self> {
        let mut stated = head.get_all(CONTENT_ENCODING).iter();
        let Some(first) = stated.next() else { return allowed.first().copied() };
        if stated.next().is_some() {
            return None;
        }
        let known = Self::named(first.to_str().ok()?.trim())?;
        allowed.contains(&known).then_some(known)
    }

    fn named(name: &str) -> Option<Self> {
        // Datadog's API clients say version 1 of zstd, which is the one that there is.
        if name.eq_ignore_ascii_case("zstd1") {
            return Some(Self::Zstd);
        }
        Self::ALL.into_iter().find(|coding| name.eq_ignore_ascii_case(coding.name()))
    }
}

/// The plain bytes of `body`, at most `bytes_max`.
///
/// # Errors
/// [`UnpackError`].
pub fn unpack(body: Bytes, coding: Coding, bytes_max: usize) -> Result<Bytes, UnpackError> {
    let damaged = || UnpackError::Damaged(coding);
    match coding {
        Coding::Identity if body.len() > bytes_max => Err(UnpackError::TooLarge { bytes_max }),
        Coding::Identity => Ok(body),
        Coding::Snappy => {
            let claimed = snap::raw::decompress_len(&body).map_err(|_| damaged())?;
            if claimed > bytes_max {
                return Err(UnpackError::TooLarge { bytes_max });
            }
            let plain = snap::raw::Decoder::new().decompress_vec(&body).map_err(|_| damaged())?;
            Ok(plain.into())
        }
        Coding::Gzip => drain(flate2::read::MultiGzDecoder::new(&*body), coding, bytes_max),
        Coding::Deflate => drain(flate2::read::ZlibDecoder::new(&*body), coding, bytes_max),
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::new(&*body).map_err(|_| damaged())?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(|_| damaged())?;
            drain(decoder, coding, bytes_max)
        }
    }
}

/// Reads to the end, or one byte too far: what is read grows with what is there, not with claims.
fn drain(from: impl Read, coding: Coding, bytes_max: usize) -> Result<Bytes, UnpackError> {
    let mut plain = Vec::new();
    let read = from.take(bytes_max as u64 + 1).read_to_end(&mut plain);
    read.map_err(|_| UnpackError::Damaged(coding))?;
    if plain.len() > bytes_max {
        return Err(UnpackError::TooLarge { bytes_max });
    }
    Ok(plain.into())
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;

    use super::*;

    fn packed(plain: &[u8], coding: Coding) -> Bytes {
        let best = Compression::best();
        let packed = match coding {
            Coding::Identity => plain.to_vec(),
            Coding::Snappy => snap::raw::Encoder::new().compress_vec(plain).unwrap(),
            Coding::Zstd => zstd::bulk::compress(plain, 3).unwrap(),
            Coding::Gzip => {
                let mut to = flate2::write::GzEncoder::new(Vec::new(), best);
                to.write_all(plain).unwrap();
                to.finish().unwrap()
            }
            Coding::Deflate => {
                let mut to = flate2::write::ZlibEncoder::new(Vec::new(), best);
                to.write_all(plain).unwrap();
                to.finish().unwrap()
            }
        };
        packed.into()
    }

    #[test]
    fn what_was_packed_is_unpacked_up_to_the_limit_and_not_a_byte_further() {
        let plain = vec![7; 100_000];
        for coding in Coding::ALL {
            let body = packed(&plain, coding);
            assert_eq!(unpack(body.clone(), coding, 100_000).unwrap(), plain, "{coding:?}");
            let over = unpack(body, coding, 99_999);
            assert_eq!(over, Err(UnpackError::TooLarge { bytes_max: 99_999 }), "{coding:?}");
        }
    }

    #[test]
    fn a_body_that_breaks_off_is_refused() {
        for coding in [Coding::Gzip, Coding::Deflate, Coding::Zstd, Coding::Snappy] {
            let whole = packed(&(0..200).collect::<Vec<u8>>(), coding);
            for end in 0..whole.len() {
                let cut = unpack(whole.slice(..end), coding, 1_000);
                // An empty gzip or deflate stream has nothing that could be missing.
                assert!(cut.is_err() || (end == 0 && cut.unwrap().is_empty()), "{coding:?} {end}");
            }
        }
    }

    #[test]
    fn a_claimed_length_over_the_limit_is_refused_before_it_is_allocated() {
        let claims_4_gib = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0x00]);
        let refused = unpack(claims_4_gib, Coding::Snappy, UNPACKED_BYTES_MAX);
        assert_eq!(refused, Err(UnpackError::TooLarge { bytes_max: UNPACKED_BYTES_MAX }));
    }
}
