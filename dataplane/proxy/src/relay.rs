//! Carries one message exchange, or one TCP tunnel, between its two sides: both directions at once, one frame at a
//! time, so that a slow reader holds up its writer and nothing is buffered in between. While a direction is quiet its
//! reader is watched, so that whoever leaves is noticed.

mod following;
mod gathered;
mod own;
mod source;
#[cfg(test)]
mod tests;
mod tunnel;
mod upload;

use std::cell::Cell;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{Either, select};
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use weft_filter_host::Cut;
use weft_transport::http::{Frame, Responder, ResponseHead, ResponseRecv, SendBody, SendError, StreamError};
use weft_transport::mesh::Code;

pub use own::{NotTaken, answer, stream};
pub use source::{Gathering, Kept, Source, Stage, Ungathered};
pub use tunnel::{TunnelEnd, cut, tunnel};

use following::trailers_discard;
use gathered::Gathered;
use own::replace;
use upload::{GivenUp, Upload};

use crate::alarms::Alarms;
use crate::filtering::{Filtered, Unjudged};
use crate::mesh;
use crate::reply::{Failure, WEFT_REPLY, WEFT_UNSERVED, told};
use crate::stalls::{Load, Pace, Stalled, Stalls};
use crate::telemetry::series::Counter;
use crate::trial::{Again, Begun, End, Ends, Flow, Kind};

/// Bytes and gRPC status that have passed in one direction. Written as they pass, so that a cancelled pump still tells.
#[derive(Debug, Default)]
pub struct Progress {
    /// Of the attempt that came furthest: what is sent again is the same bytes.
    pub bytes: Cell<u64>,
    /// Of the attempt under way.
    of_attempt: Cell<u64>,
    pub grpc_status: Cell<Option<u16>>,
    /// Counts bytes while they pass, for connections that live long.
    live: Option<Arc<Counter>>,
}

impl Progress {
    /// Counts into `counter` too, as bytes pass.
    pub fn live(counter: &Arc<Counter>) -> Self {
        Self { live: Some(Arc::clone(counter)), ..Self::default() }
    }

    /// All of it is sent again.
    pub fn begin_again(&self) {
        self.of_attempt.set(0);
    }

    fn moved(&self, bytes: usize) {
        self.of_attempt.set(self.of_attempt.get() + bytes as u64);
        self.bytes.set(self.bytes.get().max(self.of_attempt.get()));
        if let Some(counter) = &self.live {
            counter.add(bytes as u64);
        }
    }
}

/// Which side a pump failed on.
#[derive(Debug)]
enum PumpError {
    /// The source ended early.
    Source(StreamError),
    /// A filter that looks at the source ended it.
    Cut(Box<Cut>),
    /// The sink is gone.
    Sink,
    /// The sink took nothing for too long, and was reset.
    Stalled(Stalled),
}

impl From<Stalled> for PumpError {
    fn from(stalled: Stalled) -> Self {
        PumpError::Stalled(stalled)
    }
}

/// Moves a body from `from` to `to` until its clean end, trailers included. A source that breaks off aborts the sink behind
/// what it was given. A sink that takes no more leaves the source as it is: what nobody processed is sent again from there.
async fn pump(
    from: &mut Source<'_>,
    to: &mut SendBody<'_>,
    progress: &Progress,
    stalls: &Stalls,
) -> Result<(), PumpError> {
    let end = pump_frames(from, to, progress, stalls).await;
    match &end {
        Err(PumpError::Source(_) | PumpError::Cut(_)) => to.abort(Code::REQUEST_CANCELLED).await,
        Err(PumpError::Stalled(_)) => to.reset(Code::EXCESSIVE_LOAD),
        Err(PumpError::Sink) | Ok(()) => {}
    }
    end
}

