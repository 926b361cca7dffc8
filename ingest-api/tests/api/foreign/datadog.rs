//! Datadog's agents: both versions of series, in JSON and protobuf, and their key.

use serde_json::json;
use spillway_proto::Kind;

use super::name;
use super::protobuf::Message;
use crate::stage::stage;

fn zlib(plain: &[u8]) -> Vec<u8> {
    let mut to = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut to, plain).unwrap();
    to.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_of_v1_are_stored_and_answered_202_ok() {
    let stage = stage(|_| {}).await;
    let body = json!({"series": [
        {"metric": "system.load.1", "points": [[1, 0.5], [2.5, 0.7]], "type": "gauge",
         "host": "web-1", "device": "sda", "interval": 10, "tags": ["env:prod", "env:eu", "solo"]},
        {"metric": "hits", "points": [[1, 3]], "type": "count", "tags": ["host:web-2"]},
    ]});
    let body = zlib(body.to_string().as_bytes());
    let headers = [("DD-API-KEY", stage.token.as_str()), ("Content-Encoding", "deflate")];
    let reply = stage.ask("POST", "/api/v1/series", &headers, &body).await;
    assert_eq!((reply.status, &reply.body), (202, &json!({"status": "ok"})), "{reply:?}");
    let load = name("web-1", "system.load.1", "device=sda,env=eu,prod,solo=");
    let wanted = [
        ((load.clone(), 1_000), 0.5),
        ((load, 2_500), 0.7),
        ((name("web-2", "hits", ""), 1_000), 3.0),
    ];
    assert_eq!(stage.points(), wanted.into());
    assert_eq!(stage.kinds()["hits"], Kind::Delta);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn series_of_v2_are_stored_from_json_and_protobuf_alike() {
    let stage = stage(|_| {}).await;
    let body = json!({"series": [
        {"metric": "a", "type": 3, "points": [{"timestamp": 1, "value": 0.5}],
         "resources": [{"type": "host", "name": "web-1"}], "tags": ["k:v"]},
    ]});
    let key = ("DD-API-KEY", stage.token.as_str());
    let reply = stage.ask("POST", "/api/v2/series", &[key], body.to_string().as_bytes()).await;
    assert_eq!((reply.status, &reply.body), (202, &json!({"errors": []})), "{reply:?}");
    let resource = Message::new().text(1, "host").text(2, "web-1");
    let point = Message::new().double(1, 0.5).int(2, 2);
    let series = Message::new().message(1, &resource).text(2, "a").text(3, "k:v");
    let series = series.message(4, &point).int(5, 3);
    let body = zstd::bulk::compress(&Message::new().message(1, &series).0, 1).unwrap();
    let headers = [key, ("Content-Type", "application/x-protobuf"), ("Content-Encoding", "zstd")];
    assert_eq!(stage.ask("POST", "/api/v2/series", &headers, &body).await.status, 202);
    let name = name("web-1", "a", "k=v");
    assert_eq!(stage.points(), [((name.clone(), 1_000), 0.5), ((name, 2_000), 0.5)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_in_any_encoding_that_datadog_s_clients_name_is_taken() {
    let stage = stage(|_| {}).await;
    for (at, coding) in ["deflate", "zstd", "zstd1"].into_iter().enumerate() {
        let point = json!({"timestamp": at + 1, "value": 1.0});
        let body = json!({"series": [{"metric": "a", "type": 3, "points": [point]}]});
        let headers = [("DD-API-KEY", stage.token.as_str()), ("Content-Encoding", coding)];
        let plain = body.to_string().into_bytes();
        let body = match coding {
            "deflate" => zlib(&plain),
            _ => zstd::bulk::compress(&plain, 1).unwrap(),
        };
        let reply = stage.ask("POST", "/api/v2/series", &headers, &body).await;
        assert_eq!(reply.status, 202, "{coding}: {reply:?}");
    }
    assert_eq!(stage.points().len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_series_with_too_many_tags_is_refused_alone_in_any_form() {
    let stage = stage(|_| {}).await;
    let key = ("DD-API-KEY", stage.token.as_str());
    let many = vec!["a"; 257];
    let point = json!({"timestamp": 1, "value": 1.0});
    let bodies = [("/api/v1/series", json!([[1, 1.0]])), ("/api/v2/series", json!([point]))];
    for (path, points) in bodies {
        let body = json!({"series": [
            {"metric": "many", "points": points, "tags": many},
            {"metric": "few", "points": points, "tags": ["a"]},
        ]});
        let reply = stage.ask("POST", path, &[key], body.to_string().as_bytes()).await;
        let text = "1 points refused: series 0: it has more than 256 tags";
        assert_eq!((reply.status, &reply.body), (400, &json!({"errors": [text]})), "{path}");
    }
    let point = Message::new().message(4, &Message::new().double(1, 0.5).int(2, 2));
    let tagged = many.iter().fold(point.text(2, "many"), |series, tag| series.text(3, tag));
    let body = Message::new().message(1, &tagged).0;
    let headers = [key, ("Content-Type", "application/x-protobuf")];
    let reply = stage.ask("POST", "/api/v2/series", &headers, &body).await;
    assert_eq!(reply.status, 400, "{reply:?}");
    assert_eq!(stage.kinds().into_keys().collect::<Vec<_>>(), ["few"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_key_is_403_and_bad_series_are_400_with_errors() {
    let stage = stage(|_| {}).await;
    let good = [("DD-API-KEY", stage.token.as_str())];
    let reply = stage.ask("GET", "/api/v1/validate", &good, b"").await;
    assert_eq!((reply.status, &reply.body), (200, &json!({"valid": true})));
    let bad = [("DD-API-KEY", "nonsense")];
    for (method, path) in [("GET", "/api/v1/validate"), ("POST", "/api/v1/series")] {
        let reply = stage.ask(method, path, &bad, b"").await;
        assert_eq!(reply.status, 403, "{reply:?}");
        assert!(reply.body["errors"][0].is_string());
    }
    let body = b"{\"series\":[{\"points\":[[1,1]]},{\"metric\":\"m\",\"points\":[[1,1]]}]}";
    let reply = stage.ask("POST", "/api/v1/series", &good, body).await;
    let text = "1 points refused: series 0: its metric has no name";
    assert_eq!((reply.status, &reply.body), (400, &json!({"errors": [text]})));
    assert_eq!(stage.points().len(), 1);
}
