//! A body that is gathered before anything of it is sent, for a filter that judges it whole. What is gathered counts into a
//! budget until it was given on, and again while it is kept to be sent once more.

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderValue};
use weft_transport::http::{Frame, StreamError};

use super::Source;
use crate::quota::Part;

/// Bytes of it that are given on at a time.
const PIECE: usize = 64 * 1_024;

/// What was gathered of a body, and is given on before the rest.
#[derive(Debug)]
pub(super) struct Front {
    data: Bytes,
    trailers: Option<HeaderMap>,
    /// Nothing follows.
    is_whole: bool,
    room: Part,
}

/// What came of gathering a body.
#[derive(Debug)]
pub enum Gathering {
    Whole(Bytes),
    /// It has more bytes than may be gathered; it goes on from its start.
    TooLong,
}

/// Why a body could not be gathered.
#[derive(Debug)]
pub enum Ungathered {
    /// It broke off.
    Broken(StreamError),
    /// The budget is used up.
    NoRoom,
}

impl Front {
    pub(super) fn is_end(&self) -> bool {
        self.is_whole && self.data.is_empty() && self.trailers.is_none()
    }

    pub(super) fn len(&self) -> usize {
        self.data.len()
    }

    fn next(&mut self) -> Option<Frame> {
        if self.data.is_empty() {
            return self.trailers.take().map(Frame::Trailers);
        }
        let piece = self.data.split_to(self.data.len().min(PIECE));
        if self.data.is_empty() {
            self.room.clear();
        }
        Some(Frame::Data(piece))
    }
}

impl Source<'_> {
    /// Reads the body until its end, or until there is more of it than `most` bytes. Before the first frame is taken only. A
    /// body that has none is whole at once. Dropped before its end, it has lost what it read. `room`: a part of the budget
    /// that it is to count into.
    ///
    /// # Errors
    /// It broke off, or there is no room for it.
    pub async fn gather(&mut self, most: usize, room: impl FnOnce() -> Part) -> Result<Gathering, Ungathered> {
        let Front { data, mut trailers, mut is_whole, mut room } = match self.front.take() {
            Some(front) => *front,
            None => Front { data: Bytes::new(), trailers: None, is_whole: self.is_end(), room: room() },
        };
        let mut data = BytesMut::from(data);
        while !is_whole && data.len() <= most {
            match self.raw().await.map_err(Ungathered::Broken)? {
                Some(Frame::Data(piece)) => {
                    if !room.grow(piece.len() as u64) {
                        return Err(Ungathered::NoRoom);
                    }
                    data.extend_from_slice(&piece);
                }
                Some(Frame::Trailers(fields)) => (trailers, is_whole) = (Some(fields), true),
                None => is_whole = true,
            }
        }
        let data = data.freeze();
        let is_short = is_whole && data.len() <= most;
        self.front = Some(Box::new(Front { data: data.clone(), trailers, is_whole, room }));
        Ok(if is_short { Gathering::Whole(data) } else { Gathering::TooLong })
    }

    /// Has `body` sent in place of what was gathered whole, and its length said in the head where it is another. What is sent
    /// can be sent again, as long as the budget has room for the copy.
    pub fn send_as(&mut self, body: Bytes, headers: &mut HeaderMap) {
        let Some(front) = self.front.as_mut().filter(|front| front.is_whole) else { return };
        let is_same = front.data.len() == body.len() && (body.is_empty() || front.data.as_ptr() == body.as_ptr());
        if !is_same {
            // With trailers there is no saying it; without a body the codec knows whether to say so.
            if body.is_empty() || front.trailers.is_some() {
                headers.remove(CONTENT_LENGTH);
            } else {
                headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
            }
        }
        let length = body.len();
        front.data = body;
        if self.limit > 0
            && let Some(copy) = front.room.another(length as u64)
        {
            self.limit = self.limit.max(length);
            self.kept().hold(copy);
        }
    }

    /// The next frame as it came: first what was gathered. Cancel safe.
    pub(super) async fn raw(&mut self) -> Result<Option<Frame>, StreamError> {
        if let Some(ahead) = self.ahead.take() {
            return ahead.map(Some);
        }
        if let Some(front) = &mut self.front {
            if let Some(frame) = front.next() {
                return Ok(Some(frame));
            }
            if front.is_whole {
                return Ok(None);
            }
            self.front = None;
        }
        match &mut self.made {
            None => self.body.frame().await,
            Some(parts) => match parts.next().await {
                Some(Ok(part)) => Ok(Some(Frame::Data(part))),
                None => {
                    self.made = None;
                    Ok(None)
                }
                Some(Err(cut)) => {
                    self.cut = Some(cut);
                    // Whoever asks again hears no end.
                    self.made = Some(futures_util::stream::pending().boxed_local());
                    Err(StreamError::Protocol("a filter ended the stream"))
                }
            },
        }
    }
}
