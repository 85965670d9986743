//! Lines on their way to a file or standard output, written by a thread of its own. The queue is bounded in lines and bytes;
//! what finds no room or can't be written is counted, and a failing disk ends nothing: writing goes on when it can.

use std::fs::File;
use std::io::{self, ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use tracing::{info, warn};

/// Bytes put together into one write.
const BATCH: usize = 64 << 10;
/// Pause after a failed write, and the patience with an output that takes nothing at the moment.
const PAUSE: Duration = Duration::from_millis(100);

/// Output that lines are written to.
#[derive(Debug, Clone)]
pub enum Output {
    Standard,
    /// Appended to; opened again on [`LineWriter::reopen`].
    File(PathBuf),
}

/// How much may wait.
#[derive(Debug, Clone, Copy)]
pub struct Room {
    pub lines: usize,
    pub bytes: usize,
}

#[derive(Debug)]
enum Entry {
    Line(String),
    Reopen,
}

/// The sending end; clones share it.
#[derive(Debug, Clone)]
pub struct LineWriter {
    queue: SyncSender<Entry>,
    room: usize,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    waiting: AtomicUsize,
    dropped: AtomicU64,
    reopen: AtomicBool,
}

impl LineWriter {
    /// Starts the thread; it ends when the last sender is dropped.
    ///
    /// # Errors
    /// The file can't be opened, or there is no thread.
    pub fn start(name: &str, output: Output, room: Room) -> io::Result<Self> {
        let (queue, lines) = sync_channel(room.lines.max(1));
        let state = Arc::<State>::default();
        let sink = Sink { file: open(&output)?, output, state: Arc::clone(&state), torn: false, failing: false };
        std::thread::Builder::new().name(name.to_owned()).spawn(move || run(sink, &lines))?;
        Ok(Self { queue, room: room.bytes, state })
    }

    /// Queues a line (without its end), or counts it where there is no room.
    pub fn write(&self, line: String) {
        let length = line.len();
        let waiting = self.state.waiting.fetch_add(length, Ordering::Relaxed);
        if waiting.saturating_add(length) > self.room || self.queue.try_send(Entry::Line(line)).is_err() {
            self.state.waiting.fetch_sub(length, Ordering::Relaxed);
            self.state.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Opens the file again, where it is one: after it was moved away.
    pub fn reopen(&self) {
        self.state.reopen.store(true, Ordering::Relaxed);
        // A full queue wakes the thread by itself.
        let _ = self.queue.try_send(Entry::Reopen);
    }

    /// Lines that were lost: no room, or not written.
    pub fn dropped(&self) -> u64 {
        self.state.dropped.load(Ordering::Relaxed)
    }
}

/// The file itself: standard output's buffer would keep what couldn't be written.
fn open(output: &Output) -> io::Result<File> {
    match output {
        Output::Standard => Ok(io::stdout().as_fd().try_clone_to_owned()?.into()),
        Output::File(path) => append(path),
    }
}

fn append(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    File::options().create(true).append(true).mode(0o640).open(path)
}

struct Sink {
    file: File,
    output: Output,
    state: Arc<State>,
    /// The last write ended within a line.
    torn: bool,
    failing: bool,
}

fn run(mut sink: Sink, lines: &Receiver<Entry>) {
    let mut batch = Vec::with_capacity(BATCH);
    while let Ok(first) = lines.recv() {
        let mut next = Some(first);
        while let Some(entry) = next.take() {
            if let Entry::Line(line) = entry {
                sink.state.waiting.fetch_sub(line.len(), Ordering::Relaxed);
                batch.extend_from_slice(line.as_bytes());
                batch.push(b'\n');
            }
            if batch.len() < BATCH {
                next = lines.try_recv().ok();
            }
        }
        if sink.state.reopen.swap(false, Ordering::Relaxed) {
            sink.reopen();
        }
        sink.put(&batch);
        batch.clear();
        batch.shrink_to(BATCH * 2);
    }
}

impl Sink {
    fn reopen(&mut self) {
        match open(&self.output) {
            Ok(file) => (self.file, self.torn) = (file, false),
            Err(error) => warn!(%error, "the log file can't be opened again; the old one is used"),
        }
    }

    /// Writes whole lines; counts those that were not written.
    fn put(&mut self, batch: &[u8]) {
        if batch.is_empty() {
            return;
        }
        let (written, result) = self.write(batch);
        if written > 0 {
            self.torn = batch[written - 1] != b'\n';
        }
        let lost = batch[written..].iter().filter(|byte| **byte == b'\n').count();
        self.state.dropped.fetch_add(lost as u64, Ordering::Relaxed);
        match result {
            Ok(()) if self.failing => {
                self.failing = false;
                info!(dropped = self.state.dropped.load(Ordering::Relaxed), "the log can be written again");
            }
            Ok(()) => {}
            Err(error) => {
                if !std::mem::replace(&mut self.failing, true) {
                    warn!(%error, "the log can't be written; its lines are dropped and counted until it can");
                }
                std::thread::sleep(PAUSE);
            }
        }
    }

    fn write(&mut self, batch: &[u8]) -> (usize, io::Result<()>) {
        let mut patience = 10;
        while self.torn {
            match self.file.write(b"\n") {
                Ok(0) => return (0, Err(ErrorKind::WriteZero.into())),
                Ok(_) => self.torn = false,
                Err(error) => {
                    if let Err(error) = passing(error, &mut patience) {
                        return (0, Err(error));
                    }
                }
            }
        }
        let mut written = 0;
        while written < batch.len() {
            match self.file.write(&batch[written..]) {
                Ok(0) => return (written, Err(ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) => {
                    if let Err(error) = passing(error, &mut patience) {
                        return (written, Err(error));
                    }
                }
            }
        }
        (written, Ok(()))
    }
}

/// Waits where the output takes nothing at the moment, for a second at the most.
fn passing(error: io::Error, patience: &mut u32) -> io::Result<()> {
    if error.kind() == ErrorKind::WouldBlock && *patience > 0 {
        *patience -= 1;
        std::thread::sleep(PAUSE);
        return Ok(());
    }
    if error.kind() == ErrorKind::Interrupted { Ok(()) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const ROOM: Room = Room { lines: 100, bytes: 1 << 20 };

    fn wait_for(what: &str, done: impl Fn() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < Duration::from_secs(10), "{what}");
            std::thread::yield_now();
        }
    }

    #[test]
    fn a_full_disk_costs_lines_and_ends_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("access.log");
        // Everything written to it fails with ENOSPC.
        std::os::unix::fs::symlink("/dev/full", &path).unwrap();
        let writer = LineWriter::start("test-log", Output::File(path.clone()), ROOM).unwrap();
        writer.write("lost 1".to_owned());
        writer.write("lost 2".to_owned());
        wait_for("lost lines are counted", || writer.dropped() == 2);
        std::fs::remove_file(&path).unwrap();
        writer.reopen();
        writer.write("kept".to_owned());
        wait_for("it goes on", || std::fs::read_to_string(&path).is_ok_and(|text| text == "kept\n"));
        assert_eq!(writer.dropped(), 2);
    }

    #[test]
    fn a_moved_file_is_opened_again_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("access.log"), folder.path().join("access.log.1"));
        let writer = LineWriter::start("test-log", Output::File(path.clone()), ROOM).unwrap();
        writer.write("one".to_owned());
        wait_for("it is written", || std::fs::read_to_string(&path).is_ok_and(|text| text == "one\n"));
        std::fs::rename(&path, &moved).unwrap();
        writer.reopen();
        wait_for("a new file, though nothing is written", || path.exists());
        writer.write("two".to_owned());
        wait_for("the new one is written", || std::fs::read_to_string(&path).is_ok_and(|text| text == "two\n"));
        assert_eq!(std::fs::read_to_string(&moved).unwrap(), "one\n");
    }

    #[test]
    fn a_line_that_was_torn_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let output = Output::File(path.clone());
        let mut sink = Sink { file: open(&output).unwrap(), output, state: Arc::default(), torn: true, failing: true };
        std::fs::write(&path, "half a li").unwrap();
        sink.put(b"whole\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "half a li\nwhole\n");
    }

    #[test]
    fn the_queue_is_bounded_in_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::File(folder.path().join("log"));
        let writer = LineWriter::start("test-log", output, Room { lines: 100, bytes: 10 }).unwrap();
        writer.write("longer than everything that may wait".to_owned());
        assert_eq!(writer.dropped(), 1);
    }
}
