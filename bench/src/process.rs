//! Child processes and what the kernel accounts for them: CPU time by the scheduler's own statistics and proportional
//! set size, both over the whole process tree. A child ends with its handle.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A running program; killed when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    name: String,
    child: Child,
}

impl Process {
    /// Starts a program with its output in `DIR/NAME.out`.
    pub(crate) fn start(name: &str, folder: &Path, command: &mut Command) -> Result<Self> {
        let path = folder.join(format!("{name}.out"));
        let out = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { name: name.to_owned(), child })
    }

    pub(crate) fn usage(&self) -> Usage {
        tree(self.child.id()).into_iter().map(Usage::of).fold(Usage::default(), Usage::plus)
    }

    /// Asks the program to end as an operator does, and waits until it has: what it writes at its end is written.
    pub(crate) fn end(mut self) -> Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status().context("cannot start kill")?;
        let ends = || self.child.try_wait().is_ok_and(|status| status.is_some());
        wait_for(&format!("{} ends", self.name), Duration::from_secs(60), ends)
    }

    /// An error where the program has ended by itself.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended: {status}", self.name);
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The root first, so that it starts no worker anew; its workers would outlive it.
        let workers: Vec<u32> = tree(self.child.id()).into_iter().skip(1).collect();
        drop(self.child.kill());
        drop(self.child.wait());
        for pid in workers {
            drop(Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status());
        }
    }
}

/// CPU time so far and memory now.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) cpu: Duration,
    pub(crate) pss_kib: u64,
    pub(crate) rss_kib: u64,
    /// Of that what is no page of a file, which the machine could drop and read again.
    pub(crate) held_kib: u64,
}

impl Usage {
    fn of(pid: u32) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        let nanoseconds: u64 = tasks.filter_map(|task| first_number(&task.path().join("schedstat"))).sum();
        let rollup = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        let kib = |key: &str| {
            let rest = rollup.lines().find_map(|line| line.strip_prefix(key));
            rest.and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok()).unwrap_or(0)
        };
        let (pss_kib, rss_kib, held_kib) = (kib("Pss:"), kib("Rss:"), kib("Anonymous:"));
        Self { cpu: Duration::from_nanos(nanoseconds), pss_kib, rss_kib, held_kib }
    }

    pub(crate) fn plus(self, other: Self) -> Self {
        let (pss_kib, rss_kib) = (self.pss_kib + other.pss_kib, self.rss_kib + other.rss_kib);
        Self { cpu: self.cpu + other.cpu, pss_kib, rss_kib, held_kib: self.held_kib + other.held_kib }
    }
}

fn first_number(path: &Path) -> Option<u64> {
    std::fs::read_to_string(path).ok()?.split_whitespace().next()?.parse().ok()
}

/// Kibibytes of this process that are in memory.
pub(crate) fn resident_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status").context("memory of this process")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches("kB").trim().parse()?)
}

/// The process and its descendants, itself first.
fn tree(root: u32) -> Vec<u32> {
    let mut parents: Vec<(u32, u32)> = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        let parent =
            stat.rsplit(") ").next().and_then(|rest| rest.split(' ').nth(1)).and_then(|ppid| ppid.parse().ok());
        if let Some(parent) = parent {
            parents.push((pid, parent));
        }
    }
    let mut found = vec![root];
    let mut at = 0;
    while at < found.len() {
        let parent = found[at];
        found.extend(parents.iter().filter(|(_, of)| *of == parent).map(|(pid, _)| *pid));
        at += 1;
    }
    found
}

/// Asks until the answer is yes; an error that says what was awaited after `limit`.
pub(crate) fn wait_for(what: &str, limit: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + limit;
    while !ready() {
        if Instant::now() > deadline {
            bail!("{what}: not within {limit:?}");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_is_accounted_to_the_tree() {
        let folder = tempfile::tempdir().unwrap();
        let script = "sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 60' & wait";
        let process = Process::start("busy", folder.path(), Command::new("sh").args(["-c", script])).unwrap();
        let worked = || process.usage().cpu > Duration::from_millis(20) && process.usage().pss_kib > 0;
        wait_for("CPU time of the grandchild", Duration::from_secs(20), worked).unwrap();
    }
}