async fn pump_frames(
    from: &mut Source<'_>,
    to: &mut SendBody<'_>,
    progress: &Progress,
    stalls: &Stalls,
) -> Result<(), PumpError> {
    let mut gathered = Gathered::default();
    let books = &Books { stalls, pace: Pace::default() };
    loop {
        // Frames that are here already may be many: others have their turn in between.
        tokio::task::coop::consume_budget().await;
        match next_frame(from, to, &mut gathered, books).await {
            Ok(Some(Frame::Data(data))) => {
                progress.moved(data.len());
                if !gathered.takes(&data) {
                    give(from, to, gathered.take(), books).await?;
                }
                if gathered.takes(&data) {
                    gathered.add(data);
                } else {
                    give(from, to, data, books).await?;
                }
            }
            Ok(Some(Frame::Trailers(mut trailers))) => {
                mesh::strip(&mut trailers);
                progress.grpc_status.set(grpc_status(&trailers).or(progress.grpc_status.get()));
                give(from, to, gathered.take(), books).await?;
                return finish(to, Some(trailers), stalls).await;
            }
            Ok(None) => {
                give(from, to, gathered.take(), books).await?;
                return finish(to, None, stalls).await;
            }
            Err(error) => {
                give(from, to, gathered.take(), books).await?;
                return Err(error);
            }
        }
    }
}

/// The account of what a direction holds, and how far behind its receiver is.
struct Books<'s> {
    stalls: &'s Stalls,
    pace: Pace,
}

/// Hands `data` to the sink.
async fn give(from: &mut Source<'_>, to: &mut SendBody<'_>, data: Bytes, books: &Books<'_>) -> Result<(), PumpError> {
    if data.is_empty() {
        return Ok(());
    }
    let load = Load { moves: data.len(), held: from.held() + to.held() + data.len() };
    let written = pin!(to.data(data));
    let written = pin!(from.reading_ahead(written));
    books.stalls.unless_reset(&books.pace, load, written).await?.map_err(|_| PumpError::Sink)
}

/// Bytes that may still wait to be written when an exchange is over.
const LITTLE: usize = 16 * 1_024;

/// Ends a message, and stays with it until most of it has been written.
async fn finish(to: &mut SendBody<'_>, trailers: Option<HeaderMap>, stalls: &Stalls) -> Result<(), PumpError> {
    stalls.once(to.held(), pin!(to.finish(trailers))).await?.map_err(|_| PumpError::Sink)?;
    let held = to.held();
    if held > LITTLE {
        stalls.once(held, pin!(to.written())).await?;
    }
    Ok(())
}

/// The next frame of `from`. If it is not there yet, `to` is given what was gathered and flushed before the wait, and the
/// wait ends when the reader of `to` has gone.
async fn next_frame(
    from: &mut Source<'_>,
    to: &mut SendBody<'_>,
    gathered: &mut Gathered,
    books: &Books<'_>,
) -> Result<Option<Frame>, PumpError> {
    let first = {
        let mut frame = pin!(from.frame());
        std::future::poll_fn(|cx| Poll::Ready(frame.as_mut().poll(cx))).await
    };
    if let Poll::Ready(frame) = first {
        return frame.map_err(|error| broken(from, error));
    }
    give(from, to, gathered.take(), books).await?;
    let load = Load { moves: to.held(), held: from.held() + to.held() };
    {
        let flushed = pin!(to.flush());
        let flushed = pin!(from.reading_ahead(flushed));
        books.stalls.unless_reset(&books.pace, load, flushed).await?.map_err(|_| PumpError::Sink)?;
    }
    let next = match select(pin!(from.frame()), pin!(to.gone())).await {
        Either::Left((frame, _)) => Some(frame),
        Either::Right(((), _)) => None,
    };
    next.ok_or(PumpError::Sink)?.map_err(|error| broken(from, error))
}

/// Why `from` gives no more.
fn broken(from: &mut Source<'_>, error: StreamError) -> PumpError {
    from.take_cut().map_or(PumpError::Source(error), PumpError::Cut)
}

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// `grpc-status` of a trailer or trailers-only header block.
pub fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// True where a proxy answers in its own name that the time of a request is over. `grpc`: the status in this head.
fn is_late(head: &ResponseHead, grpc: Option<u16>) -> bool {
    // DEADLINE_EXCEEDED.
    let says_late = head.status == StatusCode::GATEWAY_TIMEOUT || grpc == Some(4);
    says_late && head.headers.contains_key(WEFT_REPLY)
}

/// The final head of an answer.
#[derive(Debug, Clone, Copy)]
pub struct Answered {
    /// The status with which it came, whatever filters made of it.
    pub own: StatusCode,
    /// When it came.
    pub at: Instant,
    /// The status that the client is sent.
    pub sent: StatusCode,
    /// A peer's proxy says in its own name that the time of the request is over.
    pub late: bool,
}

