//! What one instance holds of WASI: handles, timers, and output whose lines are not ended yet. All of it is bounded.

use std::collections::BTreeMap;
use std::mem;
use std::time::Duration;

/// Bytes of one line of a filter in the log; what is more is cut.
pub(crate) const LINE_BYTES: usize = 1_024;
/// Handles that an instance may hold at a time: each costs the host some dozen bytes.
pub(crate) const MAX_HANDLES: u32 = 1_024;

/// The handles, timers and lines of an instance.
#[derive(Debug, Default)]
pub(crate) struct Wasi {
    held: u32,
    /// Times at which pollables are ready, by their representation, as `State::now` counts.
    timers: BTreeMap<u32, Duration>,
    next_timer: u32,
    lines: [Vec<u8>; Output::ALL.len()],
}

/// A stream that a filter may write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Output {
    Stdout,
    Stderr,
}

impl Output {
    pub(crate) const ALL: [Output; 2] = [Output::Stdout, Output::Stderr];

    pub(crate) const fn index(self) -> usize {
        self as usize
    }
}

impl Wasi {
    /// Counts a handle that the filter is about to be given. False: it holds as many as it may.
    pub(crate) fn hold(&mut self) -> bool {
        let has_room = self.held < MAX_HANDLES;
        self.held += u32::from(has_room);
        has_room
    }

    /// Forgets a handle that the filter has dropped; `timer` where it was a pollable.
    pub(crate) fn release(&mut self, timer: Option<u32>) {
        self.held = self.held.saturating_sub(1);
        if let Some(timer) = timer {
            self.timers.remove(&timer);
        }
    }

    /// The representation of a pollable that is ready at a time; never 0, which is ready at once.
    pub(crate) fn timer(&mut self, at: Duration) -> u32 {
        loop {
            self.next_timer = self.next_timer.wrapping_add(1);
            // There are far fewer timers than numbers.
            if self.next_timer != 0 && !self.timers.contains_key(&self.next_timer) {
                self.timers.insert(self.next_timer, at);
                return self.next_timer;
            }
        }
    }

    pub(crate) fn is_ready(&self, timer: u32, now: Duration) -> bool {
        self.timers.get(&timer).is_none_or(|at| *at <= now)
    }

    /// Takes output, and gives the lines that it ends.
    pub(crate) fn write(&mut self, output: Output, bytes: &[u8]) -> Vec<String> {
        let line = &mut self.lines[output.index()];
        let mut ended = Vec::new();
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, is_whole) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let room = LINE_BYTES.saturating_sub(line.len());
            line.extend_from_slice(&text[..text.len().min(room)]);
            if is_whole {
                ended.extend(text_of(mem::take(line)));
            }
        }
        ended
    }

    /// What was written since the last end of a line.
    pub(crate) fn rest(&mut self, output: Output) -> Option<String> {
        text_of(mem::take(&mut self.lines[output.index()]))
    }
}

/// The text of a line that says something.
fn text_of(line: Vec<u8>) -> Option<String> {
    let text = String::from_utf8_lossy(&line);
    let text = text.trim_end();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_becomes_lines_of_bounded_length() {
        let mut wasi = Wasi::default();
        assert_eq!(wasi.write(Output::Stdout, b"one\n\ntwo\r\nth"), ["one", "two"]);
        assert_eq!(wasi.write(Output::Stderr, b"other\n"), ["other"]);
        assert_eq!(wasi.write(Output::Stdout, b"ree\n"), ["three"]);
        assert_eq!(wasi.write(Output::Stdout, &[b'x'; 5_000]), [""; 0]);
        assert_eq!(wasi.write(Output::Stdout, b"y\n"), ["x".repeat(LINE_BYTES)]);
        assert_eq!(wasi.write(Output::Stdout, b"\xff"), [""; 0]);
        assert_eq!(wasi.rest(Output::Stdout).as_deref(), Some("\u{fffd}"));
        assert_eq!((wasi.rest(Output::Stdout), wasi.rest(Output::Stderr)), (None, None));
    }

    #[test]
    fn handles_and_timers_are_bounded_and_given_back() {
        let mut wasi = Wasi::default();
        assert!((0..MAX_HANDLES).all(|_| wasi.hold()));
        assert!(!wasi.hold());
        let second = Duration::from_secs(1);
        let timer = wasi.timer(second);
        assert_ne!(timer, wasi.timer(second), "each has its own");
        assert!(!wasi.is_ready(timer, second / 2) && wasi.is_ready(timer, second));
        wasi.release(Some(timer));
        assert!(wasi.hold() && !wasi.hold());
        assert_eq!(wasi.timers.len(), 1);
    }
}
