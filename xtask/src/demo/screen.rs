//! Shows looks: a table that is redrawn in place on a terminal, plain lines with timestamps
//! elsewhere.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};

use super::look::{AgentAccount, Look};

const COLUMNS: [&str; 9] = [
    "environment",
    "measured",
    "accepted",
    "to S3",
    "applied",
    "in spool",
    "freshness",
    "gaps",
    "missing",
];

pub struct Screen {
    terminal: bool,
    /// Lines of the table that stands at the bottom of the terminal.
    drawn: usize,
    table: String,
}

impl Screen {
    pub fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal(), drawn: 0, table: String::new() }
    }

    /// Between two looks.
    pub fn pause(&self) -> Duration {
        if self.terminal { Duration::from_secs(1) } else { Duration::from_secs(2) }
    }

    /// A line that stays, with its time; above the table, if there is one.
    pub fn line(&mut self, text: &str) {
        self.wipe();
        println!("{}  {text}", clock());
        self.draw();
    }

    pub fn table(&mut self, look: &Look) {
        if !self.terminal {
            println!("{}  {}", clock(), plain(look));
            return;
        }
        self.wipe();
        self.table = table(look);
        self.draw();
    }

    /// The table stays where it is; what follows is written below.
    pub fn keep(&mut self) {
        self.drawn = 0;
        self.table.clear();
    }

    fn wipe(&mut self) {
        if self.drawn > 0 {
            // Up to the table's first line, and everything from there on away (ECMA-48 CPL, ED).
            print!("\x1b[{}F\x1b[J", self.drawn);
            self.drawn = 0;
        }
    }

    fn draw(&mut self) {
        if !self.table.is_empty() {
            println!("{}", self.table);
            self.drawn = self.table.lines().count();
        }
        if std::io::stdout().flush().is_err() {
            // Nobody reads any more; the run's outcome does not depend on it.
            self.terminal = false;
        }
    }
}

fn clock() -> String {
    jiff::Timestamp::now().strftime("%H:%M:%S").to_string()
}

/// One environment's cells. Points, but for the spool (batches) and gaps (ranges).
fn cells(look: &Look, environment: &str, agent: &AgentAccount) -> [String; COLUMNS.len()] {
    let unknown = || "?".to_owned();
    let views = look.views.as_ref();
    let ledger = views.map(|v| v.ledger.get(environment).cloned().unwrap_or_default());
    let fresh =
        views.map(|v| v.freshness.get(environment).map_or_else(unknown, |s| format!("{s} s")));
    let gaps = views.map(|v| v.gaps.get(environment).copied().unwrap_or(0).to_string());
    [
        environment.to_owned(),
        agent.points_emitted.to_string(),
        agent.points_acked.to_string(),
        agent.points_parked.to_string(),
        ledger.as_ref().map_or_else(unknown, |l| l.points.to_string()),
        agent.spool_batches.to_string(),
        fresh.unwrap_or_else(unknown),
        gaps.unwrap_or_else(unknown),
        ledger.map_or_else(unknown, |l| l.missing.to_string()),
    ]
}

fn below(look: &Look) -> String {
    let lag = look.views.as_ref().map_or("lag ?".to_owned(), |views| {
        format!("lag {} records, {:.1} s", views.lag.records, views.lag.seconds)
    });
    format!("{} objects in S3 · {lag}", look.objects_in_s3)
}

fn table(look: &Look) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(COLUMNS);
    for agent in look.agents.values() {
        let cells = cells(look, &agent.environment, agent);
        table.add_row(cells.map(|text| Cell::new(text).set_alignment(CellAlignment::Right)));
    }
    format!("{table}\n{}", below(look))
}

fn plain(look: &Look) -> String {
    let mut parts = Vec::new();
    for agent in look.agents.values() {
        let cells = cells(look, &agent.environment, agent);
        let [name, rest @ ..] = cells;
        let rest =
            COLUMNS.iter().skip(1).zip(rest).map(|(column, cell)| format!("{column} {cell}"));
        parts.push(format!("{name}: {}", rest.collect::<Vec<_>>().join(", ")));
    }
    parts.push(below(look));
    parts.join(" | ")
}