/// Facts about a request that [`exchange`] needs beyond its bytes.
pub struct Terms<'t, 'f> {
    /// Filters that look at the response head.
    pub filtered: &'t mut Filtered<'f>,
    /// Told the head of the answer, as it came and as the client is sent it.
    pub status: &'t Cell<Option<Answered>>,
    /// The answer comes from a peer's proxy, which may answer in its own name.
    pub from_peer: bool,
    /// A gRPC call whose client reads trailers: a response that breaks off ends with a status, not with an abort.
    pub grpc: bool,
    /// The request asks for an upgrade: nothing of the client's stream is carried before the 101.
    pub upgrade: bool,
    /// The client sends its body only after a 100: a final answer before that ends the upload.
    pub expects: bool,
    /// Says which answers nobody is given, since another attempt follows.
    pub again: Option<&'t dyn Again>,
    /// The final head, where it has come already.
    pub received: Option<&'t Cell<Option<ResponseHead>>>,
    /// Told of the answer that is not discarded.
    pub begun: Option<&'t dyn Begun>,
    /// When the final head has to be there. A gRPC answer that goes on beyond its end is cut with a status, as far as its
    /// client's protocol has one for it.
    pub ends: Ends,
    /// Told what the answer is.
    pub flow: Option<&'t Flow>,
    pub idle: Idle<'t>,
}

impl Terms<'_, '_> {
    fn answered(&self, answered: Answered) {
        self.status.set(Some(answered));
        if let Some(begun) = self.begun {
            begun.begun(answered.own, answered.at);
        }
    }
}

/// How long nothing may move, and where what waits meanwhile has its timers and is accounted for.
#[derive(Debug, Clone, Copy)]
pub struct Idle<'w> {
    /// In a tunnel.
    pub tunnel: Duration,
    /// In a request body whose answer is complete already.
    pub late_upload: Duration,
    /// In an answer of the proxy's own.
    pub own_answer: Duration,
    pub alarms: &'w Alarms,
    pub stalls: &'w Stalls,
}

#[cfg(test)]
impl<'w> Idle<'w> {
    pub(crate) fn of(all: Duration, (alarms, stalls): (&'w Alarms, &'w Stalls)) -> Self {
        Self { tunnel: all, late_upload: all, own_answer: all, alarms, stalls }
    }
}

/// How an exchange failed.
#[derive(Debug)]
pub enum ExchangeError {
    /// No final head reached the client: it can still be answered.
    Unanswered(SendError),
    /// The peer's proxy answers that its app did not see the request, and why.
    Unserved(String),
    /// The answer broke off after its head was sent.
    Broken(StreamError),
    /// One of its directions stalled for too long.
    Stalled(Stalled),
    /// The client went away.
    ClientGone,
    /// No final head in the time of an attempt, or a gRPC answer that was cut at its end.
    Late(Failure),
    /// The answer is not passed on: another attempt follows.
    Discarded(StatusCode),
    /// A filter ended it, or could not be given what it judges by.
    Filter(Failure),
}

impl From<Unjudged> for ExchangeError {
    fn from(unjudged: Unjudged) -> Self {
        match unjudged {
            Unjudged::Ended(failure) => ExchangeError::Filter(failure),
            Unjudged::Broken(error) => ExchangeError::Unanswered(SendError { error, unprocessed: false }),
        }
    }
}

