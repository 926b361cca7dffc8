//! The local S3 refuses what production's policy refuses.

use aws_credential_types::Credentials;
use aws_sdk_s3::Client;
use aws_sdk_s3::config::{BehaviorVersion, Builder, Region};
use aws_sdk_s3::primitives::ByteStream;
use spillway_testkit::{Stack, StackOptions};

/// `None`: requests are not signed.
fn client(stack: &Stack, key: Option<(&str, &str)>) -> Client {
    let endpoint = format!("http://{}", stack.servers().s3_port.address());
    let builder = Builder::new()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("us-east-1"))
        .endpoint_url(endpoint)
        .force_path_style(true);
    Client::from_conf(match key {
        Some((id, secret)) => {
            builder.credentials_provider(Credentials::new(id, secret, None, None, "test")).build()
        }
        None => builder.allow_no_auth().build(),
    })
}

async fn puts(client: &Client, key: &str) -> bool {
    let body = ByteStream::from_static(b"sealed");
    client.put_object().bucket("spillway").key(key).body(body).send().await.is_ok()
}

async fn gets(client: &Client, key: &str) -> bool {
    client.get_object().bucket("spillway").key(key).send().await.is_ok()
}

async fn lists(client: &Client) -> bool {
    client.list_objects_v2().bucket("spillway").send().await.is_ok()
}

async fn deletes(client: &Client, key: &str) -> bool {
    client.delete_object().bucket("spillway").key(key).send().await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_may_put_under_spill_and_nothing_else() {
    let options = StackOptions { servers_only: true, ..StackOptions::default() };
    let stack = Stack::start(options).await.unwrap();
    let s3 = &stack.servers().s3;
    let main = client(&stack, Some((&s3.access_key, &s3.secret_key)));
    let agent = client(&stack, Some((&s3.agent_access_key, &s3.agent_secret_key)));
    let nobody = client(&stack, None);
    let forged = client(&stack, Some((&s3.access_key, "wrong")));

    assert!(puts(&agent, "spill/a").await);
    assert!(gets(&main, "spill/a").await && lists(&main).await);
    assert_eq!(stack.parked_objects(), 1);
    assert!(!puts(&agent, "claims/a").await && !puts(&agent, "a").await);
    assert!(!gets(&agent, "spill/a").await && !lists(&agent).await);
    assert!(!deletes(&agent, "spill/a").await);
    assert!(!puts(&nobody, "spill/b").await && !lists(&nobody).await);
    assert!(!puts(&forged, "spill/b").await);
    assert!(deletes(&main, "spill/a").await);
    assert_eq!(stack.parked_objects(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn unsigned_puts_come_in_only_where_they_were_asked_for() {
    let options =
        StackOptions { servers_only: true, s3_unsigned_put: true, ..StackOptions::default() };
    let stack = Stack::start(options).await.unwrap();
    let nobody = client(&stack, None);
    assert!(puts(&nobody, "spill/a").await);
    assert!(!puts(&nobody, "a").await && !gets(&nobody, "spill/a").await && !lists(&nobody).await);
}
