//! Which handler a request goes to, and the frame around every handler: a panic becomes a 503, an
//! error becomes a problem, and each answer is counted.

use std::convert::Infallible;
use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::task::Poll;
use std::time::Instant;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use hyper::body::Body;

use crate::app::App;
use crate::http::body::BoxError;
use crate::http::post_batches;
use crate::http::respond::{self, Answer, ErrorId, Manner, Problem};

/// The answer to a request; `last` closes the connection with it.
pub async fn answer<B>(app: &App, request: Request<B>, last: bool) -> Result<Answer, Infallible>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let began = Instant::now();
    let attempt = post_batches::attempt(request.headers());
    let last = last || app.shutdown.requested();
    let manner = Manner { attempt, status_page: app.settings.http.status_page.as_deref() };
    let route = name(request.uri().path());
    let answered = guarded(dispatch(app, request)).await.unwrap_or_else(|| {
        app.metrics.panics.inc();
        Err(Problem::new(ErrorId::Internal, "the handler failed; the same request may pass later"))
    });
    let mut answer = answered.unwrap_or_else(|problem| {
        app.tell(&problem);
        respond::problem(&problem, manner)
    });
    if last {
        respond::close(&mut answer);
    }
    app.metrics.answered(route, answer.status().as_u16());
    app.metrics.request_seconds.observe(began.elapsed().as_secs_f64());
    Ok(answer)
}

const BATCHES: &str = "/v1/batches";
const LIVEZ: &str = "/livez";
const READYZ: &str = "/readyz";

async fn dispatch<B>(app: &App, request: Request<B>) -> Result<Answer, Problem>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    let (method, path) = (request.method().clone(), request.uri().path());
    match (method, path) {
        (Method::POST, BATCHES) => post_batches::handle(app, request).await,
        (Method::GET | Method::HEAD, LIVEZ) => Ok(respond::text(StatusCode::OK, "live\n")),
        (Method::GET | Method::HEAD, READYZ) => Ok(ready(app)),
        (_, BATCHES) => Err(Problem::method("POST")),
        (_, LIVEZ | READYZ) => Err(Problem::method("GET, HEAD")),
        (_, path) => {
            let path: String = path.chars().take(100).collect();
            Err(Problem::new(ErrorId::NotFound, format!("there is no route {path}")))
        }
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
    [BATCHES, LIVEZ, READYZ].into_iter().find(|known| *known == path).unwrap_or("other")
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
