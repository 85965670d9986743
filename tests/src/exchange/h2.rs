//! HTTP/2 with prior knowledge: the same two roles as in `h1`, on the `h2` crate, whose codec is not the one under test.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::{Reason, RecvStream, SendStream};
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use tokio::net::TcpStream;

use super::h1::{Notes, Origin, Shared};
use super::seen::{Seen, body, shown};
use super::wire::PATIENCE;

pub type Fields = Vec<(&'static str, Vec<u8>)>;

/// One thing that a client or an origin does with a stream.
#[derive(Debug, Clone)]
pub enum Act {
    Interim(u16, Fields),
    /// An origin's head; the flag ends the stream.
    Head(u16, Fields, bool),
    Data(Vec<u8>, bool),
    Trailers(Fields),
    Pause(Duration),
    Reset(u32),
    /// An origin reads the rest of the request.
    Read,
    /// An origin notes whether and how the caller cancels within the usual patience.
    Gone,
    /// A client waits until the origin has the head.
    Arrived,
    /// A client waits for the head of the answer and this many bytes of its body.
    Answered(usize),
}

/// Script of an origin for one request.
#[derive(Debug, Clone)]
pub struct Script {
    pub whole: bool,
    pub acts: Vec<Act>,
}

/// How a request says whom it is for (RFC 9113 section 8.3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    Authority,
    /// By `host` in place of `:authority`, as what came by HTTP/1.
    Host,
    Nowhere,
    /// `host` says another than `:authority`.
    Differently,
}

/// A request, and what its client does after the head.
#[derive(Debug, Clone)]
pub struct Call {
    pub method: &'static str,
    pub path: String,
    pub named: Named,
    pub fields: Fields,
    /// True if the head ends the stream.
    pub end: bool,
    pub acts: Vec<Act>,
}

fn map(fields: &Fields) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in fields {
        let value = HeaderValue::from_bytes(value).expect("a value that HTTP/2 can carry");
        map.append(HeaderName::from_static(name), value);
    }
    map
}

fn note_fields(fields: &HeaderMap, kind: &str, seen: &mut Seen) {
    for (name, value) in fields {
        seen.note(format!("{kind}.{name}"), shown(value.as_bytes()));
    }
}

/// An error of a stream, by its code; how the whole connection ended is its own.
fn told(error: &h2::Error) -> String {
    match error.reason() {
        Some(reason) if error.is_reset() => format!("reset {}", u32::from(reason)),
        Some(reason) if error.is_go_away() => format!("connection ended {}", u32::from(reason)),
        _ => "connection lost".to_owned(),
    }
}

/// Serves one connection to an origin.
pub(super) async fn serve(stream: TcpStream, stage: Shared) {
    _ = stream.set_nodelay(true);
    let mut builder = h2::server::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(8 << 20).max_header_list_size(1 << 18);
    let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(one(request, respond, Arc::clone(&stage)));
    }
}

async fn one(request: Request<RecvStream>, mut respond: h2::server::SendResponse<Bytes>, stage: Shared) {
    let default = || Script { whole: true, acts: vec![Act::Head(200, vec![], true)] };
    let script = stage.lock().expect("no holder panics").next_call().unwrap_or_else(default);
    let notes = Notes::open(&stage);
    let (head, mut receive) = request.into_parts();
    let mut seen = Seen::default();
    seen.note("line", format!("{} {}", head.method, head.uri.path_and_query().map_or("", |path| path.as_str())));
    seen.note("authority", head.uri.authority().map_or("", |authority| authority.as_str()));
    note_fields(&head.headers, "field", &mut seen);
    let publish = |seen: &Seen| notes.with(|place| place.clone_from(seen));
    publish(&seen);
    if !script.whole || read(&mut receive, &mut seen, true).await {
        play(script.acts, &mut receive, &mut respond, &mut seen).await;
    }
    publish(&seen);
}

