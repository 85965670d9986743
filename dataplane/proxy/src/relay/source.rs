//! A body as its pump reads it. A request's body keeps a copy of what was taken of it, up to a limit, so that a request
//! which provably nobody processed can be sent again from its first byte.

mod staged;
#[cfg(test)]
mod tests;
mod whole;

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;

use bytes::{Bytes, BytesMut};
use futures_util::stream::LocalBoxStream;
use http::HeaderMap;
use weft_filter_host::Cut;
use weft_transport::detect::{FirstLine, Judged, Text};
use weft_transport::http::{Frame, RecvBody, StreamError};

pub use self::staged::Stage;
pub use self::whole::{Gathering, Ungathered};

use self::staged::Staged;
use self::whole::Front;
use crate::copying::Tap;
use crate::mesh;
use crate::quota::Part;

/// What is looked for in a stream that nobody judges.
enum Watch {
    /// Whether it carries requests.
    FirstLine(FirstLine),
    /// It does.
    Requests([Text; 3]),
}

/// The texts that a stream of requests must not hold: the field that says who a caller is, and the two beginnings of a form
/// in which it could be said unseen. A client of HTTP/2 always sends the preface, after an upgrade too, and its fields may
/// be compressed; nobody changes to TLS without naming it (RFC 2817).
const FORGERIES: [Text; 3] = [Text::new(mesh::CLIENT_CERT), Text::new("pri * http/2.0\r\n"), Text::new("tls/1")];

/// Parts of a body that is made here, as they are taken.
type Parts<'a> = LocalBoxStream<'a, Result<Bytes, Box<Cut>>>;

/// Source of a pump's frames.
pub struct Source<'a> {
    body: RecvBody<'a>,
    /// Bytes of it that may be kept; 0 for a body that is read once.
    limit: usize,
    /// What was looked at ahead of its time. Boxed: rare, and large.
    ahead: Option<Box<Result<Frame, StreamError>>>,
    /// What makes it, where it is of this proxy and comes in parts. Boxed: rare.
    made: Option<Parts<'a>>,
    /// What was gathered before anything was sent. Boxed: rare.
    front: Option<Box<Front>>,
    /// What looks at it as it is read, and may change it. Boxed: rare.
    stage: Option<Box<Staged>>,
    /// Why that ended it.
    cut: Option<Box<Cut>>,
    /// Made when there is something to keep.
    kept: Option<Kept>,
    taken: bool,
    /// Of a stream in which nobody may say who its caller is.
    watch: Option<Watch>,
    is_forged: bool,
}

impl<'a> Source<'a> {
    /// A body that is read once.
    pub fn once(body: RecvBody<'a>) -> Self {
        Self::replayable(body, 0)
    }

    /// A body that can be read again from its start while no more than `limit` bytes were taken of it and nobody has called
    /// [`Kept::settle`].
    pub fn replayable(body: RecvBody<'a>, limit: usize) -> Self {
        let (ahead, made, front, stage, cut) = (None, None, None, None, None);
        Self { body, limit, ahead, made, front, stage, cut, kept: None, taken: false, watch: None, is_forged: false }
    }

    /// A body of parts that are made as they are taken.
    pub fn made(parts: Parts<'a>) -> Self {
        Self { made: Some(parts), ..Self::once(RecvBody::Empty) }
    }

    /// For the client's bytes of a stream that nobody judges, a tunnel or what follows an upgrade: where they are requests
    /// and say who their caller is, which only this proxy says, or go on in a form in which they could say it unseen, the
    /// stream breaks off before the app has read it.
    pub fn forbid_forgery(&mut self) {
        self.watch = Some(Watch::FirstLine(FirstLine::default()));
    }

    /// True once it broke off because of that.
    pub fn is_forged(&self) -> bool {
        self.is_forged
    }

