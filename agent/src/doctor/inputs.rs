//! The inputs: each that is read is read once, and each port that is listened on is tried.

use std::io;
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use spillway_runtime::deadline::within;
use spillway_runtime::program::chain;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::Finding;
use super::remedy::remedy;
use crate::clock::{Clock as _, SystemClock};
use crate::collect::paced::Source;
use crate::collect::sources;
use crate::collect::statsd::Listener;
use crate::collect::tray::Tray;
use crate::metrics::Metrics;
use crate::settings::Settings;
use crate::status::socket;

/// Inputs that are tried at once: a thousand targets that hang must not take a thousand timeouts,
/// nor a thousand connections.
const AT_ONCE: usize = 16;
/// What a source gets beyond its own deadline.
const GRACE: Duration = Duration::from_secs(1);

/// A line for each.
pub async fn check(settings: &Settings) -> Vec<Finding> {
    let mut findings = listeners(settings);
    let listener = Listener::new(&settings.statsd, Metrics::default());
    match sources::all(settings, &listener) {
        Ok(all) => findings.extend(tried(all, settings).await),
        Err(cause) => findings.push(Finding::broken(
            format!("a target's certificates: {}", chain(&cause)),
            "correct ca_file, or let the agent's user read it",
        )),
    }
    findings
}

async fn tried(all: Vec<Box<dyn Source>>, settings: &Settings) -> Vec<Finding> {
    let turns = Arc::new(Semaphore::new(AT_ONCE));
    let tray_bytes_max = settings.collect.tray_bytes_max.as_usize();
    let mut trying = JoinSet::new();
    for (place, mut source) in all.into_iter().enumerate() {
        let turns = Arc::clone(&turns);
        trying.spawn(async move {
            let _turn = turns.acquire().await;
            (place, try_once(source.as_mut(), tray_bytes_max).await)
        });
    }
    let mut findings = Vec::new();
    while let Some(tried) = trying.join_next().await {
        findings.extend(tried);
    }
    findings.sort_by_key(|(place, _)| *place);
    findings.into_iter().map(|(_, finding)| finding).collect()
}

async fn try_once(source: &mut dyn Source, tray_bytes_max: usize) -> Finding {
    let name = source.name();
    let mut out = Tray::new(tray_bytes_max).pack(source.labels());
    let limit = source.pace().deadline + GRACE;
    let began = tokio::time::Instant::now();
    match within(limit, source.read(SystemClock.wall_ms(), &mut out)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            return Finding::broken(format!("{name}: {error}"), remedy(error.cause()));
        }
        Err(late) => return Finding::broken(format!("{name}: {late}"), remedy(&late)),
    }
    match source.missing() {
        Some(missing) => Finding::warning(
            format!("{name}: {missing}"),
            "run that GRANT on the server; what it opens is left out until then",
        ),
        None => {
            let (readings, took) = (out.len(), began.elapsed().as_millis());
            Finding::fine(format!("{name}: {readings} readings in {took} ms"))
        }
    }
}

/// What the agent listens on; that a running agent has its port is as it should be.
fn listeners(settings: &Settings) -> Vec<Finding> {
    let (statsd, influx) = (&settings.statsd, &settings.influx);
    let udp = |address: &str| UdpSocket::bind(address).map(drop);
    let tcp = |address: &str| TcpListener::bind(address).map(drop);
    let mut tried = Vec::new();
    if statsd.enabled && !statsd.listen.is_empty() {
        tried.push(("statsd.listen", &statsd.listen, udp(&statsd.listen)));
    }
    if influx.enabled && !influx.listen.is_empty() {
        tried.push(("influx.listen", &influx.listen, tcp(&influx.listen)));
    }
    if influx.enabled && !influx.udp.is_empty() {
        tried.push(("influx.udp", &influx.udp, udp(&influx.udp)));
    }
    let runs = !tried.is_empty() && socket::fetch(&settings.agent.state_dir).is_ok();
    let found = tried.into_iter().map(|(name, address, bound)| {
        let bound = bound.map_err(|cause| (cause.kind(), cause));
        match bound {
            Ok(()) => Finding::fine(format!("{name} {address} is free")),
            Err((io::ErrorKind::AddrInUse, _)) if runs => {
                Finding::fine(format!("{name} {address} is in use, and an agent runs here"))
            }
            Err((kind, cause)) => {
                let fix = match kind {
                    io::ErrorKind::AddrInUse => {
                        format!("see who has it (ss -lnptu), and stop that or set {name}")
                    }
                    io::ErrorKind::PermissionDenied => {
                        format!("set {name} to a port from 1024 on")
                    }
                    _ => format!("set {name} to an address of this host"),
                };
                Finding::broken(format!("{name} {address} can't be listened on: {cause}"), fix)
            }
        }
    });
    found.collect()
}

#[cfg(test)]
mod tests;
