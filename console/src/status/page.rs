//! The page itself: one HTML document, rendered here, without a script.

use std::fmt::Write;

use super::snapshot::Snapshot;

const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8884;--ok:#1a7f37;--warning:#9a6700;--critical:#cf222e}\
@media(prefers-color-scheme:dark){:root{--ok:#3fb950;--warning:#d29922;--critical:#f85149}}\
body{font:15px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}\
h1{font-size:1.3rem}h2{font-size:1rem;margin:2rem 0 .3rem}\
.verdict{border-left:.4rem solid;padding:.6rem 1rem;font-weight:600}\
.ok{color:var(--ok)}.warning{color:var(--warning)}.critical{color:var(--critical)}\
.wide{overflow-x:auto}table{border-collapse:collapse;width:100%}\
th,td{text-align:left;padding:.25rem .8rem .25rem 0;border-bottom:1px solid var(--line)}\
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}\
footer{margin-top:2rem;opacity:.7;font-size:.85rem}";

/// The whole document. It asks for itself again every `refresh_s` seconds.
pub fn render(title: &str, refresh_s: u64, snapshot: &Snapshot) -> String {
    let verdict = snapshot.verdict().as_str();
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <meta http-equiv=\"refresh\" content=\"{}\"><title>{}: {verdict}</title>\
         <style>{STYLE}</style></head><body><main><h1>{}</h1>\
         <p class=\"verdict {verdict}\" role=\"status\">{}</p>",
        refresh_s.max(1),
        escaped(title),
        escaped(title),
        snapshot.headline()
    );
    environments(&mut page, snapshot);
    hops(&mut page, snapshot);
    programs(&mut page, snapshot);
    if !snapshot.troubles.is_empty() {
        page.push_str("<h2>What could not be asked</h2><ul>");
        for trouble in &snapshot.troubles {
            push(&mut page, format_args!("<li class=\"critical\">{}</li>", escaped(trouble)));
        }
        page.push_str("</ul>");
    }
    let at = jiff::Timestamp::from_millisecond(snapshot.at_ms).unwrap_or_default();
    let at = at.strftime("%Y-%m-%d %H:%M:%S UTC");
    push(
        &mut page,
        format_args!(
            "</main><footer>Looked at {at}. The same as JSON: <a href=\"/status.json\">status.json\
             </a></footer></body></html>"
        ),
    );
    page
}

fn environments(page: &mut String, snapshot: &Snapshot) {
    let headings = [
        "environment",
        "shard",
        "hosts",
        "newest data",
        "stalest host",
        "on its way",
        "late",
        "tail unknown",
        "quarantined",
        "given up",
        "lost",
    ];
    table(page, "Environments", &headings, 2, |page| {
        for e in &snapshot.environments {
            let lost = if e.lost > 0 { "critical" } else { "ok" };
            push(
                page,
                format_args!(
                    "<tr><td>{}</td><td>{}</td><td class=n>{}</td><td class=n>{} s ago</td>\
                     <td class=n>{} s ago</td><td class=n>{}</td><td class=n>{}</td>\
                     <td class=n>{}</td><td class=n>{}</td><td class=n>{}</td>\
                     <td class=\"n {lost}\">{}</td></tr>",
                    escaped(&e.environment),
                    escaped(&e.shard),
                    e.hosts,
                    e.freshest_s,
                    e.stalest_s,
                    e.backlog_batches,
                    e.late,
                    e.unknown_tail,
                    e.quarantined,
                    e.declared,
                    e.lost
                ),
            );
        }
    });
}

fn hops(page: &mut String, snapshot: &Snapshot) {
    let headings = ["hop", "counts", "total", "per second", "waiting", "oldest"];
    table(page, "The way of the data", &headings, 2, |page| {
        for hop in &snapshot.hops {
            push(
                page,
                format_args!(
                    "<tr><td>{}</td><td>{}</td><td class=n>{}</td><td class=n>{}</td>\
                     <td class=n>{}</td><td class=n>{}</td></tr>",
                    hop.name,
                    hop.unit,
                    number(hop.total, 0),
                    number(hop.per_second, 1),
                    number(hop.held, 0),
                    seconds(hop.oldest_s)
                ),
            );
        }
    });
}

fn programs(page: &mut String, snapshot: &Snapshot) {
    let headings = ["program", "state", "answered in"];
    table(page, "Programs", &headings, 2, |page| {
        for program in &snapshot.programs {
            let class = match program.state {
                "ready" => "ok",
                "down" => "critical",
                _ => "warning",
            };
            let answered = program.answered_ms.map_or("–".to_owned(), |ms| format!("{ms:.1} ms"));
            push(
                page,
                format_args!(
                    "<tr><td>{}</td><td class={class}>{}</td><td class=n>{answered}</td></tr>",
                    escaped(&program.name),
                    program.state
                ),
            );
        }
        for shard in &snapshot.shards {
            let (class, state) = match shard.reachable {
                true => ("ok", "reachable"),
                false => ("critical", "down"),
            };
            let name = escaped(&shard.shard);
            push(
                page,
                format_args!(
                    "<tr><td>MySQL {name}</td><td class={class}>{state}</td><td></td></tr>"
                ),
            );
        }
    });
}

fn table(
    page: &mut String,
    title: &str,
    headings: &[&str],
    texts: usize,
    rows: impl FnOnce(&mut String),
) {
    push(page, format_args!("<h2>{title}</h2><div class=wide><table><thead><tr>"));
    for (i, heading) in headings.iter().enumerate() {
        let class = if i < texts { "" } else { " class=n" };
        push(page, format_args!("<th scope=col{class}>{heading}</th>"));
    }
    page.push_str("</tr></thead><tbody>");
    rows(page);
    page.push_str("</tbody></table></div>");
}

/// Writing into a String cannot fail.
fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).unwrap_or_default();
}

fn number(value: Option<f64>, digits: usize) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.digits$}"))
}

fn seconds(value: Option<f64>) -> String {
    value.map_or("–".to_owned(), |value| format!("{value:.0} s"))
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::snapshot::EnvironmentState;

    #[test]
    fn names_from_outside_are_never_markup() {
        let environment =
            EnvironmentState { environment: "<script>\"&".to_owned(), ..Default::default() };
        let snapshot = Snapshot { environments: vec![environment], ..Snapshot::default() };
        let page = render("Spill<way", 2, &snapshot);
        assert!(page.contains("&lt;script&gt;&quot;&amp;") && !page.contains("<script>"));
        assert!(page.contains("<h1>Spill&lt;way</h1>"));
    }

    #[test]
    fn the_page_says_the_verdict_and_follows_the_readers_light_or_dark() {
        let page = render("Spillway", 2, &Snapshot::default());
        assert!(page.contains("Everything arrives") && page.contains("color-scheme:light dark"));
        assert!(page.contains("http-equiv=\"refresh\" content=\"2\""));
    }
}
