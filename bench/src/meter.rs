//! What processes spend while something is measured.

use spillway_e2e::oracle::memory::peak_mib;
use spillway_testkit::Stack;

use crate::consumer::BenchError;
use crate::process_cpu;

/// What one process spent.
#[derive(Debug, serde::Serialize)]
pub struct Spent {
    pub process: String,
    pub cpu_seconds: f64,
    pub cpu_seconds_per_million: f64,
    /// Resident at most, since it started.
    pub peak_mib: u64,
}

/// Processes of a stack, watched from now on.
pub struct Meter(Vec<(String, i32, f64)>);

impl Meter {
    /// # Errors
    /// One of them does not run.
    pub fn begin(stack: &Stack, names: &[&str]) -> Result<Self, BenchError> {
        let begin = |name: &&str| {
            let pid = stack.pid(name)?;
            Ok(((*name).to_owned(), pid, cpu_of(pid)?))
        };
        names.iter().map(begin).collect::<Result<_, _>>().map(Self)
    }

    /// # Errors
    /// One of them has ended.
    pub fn end(self, points: u64) -> Result<Vec<Spent>, BenchError> {
        let millions = points as f64 / 1e6;
        let end = |(process, pid, before): (String, i32, f64)| {
            let cpu_seconds = cpu_of(pid)? - before;
            let cpu_seconds_per_million = cpu_seconds / millions;
            let peak_mib = peak_mib(pid).ok_or(BenchError::Missing("process"))?;
            Ok(Spent { process, cpu_seconds, cpu_seconds_per_million, peak_mib })
        };
        self.0.into_iter().map(end).collect()
    }
}

fn cpu_of(pid: i32) -> Result<f64, BenchError> {
    let pid = u32::try_from(pid).map_err(|_| BenchError::Missing("process"))?;
    Ok(process_cpu::seconds(pid)?)
}
