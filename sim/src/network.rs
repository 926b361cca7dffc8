//! Between agents and the rest: delay, loss of either direction, resets, repetitions, and what
//! stands in between and answers in a server's place. Above it runs the agent's own client code:
//! requests, deadlines, and what it makes of an answer.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use spillway_agent::deliver::http_client::{
    Answer, BuildError, Exchange, HttpClient, Network, Unanswered, Wanted,
};
use spillway_proto::frame::{self, Header};

use crate::bucket::{Answered, Bucket};
use crate::chance;
use crate::machine::Life;
use crate::mutant::Mutant;
use crate::servers::Api;
use crate::weather::Fault;
use crate::world::World;

const CHECKSUM: &str = "x-amz-checksum-crc32c";

/// What can be reached.
#[derive(Clone)]
pub struct Places {
    pub world: Arc<World>,
    pub apis: Arc<Vec<Api>>,
    pub bucket: Arc<Bucket>,
}

/// One agent's network.
#[derive(Clone)]
pub struct Wire {
    pub places: Places,
    pub life: Life,
}

impl Network for Wire {
    fn client(&self, _: Wanted<'_>) -> Result<HttpClient, BuildError> {
        Ok(HttpClient::of(Arc::new(self.clone())))
    }
}

#[async_trait]
impl Exchange for Wire {
    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        _: usize,
    ) -> Result<Answer, Unanswered> {
        if !self.life.is_on() {
            return std::future::pending().await;
        }
        let host = request.uri().host().unwrap_or_default().to_owned();
        let answer = match host.strip_prefix("api-") {
            Some(number) => self.to_api(number.parse().unwrap_or_default(), request).await,
            None => self.to_s3(request).await,
        };
        if !self.life.is_on() {
            return std::future::pending().await;
        }
        answer
    }
}

impl Wire {
    async fn delay(&self) {
        match self.places.world.weather.strikes(Fault::NetworkSlow) {
            true => tokio::time::sleep(chance::ms(500, 7_000)).await,
            false => tokio::time::sleep(chance::ms(1, 30)).await,
        }
    }

    async fn to_api(
        &self,
        number: usize,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, Unanswered> {
        let world = &self.places.world;
        let weather = &world.weather;
        if weather.strikes(Fault::ApiUnreachable) {
            return Err(Unanswered::NotSent("no route to host".into()));
        }
        self.delay().await;
        if weather.strikes(Fault::Portal) {
            return Ok(stranger());
        }
        let (mut head, body) = request.into_parts();
        if weather.strikes(Fault::TokenRefused) {
            let other = HeaderValue::from_static("Bearer spw_sim_other");
            head.headers.insert(http::header::AUTHORIZATION, other);
        }
        let Ok(body) = body.collect().await;
        let body = body.to_bytes();
        self.see(number, &body);
        if weather.strikes(Fault::RequestLost) {
            return self.lost(&body).await;
        }
        if weather.strikes(Fault::ResetBefore) {
            return Err(Unanswered::Broken("connection reset".into()));
        }
        let request = Request::from_parts(head, Full::new(body.clone()));
        if weather.strikes(Fault::RequestTwice) {
            self.again_later(number, request.clone());
        }
        let Some(answered) = self.places.apis.get(number).and_then(|api| api.take(request)) else {
            return Err(Unanswered::NotSent("connection refused".into()));
        };
        let Ok(response) = answered.await else {
            return Err(Unanswered::Broken("connection reset".into()));
        };
        let status = response.status().as_u16();
        crate::note!(world.history, "api-{number}: {status}");
        self.delay().await;
        if weather.strikes(Fault::AnswerLost) {
            return self.lost(&body).await;
        }
        if weather.strikes(Fault::ResetAfter) {
            return Err(Unanswered::Broken("connection reset".into()));
        }
        let (head, mut body) = response.into_parts();
        if weather.strikes(Fault::AnswerCut) {
            body.truncate(usize::try_from(chance::below(body.len() as u64)).unwrap_or_default());
        }
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    /// A copy of a request that comes when its sender may have long forgotten it.
    fn again_later(&self, number: usize, request: Request<Full<Bytes>>) {
        let apis = Arc::clone(&self.places.apis);
        tokio::spawn(async move {
            tokio::time::sleep(chance::ms(0, 30_000)).await;
            let answered = apis.get(number).and_then(|api| api.take(request));
            if let Some(answered) = answered {
                let _nobody_hears_it = answered.await.is_ok();
            }
        });
    }

    fn see(&self, number: usize, body: &Bytes) {
        let world = &self.places.world;
        for frame in frame::split(body) {
            if let Ok(header) = frame.and_then(|frame| Header::parse(&frame)) {
                crate::note!(world.history, "to api-{number}: {}", header.id);
                world.oracle().saw(&header);
            }
        }
    }

    /// Nothing comes back; the agent's deadline ends it.
    async fn lost(&self, body: &Bytes) -> Result<Answer, Unanswered> {
        if self.places.world.mutant == Some(Mutant::LostAnswerAccepted) {
            let accepted = frame::split(body).len();
            let body = format!(r#"{{"accepted":{accepted},"rejected":[],"environment":"sim"}}"#);
            let (status, headers) = (StatusCode::OK, HeaderMap::new());
            return Ok(Answer { status, headers, body: body.into() });
        }
        std::future::pending().await
    }

    async fn to_s3(&self, request: Request<Full<Bytes>>) -> Result<Answer, Unanswered> {
        let (head, body) = request.into_parts();
        let Ok(body) = body.collect().await;
        let path = head.uri.path();
        let key = path.strip_prefix("/spillway/").unwrap_or(path);
        match self.places.bucket.agent_puts(key, body.to_bytes()).await {
            Answered::Silence => std::future::pending().await,
            Answered::Status(status) => Ok(Answer {
                status: StatusCode::from_u16(status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
                headers: HeaderMap::new(),
                body: Bytes::new(),
            }),
            Answered::Stored => {
                let checksum = head.headers.get(CHECKSUM).cloned();
                let headers = checksum.map(|checksum| (CHECKSUM.parse(), checksum));
                let headers = headers.into_iter();
                let headers = headers.filter_map(|(name, value)| Some((name.ok()?, value)));
                Ok(Answer {
                    status: StatusCode::OK,
                    headers: headers.collect(),
                    body: Bytes::new(),
                })
            }
        }
    }
}

/// What somebody in between answers who knows nothing of batches.
fn stranger() -> Answer {
    let status = match chance::below(3) {
        0 => StatusCode::OK,
        1 => StatusCode::BAD_GATEWAY,
        _ => StatusCode::PAYLOAD_TOO_LARGE,
    };
    let kind = HeaderValue::from_static("text/html");
    let headers = [(http::header::CONTENT_TYPE, kind)].into_iter().collect();
    Answer { status, headers, body: Bytes::from_static(b"<html>Please log in</html>") }
}
