//! Remote write: content negotiation, the rules of labels and samples, and what is refused.

use super::name;
use super::protobuf::{Message, snappy};
use super::remote_write::{SNAPPY, Samples, V1, V2, series, v1, v2};
use crate::stage::stage;

const ONE: [(&str, &str); 2] = [("__name__", "m"), ("host", "h")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_content_type_decides_the_version_and_unknown_ones_are_415() {
    let stage = stage(|_| {}).await;
    let one = snappy(&v1(&[series(&ONE, &[(1, 1.0)])]));
    let two = snappy(&v2(&["", "__name__", "m"], &[(&[1, 2], &[(2, 1.0)], 2)]));
    let proto = |name: &str| format!("application/x-protobuf;proto={name}");
    let kinds = [
        (None, &one, 204),
        (Some("application/x-protobuf".to_owned()), &one, 204),
        (Some(proto("prometheus.WriteRequest")), &one, 204),
        (Some(proto("io.prometheus.write.v2.Request")), &two, 204),
        (Some(proto("io.prometheus.write.v3.Request")), &two, 415),
        (Some("application/json".to_owned()), &one, 415),
        (Some("text/plain".to_owned()), &one, 415),
    ];
    for (kind, body, status) in kinds {
        let stated = kind.as_deref().map(|kind| ("Content-Type", kind));
        let headers: Vec<(&str, &str)> = stated.into_iter().chain([SNAPPY]).collect();
        let reply = stage.send("/api/v1/write", &headers, body).await;
        assert_eq!(reply.status, status, "{kind:?} {reply:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_encoding_is_snappy_and_any_other_is_415() {
    let stage = stage(|_| {}).await;
    let body = snappy(&v1(&[series(&ONE, &[(1, 1.0)])]));
    assert_eq!(stage.send("/api/v1/write", &[V1], &body).await.status, 204);
    for coding in ["zstd", "gzip", "identity", ""] {
        let reply = stage.send("/api/v1/write", &[V1, ("Content-Encoding", coding)], &body).await;
        assert_eq!(reply.status, 415, "{coding}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_undecodable_body_is_400_and_a_too_large_one_too() {
    let stage = stage(|settings| {
        settings.http.body_bytes_max = spillway_runtime::settings::Size::mib(1);
    })
    .await;
    let too_long = vec![0; (1 << 20) + 1];
    let claims = [&[0xff, 0xff, 0xff, 0xff, 0x0f][..], &[0; 20]].concat();
    let framed = b"\xff\x06\x00\x00sNaPpY\x01\x05\x00\x00\x00\x00\x00\x00\x00".to_vec();
    let cases = [b"no snappy".to_vec(), snappy(b"no protobuf"), too_long, claims, framed];
    for (index, body) in cases.iter().enumerate() {
        for kind in [V1, V2] {
            let reply = stage.send("/api/v1/write", &[kind, SNAPPY], body).await;
            assert_eq!(reply.status, 400, "{index} {reply:?}");
            let counts = (kind == V2).then_some([0, 0, 0]);
            assert_eq!(reply.written(), counts, "2.0 hears counts on failure too");
            assert!(reply.body.as_str().unwrap().len() <= 1_024);
        }
    }
    assert!(stage.batches().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_that_break_a_rule_are_that_series_400_and_the_others_are_written() {
    let stage = stage(|_| {}).await;
    let bad: [&[(&str, &str)]; 7] = [
        &[("__name__", "m"), ("b", "1"), ("a", "2")],
        &[("__name__", "m"), ("a", "1"), ("a", "2")],
        &[("", "x"), ("__name__", "m")],
        &[("__name__", "m"), ("a", "")],
        &[("a", "no name")],
        &[("__name__", "")],
        &[],
    ];
    let all: Vec<Message> = [&ONE[..]]
        .iter()
        .chain(&bad)
        .map(|labels| series(labels, &[(1_000, 1.0), (2_000, 2.0)]))
        .collect();
    let reply = stage.write_v1(&all).await;
    assert_eq!((reply.status, reply.written()), (400, None));
    let text = reply.body.as_str().unwrap();
    assert!(text.starts_with("14 points refused: series 1: its labels are not sorted"), "{text}");
    let name = name("h", "m", "");
    assert_eq!(stage.points(), [((name.clone(), 1_000), 1.0), ((name, 2_000), 2.0)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn vmagent_does_not_sort_its_labels_and_is_taken_all_the_same() {
    let stage = stage(|_| {}).await;
    let body = snappy(&v1(&[series(&[("host", "h"), ("__name__", "m")], &[(1, 1.0)])]));
    let agent = ("User-Agent", "vmagent");
    assert_eq!(stage.send("/api/v1/write", &[V1, SNAPPY, agent], &body).await.status, 204);
    assert_eq!(stage.send("/api/v1/write", &[V1, SNAPPY], &body).await.status, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partial_2_0_body_is_400_with_what_was_written() {
    let stage = stage(|_| {}).await;
    let symbols = ["", "__name__", "m", "b", "a", "x"];
    let samples = [(1_000, 1.0), (2_000, 2.0), (-5, 3.0)];
    let body = v2(&symbols, &[(&[1, 2], &samples, 2), (&[1, 2, 3, 5, 4, 5], &samples, 2)]);
    let reply = stage.write_v2(&body).await;
    assert_eq!((reply.status, reply.written()), (400, Some([2, 0, 0])), "{reply:?}");
    let text = reply.body.as_str().unwrap();
    assert!(text.starts_with("4 points refused: series 0: a time is outside"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_2_0_reference_out_of_range_an_odd_one_or_a_first_symbol_with_text_is_400() {
    let stage = stage(|_| {}).await;
    for (symbols, refs) in [
        (&["", "__name__", "m"][..], &[1, 3][..]),
        (&["", "__name__", "m"], &[1, 2, 1]),
        (&["__name__", "m"], &[0, 1]),
        (&[], &[0, 0]),
    ] {
        let reply = stage.write_v2(&v2(symbols, &[(refs, &[(1, 1.0)], 0)])).await;
        assert_eq!((reply.status, reply.written()), (400, Some([0, 0, 0])), "{refs:?} {reply:?}");
    }
    assert!(stage.batches().is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_later_2_x_adds_is_skipped_and_the_rest_is_written() {
    let stage = stage(|_| {}).await;
    let added = Message::new().text(1, "who knows").int(2, 7);
    let sample = |start_tag: u32| Message::new().double(1, 1.0).int(2, 1_000).int(start_tag, 500);
    let exemplar = Message::new().packed(1, &[1, 2]).double(2, 1.0).int(3, 1_000);
    // Start times are the series' in rc.3, and each sample's since rc.4.
    let series = Message::new().packed(1, &[1, 2, 3, 4]).message(2, &sample(3)).int(6, 500);
    let series = series.message(4, &exemplar).message(99, &added);
    let names = ["", "__name__", "m", "host", "h"];
    let body = names.iter().fold(Message::new(), |request, text| request.text(4, text));
    let body = body.message(5, &series).message(99, &added);
    for version in ["2.0.0", "2.7.0"] {
        let version = ("X-Prometheus-Remote-Write-Version", version);
        let reply = stage.send("/api/v1/write", &[V2, SNAPPY, version], &snappy(&body.0)).await;
        // Exemplars are the one thing that is not kept, and their count says so.
        assert_eq!((reply.status, reply.written()), (204, Some([1, 0, 0])), "{reply:?}");
    }
    assert_eq!(stage.points(), [((name("h", "m", ""), 1_000), 1.0)].into());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_and_values_are_any_text_in_utf_8_and_nothing_else() {
    let stage = stage(|_| {}).await;
    let labels = [("__name__", "température/°C"), ("a b", "\n=,"), ("host", "h"), ("日", "本")];
    assert_eq!(stage.write_v1(&[series(&labels, &[(1, 1.0)])]).await.status, 204);
    let name = name("h", "température/°C", "a b=\n=,,日=本");
    assert_eq!(stage.points(), [((name, 1), 1.0)].into());
    let mut latin1 = v1(&[series(&ONE, &[(1, 1.0)])]);
    let at = latin1.iter().position(|byte| *byte == b'm').unwrap();
    latin1.splice(at..=at, [0xe9]);
    let reply = stage.send("/api/v1/write", &[V1, SNAPPY], &snappy(&latin1)).await;
    assert_eq!(reply.status, 400, "{reply:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn out_of_order_and_duplicate_samples_and_stale_markers_are_taken() {
    let stage = stage(|_| {}).await;
    let stale = f64::from_bits(0x7ff0_0000_0000_0002);
    let samples = [(3_000, 3.0), (1_000, 1.0), (3_000, 4.0), (2_000, stale)];
    assert_eq!(stage.write_v1(&[series(&ONE, &samples)]).await.status, 204);
    let points = stage.points();
    let at = |ts_ms| points[&(name("h", "m", ""), ts_ms)];
    assert_eq!((points.len(), at(1_000), at(3_000)), (3, 1.0, 4.0));
    assert_eq!(at(2_000).to_bits(), stale.to_bits());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_alone_and_an_empty_body_are_204() {
    let stage = stage(|_| {}).await;
    let metadata = Message::new().int(1, 1).text(2, "m").text(4, "help");
    for body in [Message::new().message(3, &metadata).0, Vec::new()] {
        let reply = stage.send("/api/v1/write", &[V1, SNAPPY], &snappy(&body)).await;
        assert_eq!(reply.status, 204);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn references_to_texts_of_megabytes_cost_nothing() {
    let stage = stage(|_| {}).await;
    let (a, b) = ("x".repeat(4 << 20), format!("{}y", "x".repeat(4 << 20)));
    // Compared or hashed each time, this would be a terabyte.
    let refs: Vec<u64> = [3, 3, 4, 4].repeat(30);
    let samples: Samples<'_> = &[(1, 1.0)];
    let series = vec![(refs.as_slice(), samples, 0); 10_000];
    let body = v2(&["", "__name__", "m", &a, &b], &series);
    let reply = stage.write_v2(&body).await;
    assert_eq!((reply.status, reply.written()), (400, Some([0, 0, 0])), "{reply:?}");
    assert!(reply.body.as_str().unwrap().contains("a label is longer"), "{reply:?}");
}