    /// The next frame; `None` at the clean end. Cancel safe.
    pub async fn frame(&mut self) -> Result<Option<Frame>, StreamError> {
        if self.stage.is_none()
            && let Some(ahead) = self.ahead.take()
        {
            return ahead.map(Some);
        }
        if let Some(again) = self.kept.as_ref().and_then(Kept::again) {
            return Ok(Some(again));
        }
        let Some(frame) = self.first().await? else {
            self.end_copies();
            return Ok(None);
        };
        self.taken = true;
        if let Frame::Data(data) = &frame
            && !self.may_pass(data)
        {
            self.is_forged = true;
            return Err(StreamError::Protocol(
                "a request that nobody judged says who its caller is, or may say it unseen",
            ));
        }
        if self.limit > 0 {
            self.kept().keep(&frame);
        }
        if let Some(kept) = &self.kept {
            kept.tell(&frame);
        }
        Ok(Some(frame))
    }

    /// The next frame, given for the first time.
    async fn first(&mut self) -> Result<Option<Frame>, StreamError> {
        if self.front.is_none() && self.stage.is_none() && self.made.is_none() {
            return self.body.frame().await;
        }
        // Boxed: rare, and larger than all the rest of a read.
        Box::pin(self.staged()).await
    }

    /// The trailers, where they are the first thing that comes. Waits for it, and takes nothing away but trailers. Cancel safe.
    pub async fn only_trailers(&mut self) -> Option<HeaderMap> {
        let other = match self.frame().await {
            Ok(Some(Frame::Trailers(trailers))) => return Some(trailers),
            Ok(Some(data)) => Ok(data),
            Ok(None) => return None,
            Err(error) => Err(error),
        };
        self.ahead = Some(Box::new(other));
        None
    }

    /// Gives back what was taken.
    pub fn give_back(&mut self, trailers: HeaderMap) {
        self.ahead = Some(Box::new(Ok(Frame::Trailers(trailers))));
    }

    /// Copies all that is read from here on.
    pub fn copy_to(&mut self, tap: Tap) {
        self.kept().0.borrow_mut().taps.push(tap);
    }

    /// Tells its copies that the body is whole.
    pub fn end_copies(&mut self) {
        if let Some(kept) = &self.kept {
            kept.0.borrow_mut().taps.drain(..).for_each(|tap| tap.finish());
        }
    }

    fn may_pass(&mut self, data: &[u8]) -> bool {
        if let Some(Watch::FirstLine(line)) = &mut self.watch {
            match line.read(data) {
                Judged::Open => {}
                Judged::Other => self.watch = None,
                Judged::Request => self.watch = Some(Watch::Requests(FORGERIES)),
                Judged::Preface => return false,
            }
        }
        match &mut self.watch {
            // Nothing is read any more once one of them was there.
            Some(Watch::Requests(texts)) => !texts.iter_mut().any(|text| text.read(data)),
            None | Some(Watch::FirstLine(_)) => true,
        }
    }

    /// Waits for `write`, which takes what was read of this body. Frames that come meanwhile are read and kept together: a
    /// codec may hold much more for each of them than its bytes.
    pub async fn reading_ahead<F: Future>(&mut self, mut write: Pin<&mut F>) -> F::Output {
        poll_fn(|cx| {
            let written = write.as_mut().poll(cx);
            if written.is_pending() {
                self.body.read_ahead(cx);
            }
            written
        })
        .await
    }

    /// The kept part of the body, to be settled once its answer has come.
    pub fn kept(&mut self) -> Kept {
        self.kept.get_or_insert_with(|| Kept::new(self.limit)).clone()
    }

    /// Bytes that are kept, and those that the body holds or may be made to hold while nobody reads.
    pub fn held(&self) -> usize {
        let gathered = self.front.as_ref().map_or(0, |front| front.len());
        self.kept.as_ref().map_or(0, Kept::len) + gathered + self.body.held()
    }

    /// Goes back to the start. False: more was taken than was kept, so that it can't be sent again.
    pub fn rewind(&mut self) -> bool {
        !self.taken || self.kept.as_ref().is_some_and(Kept::rewind)
    }

