//! Carries one message exchange, or one TCP tunnel, between its two sides: both directions at once, one frame at a
//! time, so that a slow reader holds up its writer and nothing is buffered in between.

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::{HeaderMap, HeaderValue, StatusCode};
use weft_transport::h3::Code;
use weft_transport::http::{Frame, RecvBody, Responder, ResponseRecv, SendBody, StreamError};

use crate::filtering::Filtered;
use crate::mesh;
use crate::telemetry::series::Counter;

/// What has passed in one direction. Written as it happens, so that a cancelled pump still tells.
#[derive(Debug, Default)]
pub struct Progress {
    pub bytes: Cell<u64>,
    pub grpc_status: Cell<Option<u16>>,
    /// True once any frame was taken from the source: from then on the request cannot be sent again.
    pub started: Cell<bool>,
    /// Counts bytes while they pass, for connections that live long.
    live: Option<Arc<Counter>>,
}

impl Progress {
    /// Counts into `counter` too, as bytes pass.
    pub fn live(counter: &Arc<Counter>) -> Self {
        Self { live: Some(Arc::clone(counter)), ..Self::default() }
    }

    fn moved(&self, bytes: usize) {
        self.started.set(true);
        self.bytes.set(self.bytes.get() + bytes as u64);
        if let Some(counter) = &self.live {
            counter.add(bytes as u64);
        }
    }
}

/// Which side a pump failed on.
#[derive(Debug)]
pub enum PumpError {
    /// The source ended early.
    Source(StreamError),
    /// The sink is gone.
    Sink(StreamError),
}

/// Moves a body from `from` to `to` until its clean end, trailers included. On failure the other side is told: the sink
/// is reset, or the source stopped.
pub async fn pump(from: &mut RecvBody<'_>, to: &mut SendBody<'_>, progress: &Progress) -> Result<(), PumpError> {
    let end = pump_frames(from, to, progress).await;
    match &end {
        Ok(()) => {}
        Err(PumpError::Source(_)) => to.reset(Code::REQUEST_CANCELLED),
        Err(PumpError::Sink(_)) => from.stop(Code::REQUEST_CANCELLED),
    }
    end
}

async fn pump_frames(from: &mut RecvBody<'_>, to: &mut SendBody<'_>, progress: &Progress) -> Result<(), PumpError> {
    loop {
        match next_frame(from, to).await? {
            Some(Frame::Data(data)) => {
                progress.moved(data.len());
                to.data(data).await.map_err(PumpError::Sink)?;
            }
            Some(Frame::Trailers(trailers)) => {
                progress.started.set(true);
                progress.grpc_status.set(grpc_status(&trailers).or(progress.grpc_status.get()));
                return to.finish(Some(trailers)).await.map_err(PumpError::Sink);
            }
            None => return to.finish(None).await.map_err(PumpError::Sink),
        }
    }
}

/// The next frame of `from`; where it is not there yet, `to` is flushed before the wait.
async fn next_frame(from: &mut RecvBody<'_>, to: &mut SendBody<'_>) -> Result<Option<Frame>, PumpError> {
    let mut frame = pin!(from.frame());
    let first = std::future::poll_fn(|cx| Poll::Ready(frame.as_mut().poll(cx))).await;
    if let Poll::Ready(frame) = first {
        return frame.map_err(PumpError::Source);
    }
    to.flush().await.map_err(PumpError::Sink)?;
    frame.await.map_err(PumpError::Source)
}

/// `grpc-status` of a trailer or trailers-only header block.
pub fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// What [`exchange`] needs to know about a request beyond its bytes.
pub struct Terms<'t, 'f> {
    /// Filters that look at the response head.
    pub filtered: &'t mut Filtered<'f>,
    /// Told the status that the client is sent.
    pub status: &'t Cell<Option<StatusCode>>,
    /// A gRPC call: a response that breaks off ends with a status in trailers, not with a reset.
    pub grpc: bool,
}

