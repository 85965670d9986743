//! The part of a connection that belongs to no request: control and QPACK streams, SETTINGS, GOAWAY, the close at the end.

use std::pin::Pin;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;

use super::Code;
use super::connection::{Connection, varint};
use super::frame::{self, Decoder, Event, Place, Role, Settings, Violation};
use crate::qpack::{Direction, Instructions};

type Task = Pin<Box<dyn Future<Output = Result<(), Violation>> + Send>>;

/// Runs until the connection ends.
pub(super) async fn drive(connection: Arc<Connection>) {
    if let Err(violation) = run(&connection).await {
        connection.fail(violation);
    }
    connection.quic.closed().await;
    connection.set_closed();
}

async fn run(connection: &Arc<Connection>) -> Result<(), Violation> {
    let mut tasks = FuturesUnordered::<Task>::new();
    tasks.push(Box::pin(own_control(connection.clone())));
    let critical = Arc::new(CriticalStreams::default());
    loop {
        let changed = connection.changed.notified();
        let retiring = connection.role == Role::Client && connection.is_draining() && connection.open_streams() == 0;
        let refuse = connection.role == Role::Client || connection.own_goaway().is_some();
        tokio::select! {
            stream = connection.quic.accept_uni() => {
                let Ok(stream) = stream else { return Ok(()) };
                tasks.push(Box::pin(uni_stream(connection.clone(), critical.clone(), stream)));
            }
            Some(done) = tasks.next() => done?,
            stream = connection.quic.accept_bi(), if refuse => {
                let Ok(stream) = stream else { return Ok(()) };
                if connection.role == Role::Client {
                    //= rfc9114#section-6.1
                    return Err(Violation::new(Code::STREAM_CREATION_ERROR, "request stream from a server"));
                }
                reject(stream);
            }
            () = changed => {}
            () = tokio::time::sleep(connection.linger()), if retiring => {
                //= rfc9114#section-5.2
                // The streams in flight are done; the linger lets our last bytes arrive.
                connection.close(Code::NO_ERROR, "done");
                return Ok(());
            }
        }
    }
}

//= rfc9114#section-5.2
// Streams at or above the GOAWAY id are cancelled so that the client knows it may send them elsewhere.
pub(super) fn reject((mut send, mut recv): (quinn::SendStream, quinn::RecvStream)) {
    // Fails only where the peer or the connection already ended the stream.
    let _ = send.reset(varint(Code::REQUEST_REJECTED));
    let _ = recv.stop(varint(Code::REQUEST_REJECTED));
}

/// Our control stream: SETTINGS first, GOAWAY when it is decided, open as long as the connection.
async fn own_control(connection: Arc<Connection>) -> Result<(), Violation> {
    let Ok(mut control) = connection.quic.open_uni().await else { return Ok(()) };
    let mut out = BytesMut::new();
    frame::write_varint(&mut out, CONTROL);
    let settings = Settings {
        max_field_section_size: Some(connection.limits.header_bytes as u64),
        connect_protocol: connection.role == Role::Server,
        aborts: connection.limits.aborts,
    };
    settings.encode(&mut out);
    let mut goaway_sent = connection.role == Role::Client;
    let stopped = control.stopped();
    tokio::pin!(stopped);
    loop {
        let changed = connection.changed.notified();
        if let (false, Some(id)) = (goaway_sent, connection.own_goaway()) {
            frame::write_goaway(&mut out, id);
            goaway_sent = true;
        }
        if control.write_chunk(out.split().freeze()).await.is_err() {
            return closed_critical(&connection);
        }
        tokio::select! {
            _ = &mut stopped => return closed_critical(&connection),
            () = changed => {}
        }
    }
}

/// A critical stream ended. Not a breach if it went with its connection.
fn closed_critical(connection: &Connection) -> Result<(), Violation> {
    //= rfc9114#section-6.2.1
    match connection.quic.close_reason() {
        Some(_) => Ok(()),
        None => Err(Violation::new(Code::CLOSED_CRITICAL_STREAM, "critical stream closed")),
    }
}

const CONTROL: u64 = 0x0;
const PUSH: u64 = 0x1;
const QPACK_ENCODER: u64 = 0x2;
const QPACK_DECODER: u64 = 0x3;

/// Which streams the peer has opened that it may open once.
#[derive(Debug, Default)]
struct CriticalStreams {
    opened: [std::sync::atomic::AtomicBool; 4],
    unknown: std::sync::atomic::AtomicU32,
}

