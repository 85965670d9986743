//! A copy on its streams: its body goes up as the request's is read, its answer is read to its end and dropped.

use std::cell::Cell;
use std::pin::pin;
use std::time::Instant;

use futures_util::future::{Either, select};
use http::StatusCode;
use weft_transport::http::{Frame, ResponseRecv, SendBody, SendError};
use weft_transport::mesh::Code;

use crate::copying::{Copied, Cut};
use crate::mesh;
use crate::reply::{Party, WEFT_UNSERVED, told};

/// Body bytes of a copy and of its answer.
#[derive(Debug, Default)]
pub(super) struct Moved {
    pub(super) up: Cell<u64>,
    pub(super) down: Cell<u64>,
}

/// Why a copy has no answer.
#[derive(Debug)]
pub(super) enum Broken {
    Cut(Cut),
    Unanswered(SendError),
    /// The peer's proxy says that its app did not see it, and why.
    Unserved(String),
}

/// Carries both directions at once; gives the status of the answer, and when its head came.
pub(super) async fn carry(
    (mut up, answer): (SendBody<'_>, ResponseRecv<'_>),
    party: Party,
    body: Option<&Copied>,
    moved: &Moved,
) -> Result<(StatusCode, Instant), Broken> {
    let reading = pin!(read(answer, party, moved));
    let Some(body) = body else { return reading.await };
    let uploading = pin!(upload(body, &mut up, moved));
    match select(uploading, reading).await {
        Either::Left((Ok(()), reading)) => reading.await,
        Either::Left((Err(cut), _)) => Err(Broken::Cut(cut)),
        // The app answered without the rest of the body.
        Either::Right((answered, _)) => answered,
    }
}

/// Sends the body until its end, or until the other side takes no more of it.
async fn upload(body: &Copied, up: &mut SendBody<'_>, moved: &Moved) -> Result<(), Cut> {
    let end = upload_frames(body, up, moved).await;
    if end.is_err() {
        up.reset(Code::REQUEST_CANCELLED);
    }
    end
}

async fn upload_frames(body: &Copied, up: &mut SendBody<'_>, moved: &Moved) -> Result<(), Cut> {
    loop {
        if !body.is_ready() {
            match select(pin!(up.flush()), pin!(body.cut())).await {
                Either::Left((Ok(()), _)) => {}
                Either::Left((Err(_), _)) => return Ok(()),
                Either::Right((cut, _)) => return Err(cut),
            }
        }
        let written = match body.frame().await? {
            Some(Frame::Data(data)) => {
                moved.up.set(moved.up.get() + data.len() as u64);
                match select(pin!(up.data(data)), pin!(body.cut())).await {
                    Either::Left((written, _)) => written,
                    Either::Right((cut, _)) => return Err(cut),
                }
            }
            Some(Frame::Trailers(mut trailers)) => {
                mesh::strip(&mut trailers);
                return up.finish(Some(trailers)).await.or(Ok(()));
            }
            None => return up.finish(None).await.or(Ok(())),
        };
        if written.is_err() {
            return Ok(());
        }
    }
}

async fn read(mut answer: ResponseRecv<'_>, party: Party, moved: &Moved) -> Result<(StatusCode, Instant), Broken> {
    let head = answer.final_head().await.map_err(Broken::Unanswered)?;
    if party == Party::Peer && head.headers.contains_key(WEFT_UNSERVED) {
        return Err(Broken::Unserved(told(&head.headers).to_owned()));
    }
    let at = Instant::now();
    let mut body = answer.into_body();
    let broken = |error| Broken::Unanswered(SendError { error, unprocessed: false });
    while let Some(frame) = body.frame().await.map_err(broken)? {
        if let Frame::Data(data) = frame {
            moved.down.set(moved.down.get() + data.len() as u64);
        }
    }
    Ok((head.status, at))
}
