//! CPU time of a process, as Linux accounts it.

use std::io;

/// Clock ticks in a second: USER_HZ, which is 100 on every Linux that runs this.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system time of `pid` so far, in seconds (proc(5), stat fields 14 and 15).
pub fn seconds(pid: u32) -> io::Result<f64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name in brackets may hold spaces; what follows it does not.
    let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
    let fields = rest.split_whitespace().skip(11).take(2);
    let ticks: u64 = fields.filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(ticks as f64 / TICKS_PER_SECOND)
}
