//! What each path answers, and through which door.

use std::sync::{Arc, PoisonError};
use std::time::Duration;

use askama::Template;
use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Method, Response, StatusCode, Uri};
use http_body_util::Full;
use spillway_runtime::deadline::within;
use tokio::sync::Semaphore;

use super::rendered::HTML;
use super::serve::Shared;
use super::{address, assets, hosts};
use crate::failure::Failure;
use crate::settings::ConsoleSettings;

/// Host views that read MySQL at once; the pipeline's shards have more important work.
const QUERIES_MAX: usize = 4;
/// For waiting and reading together.
const QUERY_DEADLINE: Duration = Duration::from_secs(12);

const TEXT: &str = "text/plain; charset=utf-8";

/// Nothing comes from elsewhere, nothing is inline, nobody frames it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
    connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Who comes in by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// `status.listen`: everything.
    Operators,
    /// `status.public_listen`: the public page alone.
    Everybody,
}

/// What answers are made of; clones share it.
#[derive(Debug, Clone)]
pub struct Desk {
    settings: Arc<ConsoleSettings>,
    shared: Shared,
    queries: Arc<Semaphore>,
}

impl Desk {
    pub fn new(settings: Arc<ConsoleSettings>, shared: Shared) -> Self {
        Self { settings, shared, queries: Arc::new(Semaphore::new(QUERIES_MAX)) }
    }
}

/// Any other way in.
#[derive(Template)]
#[template(path = "trouble.html")]
struct TroubleTemplate<'a> {
    title: &'a str,
    root: &'a str,
    headline: &'a str,
    sentence: &'a str,
}

pub async fn respond(desk: &Desk, door: Door, method: &Method, uri: &Uri) -> Response<Full<Bytes>> {
    if method != Method::GET && method != Method::HEAD {
        return reply(StatusCode::METHOD_NOT_ALLOWED, TEXT, Bytes::from_static(b"only GET\n"));
    }
    let path = uri.path().strip_prefix('/').unwrap_or_default();
    let path = if door == Door::Everybody && path.is_empty() { "public" } else { path };
    if let Some(name) = path.strip_prefix("assets/") {
        return asset(name);
    }
    if path == "livez" {
        return reply(StatusCode::OK, TEXT, Bytes::from_static(b"live\n"));
    }
    let is_public = path == "public" || path.starts_with("public/");
    if door == Door::Operators || is_public {
        let found = desk.shared.read().unwrap_or_else(PoisonError::into_inner).find(path);
        if let Some((content_type, bytes)) = found {
            return reply(StatusCode::OK, content_type, bytes);
        }
    }
    let parts: Vec<&str> = path.split('/').collect();
    match (door, parts.as_slice()) {
        (
            Door::Operators,
            ["environments", _] | ["hosts", _, _] | ["hosts", _, _, "series.json"],
        ) => of_hosts(desk, &parts, uri.query().unwrap_or_default()).await,
        _ => trouble(desk, StatusCode::NOT_FOUND, parts.len(), "There is no such page."),
    }
}

fn asset(name: &str) -> Response<Full<Bytes>> {
    match assets::find(name) {
        Some(asset) => {
            let mut response =
                reply(StatusCode::OK, asset.content_type, Bytes::from_static(asset.bytes));
            // A new version of the program must not meet an old script for long.
            let cache = HeaderValue::from_static("public, max-age=300");
            response.headers_mut().insert(header::CACHE_CONTROL, cache);
            response
        }
        None => reply(StatusCode::NOT_FOUND, TEXT, Bytes::from_static(b"no such file\n")),
    }
}

async fn of_hosts(desk: &Desk, parts: &[&str], query: &str) -> Response<Full<Bytes>> {
    let names: Option<Vec<String>> = parts.iter().map(|part| address::decode(part)).collect();
    let Some(names) = names else {
        return trouble(desk, StatusCode::BAD_REQUEST, parts.len(), "This address is no name.");
    };
    let answer = async {
        let place = desk.queries.acquire().await;
        let answer = ask(desk, &names, query).await;
        drop(place);
        answer
    };
    match within(QUERY_DEADLINE, answer).await {
        Ok(Ok((content_type, text))) => reply(StatusCode::OK, content_type, text.into()),
        Ok(Err(failure)) => {
            let sentence = failure.sentence();
            let status = match failure.exit_code == spillway_runtime::program::EXIT_USAGE {
                true => StatusCode::NOT_FOUND,
                false => StatusCode::BAD_GATEWAY,
            };
            trouble(desk, status, parts.len(), &sentence)
        }
        Err(late) => {
            let sentence = format!("MySQL took too long ({late}).");
            trouble(desk, StatusCode::GATEWAY_TIMEOUT, parts.len(), &sentence)
        }
    }
}

async fn ask(
    desk: &Desk,
    names: &[String],
    query: &str,
) -> Result<(&'static str, String), Failure> {
    let settings = &desk.settings;
    match names {
        [_, environment] => Ok((HTML, hosts::environment_page(settings, environment).await?)),
        [_, environment, host] => {
            Ok((HTML, hosts::host_page(settings, environment, host, query).await?))
        }
        [_, environment, host, _] => {
            let curves = hosts::series(settings, environment, host, query).await?;
            Ok(("application/json", curves.to_string()))
        }
        _ => Ok((TEXT, String::new())),
    }
}

/// `depth`: how many parts the path has, for the way back to the root.
fn trouble(desk: &Desk, status: StatusCode, depth: usize, sentence: &str) -> Response<Full<Bytes>> {
    let page = TroubleTemplate {
        title: &desk.settings.status.title,
        root: &"../".repeat(depth.saturating_sub(1)),
        headline: status.canonical_reason().unwrap_or("Not possible"),
        sentence,
    };
    reply(status, HTML, page.render().unwrap_or_else(|error| error.to_string()).into())
}

fn reply(status: StatusCode, content_type: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
