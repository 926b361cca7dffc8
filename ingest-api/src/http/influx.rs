//! InfluxDB's line protocol: `POST /write` (1.x), `/api/v2/write` (2.x), and what its clients ask
//! before they write: `/ping`, `/query` with CREATE DATABASE.
//!
//! <https://docs.influxdata.com/influxdb/v2/reference/syntax/line-protocol/>. One series per field,
//! `measurement_field`. Database, bucket and organisation are taken and mean nothing: where points
//! go is the token's to say.

use std::str;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, Request, StatusCode};
use hyper::body::Body;
use serde_json::json;
use spillway_proto::line_protocol::{Field, Line, lines, parse};
use spillway_proto::{Kind, Point};

use crate::app::App;
use crate::cut::{Intake, Naming};
use crate::http::body::{self, BoxError};
use crate::http::dialect::{Dialect, empty, in_json};
use crate::http::foreign::{self, Unreadable, parameter};
use crate::http::respond::{Answer, DETAIL_BYTES_MAX, ErrorId, Problem};
use crate::unpack::Coding;

pub use spillway_proto::line_protocol::Precision;

const CODINGS: [Coding; 4] = [Coding::Identity, Coding::Gzip, Coding::Deflate, Coding::Zstd];
/// Clients ask who is there; the number decides what they dare to send.
const VERSION: HeaderName = HeaderName::from_static("x-influxdb-version");
/// A query that makes a database; it is only ever one line.
const QUERY_BYTES_MAX: usize = 16 * 1024;
/// The tag that is the host.
const HOST: &str = "host";

/// Takes lines, or says why not.
///
/// # Errors
/// [`Problem`], to be worded by the dialect.
pub async fn handle<B>(app: &App, request: Request<B>, dialect: Dialect) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let (head, incoming) = request.into_parts();
    let coding = Coding::of(&head.headers, &CODINGS).ok_or_else(|| {
        let what = "send Content-Encoding gzip, deflate, zstd or none";
        Problem::new(ErrorId::UnsupportedMediaType, what)
    })?;
    let precision = parameter(head.uri.query(), "precision").unwrap_or_default();
    let precision = Precision::named(&precision).ok_or_else(|| {
        Problem::new(ErrorId::BadRequest, "the precision must be ns, us, ms, s, m or h")
    })?;
    let taken = foreign::take(app, &head, incoming, coding, move |body, intake| {
        read(body, precision, intake)
    })
    .await?;
    app.metrics.texts_left_out.inc_by(taken.tally as u64);
    if taken.refusals.points == 0 {
        return Ok(empty(StatusCode::NO_CONTENT));
    }
    let dropped = taken.refusals.points;
    let text = taken.refusals.text(DETAIL_BYTES_MAX - 64);
    let text = format!("partial write: {text} dropped={dropped}");
    Ok(dialect.refusal(StatusCode::BAD_REQUEST, &text))
}

/// Reads lines; returns how many texts were left out.
///
/// # Errors
/// [`Unreadable`].
pub fn read(body: &[u8], precision: Precision, intake: &mut Intake) -> Result<usize, Unreadable> {
    let (mut line, mut left_out) = (Line::default(), 0);
    for (number, text) in lines(body) {
        let place = ("line", number);
        match text.and_then(|text| parse(text, &mut line)) {
            Ok(()) => left_out += put(&line, place, precision, intake)?,
            Err(fault) => intake.refusals.add(1, place, &fault),
        }
    }
    Ok(left_out)
}

fn put(
    line: &Line<'_>,
    place: (&'static str, usize),
    precision: Precision,
    intake: &mut Intake,
) -> Result<usize, Unreadable> {
    let ts_ms = line.time.map_or(intake.now_ms, |time| precision.to_ms(time));
    let host = line.tags.iter().find(|(name, value)| name == HOST && !value.is_empty());
    let host = host.map(|(_, value)| &**value);
    let tags = line.tags.iter().filter(|(name, value)| name != HOST && !value.is_empty());
    let labels: Vec<(&str, &str)> = tags.map(|(name, value)| (&**name, &**value)).collect();
    let mut left_out = 0;
    for (field, value) in &line.fields {
        let Field::Number(value) = value else {
            left_out += 1;
            continue;
        };
        let metric = format!("{}_{field}", line.measurement);
        let kind = Kind::Gauge;
        let naming = Naming { place, host, metric: &metric, labels: &labels, kind, unit: "" };
        intake.put(&naming, &[Point { ts_ms, value: *value }])?;
    }
    Ok(left_out)
}

/// `GET /ping`: someone is there.
#[must_use]
pub fn ping() -> Answer {
    let mut answer = empty(StatusCode::NO_CONTENT);
    answer.headers_mut().insert(VERSION, HeaderValue::from_static("1.8.10"));
    answer
}

/// `POST /query`: clients make their database before they write. Databases are not a thing here,
/// so that always succeeds; nothing else can be asked.
///
/// # Errors
/// [`Problem`].
pub async fn query<B>(app: &App, request: Request<B>) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let (head, incoming) = request.into_parts();
    foreign::caller(app, &head)?;
    body::bytes_needed(&head.headers, QUERY_BYTES_MAX)?;
    let body = body::read(incoming, &app.settings.http).await?;
    let form = head
        .headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/x-www-form-urlencoded"));
    let in_body = if form { str::from_utf8(&body).ok() } else { None };
    let asked = parameter(head.uri.query(), "q").or_else(|| parameter(in_body, "q"));
    let asked = asked.unwrap_or_default();
    if creates_database(&asked) {
        return Ok(in_json(StatusCode::OK, &json!({ "results": [{ "statement_id": 0 }] })));
    }
    Err(Problem::new(ErrorId::BadRequest, "only one CREATE DATABASE is understood here"))
}

/// Whether `asked` is `CREATE DATABASE name [WITH …][;]`, and nothing more.
fn creates_database(asked: &str) -> bool {
    let asked = asked.trim();
    let asked = asked.strip_suffix(';').unwrap_or(asked);
    let Some(words) = words(asked) else { return false };
    let is =
        |at: usize, word: &str| words.get(at).is_some_and(|got| got.eq_ignore_ascii_case(word));
    is(0, "CREATE") && is(1, "DATABASE") && (words.len() == 3 || is(3, "WITH"))
}

/// The words of one statement; what is in quotes is one, or part of one. `None` when a quote has no
/// end, or another statement follows.
fn words(statement: &str) -> Option<Vec<&str>> {
    let (mut words, mut from) = (Vec::new(), None);
    let (mut quote, mut escaped) = (None, false);
    for (at, character) in statement.char_indices() {
        match (quote, character) {
            (None, ';') => return None,
            (None, character) if character.is_whitespace() => {
                words.extend(from.take().and_then(|from| statement.get(from..at)));
                continue;
            }
            (None, '"' | '\'') => quote = Some(character),
            (Some(_), _) if escaped => escaped = false,
            (Some(_), '\\') => escaped = true,
            (Some(open), close) if open == close => quote = None,
            _ => {}
        }
        from.get_or_insert(at);
    }
    words.extend(from.and_then(|from| statement.get(from..)));
    quote.is_none().then_some(words)
}

#[cfg(test)]
mod tests;
