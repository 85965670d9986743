//! The kernel's figures of this process, under the names that Prometheus' own clients use.

use std::fmt::Write as _;

use super::names::Metric;
use super::render::header;

/// The kernel's unit of time towards programs (USER_HZ), the same on every Linux.
const TICKS: u64 = 100;

/// Figures of the process at one moment. What can't be read is 0.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct Process {
    /// User and system time, all threads, milliseconds.
    pub cpu_ms: u64,
    pub open_fds: u64,
    /// The soft limit.
    pub max_fds: u64,
    pub resident_bytes: u64,
    pub virtual_bytes: u64,
    /// Unix seconds.
    pub start_time: u64,
    pub threads: u64,
}

impl Process {
    pub fn now() -> Self {
        let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
        let boot = boot.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok()).unwrap_or(0);
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        let mut process = Self::parse(&stat, &status);
        process.start_time += boot;
        process.open_fds = std::fs::read_dir("/proc/self/fd").map_or(0, |open| open.count() as u64);
        process.max_fds = rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        process
    }

    /// `/proc/PID/stat` and `status` (proc(5)); the start time is since the machine's.
    fn parse(stat: &str, status: &str) -> Self {
        // The name in parentheses may hold anything.
        let Some((_, rest)) = stat.rsplit_once(')') else { return Self::default() };
        let fields: Vec<u64> = rest.split_whitespace().map(|field| field.parse().unwrap_or(0)).collect();
        // The first of them is the third of the manual.
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or(0);
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        Self {
            cpu_ms: (field(14) + field(15)) * 1_000 / TICKS,
            threads: field(20),
            start_time: field(22) / TICKS,
            virtual_bytes: field(23),
            resident_bytes: resident.and_then(|kib| kib.trim().parse::<u64>().ok()).unwrap_or(0) * 1_024,
            ..Self::default()
        }
    }

    /// In the Prometheus exposition format.
    pub fn render(&self, out: &mut String) {
        header(out, Metric::ProcessCpu);
        let _ = writeln!(out, "{} {}.{:03}", Metric::ProcessCpu.name(), self.cpu_ms / 1_000, self.cpu_ms % 1_000);
        for (metric, value) in [
            (Metric::ProcessOpenFds, self.open_fds),
            (Metric::ProcessMaxFds, self.max_fds),
            (Metric::ProcessResident, self.resident_bytes),
            (Metric::ProcessVirtual, self.virtual_bytes),
            (Metric::ProcessStart, self.start_time),
            (Metric::ProcessThreads, self.threads),
        ] {
            header(out, metric);
            let _ = writeln!(out, "{} {value}", metric.name());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_line_is_read() {
        let stat =
            "7 (a) b ( c) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 9 0 12345 1000000 321 18446744073709551615 1";
        let process = Process::parse(stat, "Name:\tweft\nVmRSS:\t   1284 kB\nThreads:\t9\n");
        let expect = Process {
            cpu_ms: 3_000,
            threads: 9,
            start_time: 123,
            virtual_bytes: 1_000_000,
            resident_bytes: 1_284 * 1_024,
            ..Process::default()
        };
        assert_eq!(process, expect);
        assert_eq!(Process::parse("", ""), Process::default());
    }

    #[test]
    fn this_process_has_figures() {
        let process = Process::now();
        assert!(process.open_fds > 2 && process.max_fds >= process.open_fds, "{process:?}");
        assert!(process.resident_bytes > 1 << 20 && process.threads > 0, "{process:?}");
        assert!(process.start_time > 1_600_000_000, "{process:?}");
    }
}
