//! Runs suites and ends a test program that has stopped: one test that waits for ever must take neither the results of the
//! others with it nor the time that the whole run has.

use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::cargo;

/// Runs `cargo test` to its end. A test program that has said nothing for `silence` is ended with all that it started; `cargo`
/// goes on with the next one, and fails in the end.
pub(crate) fn run(command: &mut Command, silence: Duration) -> Result<()> {
    let shown = cargo::announce(command);
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {shown}"))?;
    let (heard, word) = mpsc::channel();
    pass_on(child.stdout.take(), io::stdout(), heard.clone());
    pass_on(child.stderr.take(), io::stderr(), heard);
    loop {
        match word.recv_timeout(silence) {
            Ok(()) => {}
            // Somebody whom a test left behind may hold the pipes open for ever.
            Err(RecvTimeoutError::Timeout) if child.try_wait()?.is_some() => break,
            Err(RecvTimeoutError::Timeout) => end_tests(&child, silence)?,
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    cargo::succeeded(&shown, child.wait()?)
}

/// Copies what a child says and tells of each piece: a test's name stands in a line that ends only with the test.
fn pass_on(from: Option<impl Read + Send + 'static>, mut to: impl Write + Send + 'static, heard: Sender<()>) {
    let Some(mut from) = from else { return };
    std::thread::spawn(move || {
        let mut piece = [0; 8192];
        while let Ok(length @ 1..) = from.read(&mut piece) {
            if to.write_all(&piece[..length]).and_then(|()| to.flush()).is_err() || heard.send(()).is_err() {
                return;
            }
        }
    });
}

/// Ends what `cargo` runs, and its children with it; a compiler may be silent for as long as it likes.
fn end_tests(cargo: &Child, silence: Duration) -> Result<()> {
    for program in children(cargo.id()) {
        let name = std::fs::read_to_string(of(program).join("comm")).unwrap_or_default();
        if ["rustc", "build-script"].iter().any(|compiler| name.starts_with(compiler)) {
            continue;
        }
        eprintln!(
            "\nxtask: {} says nothing for {silence:?} and is ended; it hangs in a test that is named above without a result",
            name.trim()
        );
        let mut ended = vec![program];
        let mut next = 0;
        while let Some(&parent) = ended.get(next) {
            ended.extend(children(parent));
            next += 1;
        }
        let ids = ended.iter().map(u32::to_string);
        _ = Command::new("kill").arg("-KILL").args(ids).status().context("cannot start kill")?;
    }
    Ok(())
}

fn of(process: u32) -> PathBuf {
    PathBuf::from(format!("/proc/{process}"))
}

fn children(parent: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(of(parent).join("task")).into_iter().flatten().filter_map(Result::ok);
    let children = threads.filter_map(|thread| std::fs::read_to_string(thread.path().join("children")).ok());
    children.flat_map(|ids| ids.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>()).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_program_that_hangs_is_ended_with_its_children_and_one_that_speaks_is_not() {
        let silence = Duration::from_millis(300);
        // A shell in the place of cargo, whose child has a child that holds the pipe.
        let hangs = "sh -c 'sleep 1000 & wait'; exit 3";
        let began = Instant::now();
        let error = run(Command::new("sh").args(["-c", hangs]), silence).unwrap_err();
        assert!(error.to_string().ends_with("exit status: 3"), "{error}");
        assert!(began.elapsed() < Duration::from_secs(100));
        run(Command::new("sh").args(["-c", "for i in 1 2 3 4 5; do sleep 0.2; printf .; done"]), silence * 20).unwrap();
    }
}
