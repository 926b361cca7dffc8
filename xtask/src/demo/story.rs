//! What changed between two looks, in sentences: who parks, where gaps open and close.

use std::collections::BTreeMap;

use super::look::Look;

#[derive(Debug, Default)]
pub struct Story {
    routes: BTreeMap<String, u64>,
    gaps: BTreeMap<String, i64>,
    /// Points that agents said S3 took.
    parked: u64,
    draining: bool,
    mysql_away: bool,
    lagging: bool,
}

impl Story {
    pub fn told_by(&mut self, look: &Look) -> Vec<String> {
        let mut lines = Vec::new();
        for (name, agent) in &look.agents {
            let before = self.routes.insert(name.clone(), agent.route).unwrap_or(0);
            // A probe is an attempt while parking; only its success changes anything.
            match (before, agent.route) {
                (0, 1 | 2) => {
                    lines.push(format!("{name} can't reach the API: it parks in S3 from now on"));
                }
                (1 | 2, 0) => lines.push(format!("{name} sends to the API again")),
                _ => {}
            }
        }
        self.objects(look, &mut lines);
        let away = look.views.is_none();
        if away != self.mysql_away {
            self.mysql_away = away;
            let line = if away { "MySQL does not answer" } else { "MySQL answers again" };
            lines.push(line.to_owned());
        }
        if let Some(views) = &look.views {
            self.gaps(&views.gaps, &mut lines);
            let lagging = views.lag.seconds >= 5.0;
            if lagging != self.lagging {
                self.lagging = lagging;
                lines.push(match lagging {
                    true => format!("the consumer lags {:.0} s behind", views.lag.seconds),
                    false => "the consumer has caught up".to_owned(),
                });
            }
        }
        lines
    }

    /// Single objects come and go all the time: copies that keep the second way warm.
    fn objects(&mut self, look: &Look, lines: &mut Vec<String>) {
        let now = look.objects_in_s3;
        let parked: u64 = look.agents.values().map(|agent| agent.points_parked).sum();
        if now > 0 && parked > self.parked && !self.draining {
            lines.push(format!("{now} sealed objects wait in S3"));
            self.draining = true;
        }
        if now == 0 && self.draining {
            lines.push("the recovery worker has drained S3".to_owned());
            self.draining = false;
        }
        self.parked = parked;
    }

    fn gaps(&mut self, now: &BTreeMap<String, i64>, lines: &mut Vec<String>) {
        for (environment, count) in now {
            let before = self.gaps.get(environment).copied().unwrap_or(0);
            if before == 0 && *count > 0 {
                lines.push(format!("{} in {environment}: it is on its way by S3", opens(*count)));
            }
        }
        for (environment, before) in &self.gaps {
            if *before > 0 && now.get(environment).copied().unwrap_or(0) == 0 {
                lines.push(format!("every gap in {environment} has closed"));
            }
        }
        self.gaps.clone_from(now);
    }
}

fn opens(gaps: i64) -> String {
    if gaps == 1 { "a gap opens".to_owned() } else { format!("{gaps} gaps open") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::look::{AgentAccount, Views};

    fn look(route: u64, points_parked: u64, objects: usize, gaps: &[(&str, i64)]) -> Look {
        let agent = AgentAccount { route, points_parked, ..AgentAccount::default() };
        let gaps = gaps.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        let views = Some(Views { gaps, ..Views::default() });
        let agents = [("agent".to_owned(), agent)].into();
        Look { agents, views, trouble: None, objects_in_s3: objects }
    }

    #[test]
    fn each_change_is_told_once() {
        let mut story = Story::default();
        assert!(story.told_by(&look(0, 0, 1, &[])).is_empty(), "a warm copy is no news");
        assert_eq!(story.told_by(&look(1, 0, 0, &[])).len(), 1);
        assert_eq!(story.told_by(&look(2, 10, 3, &[])).len(), 1);
        assert!(story.told_by(&look(1, 20, 5, &[])).is_empty());
        assert_eq!(story.told_by(&look(0, 20, 5, &[("demo", 2)])).len(), 2);
        assert!(story.told_by(&look(0, 20, 4, &[("demo", 1)])).is_empty());
        let end = story.told_by(&look(0, 20, 0, &[]));
        assert_eq!(end, ["the recovery worker has drained S3", "every gap in demo has closed"]);
    }
}
