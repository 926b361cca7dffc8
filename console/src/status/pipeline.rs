//! The pipeline drawn as it is: a box for each place where data can wait, an arrow for each way,
//! once lying for wide screens and once standing for narrow ones. Names of customers are not in it.

use super::component::{Component, Condition, Part};
use super::snapshot::{Arrival, EnvironmentState, Snapshot};
use super::words;

/// A box: title, state, and figures as label and value.
#[derive(Debug, Clone)]
pub struct Node {
    pub title: &'static str,
    pub condition: Condition,
    pub figures: Vec<Figure>,
    pub x: i32,
    pub y: i32,
    pub w: i32,
    pub h: i32,
}

#[derive(Debug, Clone)]
pub struct Figure {
    pub label: &'static str,
    pub value: String,
}

/// An arrow, with its rate beside it.
#[derive(Debug, Clone)]
pub struct Arrow {
    /// SVG path data.
    pub path: String,
    /// `flowing`, `idle` or `cut`.
    pub state: &'static str,
    pub label: String,
    pub label_x: i32,
    pub label_y: i32,
    /// SVG `text-anchor`.
    pub anchor: &'static str,
}

/// A drawing, ready for the template.
#[derive(Debug, Clone)]
pub struct Drawing {
    pub class: &'static str,
    pub width: i32,
    pub height: i32,
    pub nodes: Vec<Node>,
    pub arrows: Vec<Arrow>,
    /// All of it in words, for those who can't see it.
    pub words: String,
}

/// Where the boxes stand, in the order of `nodes`, and how the arrows run.
struct Layout {
    class: &'static str,
    size: (i32, i32),
    boxes: [(i32, i32, i32, i32); 7],
    arrows: [Way; 7],
}

/// An arrow's course and where its rate stands.
struct Way {
    from: usize,
    to: usize,
    path: &'static str,
    label: (i32, i32, &'static str),
}

const fn way(from: usize, to: usize, path: &'static str, label: (i32, i32, &'static str)) -> Way {
    Way { from, to, path, label }
}

// Boxes: agents, API, Kafka, consumer, MySQL; S3, recovery worker.
const LYING: Layout = Layout {
    class: "lying",
    size: (1080, 268),
    boxes: [
        (1, 1, 150, 112),
        (233, 1, 150, 112),
        (465, 1, 150, 112),
        (697, 1, 150, 112),
        (929, 1, 150, 112),
        (233, 175, 150, 92),
        (465, 175, 150, 92),
    ],
    arrows: [
        way(0, 1, "M151 57H227", (190, 48, "middle")),
        way(1, 2, "M383 57H459", (422, 48, "middle")),
        way(2, 3, "M615 57H691", (654, 48, "middle")),
        way(3, 4, "M847 57H923", (886, 48, "middle")),
        way(0, 5, "M76 113V211Q76 221 86 221H227", (156, 212, "middle")),
        way(5, 6, "M383 221H459", (422, 212, "middle")),
        way(6, 2, "M540 175V119", (550, 151, "start")),
    ],
};

const STANDING: Layout = Layout {
    class: "standing",
    size: (344, 694),
    boxes: [
        (1, 1, 196, 104),
        (1, 148, 196, 104),
        (1, 295, 196, 104),
        (1, 442, 196, 104),
        (1, 589, 196, 104),
        (233, 148, 110, 104),
        (233, 295, 110, 104),
    ],
    arrows: [
        way(0, 1, "M99 105V142", (109, 131, "start")),
        way(1, 2, "M99 252V289", (109, 278, "start")),
        way(2, 3, "M99 399V436", (109, 425, "start")),
        way(3, 4, "M99 546V583", (109, 572, "start")),
        way(0, 5, "M197 53H278Q288 53 288 63V142", (281, 106, "end")),
        way(5, 6, "M288 252V289", (281, 278, "end")),
        way(6, 2, "M233 347H203", (0, 0, "start")),
    ],
};