/// How an exchange failed.
#[derive(Debug)]
pub enum ExchangeError {
    /// No final head reached the client: it can still be answered. `unprocessed`: or sent again.
    Unanswered { error: StreamError, unprocessed: bool },
    /// The answer broke off after its head was sent.
    Broken(StreamError),
    /// The client went away.
    ClientGone,
}

/// Carries one request body up and its answer down, both at once. `responder` is taken when the final head is sent.
pub async fn exchange(
    (body, responder): (&mut RecvBody<'_>, &mut Option<Responder<'_>>),
    (mut up, mut answer): (SendBody<'_>, ResponseRecv<'_>),
    terms: Terms<'_, '_>,
    (sent, received): (&Progress, &Progress),
) -> Result<(), ExchangeError> {
    let mut upload = Upload::start(body, &mut up, sent);
    let end = {
        let mut head = loop {
            let head = upload.race(pin!(unless_gone(pin!(answer.head()), responder.as_mut()))).await??;
            let head = head.map_err(|e| ExchangeError::Unanswered { error: e.error, unprocessed: e.unprocessed })?;
            if !head.status.is_informational() {
                break head;
            }
            if let Some(responder) = responder.as_mut() {
                responder.interim(&head).await.map_err(|_| ExchangeError::ClientGone)?;
            }
        };
        received.grpc_status.set(grpc_status(&head.headers));
        mesh::strip_response(&mut head.headers);
        let replaced = terms.filtered.response(&mut head).await;
        terms.status.set(Some(head.status));
        let mut source = answer.into_body();
        let responder = responder.take().expect("a response has one final head");
        if let Some(body) = replaced {
            source.stop(Code::REQUEST_CANCELLED);
            received.bytes.set(body.len() as u64);
            let sink = responder.head(&head, body.is_empty()).await.map_err(|_| ExchangeError::ClientGone)?;
            let sent = if body.is_empty() { Ok(()) } else { send_all(sink, body).await };
            return sent.map_err(|_| ExchangeError::ClientGone);
        }
        let ended = source.is_end();
        let mut sink = responder.head(&head, ended).await.map_err(|_| ExchangeError::ClientGone)?;
        if ended {
            Ok(())
        } else {
            let download = download(&mut source, &mut sink, received, terms.grpc);
            upload.race(pin!(download)).await?
        }
    };
    if upload.abandon() {
        up.reset(Code::NO_ERROR);
        body.stop(Code::NO_ERROR);
    }
    end
}

/// Waits for `head`, but not on behalf of a client that has gone: dropping the streams then cancels the request.
async fn unless_gone<T>(
    head: Pin<&mut impl Future<Output = T>>,
    responder: Option<&mut Responder<'_>>,
) -> Result<T, ExchangeError> {
    let Some(responder) = responder else { return Ok(head.await) };
    match select(head, pin!(responder.gone())).await {
        Either::Left((head, _)) => Ok(head),
        Either::Right(((), _)) => Err(ExchangeError::ClientGone),
    }
}

/// The request body on its way up, beside the answer. Boxed: most requests have none, and it is most of an exchange.
enum Upload<'u> {
    Running(Pin<Box<dyn Future<Output = Result<(), PumpError>> + 'u>>),
    Done,
}

impl<'u> Upload<'u> {
    fn start(body: &'u mut RecvBody<'_>, up: &'u mut SendBody<'_>, sent: &'u Progress) -> Self {
        if body.is_end() { Upload::Done } else { Upload::Running(Box::pin(pump(body, up, sent))) }
    }

    /// Drives the upload while waiting for `other`. A sink that takes no more (early answer) ends the upload, not the
    /// exchange.
    async fn race<F: Future>(&mut self, mut other: Pin<&mut F>) -> Result<F::Output, ExchangeError> {
        std::future::poll_fn(|cx| {
            if let Upload::Running(upload) = self
                && let Poll::Ready(end) = upload.as_mut().poll(cx)
            {
                *self = Upload::Done;
                if let Err(PumpError::Source(_)) = end {
                    return Poll::Ready(Err(ExchangeError::ClientGone));
                }
            }
            other.as_mut().poll(cx).map(Ok)
        })
        .await
    }

