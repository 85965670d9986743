//! HTTP/1 on raw sockets: an origin that follows a script for each request, and a client that follows steps. Each notes what it
//! saw of the other.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::h2;
use super::message::{self, Framing, Head, NoHead};
use super::seen::{Seen, body};
use super::wire::{End, PATIENCE, Wire};

/// A client that is done reads on for this long, and then leaves whatever comes.
const DRAIN: Duration = Duration::from_millis(250);

/// One thing that a client or an origin does.
#[derive(Debug, Clone)]
pub enum Act {
    Send(Vec<u8>),
    /// Piece by piece, with a pause behind each.
    Slowly(Vec<u8>, usize, Duration),
    Pause(Duration),
    /// FIN; the other direction goes on.
    Finish,
    /// RST, at once.
    Reset,
    /// FIN both ways.
    Close,
    /// A client reads the next answer; an origin reads the rest of the request's body.
    Read,
    /// Reads this many bytes, whatever they are, and notes them.
    Raw(usize),
    /// Reads all bytes up to the end, and notes them with how it ended.
    RawRest,
    /// A client reads what comes until there is no more, and notes nothing.
    Drain,
    /// A client waits until the origin has the head of this many requests in all.
    Arrived(usize),
    /// An origin notes whether the caller goes away within the usual patience.
    Gone,
}

/// Script of an origin for one request.
#[derive(Debug, Clone)]
pub struct Script {
    /// True if the body is read before anything else happens.
    pub whole: bool,
    pub acts: Vec<Act>,
}

impl Script {
    pub fn answer(bytes: impl Into<Vec<u8>>) -> Self {
        Self { whole: true, acts: vec![Act::Send(bytes.into())] }
    }
}

/// Scripts that an origin has still to play, and the messages that it has seen.
#[derive(Debug, Default)]
pub struct Stage {
    pub(super) scripts: VecDeque<Script>,
    pub(super) calls: VecDeque<h2::Script>,
    pub(super) seen: Vec<Seen>,
    pub(super) busy: usize,
    /// Counts exchanges. What one leaves behind may still be under way in the next, and is none of that.
    exchange: u64,
}

impl Stage {
    /// The last script holds for every further request: one that is sent again meets the same.
    fn next_script(&mut self) -> Option<Script> {
        if self.scripts.len() > 1 { self.scripts.pop_front() } else { self.scripts.front().cloned() }
    }

    pub(super) fn next_call(&mut self) -> Option<h2::Script> {
        if self.calls.len() > 1 { self.calls.pop_front() } else { self.calls.front().cloned() }
    }
}

pub type Shared = Arc<Mutex<Stage>>;

/// An origin for HTTP/1 and, by its preface, HTTP/2.
#[derive(Debug)]
pub struct Origin {
    pub address: SocketAddr,
    stage: Shared,
    task: JoinHandle<()>,
}