/// Both drawings of one snapshot.
pub fn draw(snapshot: &Snapshot) -> [Drawing; 2] {
    [drawing(snapshot, &LYING), drawing(snapshot, &STANDING)]
}

fn drawing(snapshot: &Snapshot, layout: &Layout) -> Drawing {
    let boxes = layout.boxes.iter();
    let nodes: Vec<Node> = boxes
        .zip(places(snapshot))
        .map(|(&(x, y, w, h), (title, condition, figures))| Node {
            title,
            condition,
            figures: figures.into_iter().filter_map(figure).take(FIGURES_MAX).collect(),
            x,
            y,
            w,
            h,
        })
        .collect();
    let ways = layout.arrows.iter().zip(rates(snapshot));
    let arrows = ways.map(|(way, rate)| arrow(way, rate, &nodes)).collect();
    let (width, height) = layout.size;
    Drawing { class: layout.class, width, height, words: in_words(&nodes), nodes, arrows }
}

/// Lines that have room in a box.
const FIGURES_MAX: usize = 3;

/// What is not known is left out.
fn figure((label, value): (&'static str, String)) -> Option<Figure> {
    (value != words::UNKNOWN).then_some(Figure { label, value })
}

type Place = (&'static str, Condition, Vec<(&'static str, String)>);

/// What stands in each box. An agent's state is what it holds: a batch that waits is not lost.
fn places(snapshot: &Snapshot) -> [Place; 7] {
    let hop = |key| snapshot.hop(key);
    let rate = |key| words::known(hop(key).and_then(|h| h.per_second), words::rate);
    let oldest = |key| hop(key).map_or_else(|| words::UNKNOWN.to_owned(), words::oldest);
    let held = |key| hop(key).map_or_else(|| words::UNKNOWN.to_owned(), words::held);
    let part = |part| part_of(snapshot, part);
    let response = |of: Part| words::known(part(of).response_ms, words::millis);
    let errors = |of: Part| words::known(part(of).error_ratio, words::share);
    let detour = part(Part::Detour).condition;
    [
        (
            "Agents",
            agents(snapshot),
            vec![
                ("rate", rate(if agents_are_watched(snapshot) { "measured" } else { "accepted" })),
                ("held", agents_hold(snapshot)),
                ("oldest", oldest("measured")),
                ("last heard", silence(snapshot)),
            ],
        ),
        (
            "Ingest API",
            part(Part::Intake).condition,
            vec![
                ("rate", rate("accepted")),
                ("answers in", response(Part::Intake)),
                ("errors", errors(Part::Intake)),
            ],
        ),
        (
            "Kafka",
            part(Part::Log).condition,
            vec![
                ("held", held("applied")),
                ("lag", oldest("applied")),
                ("acks in", response(Part::Log)),
            ],
        ),
        (
            "Consumer",
            part(Part::Storing).condition,
            vec![
                ("rate", rate("applied")),
                ("stores in", response(Part::Storing)),
                ("errors", errors(Part::Storing)),
            ],
        ),
        (
            "MySQL",
            part(Part::Storage).condition,
            vec![
                ("newest", words::known(snapshot.newest_s().map(|s| s as f64), words::age)),
                ("answers in", response(Part::Storage)),
            ],
        ),
        ("S3", detour, vec![("held", held("drained")), ("oldest", oldest("drained"))]),
        ("Recovery", detour, vec![("rate", rate("drained"))]),
    ]
}

fn part_of(snapshot: &Snapshot, part: Part) -> Component {
    let known = snapshot.components.iter().find(|component| component.part == part);
    known.cloned().unwrap_or_else(|| Component::unknown(part))
}

/// Whether agents' own pages are among the programs: usually they stand with customers.
fn agents_are_watched(snapshot: &Snapshot) -> bool {
    snapshot.hop("measured").is_some_and(|hop| hop.total.is_some())
}

