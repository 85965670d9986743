//! A program under test: its log in a file, its end by any signal, what the kernel says of its memory.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::wait::{LIMIT, until};

/// A child process; killed with its handle.
#[derive(Debug)]
pub struct Process {
    pub name: String,
    child: Child,
    log: PathBuf,
}

/// Path to which `cargo xtask test` put the program: beside this test's own folder.
///
/// # Panics
/// When it isn't there.
pub fn binary(name: &str) -> PathBuf {
    let own = std::env::current_exe().expect("a running program has a path");
    let found = own.ancestors().skip(1).map(|folder| folder.join(name)).find(|path| path.is_file());
    found.unwrap_or_else(|| panic!("{name} is not built: run cargo xtask test, or cargo xtask build before cargo test"))
}

/// A call of one of our programs, inside a network namespace where one is named.
///
/// # Panics
/// When the program isn't built.
pub fn command(name: &str, namespace: Option<&str>) -> Command {
    let program = binary(name);
    let Some(namespace) = namespace else { return Command::new(program) };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace]).arg(program);
    command
}

impl Process {
    /// Starts a program with everything it prints appended to `FOLDER/NAME.log`.
    ///
    /// # Panics
    /// When it can't be started.
    pub fn start(name: &str, folder: &Path, command: &mut Command) -> Self {
        let log = folder.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log).expect("the log's folder is writable");
        let errors = out.try_clone().expect("a file handle can be shared");
        command.stdin(Stdio::null()).stdout(out).stderr(errors);
        let child = command.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Self { name: name.to_owned(), child, log }
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Everything it has printed so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The last lines of the log, for panics.
    pub fn tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        format!("--- {}\n{}\n", self.name, lines[lines.len().saturating_sub(40)..].join("\n"))
    }

    /// Sends a signal by its name.
    ///
    /// # Panics
    /// When the process is gone already.
    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(status.is_ok_and(|status| status.success()), "{} can't be signalled\n{}", self.name, self.tail());
    }

    /// `kill -9`, and gone when this returns.
    pub fn kill(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }

    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its own end.
    ///
    /// # Panics
    /// When it goes on after the usual limit.
    pub fn ended(&mut self) -> ExitStatus {
        let began = Instant::now();
        loop {
            if let Some(status) = self.has_ended() {
                return status;
            }
            assert!(began.elapsed() < LIMIT, "{} does not end\n{}", self.name, self.tail());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the log says something.
    ///
    /// # Panics
    /// When it doesn't within the usual limit.
    pub fn logs(&self, text: &str) {
        until(&format!("{} logs {text:?}", self.name), || self.log().contains(text), || self.tail());
    }

    /// Resident memory now, KiB.
    pub fn resident_kib(&self) -> u64 {
        self.memory("VmRSS:")
    }

    /// The most that it was, KiB, since the start or the last [`Process::forget_peak`].
    pub fn peak_kib(&self) -> u64 {
        self.memory("VmHWM:")
    }

    /// Sets the peak back to what is resident now.
    ///
    /// # Panics
    /// When the kernel refuses.
    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.id()), "5").expect("the peak can be reset");
    }

    fn memory(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("0 kB");
        line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