/// Carries one request body up and its answer down, both at once. `responder` is taken when the final head is sent.
pub async fn exchange(
    (body, responder): (&mut Source<'_>, &mut Option<Responder<'_>>),
    (mut up, mut answer): (SendBody<'_>, ResponseRecv<'_>),
    mut terms: Terms<'_, '_>,
    (sent, received): (&Progress, &Progress),
) -> Result<(), ExchangeError> {
    let kept = (!body.is_end()).then(|| body.kept());
    let mut upload = if terms.upgrade { Upload::Done } else { Upload::start(body, &mut up, sent, terms.idle.stalls) };
    let head = final_head(&mut upload, &mut answer, responder, &mut terms).await;
    let mut head = match head {
        Ok(head) => head,
        Err(error) => {
            upload.give_up();
            return Err(error);
        }
    };
    let mut answer = Source::once(answer.into_body());
    let again = terms.again.filter(|_| responder.is_some() && kept.as_ref().is_none_or(Kept::is_whole));
    if again.is_some() && !terms.from_peer {
        // Only proxies say this.
        head.headers.remove(WEFT_REPLY);
    }
    if let Some(again) = again
        && (again.discards(&head) || trailers_discard(again, kept.as_ref(), (&mut upload, &head), &mut answer).await?)
    {
        upload.give_up();
        return Err(ExchangeError::Discarded(head.status));
    }
    if let Some(kept) = kept {
        kept.settle();
    }
    if matches!(upload, Upload::Refused) {
        // The app answers without the rest of the body: the client is told before it is answered.
        drop(upload);
        body.stop(Code::NO_ERROR);
        return respond(head, &mut Upload::Done, answer, responder, &mut terms, received).await;
    }
    let end = match (head.status, terms.upgrade) {
        (StatusCode::SWITCHING_PROTOCOLS, true) => {
            drop(upload);
            let down = (answer, responder);
            return Box::pin(switched(head, body, &mut up, down, &terms, (sent, received))).await;
        }
        _ => respond(head, &mut upload, answer, responder, &mut terms, received).await,
    };
    match end {
        // The app may answer early and read on. What its client would be asked for never comes, unless it did not wait.
        Ok(()) if upload.is_running() && !(terms.expects && sent.bytes.get() == 0) => {
            let end = upload.finish(sent, terms.idle.late_upload).await;
            if !body.is_end() {
                body.stop(Code::NO_ERROR);
            }
            end
        }
        end => {
            match upload.give_up() {
                GivenUp::Running => {
                    up.reset(Code::REQUEST_CANCELLED);
                    body.stop(Code::NO_ERROR);
                }
                GivenUp::Refused => body.stop(Code::NO_ERROR),
                GivenUp::Nothing => {}
            }
            end
        }
    }
}

/// Waits for the final head, passing on interim ones; not on behalf of a client that has gone.
async fn final_head(
    upload: &mut Upload<'_>,
    answer: &mut ResponseRecv<'_>,
    responder: &mut Option<Responder<'_>>,
    terms: &mut Terms<'_, '_>,
) -> Result<ResponseHead, ExchangeError> {
    loop {
        let mut head = if let Some(head) = terms.received.and_then(Cell::take) {
            head
        } else {
            let awaited = pin!(answer.head());
            let awaited = pin!(in_time(terms.ends.whole, terms.idle.alarms, awaited));
            let head = upload.race(pin!(unless_gone(awaited, responder.as_mut()))).await??;
            head.map_err(ExchangeError::Late)?.map_err(ExchangeError::Unanswered)?
        };
        if terms.from_peer && head.headers.contains_key(WEFT_UNSERVED) {
            return Err(ExchangeError::Unserved(told(&head.headers).to_owned()));
        }
        if !head.status.is_informational() || terms.upgrade && head.status == StatusCode::SWITCHING_PROTOCOLS {
            return Ok(head);
        }
        terms.expects &= head.status != StatusCode::CONTINUE;
        mesh::strip_response(&mut head.headers, false);
        let told = if let Some(responder) = responder.as_mut() {
            // Boxed: few answers have any.
            let mut told = Box::pin(responder.interim(&head));
            let told = tell(terms.idle.stalls, answer.held(), told.as_mut());
            upload.race(pin!(told)).await?
        } else {
            Ok(())
        };
        if let Err(error) = told {
            // It reads nothing, so it is told nothing more.
            responder.take().map(|responder| responder.reset(Code::EXCESSIVE_LOAD));
            return Err(error);
        }
    }
}

/// Waits for `awaited`, but not beyond the end of an attempt.
pub async fn in_time<F: Future>(
    attempt: Option<End>,
    alarms: &Alarms,
    awaited: Pin<&mut F>,
) -> Result<F::Output, Failure> {
    Ends { whole: attempt, stream: None }.bound(alarms, None, awaited).await
}

/// Waits for the client to take what it is told, while an answer that may hold `held` bytes waits behind it.
async fn tell<T>(
    stalls: &Stalls,
    held: usize,
    told: Pin<&mut impl Future<Output = Result<T, StreamError>>>,
) -> Result<T, ExchangeError> {
    let told = stalls.once(held, told).await.map_err(ExchangeError::Stalled)?;
    told.map_err(|_| ExchangeError::ClientGone)
}