/// Batches in spools: what agents with a known admin page hold, or what all agents told MySQL. What
/// they can't tell is said to be unknown, and since when: a box without it would look like nothing.
fn agents_hold(snapshot: &Snapshot) -> String {
    let watched = snapshot.hop("measured").and_then(|hop| hop.held);
    let told = || snapshot.held_by_agents().map(|batches| batches as f64);
    match watched.or_else(told) {
        Some(batches) => words::count(batches),
        None if snapshot.environments.is_empty() => words::UNKNOWN.to_owned(),
        None => "unknown".to_owned(),
    }
}

/// How long nothing was heard of those that can't tell.
fn silence(snapshot: &Snapshot) -> String {
    let silent = snapshot.environments.iter().filter(|e| !snapshot.hears(e));
    let ages = silent.filter_map(|e| e.freshest_s);
    words::known(ages.max().map(|age| age as f64), words::age)
}

fn agents(snapshot: &Snapshot) -> Condition {
    let parks = snapshot.hop("parked").and_then(|hop| hop.per_second).unwrap_or(0.0);
    // A quiet one may have nothing to send: that is no trouble of the pipeline.
    let is_quiet = |e: &EnvironmentState| snapshot.arrival(e) == Arrival::Quiet;
    let holds = |e: &EnvironmentState| e.backlog_batches > 0 || !(snapshot.hears(e) || is_quiet(e));
    let backlog = snapshot.environments.iter().any(holds);
    match (backlog || parks > 0.0, snapshot.environments.is_empty()) {
        (true, _) => Condition::Degraded,
        (false, true) => Condition::Unknown,
        (false, false) => Condition::Up,
    }
}

/// In the order of [`Layout::arrows`].
fn rates(snapshot: &Snapshot) -> [Option<f64>; 7] {
    let rate = |key| snapshot.hop(key).and_then(|hop| hop.per_second);
    let (accepted, applied, drained) = (rate("accepted"), rate("applied"), rate("drained"));
    // What leaves Kafka and what reaches MySQL is one act, and told by one counter.
    let direct = if agents_are_watched(snapshot) { rate("direct") } else { accepted };
    [direct, accepted, applied, applied, rate("parked"), drained, drained]
}

fn arrow(way: &Way, rate: Option<f64>, nodes: &[Node]) -> Arrow {
    let down = |index: usize| nodes.get(index).is_some_and(|n| n.condition == Condition::Down);
    let state = match rate {
        Some(rate) if rate > 0.0 => "flowing",
        _ if down(way.from) || down(way.to) => "cut",
        _ => "idle",
    };
    let (label_x, label_y, anchor) = way.label;
    let shown = label_y > 0;
    let label = rate.filter(|rate| shown && *rate > 0.0).map(words::rate).unwrap_or_default();
    Arrow { path: way.path.to_owned(), state, label, label_x, label_y, anchor }
}

fn in_words(nodes: &[Node]) -> String {
    let one = |node: &Node| {
        let figures = node.figures.iter().map(|f| format!("{} {}", f.label, f.value));
        let figures: Vec<String> = figures.collect();
        format!("{} {}: {}", node.title, node.condition.words(), figures.join(", "))
    };
    nodes.iter().map(one).collect::<Vec<_>>().join(". ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::snapshot::Hop;

    #[test]
    fn an_arrow_into_a_part_that_is_down_is_cut_and_one_with_a_rate_flows() {
        let down = Component { condition: Condition::Down, ..Component::unknown(Part::Log) };
        let parked = Hop {
            key: "parked",
            name: "agent → S3",
            unit: "points",
            per_second: Some(40.0),
            ..Hop::default()
        };
        let snapshot =
            Snapshot { components: vec![down], hops: vec![parked], ..Snapshot::default() };
        for drawing in draw(&snapshot) {
            let states: Vec<_> = drawing.arrows.iter().map(|arrow| arrow.state).collect();
            assert_eq!(states, ["idle", "cut", "cut", "idle", "flowing", "idle", "cut"]);
            assert!(drawing.words.contains("Kafka down"), "{}", drawing.words);
        }
    }
}
