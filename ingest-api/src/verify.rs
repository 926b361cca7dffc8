//! A body becomes batches: cut into frames, each held against the consumer's own check, given
//! its partition. What passes here is what the consumer will accept.
//!
//! Only here is a frame opened; what goes on is the same bytes, sliced from the body.

use std::cell::RefCell;
use std::time::Duration;

use bytes::Bytes;
use spillway_proto::BatchId;
use spillway_proto::frame::{self, Decoder, FrameError, Header};
use spillway_proto::limits::FRAMES_PER_BODY_MAX;
use spillway_proto::partition::Partitioning;
use spillway_proto::verdict::{Refusal, RejectedBatch};
use spillway_runtime::{deadline, outside};
use tokio::sync::Semaphore;

use crate::authenticate::Caller;
use crate::mutant::{Mutant, is};

/// What all frames of a request may be once decompressed, together. Thirty-two frames of the
/// largest kind; a usual request has one of a few kilobytes.
pub const REQUEST_RAW_BYTES_MAX: usize = 128 << 20;
/// Above this many decompressed bytes a request is verified off the threads that serve sockets.
const INLINE_RAW_BYTES_MAX: usize = 1 << 20;
/// So many such requests are opened at once. A kilobyte may claim four megabytes once it is
/// decompressed, so the room for bodies bounds nothing here; each takes the decoder's buffers,
/// about 16 MiB at worst.
const LARGE_AT_ONCE: usize = 4;
static LARGE: Semaphore = Semaphore::const_new(LARGE_AT_ONCE);

/// A batch that Kafka may have.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Its place in the request.
    pub index: usize,
    pub id: BatchId,
    pub partition: u16,
    pub points: usize,
    /// The very bytes that arrived.
    pub frame: Bytes,
}

/// A body, cut and judged.
#[derive(Debug, Default)]
pub struct Checked {
    pub batches: Vec<Batch>,
    pub rejected: Vec<RejectedBatch>,
}

/// Why nothing of a body can be taken.
#[derive(Debug, thiserror::Error)]
pub enum BodyRefused {
    /// From this frame on the body can't be cut, so what follows it is not known.
    #[error("frame {index} can't be read, so nothing of this body was taken: {cause}")]
    Uncuttable { index: usize, cause: FrameError },
    #[error("the body has more than {FRAMES_PER_BODY_MAX} frames")]
    TooMany,
    #[error("the frames have {bytes} bytes once decompressed, the limit is {bytes_max}")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error("too many large requests are being opened")]
    Busy,
    #[error("the check of the frames was ended")]
    Ended(#[from] tokio::task::JoinError),
}

/// Cuts and checks `body`, sent by `caller`; waits for its turn for at most `within`.
///
/// # Errors
/// [`BodyRefused`] when nothing of it can be taken; a frame that is refused alone is in
/// [`Checked::rejected`].
pub async fn body(
    body: Bytes,
    caller: &Caller,
    partitioning: Partitioning,
    within: Duration,
) -> Result<Checked, BodyRefused> {
    let frames = cut(&body)?;
    let raw: usize = frames.iter().map(|(header, _)| header.raw_bytes).sum();
    if raw > REQUEST_RAW_BYTES_MAX {
        return Err(BodyRefused::TooLarge { bytes: raw, bytes_max: REQUEST_RAW_BYTES_MAX });
    }
    if raw <= INLINE_RAW_BYTES_MAX {
        return Ok(check(frames, &caller.environment, partitioning));
    }
    let turn = deadline::within(within, LARGE.acquire()).await;
    let turn = turn.map_err(|_| BodyRefused::Busy)?.map_err(|_| BodyRefused::Busy)?;
    let caller = caller.clone();
    let work = move || {
        let checked = check(frames, &caller.environment, partitioning);
        // Kept until the work is done, also when nobody waits for it any more.
        drop(turn);
        checked
    };
    Ok(outside::blocking(work).await?)
}

/// Checks frames that were made here of a foreign body, like any others.
#[must_use]
pub fn frames(frames: Vec<Bytes>, environment: &str, partitioning: Partitioning) -> Checked {
    let headed = |frame: Bytes| Some((Header::parse(&frame).ok()?, frame));
    check(frames.into_iter().filter_map(headed).collect(), environment, partitioning)
}

fn cut(body: &Bytes) -> Result<Vec<(Header, Bytes)>, BodyRefused> {
    let frames = frame::split(body).into_iter().enumerate();
    let cut = frames.map(|(index, frame)| {
        if index == FRAMES_PER_BODY_MAX {
            return Err(BodyRefused::TooMany);
        }
        let frame = frame.map_err(|cause| BodyRefused::Uncuttable { index, cause })?;
        let header =
            Header::parse(&frame).map_err(|cause| BodyRefused::Uncuttable { index, cause })?;
        Ok((header, frame))
    });
    cut.collect()
}

thread_local! {
    /// Its buffers are kept from request to request, so that verifying allocates little.
    static DECODER: RefCell<Decoder> = RefCell::default();
}

fn check(frames: Vec<(Header, Bytes)>, environment: &str, partitioning: Partitioning) -> Checked {
    let mut checked = Checked::default();
    DECODER.with_borrow_mut(|decoder| {
        for (index, (header, frame)) in frames.into_iter().enumerate() {
            match place(decoder, &frame, environment, partitioning) {
                Ok(partition) => checked.batches.push(Batch {
                    index,
                    id: header.id,
                    partition,
                    points: header.points,
                    frame,
                }),
                Err((refusal, error)) => {
                    checked.rejected.push(RejectedBatch { index, error, refusal });
                }
            }
        }
    });
    checked
}

/// The partition of a frame that is valid and belongs to `environment`.
fn place(
    decoder: &mut Decoder,
    frame: &[u8],
    environment: &str,
    partitioning: Partitioning,
) -> Result<u16, (Refusal, String)> {
    let view = decoder.decode(frame).map_err(|cause| (cause.refusal(), cause.to_string()))?;
    if view.environment != environment {
        let error = format!(
            "the batch is of environment {}, the token is of {environment}",
            view.environment
        );
        return Err((Refusal::EnvironmentMismatch, error));
    }
    let partition = partitioning.partition_of(view.environment, view.host);
    if is(Mutant::WrongPartition) && view.host.ends_with("01") {
        return Ok(partition ^ 1);
    }
    Ok(partition)
}
