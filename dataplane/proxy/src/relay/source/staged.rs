//! A body that somebody looks at, and may change, as it is read. A chunk is taken from the sender only when the last was
//! given on, so a slow receiver holds up both.

use std::collections::VecDeque;

use bytes::Bytes;
use http::HeaderMap;
use tokio::time::Instant;
use weft_filter_host::{Chunk, Cut};
use weft_transport::http::{Frame, StreamError};

use super::Source;

/// Looks at a body.
pub trait Stage {
    /// A chunk of it; `end`: nothing follows but trailers. Gives what goes on in its place.
    ///
    /// # Errors
    /// The stream ends here.
    fn data(&mut self, data: Bytes, end: bool) -> Result<Chunk, Box<Cut>>;

    /// What follows it.
    ///
    /// # Errors
    /// The stream ends here.
    fn trailers(&mut self, trailers: &mut HeaderMap) -> Result<(), Box<Cut>>;
}

/// A stage, and what it has let go on.
pub(super) struct Staged {
    stage: Box<dyn Stage>,
    /// Frames with the moment before which they do not leave.
    due: VecDeque<(Option<Instant>, Frame)>,
    has_ended: bool,
}

impl Staged {
    pub(super) fn is_end(&self) -> bool {
        self.has_ended && self.due.is_empty()
    }

    fn take_in(&mut self, frame: Option<Frame>) -> Result<(), Box<Cut>> {
        match frame {
            Some(Frame::Data(data)) => self.chunk(data, false),
            Some(Frame::Trailers(mut trailers)) => {
                self.has_ended = true;
                self.chunk(Bytes::new(), true)?;
                self.stage.trailers(&mut trailers)?;
                self.due.push_back((None, Frame::Trailers(trailers)));
                Ok(())
            }
            None => {
                self.has_ended = true;
                self.chunk(Bytes::new(), true)
            }
        }
    }

    fn chunk(&mut self, data: Bytes, end: bool) -> Result<(), Box<Cut>> {
        let Chunk { bytes, after } = self.stage.data(data, end)?;
        if !bytes.is_empty() {
            let leaves = (!after.is_zero()).then(|| Instant::now() + after);
            self.due.push_back((leaves, Frame::Data(bytes)));
        }
        Ok(())
    }
}

impl Source<'_> {
    /// Has `stage` look at all that is read from here on.
    pub fn through(&mut self, stage: Box<dyn Stage>) {
        self.stage = Some(Box::new(Staged { stage, due: VecDeque::new(), has_ended: false }));
    }

    /// Who ended it in the middle, where its stage did.
    pub fn take_cut(&mut self) -> Option<Box<Cut>> {
        self.cut.take()
    }

    /// The next frame that its stage lets go on. Cancel safe.
    pub(super) async fn staged(&mut self) -> Result<Option<Frame>, StreamError> {
        loop {
            let Some(staged) = &mut self.stage else { return self.raw().await };
            if let Some((leaves, _)) = staged.due.front() {
                if let Some(leaves) = leaves {
                    tokio::time::sleep_until(*leaves).await;
                }
                return Ok(staged.due.pop_front().map(|(_, frame)| frame));
            }
            if staged.has_ended {
                return Ok(None);
            }
            // A stage may swallow much of what is here already: others have their turn in between.
            tokio::task::coop::consume_budget().await;
            let frame = self.raw().await?;
            let Some(staged) = &mut self.stage else { return Ok(frame) };
            if let Err(cut) = staged.take_in(frame) {
                self.cut = Some(cut);
                return Err(StreamError::Protocol("a filter ended the stream"));
            }
        }
    }
}
