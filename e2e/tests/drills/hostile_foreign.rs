//! Hostile bodies of foreign protocols: OTLP's and Datadog's routes, in both of their encodings,
//! as `hostile` does it for our own. What may be held of them is more (16 MiB unpacked, and what
//! JSON is built to), and so is the limit of memory.

use crate::hostile::{Input, Stage};
use crate::hostile_wire::{WINDOW_LOG_17, WINDOW_LOG_31, field, post_to, zstd_zeros};

/// What the kernel gives the program; the settings allow it 832 MiB.
const MEMORY_BYTES_MAX: u64 = 512 << 20;
const OTLP: &str = "/v1/metrics";
const V1: &str = "/api/v1/series";
const V2: &str = "/api/v2/series";
const JSON: &str = "application/json";
const PROTOBUF: &str = "application/x-protobuf";
/// As long as may be sent.
const BODY_BYTES: usize = 8 << 20;

/// A request to `path` with a body of this kind in this coding.
fn request(token: &str, path: &str, (kind, coding): (&str, &str), body: &[u8]) -> Vec<u8> {
    let (bearer, length) = (format!("Bearer {token}"), body.len().to_string());
    let head = [
        ("Authorization", bearer.as_str()),
        ("Content-Type", kind),
        ("Content-Encoding", coding),
        ("Content-Length", length.as_str()),
    ];
    post_to(path, &head, body)
}

/// Zeros as deflate writes them by its fixed codes (RFC 1951, 3.2.6): one literal, then copies of
/// 258 bytes, 13 bits each. No end and no checksum: nobody should come that far.
fn deflated_zeros(bytes: usize) -> Vec<u8> {
    let (mut out, mut held, mut count) = (Vec::new(), 0_u32, 0);
    let mut put = |bits: u32, length: u32| {
        held |= bits << count;
        count += length;
        while count >= 8 {
            out.push(held as u8);
            held >>= 8;
            count -= 8;
        }
    };
    // The last block, fixed codes; the literal 0 is 00110000, length 258 is 11000101, distance 1
    // is 00000; codes stand with their first bit first.
    put(0b011, 3);
    put(0b0000_1100, 8);
    for _ in 0..bytes / 258 {
        put(0b1010_0011, 8);
        put(0, 5);
    }
    out
}

fn gzip(bytes: usize) -> Vec<u8> {
    [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3][..], &deflated_zeros(bytes)].concat()
}

fn zlib(bytes: usize) -> Vec<u8> {
    [&[0x78, 0x9c][..], &deflated_zeros(bytes)].concat()
}

/// A request with one metric of this shape and these data points.
fn otlp(shape: u8, points: &[u8]) -> Vec<u8> {
    // Cumulative, where the shape asks.
    let data = [points, &[0x10, 2]].concat();
    let metric = [field(1, b"hostile"), field(shape, &data)].concat();
    field(1, &field(2, &field(2, &metric)))
}

/// An exponential histogram that lists this many buckets of one.
fn exponential(buckets: usize) -> Vec<u8> {
    let listed = field(8, &field(2, &vec![1; buckets]));
    otlp(10, &field(1, &[&[0x19, 0, 0, 0, 0, 0, 1, 0, 0][..], &listed].concat()))
}

/// `open`, then `entry` as often as fits, with commas, then `close`.
fn json_list(open: &str, entry: &str, close: &str) -> Vec<u8> {
    let times = (BODY_BYTES - open.len() - close.len()) / (entry.len() + 1);
    let mut text = String::with_capacity(BODY_BYTES);
    text.push_str(open);
    for nth in 0..times {
        text.push_str(if nth == 0 { "" } else { "," });
        text.push_str(entry);
    }
    (text + close).into_bytes()
}

