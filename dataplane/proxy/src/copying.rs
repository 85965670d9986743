//! Copies of requests: how many are under way on a worker, and the bytes of a body between the request that it belongs to and
//! its copy. The copy reads behind the request and never holds it up: one that falls too far behind is cut.

#[cfg(test)]
mod tests;

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};

use bytes::BytesMut;
use http::HeaderMap;
use weft_transport::http::Frame;

use crate::gauges::{OpenCount, OpenGuard};

/// The copies that are under way on one worker.
#[derive(Debug)]
pub struct Copies {
    most: usize,
    open: Rc<Cell<usize>>,
    /// On all workers.
    all: OpenCount,
}

impl Copies {
    pub fn new(most: usize, all: OpenCount) -> Self {
        Self { most, open: Rc::default(), all }
    }

    /// The place of one more; `None`: as many as may are under way.
    pub fn enter(&self) -> Option<Place> {
        if self.open.get() >= self.most {
            return None;
        }
        self.open.set(self.open.get() + 1);
        Some(Place { open: Rc::clone(&self.open), _counted: self.all.enter() })
    }
}

/// The place of one copy, given back when it is dropped.
#[derive(Debug)]
pub struct Place {
    open: Rc<Cell<usize>>,
    _counted: OpenGuard,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open.set(self.open.get() - 1);
    }
}

/// Why a copy has no more of its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// It read too slowly.
    Behind,
    /// The request itself ended before its body did.
    Abandoned,
}

#[derive(Debug, Default)]
struct State {
    limit: usize,
    /// Bytes that the copy has not read yet.
    data: BytesMut,
    trailers: Option<HeaderMap>,
    /// Nothing more comes; `Err` where that is not all.
    end: Option<Result<(), Cut>>,
    /// Nobody reads any more.
    is_left: bool,
    waker: Option<Waker>,
}

impl State {
    fn take(&mut self, frame: &Frame) {
        if self.end.is_some() || self.is_left {
            return;
        }
        match frame {
            Frame::Data(data) if self.data.len() + data.len() > self.limit => self.finish(Err(Cut::Behind)),
            // Copied: a slice would keep alive the packet or block that it was cut from.
            Frame::Data(data) => self.data.extend_from_slice(data),
            Frame::Trailers(trailers) => {
                self.trailers = Some(trailers.clone());
                self.finish(Ok(()));
            }
        }
        self.waker.take().into_iter().for_each(Waker::wake);
    }

    fn finish(&mut self, end: Result<(), Cut>) {
        if self.end.is_none() {
            self.end = Some(end);
            if end.is_err() {
                // What is cut is given up whole.
                self.data = BytesMut::new();
            }
        }
        self.waker.take().into_iter().for_each(Waker::wake);
    }
}

/// The side of the request: told each frame as it is read for the first time.
#[derive(Debug)]
pub struct Tap(Rc<RefCell<State>>);

impl Tap {
    pub fn take(&self, frame: &Frame) {
        self.0.borrow_mut().take(frame);
    }

    /// True where the copy has read all that there is so far.
    #[cfg(test)]
    pub(crate) fn is_read(&self) -> bool {
        self.0.borrow().data.is_empty()
    }

    /// The body is whole.
    pub fn finish(&self) {
        self.0.borrow_mut().finish(Ok(()));
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.0.borrow_mut().finish(Err(Cut::Abandoned));
    }
}

/// The side of the copy.
#[derive(Debug)]
pub struct Copied(Rc<RefCell<State>>);

/// The two sides of one body, between which at most `limit` bytes wait.
pub fn tapped(limit: usize) -> (Tap, Copied) {
    let state = Rc::new(RefCell::new(State { limit, ..State::default() }));
    (Tap(Rc::clone(&state)), Copied(state))
}

impl Copied {
    /// The next frame; `None` at the clean end. Cancel safe.
    pub async fn frame(&self) -> Result<Option<Frame>, Cut> {
        poll_fn(|cx| {
            let mut state = self.0.borrow_mut();
            if !state.data.is_empty() {
                return Poll::Ready(Ok(Some(Frame::Data(state.data.split().freeze()))));
            }
            match state.end {
                Some(Ok(())) => Poll::Ready(Ok(state.trailers.take().map(Frame::Trailers))),
                Some(Err(cut)) => Poll::Ready(Err(cut)),
                None => {
                    state.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// Resolves once the copy is cut. Cancel safe.
    pub async fn cut(&self) -> Cut {
        poll_fn(|cx| {
            let mut state = self.0.borrow_mut();
            match state.end {
                Some(Err(cut)) => Poll::Ready(cut),
                Some(Ok(())) | None => {
                    state.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    /// True where the next frame, or the end, is there already.
    pub fn is_ready(&self) -> bool {
        let state = self.0.borrow();
        !state.data.is_empty() || state.end.is_some()
    }
}

impl Drop for Copied {
    fn drop(&mut self) {
        let mut state = self.0.borrow_mut();
        state.is_left = true;
        state.data = BytesMut::new();
    }
}
