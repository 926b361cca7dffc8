//! What operators say in admission.toml holds at once, and a bad version of it changes nothing.

use tokio::time::timeout;

use crate::stage::{PATIENCE, Stage, frame, stage_on};

async fn until_answered(stage: &Stage, id: &str) {
    let told = async {
        loop {
            let reply = stage.post(&frame("demo", 1)).await;
            let answered = reply.body["type"].as_str().unwrap_or("accepted");
            if answered.ends_with(id) {
                break;
            }
        }
    };
    timeout(PATIENCE, told).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn environments_are_paused_and_agents_let_in_by_steps() {
    let directory = tempfile::TempDir::new().unwrap();
    let file = directory.path().join("admission.toml");
    std::fs::write(&file, "paused = [\"demo\"]\n").unwrap();
    let rules = file.clone();
    let stage =
        stage_on(crate::stage::cluster(), move |settings| settings.admission.file = Some(rules))
            .await;
    until_answered(&stage, "environment-paused").await;
    std::fs::write(&file, "share = 0.0\n").unwrap();
    until_answered(&stage, "not-admitted-yet").await;
    std::fs::write(&file, "share = \"everyone\"\n").unwrap();
    stage.post(&frame("demo", 1)).await.is_later("not-admitted-yet");
    std::fs::write(&file, "share = 1.0\n").unwrap();
    until_answered(&stage, "accepted").await;
}
