//! The host inputs: procfs and statvfs, one file per part of the host.

use crate::metrics::Metrics;
use crate::settings::Settings;

use super::{Input, InputError};

mod cpu;

mod load;

mod memory;

mod disk;

mod network;

mod pressure;

mod processes;

mod agent;

/// Names of all inputs, as `collect.off` takes them.
pub const INPUTS: [&str; 11] = [
    "cpu",
    "load",
    "memory",
    "swap",
    "disk_space",
    "disk_io",
    "network",
    "pressure",
    "processes",
    "uptime",
    "agent",
];

/// The inputs that `settings` leaves on.
#[must_use]
pub fn inputs(settings: &Settings, metrics: &Metrics) -> Vec<Box<dyn Input>> {
    let collect = &settings.collect;
    let all: [Box<dyn Input>; INPUTS.len()] = [
        Box::new(cpu::Cpu::new(collect.cpu_per_core)),
        Box::new(load::Load),
        Box::new(memory::Memory),
        Box::new(memory::Swap),
        Box::new(disk::Space::new(collect)),
        Box::new(disk::Io::new(collect)),
        Box::new(network::Network::new(collect)),
        Box::new(pressure::Pressure),
        Box::new(processes::Processes),
        Box::new(load::Uptime),
        Box::new(agent::Agent::new(settings, metrics.clone())),
    ];
    all.into_iter().filter(|input| !collect.off.iter().any(|off| off == input.name())).collect()
}

/// What is not there on this kernel or in this container is no failure.
fn if_present<T>(read: procfs::ProcResult<T>) -> Result<Option<T>, InputError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(procfs::ProcError::NotFound(_)) => Ok(None),
        Err(cause) => Err(cause.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::Readings;

    #[test]
    fn every_input_has_the_name_the_settings_know() {
        let inputs = inputs(&Settings::default(), &Metrics::for_tests());
        let names: Vec<_> = inputs.iter().map(|input| input.name()).collect();
        assert_eq!(names, INPUTS);
    }

    #[test]
    fn an_input_that_is_off_is_not_read() {
        let off = vec!["cpu".to_owned(), "agent".to_owned()];
        let mut settings = Settings::default();
        settings.collect.off = off;
        let inputs = inputs(&settings, &Metrics::for_tests());
        assert!(inputs.iter().all(|input| !["cpu", "agent"].contains(&input.name())));
        assert_eq!(inputs.len(), INPUTS.len() - 2);
    }

    #[test]
    fn this_host_can_be_read_twice_and_names_obey_the_limits() {
        let mut seen = std::collections::HashSet::new();
        for mut input in inputs(&Settings::default(), &Metrics::for_tests()) {
            for _ in 0..2 {
                let mut out = Readings::default();
                input.read(&mut out).unwrap();
                seen.extend(out.into_list().into_iter().map(|reading| {
                    assert!(reading.labels.is_sorted_by(|a, b| a.0 < b.0), "{reading:?}");
                    assert!(reading.value.is_finite(), "{reading:?}");
                    reading.metric
                }));
            }
        }
        for metric in ["cpu.seconds", "load.1m", "mem.available_bytes", "uptime", "net.recv_bytes"]
        {
            assert!(seen.contains(metric), "{metric} is missing in {seen:?}");
        }
    }
}