impl CriticalStreams {
    fn open(&self, kind: u64) -> Result<(), Violation> {
        use std::sync::atomic::Ordering::Relaxed;
        let opened = usize::try_from(kind).ok().and_then(|kind| self.opened.get(kind));
        if opened.is_some_and(|opened| opened.swap(true, Relaxed)) {
            return Err(Violation::new(Code::STREAM_CREATION_ERROR, "critical stream opened twice"));
        }
        Ok(())
    }

    fn count_unknown(&self, limit: u32) -> Result<(), Violation> {
        if self.unknown.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= limit {
            return Err(Violation::new(Code::EXCESSIVE_LOAD, "too many streams of unknown type"));
        }
        Ok(())
    }
}

/// One unidirectional stream of the peer, from its type to its end.
async fn uni_stream(
    connection: Arc<Connection>,
    critical: Arc<CriticalStreams>,
    mut stream: quinn::RecvStream,
) -> Result<(), Violation> {
    let Some((kind, rest)) = stream_type(&mut stream).await else { return Ok(()) };
    match kind {
        CONTROL => {
            critical.open(kind)?;
            control_stream(&connection, &mut stream, rest).await
        }
        //= rfc9114#section-6.2.2
        PUSH if connection.role == Role::Server => {
            Err(Violation::new(Code::STREAM_CREATION_ERROR, "push stream from a client"))
        }
        PUSH => Err(Violation::new(Code::ID_ERROR, "push without MAX_PUSH_ID")),
        QPACK_ENCODER | QPACK_DECODER => {
            critical.open(kind)?;
            let direction = if kind == QPACK_ENCODER { Direction::Encoder } else { Direction::Decoder };
            let mut instructions = Instructions::new(direction);
            instructions.push(&rest)?;
            while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
                instructions.push(&chunk.bytes)?;
            }
            closed_critical(&connection)
        }
        //= rfc9114#section-9
        _ => {
            critical.count_unknown(connection.limits.unknown_streams)?;
            // Fails only where the stream is already over.
            let _ = stream.stop(varint(Code::STREAM_CREATION_ERROR));
            Ok(())
        }
    }
}

/// Reads the type of a stream; `None` if it ends before that, which is allowed.
async fn stream_type(stream: &mut quinn::RecvStream) -> Option<(u64, Bytes)> {
    let mut begin = BytesMut::new();
    while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
        begin.extend_from_slice(&chunk.bytes);
        if let Some((kind, used)) = frame::read_varint(&begin) {
            return Some((kind, begin.split_off(used).freeze()));
        }
    }
    None
}

async fn control_stream(
    connection: &Arc<Connection>,
    stream: &mut quinn::RecvStream,
    rest: Bytes,
) -> Result<(), Violation> {
    let mut decoder = Decoder::new(connection.role, Place::Control, connection.limits.bounds());
    let mut push_ids = PushIds::default();
    decoder.push(rest);
    loop {
        while let Some(event) = decoder.next()? {
            handle_control(connection, &mut push_ids, event)?;
        }
        match stream.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => decoder.push(chunk.bytes),
            Ok(None) | Err(_) => return closed_critical(connection),
        }
    }
}

#[derive(Debug, Default)]
struct PushIds {
    max: Option<u64>,
    goaway: Option<u64>,
}

fn handle_control(connection: &Connection, push_ids: &mut PushIds, event: Event) -> Result<(), Violation> {
    let id_error = |reason| Err(Violation::new(Code::ID_ERROR, reason));
    match event {
        Event::Settings(settings) => {
            // The decoder refuses a second SETTINGS frame, so this is the first.
            let _ = connection.peer.set(settings);
            connection.changed.notify_waiters();
            Ok(())
        }
        //= rfc9114#section-7.2.6
        Event::GoAway(id) if connection.role == Role::Client => {
            if id % 4 != 0 {
                return id_error("GOAWAY id is not a request stream");
            }
            if connection.lower_peer_goaway(id) { Ok(()) } else { id_error("GOAWAY id above an earlier one") }
        }
        Event::GoAway(id) => match push_ids.goaway.replace(id) {
            Some(earlier) if earlier < id => id_error("GOAWAY id above an earlier one"),
            _ => Ok(()),
        },
        //= rfc9114#section-7.2.7
        Event::MaxPushId(id) => match push_ids.max.replace(id) {
            Some(earlier) if earlier > id => id_error("MAX_PUSH_ID below an earlier one"),
            _ => Ok(()),
        },
        //= rfc9114#section-7.2.3
        // Nobody here ever promised a push or allowed one.
        Event::CancelPush(_) => id_error("CANCEL_PUSH of what was never promised"),
        Event::Data(_) | Event::Headers(_) | Event::Oversize | Event::Abort(_) => {
            Err(Violation::new(Code::FRAME_UNEXPECTED, "message frame on the control stream"))
        }
    }
}
