//! `doctor`: tries everything the agent needs, one line each, and for what fails, how to mend it.
//!
//! It changes nothing but a file it makes and removes in the state directory, and (if spill is
//! on) one empty sealed object in S3, which the recovery worker retires. Commands (`[[exec]]`) are
//! run once.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use spillway_runtime::deadline::within;
use spillway_runtime::program::chain;

use crate::cli::say;
use crate::deliver::probe;
use crate::settings::{Settings, SpoolKind};

mod inputs;

mod remedy;

/// For DNS and for TCP each. Whatever takes longer will not do for a metrics pipeline either.
const NETWORK_DEADLINE: Duration = Duration::from_secs(5);
/// Beyond this, dashboards show this host's points in the wrong place.
const SKEW_MS_MAX: u64 = 5_000;

/// What one check found.
#[derive(Clone, Debug, PartialEq)]
struct Finding {
    verdict: Verdict,
    what: String,
    /// What to do; empty when all is well.
    fix: String,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Verdict {
    Fine,
    Warning,
    Broken,
}

impl Finding {
    fn fine(what: impl Into<String>) -> Self {
        Self { verdict: Verdict::Fine, what: what.into(), fix: String::new() }
    }

    fn warning(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, what: what.into(), fix: fix.into() }
    }

    fn broken(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { verdict: Verdict::Broken, what: what.into(), fix: fix.into() }
    }
}

/// Checks everything and prints it. 0 all is well, 1 a warning, 2 something does not work.
pub async fn run(settings: Settings) -> ExitCode {
    let settings = match settings.resolved() {
        Ok(settings) => settings,
        Err(cause) => {
            say(&render(&[Finding::broken(cause.to_string(), "make the file readable")]));
            return ExitCode::from(2);
        }
    };
    let mut findings = vec![Finding::fine("the settings are sound")];
    findings.push(state_dir(&settings.agent.state_dir));
    findings.push(disk_space(&settings));
    for endpoint in &settings.deliver.endpoints {
        findings.extend(api(&settings, endpoint).await);
    }
    findings.extend(spill(&settings).await);
    findings.extend(inputs::check(&settings).await);
    let worst = findings.iter().map(|finding| finding.verdict).max().unwrap_or(Verdict::Fine);
    let said = say(&render(&findings));
    match worst {
        Verdict::Fine => said,
        Verdict::Warning => ExitCode::from(1),
        Verdict::Broken => ExitCode::from(2),
    }
}

fn render(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Fine => "ok     ",
            Verdict::Warning => "warning",
            Verdict::Broken => "FAILED ",
        };
        let mut written = writeln!(text, "{mark}  {}", finding.what);
        if !finding.fix.is_empty() {
            written = written.and_then(|()| writeln!(text, "         fix: {}", finding.fix));
        }
        debug_assert!(written.is_ok(), "writing to a String does not fail");
    }
    text
}

fn state_dir(dir: &Path) -> Finding {
    let shown = dir.display();
    if !dir.exists() {
        // The agent makes it, if it may.
        let parent = dir.ancestors().find(|above| above.exists()).unwrap_or(Path::new("/"));
        return match tempfile::tempfile_in(parent) {
            Ok(_) => Finding::fine(format!("{shown} will be made at the first start")),
            Err(cause) => Finding::broken(
                format!("{shown} is not there and can't be made: {cause}"),
                format!("mkdir -p {shown} && chown <the agent's user> {shown}"),
            ),
        };
    }
    match tempfile::NamedTempFile::new_in(dir).and_then(|file| file.as_file().sync_all()) {
        Ok(()) => Finding::fine(format!("{shown} can be written")),
        Err(cause) => Finding::broken(
            format!("{shown} can't be written: {cause}"),
            format!("chown -R <the agent's user> {shown}, on a file system that is not read-only"),
        ),
    }
}