    /// Gives up what is not done; true where there was something to give up.
    fn abandon(self) -> bool {
        matches!(self, Upload::Running(_))
    }
}

/// Carries the response body to the client.
async fn download(
    from: &mut RecvBody<'_>,
    to: &mut SendBody<'_>,
    progress: &Progress,
    grpc: bool,
) -> Result<(), ExchangeError> {
    match pump_frames(from, to, progress).await {
        Ok(()) => Ok(()),
        Err(PumpError::Sink(_)) => {
            from.stop(Code::REQUEST_CANCELLED);
            Err(ExchangeError::ClientGone)
        }
        Err(PumpError::Source(error)) if grpc => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("14"));
            trailers
                .insert("grpc-message", crate::reply::percent_encode(&format!("weft: the answer broke off: {error}")));
            progress.grpc_status.set(Some(14));
            let _ = to.finish(Some(trailers)).await;
            Err(ExchangeError::Broken(error))
        }
        Err(PumpError::Source(error)) => {
            to.reset(if let StreamError::Reset(code) = error { code } else { Code::INTERNAL_ERROR });
            Err(ExchangeError::Broken(error))
        }
    }
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TunnelEnd {
    /// Both directions finished.
    Finished,
    /// The side that opened the tunnel broke it.
    ClientLost,
    /// The side it was opened to broke it.
    ServerLost,
    /// Nothing moved for the idle timeout.
    Idle,
}

impl TunnelEnd {
    pub fn as_str(self) -> &'static str {
        match self {
            TunnelEnd::Finished => "finished",
            TunnelEnd::ClientLost => "client lost",
            TunnelEnd::ServerLost => "server lost",
            TunnelEnd::Idle => "idle timeout",
        }
    }
}

/// Carries raw bytes both ways until both sides have finished (half-close is passed on), one breaks, or it idles out.
pub async fn tunnel(
    client: (&mut RecvBody<'_>, &mut SendBody<'_>),
    server: (&mut RecvBody<'_>, &mut SendBody<'_>),
    (up, down): (&Progress, &Progress),
    idle: Duration,
) -> TunnelEnd {
    let end = {
        let both = async {
            let upload = pin!(pump(client.0, server.1, up));
            let download = pin!(pump(server.0, client.1, down));
            match select(upload, download).await {
                Either::Left((Ok(()), download)) => download.await.map_or_else(download_end, |()| TunnelEnd::Finished),
                Either::Right((Ok(()), upload)) => upload.await.map_or_else(upload_end, |()| TunnelEnd::Finished),
                Either::Left((Err(error), _)) => upload_end(error),
                Either::Right((Err(error), _)) => download_end(error),
            }
        };
        let moved = || up.bytes.get() + down.bytes.get();
        let watch = async {
            let mut seen = moved();
            loop {
                tokio::time::sleep(idle).await;
                if std::mem::replace(&mut seen, moved()) == moved() {
                    return TunnelEnd::Idle;
                }
            }
        };
        match select(pin!(both), pin!(watch)).await {
            Either::Left((end, _)) | Either::Right((end, _)) => end,
        }
    };
    if end != TunnelEnd::Finished {
        client.1.reset(Code::CONNECT_ERROR);
        client.0.stop(Code::CONNECT_ERROR);
        server.1.reset(Code::CONNECT_ERROR);
        server.0.stop(Code::CONNECT_ERROR);
    }
    end
}

fn upload_end(error: PumpError) -> TunnelEnd {
    match error {
        PumpError::Source(_) => TunnelEnd::ClientLost,
        PumpError::Sink(_) => TunnelEnd::ServerLost,
    }
}

fn download_end(error: PumpError) -> TunnelEnd {
    match error {
        PumpError::Source(_) => TunnelEnd::ServerLost,
        PumpError::Sink(_) => TunnelEnd::ClientLost,
    }
}

/// Sends a whole small body and ends the message.
pub async fn send_all(mut to: SendBody<'_>, body: Bytes) -> Result<(), StreamError> {
    to.data(body).await?;
    to.finish(None).await
}