async fn play(
    acts: Vec<Act>,
    receive: &mut RecvStream,
    respond: &mut h2::server::SendResponse<Bytes>,
    seen: &mut Seen,
) {
    let mut sending = None::<SendStream<Bytes>>;
    for act in acts {
        match act {
            Act::Interim(status, fields) => {
                let mut response = Response::new(());
                *response.status_mut() = StatusCode::from_u16(status).expect("a status");
                *response.headers_mut() = map(&fields);
                _ = respond.send_informational(response);
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            Act::Head(status, fields, end) => {
                let mut response = Response::new(());
                *response.status_mut() = StatusCode::from_u16(status).expect("a status");
                *response.headers_mut() = map(&fields);
                sending = respond.send_response(response, end).ok();
            }
            Act::Reset(code) => match &mut sending {
                Some(sending) => sending.send_reset(Reason::from(code)),
                None => respond.send_reset(Reason::from(code)),
            },
            Act::Read => _ = read(receive, seen, true).await,
            Act::Gone => {
                let gone = match &mut sending {
                    Some(sending) => {
                        tokio::time::timeout(PATIENCE, poll_fn(|context| sending.poll_reset(context))).await
                    }
                    None => tokio::time::timeout(PATIENCE, poll_fn(|context| respond.poll_reset(context))).await,
                };
                seen.note("caller", if gone.is_ok() { "gone" } else { "still there" });
            }
            Act::Data(..) | Act::Trailers(_) | Act::Pause(_) | Act::Arrived | Act::Answered(_) => {
                say(act, &mut sending).await;
            }
        }
    }
}

/// Performs an act that both sides can do on an open stream.
async fn say(act: Act, sending: &mut Option<SendStream<Bytes>>) {
    match (act, sending) {
        (Act::Data(bytes, end), Some(sending)) => data(sending, bytes.into(), end).await,
        (Act::Trailers(fields), Some(sending)) => _ = sending.send_trailers(map(&fields)),
        (Act::Pause(time), _) => tokio::time::sleep(time).await,
        _ => {}
    }
}

async fn data(sending: &mut SendStream<Bytes>, mut bytes: Bytes, end: bool) {
    while !bytes.is_empty() {
        sending.reserve_capacity(bytes.len());
        let granted = tokio::time::timeout(PATIENCE, poll_fn(|context| sending.poll_capacity(context))).await;
        let Ok(Some(Ok(granted))) = granted else { return };
        let piece = bytes.split_to(granted.min(bytes.len()));
        let last = end && bytes.is_empty();
        if sending.send_data(piece, last).is_err() || last {
            return;
        }
    }
    if end {
        _ = sending.send_data(Bytes::new(), true);
    }
}

/// Reads a body to its end and notes it; whether it was complete.
async fn read(receive: &mut RecvStream, seen: &mut Seen, noted: bool) -> bool {
    let (bytes, end) = take(receive, usize::MAX).await;
    let mut complete = end.is_none();
    let mut how = end.unwrap_or_else(|| "complete".to_owned());
    if complete {
        match receive.trailers().await {
            Ok(Some(trailers)) => note_fields(&trailers, "trailer", seen),
            Ok(None) => {}
            Err(error) => (complete, how) = (false, told(&error)),
        }
    }
    if noted {
        seen.note("body", body(&bytes));
        seen.note("end", how);
    }
    complete
}

/// Up to `most` bytes of a body; with the reason where it broke.
async fn take(receive: &mut RecvStream, most: usize) -> (Vec<u8>, Option<String>) {
    let mut all = Vec::new();
    while all.len() < most {
        match tokio::time::timeout(PATIENCE, receive.data()).await {
            Ok(Some(Ok(bytes))) => {
                _ = receive.flow_control().release_capacity(bytes.len());
                all.extend_from_slice(&bytes);
            }
            Ok(Some(Err(error))) => return (all, Some(told(&error))),
            Ok(None) => break,
            Err(_) => return (all, Some("silent".to_owned())),
        }
    }
    (all, None)
}

/// A client's side: one connection, its calls one after the other.
pub async fn client(stream: TcpStream, authority: &str, calls: &[Call], origin: &Origin) -> Seen {
    let mut seen = Seen::default();
    _ = stream.set_nodelay(true);
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(1 << 20).initial_connection_window_size(8 << 20).max_header_list_size(1 << 18);
    let handshake = tokio::time::timeout(PATIENCE, builder.handshake::<_, Bytes>(stream)).await;
    let Ok(Ok((mut sender, connection))) = handshake else {
        seen.note("connection", "no handshake");
        return seen;
    };
    let connection = tokio::spawn(connection);
    for (index, one) in calls.iter().enumerate() {
        let mut lines = Seen::default();
        match tokio::time::timeout(PATIENCE, sender.clone().ready()).await {
            Ok(Ok(ready)) => sender = ready,
            _ => lines.note("answer", "no stream"),
        }
        call(&mut sender, authority, one, (origin, index + 1), &mut lines).await;
        seen.add(index + 1, &lines);
    }
    // A reset that was asked for has to be on its way before the connection closes.
    tokio::time::sleep(Duration::from_millis(5)).await;
    drop(sender);
    connection.abort();
    seen
}

async fn call(
    sender: &mut h2::client::SendRequest<Bytes>,
    authority: &str,
    call: &Call,
    (origin, number): (&Origin, usize),
    lines: &mut Seen,
) {
    let mut request = Request::new(());
    *request.headers_mut() = map(&call.fields);
    let uri = match call.named {
        Named::Authority | Named::Differently => format!("http://{authority}{}", call.path),
        // The crate sends no `:authority` for what came by HTTP/1 without one.
        Named::Host | Named::Nowhere => {
            *request.version_mut() = Version::HTTP_11;
            call.path.clone()
        }
    };
    let host = match call.named {
        Named::Host => Some(authority),
        Named::Differently => Some("elsewhere.example"),
        Named::Authority | Named::Nowhere => None,
    };
    if let Some(host) = host {
        request.headers_mut().insert(HOST, host.parse().expect("a host"));
    }
    *request.method_mut() = Method::from_bytes(call.method.as_bytes()).expect("a method");
    *request.uri_mut() = uri.parse().expect("a URI");
    let Ok((mut response, sending)) = sender.send_request(request, call.end) else {
        return lines.note("answer", "not sent");
    };
    let mut sending = Some(sending);
    let mut receive = None;
    let mut early = Vec::new();
    for act in &call.acts {
        match act {
            Act::Reset(code) => {
                if let Some(sending) = &mut sending {
                    sending.send_reset(Reason::from(*code));
                }
                return;
            }
            Act::Arrived => {
                if !origin.arrived(number).await {
                    lines.note("arrived", "never");
                }
            }
            Act::Answered(most) => {
                if receive.is_none() {
                    receive = head(&mut response, lines).await;
                }
                let Some(receive) = &mut receive else { return };
                early.extend(take(receive, *most).await.0);
                lines.note("early body", body(&early));
            }
            Act::Data(..) | Act::Trailers(_) | Act::Pause(_) => say(act.clone(), &mut sending).await,
            Act::Interim(..) | Act::Head(..) | Act::Read | Act::Gone => {}
        }
    }
    if receive.is_none() {
        receive = head(&mut response, lines).await;
    }
    if let Some(mut receive) = receive {
        read(&mut receive, lines, true).await;
    }
}

/// Waits for the head of an answer, with the interim ones before it.
async fn head(response: &mut h2::client::ResponseFuture, lines: &mut Seen) -> Option<RecvStream> {
    let mut interims = Vec::new();
    let awaited = tokio::time::timeout(2 * PATIENCE, async {
        let mut over = false;
        poll_fn(|context| {
            while !over {
                match response.poll_informational(context) {
                    std::task::Poll::Ready(Some(Ok(interim))) => interims.push(interim),
                    std::task::Poll::Ready(_) => over = true,
                    std::task::Poll::Pending => break,
                }
            }
            std::pin::Pin::new(&mut *response).poll(context)
        })
        .await
    })
    .await;
    for interim in interims {
        let status = interim.status().as_u16();
        lines.note(format!("interim.{status}.line"), status.to_string());
        note_fields(interim.headers(), &format!("interim.{status}.field"), lines);
    }
    match awaited {
        Ok(Ok(answer)) => {
            let (head, receive) = answer.into_parts();
            lines.note("line", head.status.as_u16().to_string());
            note_fields(&head.headers, "field", lines);
            Some(receive)
        }
        Ok(Err(error)) => {
            lines.note("answer", told(&error));
            None
        }
        Err(_) => {
            lines.note("answer", "never");
            None
        }
    }
}
