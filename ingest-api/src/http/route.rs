//! Which handler a request goes to, and the frame around every handler: a panic becomes a 503, an
//! error becomes a problem, and each answer is counted.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::{Request, StatusCode};
use hyper::body::Body;

use crate::app::App;
use crate::http::body::BoxError;
use crate::http::dialect::Dialect;
use crate::http::respond::{self, Answer, ErrorId, Manner, Problem};
use crate::http::{datadog, influx, otlp, post_batches, remote_write};

/// The answer to a request; `last` closes the connection with it.
pub async fn answer<B>(app: &App, request: Request<B>, last: bool) -> Result<Answer, Infallible>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let began = Instant::now();
    let attempt = post_batches::attempt(request.headers());
    let last = last || app.shutdown.requested();
    let http = &app.settings.http;
    let manner = Manner {
        attempt,
        status_page: http.status_page.as_deref(),
        remote_write_429: http.remote_write_429,
    };
    let route = name(request.uri().path());
    let dialect = Dialect::of(request.uri().path(), request.headers());
    let answered = guarded(dispatch(app, request, dialect)).await.unwrap_or_else(|| {
        app.metrics.panics.inc();
        Err(Problem::new(ErrorId::Internal, "the handler failed; the same request may pass later"))
    });
    let mut answer = answered.unwrap_or_else(|problem| {
        app.tell(&problem);
        dialect.problem(&problem, manner)
    });
    if last {
        respond::close(&mut answer);
    }
    app.metrics.answered(route, answer.status().as_u16());
    app.metrics.request_seconds.observe(began.elapsed().as_secs_f64());
    Ok(answer)
}

const BATCHES: &str = "/v1/batches";
const OPENAPI: &str = "/openapi.json";
/// The description of our own routes; a test holds it against them.
const DESCRIPTION: &str = include_str!("openapi.json");
const LIVEZ: &str = "/livez";
const READYZ: &str = "/readyz";

/// Every path, with the methods it has.
const ROUTES: [(&str, &str); 14] = [
    (BATCHES, "POST"),
    ("/api/v1/write", "POST"),
    ("/api/v1/push", "POST"),
    ("/v1/metrics", "POST"),
    ("/write", "POST"),
    ("/api/v2/write", "POST"),
    ("/ping", "GET, HEAD"),
    ("/query", "POST"),
    ("/api/v1/series", "POST"),
    ("/api/v2/series", "POST"),
    ("/api/v1/validate", "GET"),
    (OPENAPI, "GET, HEAD"),
    (LIVEZ, "GET, HEAD"),
    (READYZ, "GET, HEAD"),
];

async fn dispatch<B>(app: &App, request: Request<B>, dialect: Dialect) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let path = request.uri().path();
    let Some((path, allow)) = ROUTES.into_iter().find(|(known, _)| *known == path) else {
        let path: String = path.chars().take(100).collect();
        return Err(Problem::new(ErrorId::NotFound, format!("there is no route {path}")));
    };
    if !allow.split(", ").any(|method| method == request.method().as_str()) {
        return Err(Problem::method(allow));
    }
    match path {
        BATCHES => post_batches::handle(app, request).await,
        "/api/v1/write" | "/api/v1/push" => remote_write::handle(app, request).await,
        "/v1/metrics" => otlp::handle(app, request).await,
        "/write" | "/api/v2/write" => influx::handle(app, request, dialect).await,
        "/ping" => Ok(influx::ping()),
        "/query" => influx::query(app, request).await,
        "/api/v1/series" => datadog::handle(app, request, 1).await,
        "/api/v2/series" => datadog::handle(app, request, 2).await,
        "/api/v1/validate" => datadog::validate(app, request),
        OPENAPI => Ok(respond::described(DESCRIPTION)),
        LIVEZ => Ok(respond::text(StatusCode::OK, "live\n")),
        _ => Ok(ready(app)),
    }
}

/// "Draining or not", and nothing else: a Kafka outage must not empty the load balancer.
fn ready(app: &App) -> Answer {
    if app.health.is_ready() && !app.shutdown.requested() {
        respond::text(StatusCode::OK, "ready\n")
    } else {
        respond::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    }
}

/// The label of a path; a fixed set, whatever is asked for.
fn name(path: &str) -> &'static str {
    ROUTES.into_iter().find(|(known, _)| *known == path).map_or("other", |(known, _)| known)
}

/// `None` when `handler` panicked. What it held is dropped, and nothing it shares is left half
/// done: its state is counters, and locks that are held for single steps.
async fn guarded<T>(handler: impl Future<Output = T>) -> Option<T> {
    let mut handler = pin!(handler);
    std::future::poll_fn(move |context| {
        let step = AssertUnwindSafe(|| handler.as_mut().poll(context));
        match std::panic::catch_unwind(step) {
            Ok(Poll::Pending) => Poll::Pending,
            Ok(Poll::Ready(value)) => Poll::Ready(Some(value)),
            Err(_) => Poll::Ready(None),
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_in_a_handler_is_caught_also_after_it_waited() {
        let handler = async {
            tokio::task::yield_now().await;
            assert!(std::hint::black_box(false), "on purpose");
        };
        assert_eq!(guarded(handler).await, None);
        assert_eq!(guarded(async { 7 }).await, Some(7));
    }
}