fn otlp_bodies(token: &str) -> Vec<Input> {
    let send = |kind, body: &[u8]| request(token, OTLP, kind, body);
    let plain = (PROTOBUF, "identity");
    let json = (JSON, "identity");
    let metric = "{\"resourceMetrics\":[{\"scopeMetrics\":[{\"metrics\":[{\"name\":\"h\",";
    let end = "}]}]}]}";
    let counts = format!(
        "{metric}\"exponentialHistogram\":{{\"aggregationTemporality\":2,\
                          \"dataPoints\":[{{\"positive\":{{\"bucketCounts\":["
    );
    let points = format!("{metric}\"gauge\":{{\"dataPoints\":[");
    let nested = "{\"resourceMetrics\":".to_owned() + &"[".repeat(100_000);
    vec![
        Input::new("OTLP: gzip of 1 GiB", &[413, 503], send((PROTOBUF, "gzip"), &gzip(1 << 30))),
        Input::new("OTLP: deflate of 1 GiB", &[413, 503], send((JSON, "deflate"), &zlib(1 << 30))),
        Input::new("OTLP: zstd of 10 GB", &[413, 503], {
            send((PROTOBUF, "zstd"), &zstd_zeros(10_000_000_000, WINDOW_LOG_17))
        }),
        Input::new("OTLP: zstd with windowLog 31", &[400], {
            send((PROTOBUF, "zstd"), &zstd_zeros(1 << 20, WINDOW_LOG_31))
        }),
        Input::new("OTLP: gzip of gzip", &[415], send((PROTOBUF, "gzip, gzip"), &gzip(1 << 20))),
        Input::new("OTLP: a length of 2^31 with ten bytes behind", &[400], {
            send(plain, &[&[0x0a, 0xff, 0xff, 0xff, 0xff, 7][..], &[0; 10]].concat())
        }),
        Input::new("OTLP: four million empty resources", &[200, 503], {
            send(plain, &[0x0a, 0].repeat(BODY_BYTES / 2 - 100))
        }),
        Input::new("OTLP: four million empty data points", &[200, 413, 503], {
            send(plain, &otlp(5, &[0x0a, 0].repeat(BODY_BYTES / 2 - 100)))
        }),
        Input::new("OTLP: a histogram of a million buckets", &[200, 503], {
            send(plain, &exponential(1_000_000))
        }),
        Input::new(
            "OTLP JSON: the same",
            &[400, 503],
            send(json, &json_list(&counts, "1", &end_of(3, end))),
        ),
        Input::new("OTLP JSON: nested 100,000 deep", &[400, 503], send(json, nested.as_bytes())),
        Input::new("OTLP JSON: millions of empty resources", &[200, 400, 503], {
            send(json, &json_list("{\"resourceMetrics\":[", "{}", "]}"))
        }),
        Input::new("OTLP JSON: millions of empty data points", &[200, 400, 503], {
            send(json, &json_list(&points, "{}", &end_of(1, end)))
        }),
        Input::new("OTLP JSON: an attribute of millions of parts", &[200, 400, 503], {
            let open = format!(
                "{points}{{\"attributes\":[{{\"key\":\"a\",\"value\":\
                                {{\"arrayValue\":{{\"values\":["
            );
            send(json, &json_list(&open, "{}", &format!("]}}}}}}]}}]}}{end}")))
        }),
    ]
}

/// What closes a list in a data point (3) or the data points (1), and all around it.
fn end_of(depth: usize, end: &str) -> String {
    let inner = if depth == 3 { "]}}]}" } else { "]}" };
    format!("{inner}{end}")
}

fn datadog_bodies(token: &str) -> Vec<Input> {
    let json = (JSON, "identity");
    let v1 = |body: &[u8]| request(token, V1, json, body);
    let many_tags = field(1, &[field(2, b"m"), field(3, b"a").repeat(1_000_000)].concat());
    let series = "{\"series\":[{\"metric\":\"m\",";
    let nested = "{\"series\":".to_owned() + &"[".repeat(100_000);
    vec![
        Input::new("Datadog: deflate of 1 GiB", &[413, 503], {
            request(token, V1, (JSON, "deflate"), &zlib(1 << 30))
        }),
        Input::new("Datadog: zstd of 10 GB", &[413, 503], {
            let bomb = zstd_zeros(10_000_000_000, WINDOW_LOG_17);
            request(token, V2, (PROTOBUF, "zstd"), &bomb)
        }),
        Input::new("Datadog: gzip of 1 GiB", &[413, 503], {
            request(token, V2, (JSON, "gzip"), &gzip(1 << 30))
        }),
        Input::new("Datadog v1: nested 100,000 deep", &[400, 503], v1(nested.as_bytes())),
        Input::new("Datadog v1: millions of empty series", &[202, 400, 503], {
            v1(&json_list("{\"series\":[", "{}", "]}"))
        }),
        Input::new("Datadog v1: millions of points", &[400, 413, 503], {
            v1(&json_list(&format!("{series}\"points\":["), "[1,1]", "]}]}"))
        }),
        Input::new("Datadog v1: millions of tags", &[400, 503], {
            let open = format!("{series}\"points\":[[1700000000,1]],\"tags\":[");
            v1(&json_list(&open, "\"a\"", "]}]}"))
        }),
        // The series is refused by name, and the others of the body would not be.
        Input::new("Datadog v2: a million tags", &[202, 503], {
            request(token, V2, (PROTOBUF, "identity"), &many_tags)
        }),
        Input::new("Datadog v2: a length of 2^31", &[400], {
            request(token, V2, (PROTOBUF, "identity"), &[0x0a, 0xff, 0xff, 0xff, 0xff, 7, 0])
        }),
        Input::new("Datadog v2: four million empty series", &[202, 400, 503], {
            let body = [0x0a, 0].repeat(BODY_BYTES / 2 - 100);
            request(token, V2, (PROTOBUF, "identity"), &body)
        }),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_foreign_bodies_meet_their_status_bounded_memory_and_no_neighbour() {
    let mut stage = Stage::limited("ingest-api-0", MEMORY_BYTES_MAX).await;
    let token = stage.token("acme");
    for input in [otlp_bodies(&token), datadog_bodies(&token)].into_iter().flatten() {
        stage.meet(input).await;
    }
    assert_eq!(stage.panics().await, 0.0);
}
