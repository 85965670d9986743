//! The command that `weft run` runs: started with its environment, sent the signals that we get, its exit status ours.

use std::ffi::{OsStr, OsString};
use std::io::ErrorKind;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;

use anyhow::Context;
use rustix::fs::Access;
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind};

use super::sidecar::Sidecar;

/// The signals that are passed on.
pub(crate) struct Signals {
    streams: [(Signal, unix::Signal); 6],
}

impl Signals {
    pub(crate) fn listen() -> anyhow::Result<Self> {
        let on = |signal, kind| anyhow::Ok((signal, unix::signal(kind).context("cannot listen for signals")?));
        let streams = [
            on(Signal::INT, SignalKind::interrupt())?,
            on(Signal::TERM, SignalKind::terminate())?,
            on(Signal::HUP, SignalKind::hangup())?,
            on(Signal::QUIT, SignalKind::quit())?,
            on(Signal::USR1, SignalKind::user_defined1())?,
            on(Signal::USR2, SignalKind::user_defined2())?,
        ];
        Ok(Self { streams })
    }

    /// The next signal that this process gets. Cancel safe.
    pub(crate) async fn next(&mut self) -> Signal {
        std::future::poll_fn(|context| {
            for (signal, stream) in &mut self.streams {
                if stream.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*signal);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// Runs the command to its end; the sidecar is started again where it dies before.
pub(super) async fn supervise(
    words: &[OsString],
    environment: &[(&'static str, String)],
    signals: &mut Signals,
    sidecar: &mut Sidecar,
) -> anyhow::Result<u8> {
    let (program, arguments) = words.split_first().context("no command given")?;
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().map(|(name, value)| (name, value)));
    die_with_parent(&mut command);
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => return Ok(not_run(words, &error)),
    };
    loop {
        tokio::select! {
            status = child.wait() => return Ok(exit_status(status.context("cannot wait for the command")?)),
            signal = signals.next() => pass_on(&child, signal),
            status = sidecar.ended() => {
                tokio::select! {
                    status = child.wait() => return Ok(exit_status(status.context("cannot wait for the command")?)),
                    signal = signals.next() => pass_on(&child, signal),
                    () = sidecar.restart(status) => {}
                }
            }
        }
    }
}

/// Tells why the command can't be run; the status that a shell gives then.
pub(super) fn not_run(words: &[OsString], error: &std::io::Error) -> u8 {
    let program = words.first().map(|program| program.display().to_string()).unwrap_or_default();
    crate::output::complain(&format!("error: cannot run {program}: {error}"));
    if error.kind() == ErrorKind::NotFound { 127 } else { 126 }
}

/// Looks for the program as the start of it will.
///
/// # Errors
/// It is not there, or can't be executed.
pub(super) fn find(words: &[OsString]) -> std::io::Result<()> {
    let program = Path::new(words.first().ok_or(ErrorKind::NotFound)?);
    let search = std::env::var_os("PATH").unwrap_or_else(|| "/bin:/usr/bin".into());
    find_in(program, &search)
}

fn find_in(program: &Path, search: &OsStr) -> std::io::Result<()> {
    let folders = match program.as_os_str().as_encoded_bytes().contains(&b'/') {
        true => vec![PathBuf::new()],
        false => std::env::split_paths(search).collect(),
    };
    let mut found = Errno::NOENT;
    for path in folders.iter().map(|folder| folder.join(program)) {
        match rustix::fs::access(&path, Access::EXEC_OK) {
            Ok(()) if path.is_file() => return Ok(()),
            Ok(()) | Err(Errno::ACCESS) => found = Errno::ACCESS,
            Err(_) => {}
        }
    }
    Err(found.into())
}

/// Passes a signal on to the command. A signal from the terminal is not sent twice: it reaches the terminal's whole
/// foreground group, the command included.
fn pass_on(child: &Child, signal: Signal) {
    let from_terminal = matches!(signal, Signal::INT | Signal::QUIT | Signal::HUP)
        && rustix::termios::tcgetpgrp(std::io::stdin()).is_ok_and(|group| group == rustix::process::getpgrp());
    if !from_terminal {
        signal_child(child, signal);
    }
}

/// Sends a signal; false where the child has ended already.
pub(crate) fn signal_child(child: &Child, signal: Signal) -> bool {
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok())
}

/// The kernel ends the child when we die, however that happens.
pub(crate) fn die_with_parent(command: &mut Command) {
    let parent = rustix::process::getpid();
    #[expect(unsafe_code, reason = "the only way to set a child's parent-death signal")]
    // SAFETY: between fork and exec only two system calls are made (prctl, getppid); nothing allocates or locks.
    unsafe {
        command.pre_exec(move || {
            rustix::process::set_parent_process_death_signal(Some(Signal::TERM))?;
            if rustix::process::getppid() == Some(parent) { Ok(()) } else { Err(ErrorKind::BrokenPipe.into()) }
        });
    }
}

/// As a shell reports it: the code, or 128 + signal.
fn exit_status(status: ExitStatus) -> u8 {
    match (status.code(), status.signal()) {
        (Some(code), _) => u8::try_from(code & 0xff).unwrap_or(u8::MAX),
        (None, Some(signal)) => status_of_signal(signal),
        (None, None) => u8::MAX,
    }
}

pub(super) fn status_of_signal(signal: i32) -> u8 {
    u8::try_from(128 + signal).unwrap_or(u8::MAX)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_program_is_looked_for_as_it_will_be_started() {
        let dir = tempfile::tempdir().unwrap();
        for (name, mode) in [("good", 0o755), ("plain", 0o644)] {
            std::fs::write(dir.path().join(name), "").unwrap();
            std::fs::set_permissions(dir.path().join(name), std::fs::Permissions::from_mode(mode)).unwrap();
        }
        std::fs::create_dir(dir.path().join("folder")).unwrap();
        let mut search = OsString::from("/nowhere:");
        search.push(dir.path());
        let check = |program: &Path, expect: Option<ErrorKind>| {
            let found = find_in(program, &search).err();
            assert_eq!(found.map(|error| error.kind()), expect, "{}", program.display());
        };
        check(Path::new("good"), None);
        check(Path::new("plain"), Some(ErrorKind::PermissionDenied));
        check(Path::new("folder"), Some(ErrorKind::PermissionDenied));
        check(Path::new("nosuch"), Some(ErrorKind::NotFound));
        check(&dir.path().join("good"), None);
        check(&dir.path().join("nosuch"), Some(ErrorKind::NotFound));
        let (there, away) = (vec!["sh".into()], vec!["no-such-program-at-all".into()]);
        assert!(find(&there).is_ok());
        assert_eq!(not_run(&away, &find(&away).unwrap_err()), 127);
    }

    #[test]
    fn exit_statuses_are_those_of_a_shell() {
        assert_eq!(exit_status(ExitStatus::from_raw(3 << 8)), 3);
        assert_eq!(exit_status(ExitStatus::from_raw(15)), 143);
        assert_eq!(exit_status(ExitStatus::from_raw(0)), 0);
    }
}
