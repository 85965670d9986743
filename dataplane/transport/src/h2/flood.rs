//! Frames that cost a peer nothing and us work: PING, SETTINGS, RST_STREAM, PRIORITY, empty DATA, tiny WINDOW_UPDATE,
//! unknown types. They are counted as they are read, against a budget that time and useful frames fill up again.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Instant;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::Limits;
use crate::cancels::Cancels;

/// Allowances of one connection's client for frames and cancels that cost it nothing. Shared by the reader, the streams
/// and the connection.
#[derive(Debug)]
pub(super) struct Patience {
    spent: Cell<bool>,
    frames: RefCell<Allowance>,
    cancels: RefCell<Cancels>,
    /// Heads of requests that have come whole, and those of them that were taken.
    heads: Cell<u64>,
    taken: Cell<u64>,
    /// The last write could not be made at once: frames may wait to be read until it is.
    write_waits: Cell<bool>,
    /// Requests taken and not over.
    open: Cell<usize>,
    finished: Cell<u64>,
    /// When the last request ended that was open.
    quiet_since: Cell<tokio::time::Instant>,
    cancel_burst: u32,
    cancels_per_second: u32,
    connection: RefCell<Option<Waker>>,
}

impl Patience {
    pub(super) fn new(limits: &Limits) -> Rc<Self> {
        Rc::new(Self {
            spent: Cell::new(false),
            frames: RefCell::new(Allowance {
                left: limits.idle_frames,
                most: limits.idle_frames,
                per_second: limits.idle_frames_per_second,
                filled: Instant::now(),
            }),
            cancels: RefCell::new(Cancels::NONE),
            heads: Cell::new(0),
            taken: Cell::new(0),
            write_waits: Cell::new(false),
            open: Cell::new(0),
            finished: Cell::new(0),
            quiet_since: Cell::new(tokio::time::Instant::now()),
            cancel_burst: limits.cancels,
            cancels_per_second: limits.cancels_per_second,
            connection: RefCell::default(),
        })
    }

    /// True once the connection is to end. The task that asks is woken when that changes.
    pub(super) fn is_spent(&self, cx: &Context<'_>) -> bool {
        let mut connection = self.connection.borrow_mut();
        match &mut *connection {
            Some(waker) => waker.clone_from(cx.waker()),
            none => *none = Some(cx.waker().clone()),
        }
        self.spent.get()
    }

    /// Requests that are not over.
    pub(super) fn open(&self) -> usize {
        self.open.get()
    }

    /// Since when no request has been open; `None` while one is.
    pub(super) fn quiet_since(&self) -> Option<tokio::time::Instant> {
        (self.open.get() == 0).then(|| self.quiet_since.get())
    }

    /// Requests whose heads have come whole and that were not taken, since this was last asked: the crate refused them.
    /// To be asked when it has nothing more to give.
    pub(super) fn missing(&self) -> u64 {
        if self.write_waits.get() {
            return 0;
        }
        let missing = self.heads.get().saturating_sub(self.taken.get());
        self.taken.set(self.taken.get() + missing);
        missing
    }

    /// A request was taken.
    pub(super) fn request_begun(&self) {
        self.taken.set(self.taken.get() + 1);
        self.open.set(self.open.get() + 1);
    }

    /// A request is over. `answered`: by a response of ours; otherwise it cost us work for nothing.
    pub(super) fn request_over(&self, answered: bool) {
        self.open.set(self.open.get().saturating_sub(1));
        self.finished.set(self.finished.get() + 1);
        if self.open.get() == 0 {
            self.quiet_since.set(tokio::time::Instant::now());
        }
        if answered {
            return;
        }
        let (burst, rate) = (self.cancel_burst, self.cancels_per_second);
        if !self.cancels.borrow_mut().spend(Instant::now(), self.finished.get(), burst, rate) {
            self.give_up();
        }
    }

    fn give_up(&self) {
        self.spent.set(true);
        if let Some(connection) = &*self.connection.borrow() {
            connection.wake_by_ref();
        }
    }

    fn frame(&self, useful: bool) {
        let mut frames = self.frames.borrow_mut();
        if useful {
            frames.earn();
        } else if !frames.spend(Instant::now()) {
            drop(frames);
            self.give_up();
        }
    }
}