/// The client of a request left before it was answered.
#[derive(Debug)]
pub struct ClientGone;

impl From<ClientGone> for ExchangeError {
    fn from(ClientGone: ClientGone) -> Self {
        ExchangeError::ClientGone
    }
}

/// Waits for `awaited`, but not on behalf of a client that has gone: dropping the streams then cancels the request.
pub async fn unless_gone<T>(
    awaited: Pin<&mut impl Future<Output = T>>,
    responder: Option<&mut Responder<'_>>,
) -> Result<T, ClientGone> {
    let Some(responder) = responder else { return Ok(awaited.await) };
    match select(awaited, pin!(responder.gone())).await {
        Either::Left((awaited, _)) => Ok(awaited),
        Either::Right(((), _)) => Err(ClientGone),
    }
}

/// Sends the final head and the body behind it to the client.
async fn respond(
    mut head: ResponseHead,
    upload: &mut Upload<'_>,
    mut source: Source<'_>,
    responder: &mut Option<Responder<'_>>,
    terms: &mut Terms<'_, '_>,
    received: &Progress,
) -> Result<(), ExchangeError> {
    let grpc = grpc_status(&head.headers);
    received.grpc_status.set(grpc);
    let http1 = !matches!(responder, Some(Responder::H2(_)));
    let late = terms.from_peer && is_late(&head, grpc);
    mesh::strip_response(&mut head.headers, http1);
    let (own, at, kind) = (head.status, Instant::now(), Kind::of(&head.headers));
    terms.filtered.edit(&mut head);
    let replaced = match terms.filtered.judges_answers() {
        // Boxed: rare, and larger than all the rest.
        true => Box::pin(judged(&mut head, &mut source, upload, responder, terms)).await?,
        false => None,
    };
    terms.answered(Answered { own, at, sent: head.status, late });
    let responder = responder.take().expect("a response has one final head");
    let stalls = terms.idle.stalls;
    if let Some(body) = replaced {
        source.stop(Code::REQUEST_CANCELLED);
        return Box::pin(replace(&head, body, responder, stalls, received)).await;
    }
    if let Some(flow) = terms.flow {
        flow.begins(kind);
    }
    let ended = source.is_end();
    if !ended && terms.filtered.look_at_answer(&mut source) {
        head.headers.remove(CONTENT_LENGTH);
    }
    let mut sink = {
        let (held, written) = (source.held(), pin!(responder.head(&head, ended)));
        tell(stalls, held, pin!(source.reading_ahead(written))).await?
    };
    if ended {
        return Ok(());
    }
    let end = {
        let download = pin!(download(&mut source, &mut sink, received, terms));
        upload.race(download).await.and_then(std::convert::identity)
    };
    if let Err(ExchangeError::Filter(_)) = end {
        // Whichever direction it ended: the other never looks complete.
        sink.reset(Code::INTERNAL_ERROR);
        source.stop(Code::REQUEST_CANCELLED);
    }
    end
}

/// Has the filters judge an answer, as long as its client waits; the upload goes on meanwhile.
async fn judged(
    head: &mut ResponseHead,
    source: &mut Source<'_>,
    upload: &mut Upload<'_>,
    responder: &mut Option<Responder<'_>>,
    terms: &mut Terms<'_, '_>,
) -> Result<Option<Bytes>, ExchangeError> {
    let judged = {
        let judging = pin!(terms.filtered.response(head, source));
        upload.race(pin!(unless_gone(judging, responder.as_mut()))).await??
    };
    if judged.is_err() {
        source.stop(Code::REQUEST_CANCELLED);
    }
    judged.map_err(ExchangeError::from)
}

