//! `/openapi.json` describes the routes that are there, by what they really answer.

use serde_json::Value;

use crate::stage::{frame, stage};

/// Whether `value` has the required properties of the schema that `reference` names.
fn fits(document: &Value, reference: &Value, value: &Value) {
    let name = reference.as_str().unwrap().strip_prefix("#/").unwrap();
    let schema = document.pointer(&format!("/{name}")).unwrap();
    for required in schema["required"].as_array().unwrap() {
        assert!(value.get(required.as_str().unwrap()).is_some(), "{required} in {value}");
    }
    for name in value.as_object().unwrap().keys() {
        assert!(schema["properties"].get(name).is_some(), "{name} is not described");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_answer_of_our_own_routes_is_described() {
    let stage = stage(|_| {}).await;
    let document = stage.ask("GET", "/openapi.json", &[], b"").await;
    assert_eq!(document.header("content-type"), Some("application/json"));
    let document = document.body;
    assert_eq!(document["openapi"], "3.1.0");
    let described = document["paths"].as_object().unwrap();
    let mut own: Vec<&str> = described.keys().map(String::as_str).collect();
    own.sort_unstable();
    assert_eq!(own, ["/livez", "/openapi.json", "/readyz", "/v1/batches"]);
    let good = frame("demo", 1);
    let (token, plain) = (format!("Bearer {}", stage.token), ("Content-Type", "text/plain"));
    let token = ("Authorization", token.as_str());
    for (headers, body, status) in [
        (vec![token], good.as_ref(), 200),
        (vec![token], frame("acme", 1).as_ref(), 200),
        (vec![token], b"nonsense", 400),
        (vec![], good.as_ref(), 401),
        (vec![token, plain], good.as_ref(), 415),
    ] {
        let reply = stage.ask("POST", "/v1/batches", &headers, body).await;
        assert_eq!(reply.status, status);
        let answer = &document["paths"]["/v1/batches"]["post"]["responses"][status.to_string()];
        let content = &answer["content"][reply.header("content-type").unwrap()];
        fits(&document, &content["schema"]["$ref"], &reply.body);
    }
}