impl Origin {
    /// # Panics
    /// When the listener isn't one.
    pub fn start(listener: std::net::TcpListener) -> Self {
        listener.set_nonblocking(true).expect("a listener can be set to not block");
        let listener = TcpListener::from_std(listener).expect("a listener");
        let address = listener.local_addr().expect("a bound socket has an address");
        let stage = Shared::default();
        let served = Arc::clone(&stage);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&served)));
            }
        });
        Self { address, stage, task }
    }

    /// Forgets what was, and is ready for the requests of one exchange.
    pub fn prepare(&self, scripts: &[Script], calls: &[h2::Script]) {
        let mut stage = self.stage();
        stage.scripts = scripts.iter().cloned().collect();
        stage.calls = calls.iter().cloned().collect();
        stage.seen = Vec::new();
        stage.busy = 0;
        stage.exchange += 1;
    }

    fn stage(&self) -> std::sync::MutexGuard<'_, Stage> {
        self.stage.lock().expect("no holder panics")
    }

    pub async fn arrived(&self, count: usize) -> bool {
        self.becomes(|stage| stage.seen.len() >= count).await
    }

    /// Everything that the origin saw, once it is done with it.
    pub async fn seen(&self) -> Seen {
        let settled = self.becomes(|stage| stage.busy == 0).await;
        let mut all = Seen::default();
        for (index, message) in self.stage().seen.iter().enumerate() {
            all.add(index + 1, message);
        }
        if !settled {
            all.note("origin", "is still busy");
        }
        all
    }

    async fn becomes(&self, is: impl Fn(&Stage) -> bool) -> bool {
        let deadline = tokio::time::Instant::now() + 2 * PATIENCE;
        while !is(&self.stage()) {
            if tokio::time::Instant::now() > deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        true
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Notes on one message, under its index; an origin that was prepared anew has forgotten it.
pub(super) struct Notes {
    stage: Shared,
    index: usize,
    exchange: u64,
}

impl Notes {
    pub(super) fn open(stage: &Shared) -> Self {
        let mut held = stage.lock().expect("no holder panics");
        held.seen.push(Seen::default());
        held.busy += 1;
        Self { stage: Arc::clone(stage), index: held.seen.len() - 1, exchange: held.exchange }
    }

    pub(super) fn with(&self, note: impl FnOnce(&mut Seen)) {
        let mut stage = self.stage.lock().expect("no holder panics");
        if stage.exchange == self.exchange {
            note(&mut stage.seen[self.index]);
        }
    }
}

impl Drop for Notes {
    fn drop(&mut self) {
        let mut stage = self.stage.lock().expect("no holder panics");
        if stage.exchange == self.exchange {
            stage.busy -= 1;
        }
    }
}

/// Bytes that wait in an origin's kernel: few, so that its resets come behind what it has sent.
const SEND_BUFFER: usize = 32 << 10;

async fn serve(stream: TcpStream, stage: Shared) {
    _ = SockRef::from(&stream).set_send_buffer_size(SEND_BUFFER);
    if is_h2(&stream).await {
        return h2::serve(stream, stage).await;
    }
    let mut wire = Wire::new(stream);
    loop {
        // A kept connection may be quiet for as long as it likes.
        while wire.buffered().is_empty() && wire.ended().is_none() {
            if wire.more_within(Duration::from_secs(600)).await.is_err() {
                return;
            }
        }
        match message::head(&mut wire, true).await {
            Ok(head) => match one(wire, &head, &stage).await {
                Some(kept) => wire = kept,
                None => return,
            },
            Err(NoHead::Nothing(_)) => return,
            Err(NoHead::Inside(_)) => return Notes::open(&stage).with(|seen| seen.note("cut", "inside the head")),
            Err(NoHead::Malformed(_)) => return refuse(wire, &stage).await,
        }
    }
}

/// True if the connection starts with the preface of HTTP/2.
async fn is_h2(stream: &TcpStream) -> bool {
    let mut first = [0; 4];
    loop {
        match stream.peek(&mut first).await {
            Ok(4) => return &first == b"PRI ",
            Ok(count @ 1..) if b"PRI ".starts_with(&first[..count]) => {
                tokio::time::sleep(Duration::from_millis(2)).await
            }
            _ => return false,
        }
    }
}

/// A message with no meaning of its own, as every origin refuses it.
async fn refuse(mut wire: Wire, stage: &Shared) {
    let notes = Notes::open(stage);
    notes.with(|seen| seen.note("malformed", "refused"));
    wire.send(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    wire.finish().await;
    drop(notes);
    wire.gone(Duration::from_millis(200)).await;
}

async fn one(mut wire: Wire, head: &Head, stage: &Shared) -> Option<Wire> {
    let Ok(framing) = message::of_request(head) else {
        refuse(wire, stage).await;
        return None;
    };
    let default = || Script::answer("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
    let script = stage.lock().expect("no holder panics").next_script().unwrap_or_else(default);
    let notes = Notes::open(stage);
    notes.with(|seen| {
        head.note(seen);
        let framing = match framing {
            Framing::None => "none",
            Framing::Length(_) => "length",
            Framing::Chunked => "chunked",
            Framing::UntilClose => "until close",
        };
        seen.note("framing", framing);
    });
    let mut unread = Some(framing);
    if script.whole && !read(&mut wire, &mut unread, &notes).await {
        return None;
    }
    for act in script.acts {
        match act {
            Act::Send(bytes) => _ = wire.send(&bytes).await,
            Act::Slowly(bytes, piece, pause) => slowly(&mut wire, &bytes, piece, pause).await,
            Act::Pause(time) => tokio::time::sleep(time).await,
            Act::Finish => wire.finish().await,
            Act::Reset => {
                wire.reset();
                return None;
            }
            Act::Close => return None,
            Act::Read => {
                if !read(&mut wire, &mut unread, &notes).await {
                    return None;
                }
            }
            Act::Raw(count) => {
                let (bytes, _) = wire.exactly(count).await;
                notes.with(|seen| seen.note("raw", body(&bytes)));
            }
            Act::RawRest => {
                let (bytes, end) = wire.rest().await;
                notes.with(|seen| raw_rest(seen, &bytes, end));
            }
            Act::Gone => {
                let gone = wire.gone(PATIENCE).await;
                notes.with(|seen| seen.note("caller", if gone { "gone" } else { "still there" }));
                return None;
            }
            Act::Arrived(_) | Act::Drain => {}
        }
    }
    drop(notes);
    if head.closes() {
        wire.finish().await;
        wire.gone(Duration::from_millis(200)).await;
        return None;
    }
    Some(wire)
}

fn raw_rest(seen: &mut Seen, bytes: &[u8], end: End) {
    seen.note("raw", body(bytes));
    seen.note("raw end", format!("{end:?}"));
}

async fn read(wire: &mut Wire, unread: &mut Option<Framing>, notes: &Notes) -> bool {
    let Some(framing) = unread.take() else { return true };
    let body = message::read_body(wire, framing).await;
    notes.with(|seen| body.note(seen));
    body.broken.is_none()
}

async fn slowly(wire: &mut Wire, bytes: &[u8], piece: usize, pause: Duration) {
    for piece in bytes.chunks(piece) {
        if !wire.send_reading(piece).await {
            return;
        }
        tokio::time::sleep(pause).await;
    }
}

/// A client's side: follows its steps, reads the answers that are still to come, and notes how the connection was left.
/// `methods` are those of the requests that it sends, in order.
pub async fn client(stream: TcpStream, methods: &[&str], acts: &[Act], origin: &Origin) -> Seen {
    let mut seen = Seen::default();
    let mut wire = Wire::new(stream);
    let mut answered = 0;
    let mut tunnel = false;
    let mut over = None;
    for act in acts {
        match act {
            Act::Send(bytes) => _ = wire.send_reading(bytes).await,
            Act::Slowly(bytes, piece, pause) => slowly(&mut wire, bytes, *piece, *pause).await,
            Act::Pause(time) => tokio::time::sleep(*time).await,
            Act::Finish => wire.finish().await,
            Act::Reset => {
                wire.reset();
                return seen;
            }
            Act::Close | Act::Gone => return seen,
            Act::Read => {
                let method = methods.get(answered).unwrap_or(&"GET");
                answered += 1;
                let (closes, switched) = answer(&mut wire, method, answered, &mut seen).await;
                tunnel |= switched;
                over = closes.or(over);
            }
            Act::Raw(count) if tunnel => {
                let (bytes, _) = wire.exactly(*count).await;
                seen.note("raw", body(&bytes));
            }
            Act::RawRest if tunnel => {
                let (bytes, end) = wire.rest().await;
                raw_rest(&mut seen, &bytes, end);
            }
            Act::Raw(_) | Act::RawRest => {}
            Act::Drain => _ = wire.gone(DRAIN).await,
            Act::Arrived(count) => {
                if !origin.arrived(*count).await {
                    seen.note("arrived", "never");
                }
            }
        }
    }
    while answered < methods.len() && over.is_none() && !tunnel {
        answered += 1;
        over = answer(&mut wire, methods[answered - 1], answered, &mut seen).await.0;
    }
    left(&mut wire, over, &mut seen).await;
    seen
}

/// How the connection was left by the other side: where it said that it would close, it has to.
async fn left(wire: &mut Wire, over: Option<&'static str>, seen: &mut Seen) {
    if let Some(over) = over {
        let closed = over == "broken" || wire.gone(PATIENCE).await;
        seen.note("connection", if closed { "closed" } else { "left open" });
    } else if wire.buffered().is_empty() {
        seen.note("connection", "kept");
    } else {
        seen.note("connection", "holds bytes that nobody asked for");
    }
}

/// Reads an answer with the interim ones before it. Says whether the connection is over, and whether it became a tunnel.
async fn answer(wire: &mut Wire, method: &str, number: usize, seen: &mut Seen) -> (Option<&'static str>, bool) {
    let mut lines = Seen::default();
    let result = loop {
        let head = match message::head(wire, false).await {
            Ok(head) => head,
            Err(why) => {
                lines.note(
                    "answer",
                    match why {
                        NoHead::Nothing(End::Silent) => "never".to_owned(),
                        NoHead::Nothing(_) => "none, closed".to_owned(),
                        NoHead::Inside(_) => "broke inside the head".to_owned(),
                        NoHead::Malformed(what) => format!("malformed: {what}"),
                    },
                );
                break (Some("broken"), false);
            }
        };
        let status = head.status();
        if (100..200).contains(&status) && status != 101 {
            let mut interim = Seen::default();
            head.note(&mut interim);
            lines.0.extend(interim.0.into_iter().map(|(key, value)| (format!("interim.{status}.{key}"), value)));
            continue;
        }
        head.note(&mut lines);
        if status == 101 {
            break (None, true);
        }
        let framing = message::of_response(&head, method).unwrap_or(Framing::UntilClose);
        let body = message::read_body(wire, framing).await;
        body.note(&mut lines);
        if body.broken.is_some() {
            break (Some("broken"), false);
        }
        break ((head.closes() || framing == Framing::UntilClose).then_some("said so"), false);
    };
    seen.add(number, &lines);
    result
}
