//! A body becomes batches: cut into frames, each held against the consumer's own check, given
//! its partition. What passes here is what the consumer will accept.
//!
//! Only here is a frame opened; what goes on is the same bytes, sliced from the body.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use spillway_proto::BatchId;
use spillway_proto::frame::{self, Decoder, FrameError, Header};
use spillway_proto::limits::FRAMES_PER_BODY_MAX;
use spillway_proto::partition::Partitioning;
use spillway_proto::series::Canonical;
use spillway_proto::verdict::{Refusal, RejectedBatch};
use spillway_runtime::deadline::DeadlineExceeded;
use spillway_runtime::outside;

use crate::admit::Admission;
use crate::authenticate::Caller;
use crate::mutant::{Mutant, is};

/// What all frames of a request may be once decompressed, together. Thirty-two frames of the
/// largest kind; a usual request has one of a few kilobytes.
pub const REQUEST_RAW_BYTES_MAX: usize = 128 << 20;
/// Above this many decompressed bytes a request is verified off the threads that serve sockets:
/// below it takes less than what the way to another thread and back costs, and nobody whose bytes
/// wait on the same thread notices.
const INLINE_RAW_BYTES_MAX: usize = 16 << 10;
/// Above this many decompressed bytes a request takes one of the few places for large ones.
const SMALL_RAW_BYTES_MAX: usize = 1 << 20;
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
    pub rejected: Vec<Rejection>,
    /// The ids of the series in `batches`; empty unless the token's limits ask for them.
    pub series: Vec<u64>,
}

impl Checked {
    /// Points of all batches, those that are rejected too.
    #[must_use]
    pub fn points(&self) -> usize {
        let rejected: usize = self.rejected.iter().map(|rejection| rejection.points).sum();
        self.batches.iter().map(|batch| batch.points).sum::<usize>() + rejected
    }
}

/// A batch that will never be taken as it is.
#[derive(Clone, Debug)]
pub struct Rejection {
    /// What its sender is told.
    pub batch: RejectedBatch,
    /// As its header states.
    pub points: usize,
}

/// What a body's frames are held against, beside the rules of a frame.
#[derive(Clone, Debug)]
pub struct Against {
    pub environment: Arc<str>,
    pub partitioning: Partitioning,
    /// Whether the token has a limit for which series must be told apart.
    pub series_matter: bool,
}

impl Against {
    #[must_use]
    pub fn new(caller: &Caller, partitioning: Partitioning) -> Self {
        let limits = caller.limits.unwrap_or_default();
        let series_matter = limits.series_per_hour.is_some();
        Self { environment: Arc::clone(&caller.environment), partitioning, series_matter }
    }
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
    #[error("too many requests are being opened")]
    Busy(#[from] DeadlineExceeded),
    #[error("the check of the frames was ended")]
    Ended(#[from] tokio::task::JoinError),
}

/// Cuts and checks `body`; waits for its turn for at most `within`.
///
/// # Errors
/// [`BodyRefused`] when nothing of it can be taken; a frame that is refused alone is in
/// [`Checked::rejected`].
pub async fn body(
    body: Bytes,
    against: Against,
    admission: &Admission,
    within: Duration,
) -> Result<Checked, BodyRefused> {
    let frames = cut(&body)?;
    let raw: usize = frames.iter().map(|(header, _)| header.raw_bytes).sum();
    if raw > REQUEST_RAW_BYTES_MAX {
        return Err(BodyRefused::TooLarge { bytes: raw, bytes_max: REQUEST_RAW_BYTES_MAX });
    }
    if raw <= INLINE_RAW_BYTES_MAX {
        let _turn = admission.small.take(&against.environment, within).await?;
        return Ok(check(frames, &against));
    }
    let turns = if raw <= SMALL_RAW_BYTES_MAX { &admission.small } else { &admission.large };
    let turn = turns.take(&against.environment, within).await?;
    let work = move || {
        let checked = check(frames, &against);
        // Kept until the work is done, also when nobody waits for it any more.
        drop(turn);
        checked
    };
    Ok(outside::behind(work).await?)
}

/// Checks frames that were made here of a foreign body, like any others.
#[must_use]
pub fn frames(frames: Vec<Bytes>, against: &Against) -> Checked {
    let headed = |frame: Bytes| Some((Header::parse(&frame).ok()?, frame));
    check(frames.into_iter().filter_map(headed).collect(), against)
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

fn check(frames: Vec<(Header, Bytes)>, against: &Against) -> Checked {
    let mut checked = Checked::default();
    DECODER.with_borrow_mut(|decoder| {
        for (index, (header, frame)) in frames.into_iter().enumerate() {
            match place(decoder, &frame, against, &mut checked.series) {
                Ok(partition) => checked.batches.push(Batch {
                    index,
                    id: header.id,
                    partition,
                    points: header.points,
                    frame,
                }),
                Err((refusal, error)) => {
                    let batch = RejectedBatch { index, error, refusal };
                    checked.rejected.push(Rejection { batch, points: header.points });
                }
            }
        }
    });
    checked
}

/// The partition of a frame that is valid and belongs to the environment; its series are noted.
fn place(
    decoder: &mut Decoder,
    frame: &[u8],
    against: &Against,
    series: &mut Vec<u64>,
) -> Result<u16, (Refusal, String)> {
    let (environment, partitioning) = (&*against.environment, against.partitioning);
    let view = decoder.decode(frame).map_err(|cause| (cause.refusal(), cause.to_string()))?;
    if view.environment != environment {
        let error = format!(
            "the batch is of environment {}, the token is of {environment}",
            view.environment
        );
        return Err((Refusal::EnvironmentMismatch, error));
    }
    if against.series_matter {
        let mut names = Canonical::of_host(view.environment, view.host);
        series.extend(view.series().map(|one| names.identify(one.metric, one.labels.iter()).id));
    }
    let partition = partitioning.partition_of(view.environment, view.host);
    if is(Mutant::WrongPartition) && view.host.ends_with("01") {
        return Ok(partition ^ 1);
    }
    Ok(partition)
}
