//! What S3 answers, sorted into few kinds, so that no stage reads status codes.

use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};

/// What S3 was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    List,
    Head,
    Get,
    Put,
    Copy,
    Delete,
}

impl Operation {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::List => "list",
            Self::Head => "head",
            Self::Get => "get",
            Self::Put => "put",
            Self::Copy => "copy",
            Self::Delete => "delete",
        }
    }
}

/// What S3 answered, if it answered.
#[derive(Debug, thiserror::Error)]
pub enum BucketError {
    #[error("S3 {}: no such object", .0.as_str())]
    Missing(Operation),
    /// A condition did not hold: somebody else wrote in between.
    #[error("S3 {}: the object was changed by somebody else", .0.as_str())]
    Changed(Operation),
    #[error("S3 {} refused: status {status}, {code}; check the key's rights", .operation.as_str())]
    Denied { operation: Operation, status: u16, code: String },
    #[error("S3 {} failed: status {status}, {code}", .operation.as_str())]
    Answer { operation: Operation, status: u16, code: String },
    /// No answer in time, or none at all.
    #[error("S3 {} got no answer: {cause}", .operation.as_str())]
    Unreachable { operation: Operation, cause: NoAnswer },
    #[error("S3 {} ended after {got} bytes of {expected}", .operation.as_str())]
    CutOff { operation: Operation, got: u64, expected: u64 },
    #[error("S3 {} sent more than the {max} bytes that are allowed", .operation.as_str())]
    TooLong { operation: Operation, max: u64 },
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoAnswer {
    #[error("time-out")]
    TimedOut,
    #[error("no connection, or it broke")]
    Connection,
    #[error("the answer can't be read")]
    Unreadable,
    #[error("the request can't be made")]
    NotSent,
}

impl BucketError {
    /// What was asked.
    #[must_use]
    pub fn operation(&self) -> Operation {
        match self {
            Self::Missing(operation)
            | Self::Changed(operation)
            | Self::Denied { operation, .. }
            | Self::Answer { operation, .. }
            | Self::Unreachable { operation, .. }
            | Self::CutOff { operation, .. }
            | Self::TooLong { operation, .. } => *operation,
        }
    }

    pub(crate) fn timed_out(operation: Operation) -> Self {
        Self::Unreachable { operation, cause: NoAnswer::TimedOut }
    }

    pub(crate) fn of<E, R>(operation: Operation, error: &SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata,
        R: HasStatus,
    {
        let cause = match error {
            SdkError::ServiceError(answer) => {
                let status = answer.raw().status_code();
                let code = answer.err().code().unwrap_or("no code").to_owned();
                return Self::of_answer(operation, status, code);
            }
            SdkError::ResponseError(answer) if answer.raw().status_code() >= 400 => {
                let status = answer.raw().status_code();
                return Self::of_answer(operation, status, "no code".to_owned());
            }
            SdkError::TimeoutError(_) => NoAnswer::TimedOut,
            SdkError::DispatchFailure(failure) if failure.is_timeout() => NoAnswer::TimedOut,
            SdkError::DispatchFailure(_) => NoAnswer::Connection,
            SdkError::ResponseError(_) => NoAnswer::Unreadable,
            _ => NoAnswer::NotSent,
        };
        Self::Unreachable { operation, cause }
    }

    fn of_answer(operation: Operation, status: u16, code: String) -> Self {
        match status {
            404 if code != "NoSuchBucket" => Self::Missing(operation),
            409 | 412 => Self::Changed(operation),
            401 | 403 => Self::Denied { operation, status, code },
            _ => Self::Answer { operation, status, code },
        }
    }
}

/// The status of an answer, whatever HTTP types it came in.
pub(crate) trait HasStatus {
    fn status_code(&self) -> u16;
}

impl HasStatus for aws_sdk_s3::config::http::HttpResponse {
    fn status_code(&self) -> u16 {
        self.status().as_u16()
    }
}