#[derive(Debug)]
struct Allowance {
    left: u32,
    most: u32,
    per_second: u32,
    filled: Instant,
}

impl Allowance {
    fn earn(&mut self) {
        self.left = (self.left + 1).min(self.most);
    }

    fn spend(&mut self, now: Instant) -> bool {
        let millis = u64::try_from((now - self.filled).as_millis()).unwrap_or(u64::MAX);
        let more = u32::try_from(millis.saturating_mul(u64::from(self.per_second)) / 1000).unwrap_or(u32::MAX);
        if more > 0 {
            self.left = self.left.saturating_add(more).min(self.most);
            self.filled = now;
        }
        self.left.checked_sub(1).inspect(|left| self.left = *left).is_some()
    }
}

/// A stream whose incoming frames are counted. Gives nothing more once the patience is spent.
#[derive(Debug)]
pub(super) struct Counted<T> {
    io: T,
    frames: Frames,
    patience: Rc<Patience>,
}

impl<T> Counted<T> {
    pub(super) fn new(io: T, patience: Rc<Patience>) -> Self {
        Self { io, frames: Frames::default(), patience }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Counted<T> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.patience.spent.get() {
            // The connection's own task was woken to end it.
            return Poll::Pending;
        }
        let before = into.filled().len();
        let read = Pin::new(&mut this.io).poll_read(cx, into);
        if read.is_ready() {
            this.frames.look(&into.filled()[before..], &this.patience);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Counted<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(cx, bytes);
        self.patience.write_waits.set(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        self.patience.write_waits.set(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

const PREFACE: usize = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".len();
/// A frame's header, and the first four bytes of its payload.
const BEGIN: usize = 9 + 4;
/// A WINDOW_UPDATE that gives less is one that nobody needs.
const LITTLE_CREDIT: u32 = 256;

const DATA: u8 = 0x0;
const HEADERS: u8 = 0x1;
const GOAWAY: u8 = 0x7;
const WINDOW_UPDATE: u8 = 0x8;
const CONTINUATION: u8 = 0x9;
const END_HEADERS: u8 = 0x4;

/// Finds the frames in what was read, in any division.
#[derive(Debug)]
struct Frames {
    /// The beginning of the frame at hand, collected.
    begin: [u8; BEGIN],
    have: usize,
    /// Bytes to pass over: the preface, the rest of a payload.
    skip: usize,
    /// The newest stream that the client has opened.
    newest: u32,
    /// The head of that one has begun and not ended.
    opening: bool,
    /// It ends with the frame at hand.
    head_ends: bool,
}

impl Default for Frames {
    fn default() -> Self {
        Self { begin: [0; BEGIN], have: 0, skip: PREFACE, newest: 0, opening: false, head_ends: false }
    }
}

impl Frames {
    //= rfc9113#section-4.1
    fn look(&mut self, mut bytes: &[u8], patience: &Patience) {
        while !bytes.is_empty() {
            let skip = self.skip.min(bytes.len());
            self.skip -= skip;
            bytes = &bytes[skip..];
            self.end_head(patience);
            while self.skip == 0 && self.have < self.wanted() && !bytes.is_empty() {
                self.begin[self.have] = bytes[0];
                self.have += 1;
                bytes = &bytes[1..];
            }
            if self.have == self.wanted() {
                patience.frame(self.is_useful());
                self.note_head();
                self.skip = self.length() - (self.have - 9);
                self.have = 0;
                self.end_head(patience);
            }
        }
    }

    /// Notes whether the frame at hand begins or ends the head of a new stream.
    fn note_head(&mut self) {
        let [_, _, _, kind, flags, a, b, c, d, ..] = self.begin;
        let stream = u32::from_be_bytes([a & 0x7f, b, c, d]);
        if kind == HEADERS && stream > self.newest {
            (self.newest, self.opening) = (stream, true);
        }
        self.head_ends = self.opening && matches!(kind, HEADERS | CONTINUATION) && flags & END_HEADERS != 0;
    }

    /// Counts a head once the last byte of its last frame was seen.
    fn end_head(&mut self, patience: &Patience) {
        if self.head_ends && self.skip == 0 {
            (self.head_ends, self.opening) = (false, false);
            patience.heads.set(patience.heads.get() + 1);
        }
    }

    /// Bytes of the frame at hand that have to be seen.
    fn wanted(&self) -> usize {
        if self.have < 9 { 9 } else { 9 + self.length().min(4) }
    }

    fn length(&self) -> usize {
        let [high, middle, low, ..] = self.begin;
        usize::from(high) << 16 | usize::from(middle) << 8 | usize::from(low)
    }

    fn is_useful(&self) -> bool {
        match self.begin[3] {
            DATA => self.length() > 0 || self.begin[4] & 1 == 1,
            HEADERS | CONTINUATION | GOAWAY => true,
            WINDOW_UPDATE => {
                let [.., a, b, c, d] = self.begin;
                u32::from_be_bytes([a, b, c, d]) >= LITTLE_CREDIT
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How many of the frames in `bytes` are useful and how many are not, read in pieces of `step`.
    fn check(bytes: &[u8], step: usize, useless: u32) -> u64 {
        let most = 1000;
        let limits = Limits { idle_frames: most, idle_frames_per_second: 0, ..Limits::default() };
        let patience = Patience::new(&limits);
        let mut frames = Frames::default();
        for piece in bytes.chunks(step) {
            frames.look(piece, &patience);
        }
        assert_eq!(most - patience.frames.borrow().left, useless, "in pieces of {step}");
        assert_eq!((frames.skip, frames.have), (0, 0), "in pieces of {step}");
        patience.heads.get()
    }

    #[test]
    fn frames_are_found_in_any_division() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let frame = |kind: u8, flags: u8, payload: &[u8]| {
            let mut frame = vec![0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, 1];
            frame.extend_from_slice(payload);
            frame
        };
        bytes.extend(frame(DATA, 0, b"useful"));
        bytes.extend(frame(4, 0, b""));
        bytes.extend(frame(6, 0, b"pingping"));
        bytes.extend(frame(DATA, 0, b""));
        bytes.extend(frame(DATA, 1, b""));
        bytes.extend(frame(WINDOW_UPDATE, 0, &[0, 0, 0, 1]));
        bytes.extend(frame(WINDOW_UPDATE, 0, &[0, 0, 255, 255]));
        bytes.extend(frame(3, 0, b"rst!"));
        bytes.extend(frame(0xee, 0, b"abc"));
        for step in 1..bytes.len() {
            // The first useful frame has nothing to fill up, and each later one gives back one of those before it.
            check(&bytes, step, 6 - 2);
        }
    }

    #[test]
    fn heads_are_counted_once_they_are_whole() {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        let frame = |kind: u8, flags: u8, stream: u8, payload: &[u8]| {
            let mut frame = vec![0, 0, u8::try_from(payload.len()).unwrap(), kind, flags, 0, 0, 0, stream];
            frame.extend_from_slice(payload);
            frame
        };
        bytes.extend(frame(HEADERS, END_HEADERS, 1, b"a head"));
        bytes.extend(frame(HEADERS, 0, 3, b"a head "));
        bytes.extend(frame(CONTINUATION, 0, 3, b""));
        bytes.extend(frame(CONTINUATION, END_HEADERS, 3, b"in pieces"));
        // Trailers open nothing, and the last head lacks its end.
        bytes.extend(frame(HEADERS, END_HEADERS, 1, b""));
        bytes.extend(frame(HEADERS, END_HEADERS, 5, b""));
        bytes.extend(frame(HEADERS, 0, 7, b"half"));
        for step in 1..bytes.len() {
            assert_eq!(check(&bytes, step, 0), 3, "in pieces of {step}");
        }
    }

    #[test]
    fn time_fills_the_allowance() {
        let start = Instant::now();
        let mut allowance = Allowance { left: 2, most: 2, per_second: 10, filled: start };
        assert!(allowance.spend(start) && allowance.spend(start) && !allowance.spend(start));
        let later = start + std::time::Duration::from_millis(100);
        assert!(allowance.spend(later) && !allowance.spend(later));
    }
}
