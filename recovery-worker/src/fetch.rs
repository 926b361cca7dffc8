//! An object's bytes, exactly those that were listed: size and content are held against the
//! listing, so what was replaced, cut off or grown in between is never judged.

use bytes::Bytes;
use spillway_proto::limits::SEALED_OBJECT_BYTES_MAX;

use crate::bucket::{Bucket, Listed};
use crate::bucket_error::BucketError;

/// Why there are no bytes to judge.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// The listing says so; nothing was read.
    #[error("{bytes} bytes, more than the {SEALED_OBJECT_BYTES_MAX} of any sealed object")]
    TooLarge { bytes: u64 },
    /// It is gone or another content is there now; the next listing shows what is.
    #[error("gone or replaced since it was listed")]
    Seen,
    #[error(transparent)]
    Bucket(BucketError),
}

/// Learns which content it is about, where the listing did not say.
pub async fn identify(bucket: &Bucket, object: &Listed) -> Result<Listed, FetchError> {
    if !object.etag.is_empty() {
        return Ok(object.clone());
    }
    let head = bucket.head(object.key.as_str()).await.map_err(FetchError::Bucket)?;
    match head {
        Some(head) if head.bytes == object.bytes => {
            Ok(Listed { etag: head.etag, ..object.clone() })
        }
        _ => Err(FetchError::Seen),
    }
}

/// Reads what was listed.
pub async fn fetch(bucket: &Bucket, object: &Listed) -> Result<Bytes, FetchError> {
    if object.bytes > SEALED_OBJECT_BYTES_MAX as u64 {
        return Err(FetchError::TooLarge { bytes: object.bytes });
    }
    let got = bucket.get(object.key.as_str(), Some(&object.etag), object.bytes).await;
    let (bytes, _) = got.map_err(|error| match error {
        BucketError::Missing(_) | BucketError::Changed(_) => FetchError::Seen,
        error => FetchError::Bucket(error),
    })?;
    if bytes.len() as u64 != object.bytes {
        // Shorter than listed although S3 called it whole: not the object's fault.
        let error = BucketError::CutOff {
            operation: crate::bucket_error::Operation::Get,
            got: bytes.len() as u64,
            expected: object.bytes,
        };
        return Err(FetchError::Bucket(error));
    }
    Ok(bytes)
}
