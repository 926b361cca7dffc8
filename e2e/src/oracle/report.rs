//! What was checked, law by law, with numbers; and of what failed, the first batches with their
//! way.

use std::fmt;

use crate::verdict::Findings;

/// One law: what was held against what, and what is wrong.
#[derive(Clone, Debug)]
pub struct Law {
    pub name: &'static str,
    pub checked: String,
    pub found: Findings,
}

/// All laws.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub head: String,
    pub laws: Vec<Law>,
    pub ways: Vec<String>,
}

impl Report {
    /// Whether nothing is wrong.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.laws.iter().all(|law| law.found.is_empty())
    }

    /// The laws that are broken, each once.
    #[must_use]
    pub fn broken(&self) -> Vec<&'static str> {
        let mut broken: Vec<&'static str> =
            self.laws.iter().filter(|law| !law.found.is_empty()).map(|law| law.name).collect();
        broken.dedup();
        broken
    }

    /// Notes what was checked.
    pub fn law(&mut self, name: &'static str, checked: String, found: Findings) {
        self.laws.push(Law { name, checked, found });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.head)?;
        for law in &self.laws {
            let verdict = if law.found.is_empty() { "holds" } else { "BROKEN" };
            writeln!(f, "  {} {verdict}: {}", law.name, law.checked)?;
            if !law.found.is_empty() {
                writeln!(f, "    {} findings, the first of them:", law.found.count())?;
                law.found.texts().iter().try_for_each(|text| writeln!(f, "    {text}"))?;
            }
        }
        if !self.ways.is_empty() {
            writeln!(f, "  the way of the first batches that differ:")?;
            self.ways.iter().try_for_each(|way| writeln!(f, "    {way}"))?;
        }
        Ok(())
    }
}