    /// True when no frame will come and that is known without waiting.
    pub fn is_end(&self) -> bool {
        let is_read = self.made.is_none() && self.body.is_end();
        let is_read = self.front.as_ref().map_or(is_read, |front| front.is_end());
        let is_through = self.stage.as_ref().is_none_or(|stage| stage.is_end());
        self.ahead.is_none() && !self.kept.as_ref().is_some_and(Kept::has_more) && is_through && is_read
    }

    /// Tells the sender to stop.
    pub fn stop(&mut self, code: u64) {
        self.body.stop(code);
    }
}

/// A copy of what was taken of a body: a slice of it would keep alive the packet or block that it was cut from.
#[derive(Clone)]
pub struct Kept(Rc<RefCell<Copied>>);

struct Copied {
    data: BytesMut,
    trailers: Option<HeaderMap>,
    /// The next byte of `data` to give again; beyond its end the body goes on.
    at: usize,
    /// The trailers are to be given again.
    trailers_due: bool,
    /// Bytes that may still be kept. `None`: nothing is kept any more.
    room: Option<usize>,
    /// Of copies that are sent elsewhere; none of them holds up the body.
    taps: Vec<Tap>,
    /// Of a budget that what is kept counts into.
    part: Option<Part>,
}

impl Kept {
    fn new(limit: usize) -> Self {
        let room = (limit > 0).then_some(limit);
        let taps = Vec::new();
        let copied =
            Copied { data: BytesMut::new(), trailers: None, at: 0, trailers_due: false, room, taps, part: None };
        Self(Rc::new(RefCell::new(copied)))
    }

    fn keep(&self, frame: &Frame) {
        let mut copied = self.0.borrow_mut();
        let Some(room) = copied.room else { return };
        match frame {
            // Their size is the codec's to bound.
            Frame::Trailers(trailers) => copied.trailers = Some(trailers.clone()),
            Frame::Data(data) => match room.checked_sub(data.len()) {
                Some(left) => {
                    copied.room = Some(left);
                    copied.data.extend_from_slice(data);
                    copied.at = copied.data.len();
                }
                None => copied.settle(),
            },
        }
    }

    /// Holds this part of a budget for as long as something is kept.
    fn hold(&self, part: Part) {
        self.0.borrow_mut().part = Some(part);
    }

    fn tell(&self, frame: &Frame) {
        self.0.borrow().taps.iter().for_each(|tap| tap.take(frame));
    }

    fn again(&self) -> Option<Frame> {
        let mut copied = self.0.borrow_mut();
        let rest = Bytes::copy_from_slice(&copied.data[copied.at..]);
        if !rest.is_empty() {
            copied.at = copied.data.len();
            copied.release();
            return Some(Frame::Data(rest));
        }
        let due = std::mem::take(&mut copied.trailers_due);
        let trailers = if due { copied.trailers.clone() } else { None };
        copied.release();
        trailers.map(Frame::Trailers)
    }

    fn rewind(&self) -> bool {
        let mut copied = self.0.borrow_mut();
        if copied.room.is_none() {
            return false;
        }
        copied.at = 0;
        copied.trailers_due = copied.trailers.is_some();
        true
    }

    fn has_more(&self) -> bool {
        self.0.borrow().has_more()
    }

    /// True where it can be given again from its start.
    pub fn is_whole(&self) -> bool {
        self.0.borrow().room.is_some()
    }

    fn len(&self) -> usize {
        self.0.borrow().data.len()
    }

    /// Keeps nothing more: there is an answer, so that the request is not sent again.
    pub fn settle(&self) {
        self.0.borrow_mut().settle();
    }
}

impl Copied {
    fn has_more(&self) -> bool {
        self.at < self.data.len() || self.trailers_due
    }

    fn settle(&mut self) {
        self.room = None;
        self.release();
    }

    /// Frees what will not be given again, which is all of it once that much was given.
    fn release(&mut self) {
        if self.room.is_none() && !self.has_more() {
            (self.data, self.trailers, self.at, self.part) = (BytesMut::new(), None, 0, None);
        }
    }
}