fn disk_space(settings: &Settings) -> Finding {
    let spool = &settings.spool;
    if spool.kind == SpoolKind::Memory {
        let fix = "set spool.kind = \"disk\" unless the disk must not be touched";
        return Finding::warning("the spool is in memory: a crash loses what waits", fix);
    }
    let dir = settings.spool_dir();
    let there = dir.ancestors().find(|above| above.exists()).map_or("/".into(), PathBuf::from);
    let stat = match rustix::fs::statvfs(&there) {
        Ok(stat) => stat,
        Err(cause) => {
            let what = format!("{} can't be asked for its free space: {cause}", there.display());
            return Finding::warning(what, "check the mount");
        }
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let (floor, most) = (spool.free_space_floor.get(), spool.bytes_max.get());
    let free_mib = free >> 20;
    let shown = dir.display();
    if free < floor.saturating_add(spool.segment_bytes.get()) {
        let what = format!("{shown}: {free_mib} MiB free, below the floor: nothing can be spooled");
        return Finding::broken(
            what,
            "free space, move spool.dir, or lower spool.free_space_floor",
        );
    }
    if free < floor.saturating_add(most) {
        let what =
            format!("{shown}: {free_mib} MiB free; the spool can't grow to its {most} bytes");
        return Finding::warning(what, "free space, move spool.dir, or lower spool.bytes_max");
    }
    Finding::fine(format!("{shown}: {free_mib} MiB free, enough for a full spool"))
}

async fn api(settings: &Settings, endpoint: &str) -> Vec<Finding> {
    // Through a proxy, names are the proxy's to resolve.
    if settings.deliver.proxy.is_none()
        && let Some(broken) = unreachable(endpoint).await
    {
        return vec![broken];
    }
    let answer = match probe::probe_api(settings, endpoint).await {
        Ok(answer) => answer,
        Err(cause) => {
            let fix = "check TLS (deliver.ca_file; deliver.client_certificate_file if the API asks \
                       for one), the proxy, and that this is an ingest-api";
            return vec![Finding::broken(format!("{endpoint}: {}", chain(&cause)), fix)];
        }
    };
    let took = answer.took.as_millis();
    let mut findings = vec![match answer.status {
        401 | 403 => Finding::broken(
            format!("{endpoint} refuses the token ({})", answer.status),
            "compare agent.environment and the token with `spillway token ls`; make a new one",
        ),
        status @ (429 | 500..) => Finding::warning(
            format!("{endpoint} answers {status} after {took} ms: it does not take batches now"),
            "see its status page; the agent keeps batches meanwhile",
        ),
        status => Finding::fine(format!("{endpoint} answers {status} in {took} ms, token taken")),
    }];
    if let Some(skew) = answer.clock_skew_ms {
        findings.push(if skew.unsigned_abs() > SKEW_MS_MAX {
            let fix = "start chrony or systemd-timesyncd on this host";
            Finding::warning(format!("this clock is {skew} ms ahead of {endpoint}'s"), fix)
        } else {
            Finding::fine(format!("this clock and {endpoint}'s agree within {skew} ms"))
        });
    }
    findings
}

async fn spill(settings: &Settings) -> Vec<Finding> {
    let spill = &settings.spill;
    if !spill.enabled {
        let fix = "set [spill]: without it, batches wait here while ingest-api is away";
        return vec![Finding::warning("there is no way round ingest-api", fix)];
    }
    if let Some(broken) = unreachable(&spill.endpoint).await {
        return vec![broken];
    }
    let target = format!("{}/{}", spill.endpoint, spill.bucket);
    vec![match probe::probe_spill(settings).await {
        Ok(took) => Finding::fine(format!("{target} took an object in {} ms", took.as_millis())),
        Err(cause) => Finding::broken(
            format!("{target} takes no object: {}", chain(&cause)),
            "check spill.access_key and its policy (PUT under spill/), bucket and region",
        ),
    }]
}

/// Why nothing listens at a URL's address; none if something does.
async fn unreachable(url: &str) -> Option<Finding> {
    let uri: http::Uri = url.parse().ok()?;
    let host = uri.host()?.trim_matches(['[', ']']).to_owned();
    let port = uri.port_u16().unwrap_or(if uri.scheme_str() == Some("https") { 443 } else { 80 });
    let resolved = within(NETWORK_DEADLINE, tokio::net::lookup_host((host.as_str(), port))).await;
    let addresses: Vec<SocketAddr> = match resolved {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(cause)) => {
            let what = format!("{url}: the name {host} can't be resolved: {cause}");
            return Some(Finding::broken(what, "check the name and /etc/resolv.conf"));
        }
        Err(late) => {
            let what = format!("{url}: the name server does not answer: {late}");
            return Some(Finding::broken(what, "check /etc/resolv.conf and the way to port 53"));
        }
    };
    let mut last = "it has no address".to_owned();
    for address in addresses {
        match within(NETWORK_DEADLINE, tokio::net::TcpStream::connect(address)).await {
            Ok(Ok(_)) => return None,
            Ok(Err(cause)) => last = format!("{address}: {cause}"),
            Err(late) => last = format!("{address}: {late}"),
        }
    }
    let fix = format!("check that the service runs, and the firewall for TCP port {port}");
    Some(Finding::broken(format!("{url} can't be reached: {last}"), fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failing_line_has_its_fix_below_it() {
        let text = render(&[
            Finding::fine("all is well"),
            Finding::broken("the disk is full", "free space"),
        ]);
        assert_eq!(
            text,
            "ok       all is well\nFAILED   the disk is full\n         fix: free space\n"
        );
    }

    #[test]
    fn a_state_directory_that_is_a_file_is_broken_and_a_missing_one_is_made_later() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(state_dir(dir.path()).verdict, Verdict::Fine);
        assert_eq!(state_dir(&dir.path().join("a/b")).verdict, Verdict::Fine);
        let file = dir.path().join("file");
        std::fs::write(&file, b"").unwrap();
        assert_eq!(state_dir(&file).verdict, Verdict::Broken);
    }

    #[tokio::test]
    async fn a_port_nobody_listens_on_is_named() {
        let closed = "127.0.0.1:1";
        let found = unreachable(&format!("http://{closed}")).await.unwrap();
        assert_eq!(found.verdict, Verdict::Broken);
        assert!(found.what.contains(closed), "{found:?}");
        let listening = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listening.local_addr().unwrap());
        assert_eq!(unreachable(&url).await, None);
    }
}
