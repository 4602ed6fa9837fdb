//! Where a report was made: the machine, the file system under the files, and how much of the machine others took.
//!
//! Read from `/proc`; what cannot be read is left out of the report rather than guessed.

use std::fs;
use std::path::Path;

use serde::Serialize;

/// The machine and the file system that measured files lie on.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// Model name of the first processor.
    pub processor: Option<String>,
    /// Processors this process may use.
    pub processors: usize,
    /// Memory, in MiB.
    pub memory_mib: Option<u64>,
    /// Kernel release.
    pub kernel: Option<String>,
    /// Type of the file system, with its mount options.
    pub file_system: Option<String>,
    /// Processes running or waiting for a processor, mean of the last minute, when the run began.
    pub load_average: Option<String>,
}

impl Machine {
    /// Looks at this machine, and at the file system of `directory`.
    #[must_use]
    pub fn look(directory: &Path) -> Self {
        Self {
            processor: read_field("/proc/cpuinfo", "model name"),
            processors: std::thread::available_parallelism().map_or(1, usize::from),
            memory_mib: read_field("/proc/meminfo", "MemTotal")
                .and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok())
                .map(|kib| kib / 1024),
            kernel: read_trimmed("/proc/sys/kernel/osrelease"),
            file_system: fs::canonicalize(directory).ok().and_then(|directory| {
                file_system_of(
                    &fs::read_to_string("/proc/self/mountinfo").ok()?,
                    &directory,
                )
            }),
            load_average: read_trimmed("/proc/loadavg")
                .and_then(|text| text.split_whitespace().next().map(str::to_owned)),
        }
    }
}

fn read_trimmed(path: &str) -> Option<String> {
    fs::read_to_string(path)
        .ok()
        .map(|text| text.trim().to_owned())
}

/// The first `name : value` of a file.
fn read_field(path: &str, name: &str) -> Option<String> {
    fs::read_to_string(path).ok()?.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        (field.trim() == name).then(|| value.trim().to_owned())
    })
}

/// `type (options)` of the mount that `directory` lies on: the one with the longest mount point above it.
fn file_system_of(mount_info: &str, directory: &Path) -> Option<String> {
    mount_info
        .lines()
        .filter_map(|line| {
            let (mount, file_system) = line.split_once(" - ")?;
            let mount_point = Path::new(mount.split(' ').nth(4)?);
            let mut fields = file_system.split(' ');
            let kind = fields.next()?;
            let options = fields.nth(1)?;
            directory.starts_with(mount_point).then(|| {
                (
                    mount_point.components().count(),
                    format!("{kind} ({options})"),
                )
            })
        })
        .max_by_key(|(depth, _)| *depth)
        .map(|(_, file_system)| file_system)
}

/// Processor time at one moment, in clock ticks.
#[derive(Debug, Clone, Copy)]
pub struct ProcessorTime {
    all: u64,
    idle: u64,
    stolen: u64,
    own: u64,
}

/// How the processors' time was spent between two moments.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Disturbance {
    /// Part taken by processes that do not belong to the measurement, 0 to 1.
    pub others: f64,
    /// Part the hypervisor gave to other machines, 0 to 1.
    pub stolen: f64,
}

impl ProcessorTime {
    /// The processors' time until now; that of child processes is known once they were waited for.
    #[must_use]
    pub fn now() -> Option<Self> {
        Self::parse(
            &fs::read_to_string("/proc/stat").ok()?,
            &fs::read_to_string("/proc/self/stat").ok()?,
        )
    }

    fn parse(system: &str, process: &str) -> Option<Self> {
        let fields: Vec<u64> = system
            .lines()
            .next()?
            .split_whitespace()
            .skip(1)
            .map_while(|field| field.parse().ok())
            .collect();
        // user nice system idle iowait irq softirq steal; guest times are part of user and nice.
        let all = fields.get(..8)?.iter().sum();
        let idle = fields[3] + fields[4];
        // The name in parentheses may hold spaces. Behind it, `state` is field 3 and `utime` field 14 of proc(5).
        let (_, rest) = process.rsplit_once(')')?;
        let own = rest
            .split_whitespace()
            .skip(11)
            .take(4)
            .map_while(|field| field.parse::<u64>().ok())
            .sum();
        Some(Self {
            all,
            idle,
            stolen: fields[7],
            own,
        })
    }

    /// How the time since `earlier` was spent.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a share is read to two digits")]
    pub fn since(&self, earlier: &Self) -> Disturbance {
        let all = self.all.saturating_sub(earlier.all).max(1) as f64;
        let stolen = self.stolen.saturating_sub(earlier.stolen);
        let idle = self.idle.saturating_sub(earlier.idle);
        let own = self.own.saturating_sub(earlier.own);
        let others = (all - (stolen + idle + own) as f64).max(0.0);
        Disturbance {
            others: others / all,
            stolen: stolen as f64 / all,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_is_that_of_the_deepest_mount() {
        let mount_info = "1 0 8:1 / / rw,relatime - ext4 /dev/a rw,discard\n\
                          2 1 8:2 / /data rw - xfs /dev/b rw,noquota\n\
                          3 1 8:3 / /database rw - btrfs /dev/c rw";
        let at = |path: &str| file_system_of(mount_info, Path::new(path)).unwrap();
        assert_eq!(at("/data/p000"), "xfs (rw,noquota)");
        assert_eq!(at("/dat"), "ext4 (rw,discard)");
    }

    #[test]
    fn time_that_is_neither_idle_nor_stolen_nor_ours_belongs_to_others() {
        let process = |own: u64| format!("7 (a ) b) S 1 1 1 0 -1 0 0 0 0 0 {own} 0 0 0 20 0");
        let before = ProcessorTime::parse("cpu 0 0 0 0 0 0 0 0 0 0", &process(0)).unwrap();
        let after = ProcessorTime::parse("cpu 60 0 10 20 0 0 0 10 0 0", &process(50)).unwrap();
        let disturbance = after.since(&before);
        assert!((disturbance.others - 0.2).abs() < 1e-9, "{disturbance:?}");
        assert!((disturbance.stolen - 0.1).abs() < 1e-9, "{disturbance:?}");
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let machine = Machine::look(Path::new("/"));
        assert!(machine.processors >= 1);
        assert!(machine.kernel.is_some());
        assert!(ProcessorTime::now().is_some());
    }
}
