//! One program, as its admin pages say.

use std::time::Instant;

use super::ProgramLook;
use crate::reach::http::{Http, join};
use crate::settings::ProgramSettings;
use crate::status::component::DeepReport;
use crate::status::metrics_text::Readings;
use crate::status::snapshot::ProgramState;

pub async fn look(http: &Http, program: &ProgramSettings) -> ProgramLook {
    let name = program.name.clone();
    let began = Instant::now();
    let Ok(ready) = http.get(&join(&program.admin, "/readyz")).await else {
        let state = ProgramState { name, state: "down", answered_ms: None };
        return ProgramLook { state, readings: None, deep: DeepReport::default() };
    };
    let answered_ms = Some(began.elapsed().as_secs_f64() * 1e3);
    let state = if ready.status.is_success() { "ready" } else { "not ready" };
    let (metrics, deep) = (join(&program.admin, "/metrics"), join(&program.admin, "/deepz"));
    let (metrics, deep) = tokio::join!(http.get(&metrics), http.get(&deep));
    let deep = deep.ok().and_then(|answer| serde_json::from_slice(&answer.body).ok());
    ProgramLook {
        state: ProgramState { name, state, answered_ms },
        readings: metrics.ok().map(|page| Readings::parse(&page.text())),
        deep: deep.unwrap_or_default(),
    }
}