/// Goes on as a tunnel after the app's 101.
async fn switched(
    mut head: ResponseHead,
    body: &mut Source<'_>,
    up: &mut SendBody<'_>,
    (mut source, responder): (Source<'_>, &mut Option<Responder<'_>>),
    terms: &Terms<'_, '_>,
    (sent, received): (&Progress, &Progress),
) -> Result<(), ExchangeError> {
    mesh::strip_response(&mut head.headers, true);
    terms.answered(Answered { own: head.status, at: Instant::now(), sent: head.status, late: false });
    let responder = responder.take().expect("a response has one final head");
    let (stalls, held) = (terms.idle.stalls, source.held());
    let mut sink = tell(stalls, held, pin!(responder.head(&head, false))).await?;
    tell(stalls, held, pin!(sink.flush())).await?;
    match Box::pin(tunnel((body, &mut sink), (&mut source, up), (sent, received), terms.idle)).await {
        TunnelEnd::Finished | TunnelEnd::Idle => Ok(()),
        TunnelEnd::Stalled(stalled) => Err(ExchangeError::Stalled(stalled)),
        TunnelEnd::ClientLost => Err(ExchangeError::ClientGone),
        TunnelEnd::ServerLost => Err(ExchangeError::Broken(StreamError::Truncated)),
        TunnelEnd::Cut(cut) => Err(ExchangeError::Filter(Failure::FilterCut(cut))),
    }
}

/// Carries the response body to the client.
async fn download(
    from: &mut Source<'_>,
    to: &mut SendBody<'_>,
    progress: &Progress,
    terms: &Terms<'_, '_>,
) -> Result<(), ExchangeError> {
    // Only HTTP/2 can end a message in the middle of one of its pieces.
    let is_cut = terms.grpc && terms.ends.are_some() && matches!(to, SendBody::H2(_));
    let untold = Flow::default();
    let flow = terms.flow.unwrap_or(&untold);
    let pumped = match is_cut || flow.waits_for_bytes() {
        // Boxed: most answers are no calls of gRPC.
        true => Box::pin(watched((from, to), progress, terms, (flow, is_cut))).await,
        false => Ok(pump_frames(from, to, progress, terms.idle.stalls).await),
    };
    let pumped = match pumped {
        Ok(pumped) => pumped,
        Err(late) => {
            from.stop(Code::REQUEST_CANCELLED);
            // DEADLINE_EXCEEDED.
            Box::pin(end_call(4, &format!("weft: {late}"), to, (progress, terms.idle.stalls))).await;
            return Err(ExchangeError::Late(late));
        }
    };
    match pumped {
        Ok(()) => Ok(()),
        Err(PumpError::Stalled(stalled)) => {
            to.reset(Code::EXCESSIVE_LOAD);
            from.stop(Code::REQUEST_CANCELLED);
            Err(ExchangeError::Stalled(stalled))
        }
        Err(PumpError::Sink) => {
            from.stop(Code::REQUEST_CANCELLED);
            Err(ExchangeError::ClientGone)
        }
        Err(PumpError::Cut(cut)) => Err(ExchangeError::Filter(Failure::FilterCut(cut))),
        // The app's own reset is the client's to see.
        Err(PumpError::Source(error)) if terms.grpc && !matches!(error, StreamError::Reset(_)) => {
            // UNAVAILABLE.
            let message = format!("weft: the answer broke off: {error}");
            Box::pin(end_call(14, &message, to, (progress, terms.idle.stalls))).await;
            Err(ExchangeError::Broken(error))
        }
        Err(PumpError::Source(error)) => {
            to.abort(if let StreamError::Reset(code) = error { code } else { Code::INTERNAL_ERROR }).await;
            Err(ExchangeError::Broken(error))
        }
    }
}

/// Carries it, and says as soon as bytes of it have come. `is_cut`: it ends with the time of its request.
async fn watched(
    (from, to): (&mut Source<'_>, &mut SendBody<'_>),
    progress: &Progress,
    terms: &Terms<'_, '_>,
    (flow, is_cut): (&Flow, bool),
) -> Result<Result<(), PumpError>, Failure> {
    let mut pump = pin!(pump_frames(from, to, progress, terms.idle.stalls));
    let pump = pin!(std::future::poll_fn(|cx| {
        let polled = pump.as_mut().poll(cx);
        if progress.of_attempt.get() > 0 {
            flow.moved();
        }
        polled
    }));
    match is_cut {
        true => terms.ends.bound(terms.idle.alarms, Some(flow), pump).await,
        false => Ok(pump.await),
    }
}

/// Ends a gRPC answer whose app did not end it, with the status that says why.
async fn end_call(status: u16, message: &str, to: &mut SendBody<'_>, (progress, stalls): (&Progress, &Stalls)) {
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from(status));
    trailers.insert("grpc-message", crate::reply::percent_encode(message));
    progress.grpc_status.set(Some(status));
    let _ = stalls.once(to.held(), pin!(to.finish(Some(trailers)))).await;
}
