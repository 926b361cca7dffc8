//! The way of a foreign body, the same for each protocol: admit → authenticate → unpack → cut →
//! verify → publish. What differs is how a body is read (`remote_write`, `otlp`, `influx`,
//! `datadog`) and how the answer is worded ([`crate::http::dialect`]).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::request::Parts;
use hyper::body::Body;
use jiff::Timestamp;
use spillway_proto::kafka_record::Lane;
use spillway_runtime::outside;
use tokio::time::Instant;

use crate::app::App;
use crate::authenticate::{self, Caller};
use crate::cut::{self, Intake, Refusals, TooMuch};
use crate::http::body::{self, BoxError};
use crate::http::doors;
use crate::http::respond::{ErrorId, Problem};
use crate::publish;
use crate::unpack::{Coding, UNPACKED_BYTES_MAX, UnpackError, unpack};
use crate::verify::{self, Against, Checked, Rejection};
use crate::wire::Malformed;

/// Why a body can't be read at all. None of it is transient.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    #[error(transparent)]
    Packed(#[from] UnpackError),
    #[error(transparent)]
    Malformed(#[from] Malformed),
    #[error(transparent)]
    TooMuch(#[from] TooMuch),
    #[error("the body is not what its Content-Type says: {0}")]
    NotJson(String),
}

impl From<Unreadable> for Problem {
    fn from(cause: Unreadable) -> Self {
        let id = match &cause {
            Unreadable::Packed(UnpackError::TooLarge { .. }) | Unreadable::TooMuch(_) => {
                ErrorId::BodyTooLarge
            }
            Unreadable::Packed(UnpackError::Damaged(_))
            | Unreadable::Malformed(_)
            | Unreadable::NotJson(_) => ErrorId::UndecodableBody,
        };
        Self::new(id, cause.to_string())
    }
}

/// A foreign body that Kafka has, but for what was refused of it for good.
#[derive(Debug)]
pub struct Taken<T> {
    pub refusals: Refusals,
    /// What the reader counted.
    pub tally: T,
}

/// A body, read and cut.
struct Cut<T> {
    checked: Checked,
    refusals: Refusals,
    tally: T,
}

/// Who sends, and whether anything is taken at all: what every route asks first.
///
/// # Errors
/// [`Problem`].
pub fn caller(app: &App, head: &Parts) -> Result<Caller, Problem> {
    let now = Timestamp::from_millisecond(outside::wall_ms()).unwrap_or(Timestamp::MIN);
    let caller = authenticate::anyone(&app.tokens, &head.headers, now)?;
    doors::prove(&head.extensions, &caller)?;
    Ok(caller)
}

/// Takes a body in the given coding, read by `read`.
///
/// # Errors
/// [`Problem`]: nothing was acknowledged, and the same body may come again.
pub async fn take<B, T>(
    app: &App,
    head: &Parts,
    incoming: B,
    coding: Coding,
    read: impl FnOnce(&[u8], &mut Intake) -> Result<T, Unreadable> + Send + 'static,
) -> Result<Taken<T>, Problem>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
    T: Send + 'static,
{
    let within = app.settings.http.answer_within.get();
    let began = Instant::now();

    app.admission.open()?;
    let caller = caller(app, head)?;
    app.quotas.request(&caller)?;
    let needed = body::bytes_needed(&head.headers, app.settings.http.body_bytes_max.as_usize())?;
    let mut room = app.admission.room(&caller, needed, within).await?;

    let arriving = Instant::now();
    let body = body::read(incoming, &app.settings.http).await?;
    // The sender's own pace is not counted against the answer.
    let paused: Duration = arriving.elapsed();
    room.shrink_to(body.len());
    app.metrics.body_bytes.inc_by(body.len() as u64);
    let bytes = body.len();
    let left = || (within + paused).saturating_sub(began.elapsed());

    let mut cut = in_turn(app, &caller, left(), move |intake| {
        let plain = unpack(body, coding, UNPACKED_BYTES_MAX)?;
        read(&plain, intake)
    })
    .await?;

    let receipt = app.metrics.books.enter(&cut.checked, cut.refusals.points);
    app.quotas.charge(&caller, bytes, cut.checked.points());
    app.quotas.series(&caller, &cut.checked.series)?;
    let published = publish::all(&app.publisher, Lane::Live, &caller, cut.checked, left()).await;
    if let Some(ack_time) = publish::ack_time(&published, within) {
        app.admission.observe(ack_time);
    }
    let acknowledged = published?;
    receipt.acknowledged(&acknowledged);
    for Rejection { batch, points } in &acknowledged.rejected {
        cut.refusals.add(*points, ("batch", batch.index), &batch.error);
        app.tell_of_rejected(batch, &caller);
    }
    drop(room);
    Ok(Taken { refusals: cut.refusals, tally: cut.tally })
}

/// Reads and cuts a body off the threads that serve sockets, a few at a time.
async fn in_turn<T: Send + 'static>(
    app: &App,
    caller: &Caller,
    within: Duration,
    read: impl FnOnce(&mut Intake) -> Result<T, Unreadable> + Send + 'static,
) -> Result<Cut<T>, Problem> {
    let busy = || Problem::new(ErrorId::Overloaded, "too many bodies are being read");
    let turn = app.admission.foreign.take(&caller.environment, within).await;
    let turn = turn.map_err(|_| busy())?;
    let token = Arc::clone(&caller.token);
    let against = Against::new(caller, app.partitioning);
    let work = move || {
        let mut intake = Intake::new(token, outside::wall_ms());
        let tally = read(&mut intake)?;
        let mut refusals = std::mem::take(&mut intake.refusals);
        let (frames, misfits) = cut::frames(&against.environment, intake);
        if misfits > 0 {
            refusals.add(misfits, ("batch", 0), &"it fits no frame");
        }
        let checked = verify::frames(frames, &against);
        // Kept until the work is done, also when nobody waits for it any more.
        drop(turn);
        Ok(Cut { checked, refusals, tally })
    };
    let done: Result<_, Unreadable> = outside::behind(work)
        .await
        .map_err(|_| Problem::new(ErrorId::Internal, "the reading of the body was ended"))?;
    Ok(done?)
}

/// The value of a parameter in a query or a form.
#[must_use]
pub fn parameter(query: Option<&str>, wanted: &str) -> Option<String> {
    let pairs = form_urlencoded::parse(query?.as_bytes());
    pairs.into_iter().find(|(name, _)| name == wanted).map(|(_, value)| value.into_owned())
}
