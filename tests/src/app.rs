//! Applications behind the sidecars: one HTTP server (1.1 and 2 by prior knowledge) whose paths show everything that it was
//! sent, and TCP servers that speak first or second.

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::client::{Body, empty, full};

/// An HTTP application. Its paths:
/// `/who` its name · `/seen` method, target, version and headers as JSON · `/echo` the body and its trailers ·
/// `/status/N` · `/bytes/N` N bytes · `/digest` length of the body · `/slow/MS` · `/trailers` · `/early` answers unread ·
/// `/cut` breaks off inside the body · `/events/MS` an event and so much later another · `/pause/MS` the same as text ·
/// `/test.Stream/MS` and, without the first message, `/test.Hang/MS` the same in gRPC · `/healthz` and `/grpc.health.v1.Health/*` as [`App::health`] says · `/test.Echo/*` gRPC · `/test.Who/*` and `/test.Seen/*` its name and what it was sent, in gRPC · Envoy's ext_authz.
/// With the field `x-show` the body is as that of `/seen` whatever the path; each field `x-answer: NAME: VALUE` is one of the answer's.
#[derive(Debug)]
pub struct App {
    pub address: SocketAddr,
    served: Arc<AtomicU64>,
    busy: Arc<()>,
    fails: Arc<AtomicU16>,
    health: Arc<AtomicU16>,
    task: JoinHandle<()>,
}

impl App {
    /// # Panics
    /// When the address is taken.
    pub async fn start(name: &str, ip: IpAddr, port: u16) -> Self {
        Self::listening(name, TcpListener::bind((ip, port)).await.expect("the app's address is free"))
    }

    /// On a socket that somebody else made, such as one of another network namespace.
    ///
    /// # Panics
    /// When the socket can't be used.
    pub fn on(name: &str, listener: std::net::TcpListener) -> Self {
        Self::listening(name, in_runtime(listener))
    }

    fn listening(name: &str, listener: TcpListener) -> Self {
        let address = listener.local_addr().expect("a bound socket has an address");
        let served = Arc::new(AtomicU64::new(0));
        let (fails, health) = (Arc::new(AtomicU16::new(0)), Arc::new(AtomicU16::new(200)));
        let busy = Arc::new(());
        let (name, seen) = (Arc::<str>::from(name), (Arc::clone(&served), Arc::downgrade(&busy)));
        let told = (Arc::clone(&fails), Arc::clone(&health));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, Arc::clone(&name), seen.clone(), told.clone()));
            }
        });
        Self { address, served, busy, fails, health, task }
    }

    /// Requests that it is working on.
    pub fn busy(&self) -> usize {
        Arc::strong_count(&self.busy) - 1
    }

    /// From now on every answer is this status; 0: as its paths say.
    pub fn fail(&self, status: u16) {
        self.fails.store(status, Ordering::SeqCst);
    }

    /// From now on checks of its health are answered with this status, by gRPC with SERVING if it is 200; all else is as before.
    pub fn health(&self, status: u16) {
        self.health.store(status, Ordering::SeqCst);
    }

    /// Ends it; its address is free when this returns.
    pub async fn stop(mut self) {
        self.task.abort();
        _ = (&mut self.task).await;
    }

    /// Requests that have arrived so far.
    pub fn served(&self) -> u64 {
        self.served.load(Ordering::SeqCst)
    }
}

impl Drop for App {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn in_runtime(listener: std::net::TcpListener) -> TcpListener {
    listener.set_nonblocking(true).expect("a socket can be made non-blocking");
    TcpListener::from_std(listener).expect("a listening socket")
}

async fn serve(
    stream: TcpStream,
    name: Arc<str>,
    (count, each): (Arc<AtomicU64>, Weak<()>),
    (fails, health): (Arc<AtomicU16>, Arc<AtomicU16>),
) {
    _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        count.fetch_add(1, Ordering::SeqCst);
        let (name, failure) = (Arc::clone(&name), fails.load(Ordering::SeqCst));
        let (busy, health) = (each.upgrade(), health.load(Ordering::SeqCst));
        async move {
            let _busy = busy;
            Ok::<_, Infallible>(if failure > 0 { status(failure) } else { answer(&name, health, request).await })
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().max_buf_size(256 * 1024);
    builder.http2().max_header_list_size(256 * 1024);
    _ = builder.serve_connection(TokioIo::new(stream), service).await;
}

async fn answer(name: &str, health: u16, request: Request<Incoming>) -> Response<Body> {
    let shown = request.headers().contains_key("x-show").then(|| seen(name, &request));
    let wanted: Vec<_> = request.headers().get_all("x-answer").iter().filter_map(field).collect();
    let mut response = by_path(name, health, request).await;
    if let Some(shown) = shown {
        *response.body_mut() = full(shown);
    }
    for (name, value) in wanted {
        response.headers_mut().append(name, value);
    }
    response
}

/// `NAME: VALUE`.
fn field(text: &HeaderValue) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = text.to_str().ok()?.split_once(": ")?;
    Some((name.parse().ok()?, value.parse().ok()?))
}

async fn by_path(name: &str, health: u16, request: Request<Incoming>) -> Response<Body> {
    let path = request.uri().path().to_owned();
    let (first, rest) = path.trim_start_matches('/').split_once('/').unwrap_or((path.trim_start_matches('/'), ""));
    let number = rest.parse::<u64>().unwrap_or(0);
    match first {
        "who" => plain(name.to_owned()),
        "seen" => plain(seen(name, &request)),
        "echo" => Response::new(request.into_body().map_err(std::io::Error::other).boxed_unsync()),
        "status" => status(u16::try_from(number).unwrap_or(500)),
        "bytes" => Response::new(bytes(number)),
        "digest" => plain(length(request.into_body()).await),
        "slow" => {
            tokio::time::sleep(Duration::from_millis(number)).await;
            plain(name.to_owned())
        }
        "trailers" => trailers(),
        "early" => status(413),
        "cut" => Response::new(cut()),
        "events" => events(number),
        "pause" => Response::new(later(vec![data("one")], number, vec![data("two")])),
        "test.Stream" => {
            called(later(vec![Frame::data(message(b"one"))], number, vec![Frame::data(message(b"two")), done()]))
        }
        "test.Hang" => called(later(Vec::new(), number, vec![Frame::data(message(b"two")), done()])),
        "healthz" => status(health),
        // SERVING or NOT_SERVING.
        "grpc.health.v1.Health" => called(messages(vec![message(&[0x08, if health == 200 { 1 } else { 2 }])])),
        "envoy.service.auth.v3.Authorization" => authorized(request).await,
        "test.Echo" => grpc(rest, request.into_body()).await,
        "test.Who" => called(messages(vec![message(name.as_bytes())])),
        "test.Seen" => called(messages(vec![message(seen(name, &request).as_bytes())])),
        _ => plain(name.to_owned()),
    }
}

/// Envoy's gRPC ext_authz: denies what is asked about a path with `/deny`, and names the user of all else. As servers
/// of C++ do it takes no call without `te`.
async fn authorized(request: Request<Incoming>) -> Response<Body> {
    const ALLOWED: &[u8] = b"\x0a\x00\x1a\x11\x12\x0f\x0a\x0d\x0a\x06x-user\x12\x03ada";
    const DENIED: &[u8] = b"\x0a\x02\x08\x07\x12\x09\x0a\x03\x08\x91\x03\x1a\x02no";
    if request.headers().get("te").is_none_or(|te| te != "trailers") {
        return status(400);
    }
    let asked = request.into_body().collect().await.map(|all| all.to_bytes()).unwrap_or_default();
    let denies = asked.windows(5).any(|part| part == b"/deny");
    called(messages(vec![message(if denies { DENIED } else { ALLOWED })]))
}

fn plain(text: impl Into<Bytes>) -> Response<Body> {
    Response::new(full(text))
}

fn status(code: u16) -> Response<Body> {
    let mut response = Response::new(empty());
    *response.status_mut() = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    response
}

fn seen(name: &str, request: &Request<Incoming>) -> String {
    let headers: Vec<(String, String)> = request
        .headers()
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    serde_json::json!({
        "app": name,
        "method": request.method().as_str(),
        "target": request.uri().to_string(),
        "version": format!("{:?}", request.version()),
        "headers": headers,
    })
    .to_string()
}

async fn length(mut body: Incoming) -> String {
    let mut length = 0;
    while let Some(Ok(frame)) = body.frame().await {
        length += frame.data_ref().map_or(0, Bytes::len);
    }
    length.to_string()
}

/// `count` bytes of a pattern, in pieces of 64 KiB.
pub fn bytes(count: u64) -> Body {
    let piece = Bytes::from_static(&[b'w'; 64 * 1024]);
    let pieces = futures_util::stream::unfold(count, move |left| {
        let size = left.min(64 * 1024);
        let piece = piece.slice(..usize::try_from(size).expect("at most 64 KiB"));
        async move { (size > 0).then_some((Ok(Frame::data(piece)), left - size)) }
    });
    StreamBody::new(pieces).boxed_unsync()
}

fn cut() -> Body {
    let frames = [Ok(Frame::data(Bytes::from_static(b"the beginning"))), Err(std::io::Error::other("cut"))];
    let stream = futures_util::stream::iter(frames).then(|frame| async {
        if frame.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        frame
    });
    StreamBody::new(stream).boxed_unsync()
}

fn events(ms: u64) -> Response<Body> {
    let mut response = Response::new(later(vec![data("data: one\n\n")], ms, vec![data("data: two\n\n")]));
    response.headers_mut().insert("content-type", HeaderValue::from_static("text/event-stream"));
    response
}

fn data(text: &'static str) -> Frame<Bytes> {
    Frame::data(Bytes::from_static(text.as_bytes()))
}

/// Frames, and so much later the rest.
fn later(first: Vec<Frame<Bytes>>, ms: u64, rest: Vec<Frame<Bytes>>) -> Body {
    let rest = futures_util::stream::once(async move {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        futures_util::stream::iter(rest.into_iter().map(Ok::<_, std::io::Error>))
    });
    let first = futures_util::stream::iter(first.into_iter().map(Ok::<_, std::io::Error>));
    StreamBody::new(first.chain(rest.flatten())).boxed_unsync()
}

fn trailers() -> Response<Body> {
    let mut trailers = HeaderMap::new();
    trailers.insert("x-sum", HeaderValue::from_static("42"));
    let frames = [Ok(Frame::data(Bytes::from_static(b"body"))), Ok(Frame::trailers(trailers))];
    let mut response = Response::new(StreamBody::new(futures_util::stream::iter(frames)).boxed_unsync());
    response.headers_mut().insert("trailer", HeaderValue::from_static("x-sum"));
    response
}

/// Four kinds of call: `Unary` and `Bidi` echo each message, `ClientStream` sends one at the end, `ServerStream` sends three;
/// `Missing` is a trailers-only error, `MissingBehind` one in trailers behind a head.
async fn grpc(method: &str, body: Incoming) -> Response<Body> {
    match method {
        "Missing" => {
            let mut response = called(empty());
            response.headers_mut().insert("grpc-status", HeaderValue::from_static("5"));
            response.headers_mut().insert("grpc-message", HeaderValue::from_static("no such thing"));
            response
        }
        "MissingBehind" => {
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", HeaderValue::from_static("5"));
            called(StreamBody::new(futures_util::stream::iter([Ok(Frame::trailers(trailers))])).boxed_unsync())
        }
        "ClientStream" => {
            let all = body.collect().await.map(|all| all.to_bytes()).unwrap_or_default();
            called(messages(vec![message(all.len().to_string().as_bytes())]))
        }
        "ServerStream" => called(messages(["one", "two", "three"].map(|text| message(text.as_bytes())).to_vec())),
        _ => {
            let frames = body.map_err(std::io::Error::other).into_data_stream().map(|data| data.map(Frame::data));
            called(StreamBody::new(frames.chain(futures_util::stream::once(async { Ok(done()) }))).boxed_unsync())
        }
    }
}

/// The answer to a call.
fn called(frames: Body) -> Response<Body> {
    let mut response = Response::new(frames);
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    response
}

fn messages(messages: Vec<Bytes>) -> Body {
    let frames = messages.into_iter().map(Frame::data).chain(std::iter::once(done())).map(Ok);
    StreamBody::new(futures_util::stream::iter(frames.collect::<Vec<_>>())).boxed_unsync()
}

fn done() -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    Frame::trailers(trailers)
}

/// A gRPC message in its five-byte frame.
///
/// # Panics
/// When it is over 4 GiB.
pub fn message(payload: &[u8]) -> Bytes {
    let length = u32::try_from(payload.len()).expect("a short message");
    [&[0][..], &length.to_be_bytes(), payload].concat().into()
}

/// A TCP application.
#[derive(Debug)]
pub struct TcpApp {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl TcpApp {
    /// Sends `greeting` (if any) first, then everything back that comes; closes its side when the client has closed.
    ///
    /// # Panics
    /// When the address is taken.
    pub async fn start(ip: IpAddr, port: u16, greeting: &'static str) -> Self {
        Self::listening(TcpListener::bind((ip, port)).await.expect("the app's address is free"), greeting)
    }

    /// As [`App::on`].
    ///
    /// # Panics
    /// When the socket can't be used.
    pub fn on(listener: std::net::TcpListener, greeting: &'static str) -> Self {
        Self::listening(in_runtime(listener), greeting)
    }

    fn listening(listener: TcpListener, greeting: &'static str) -> Self {
        let address = listener.local_addr().expect("a bound socket has an address");
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(echo(stream, greeting));
            }
        });
        Self { address, task }
    }
}

impl Drop for TcpApp {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn echo(mut stream: TcpStream, greeting: &'static str) {
    if stream.write_all(greeting.as_bytes()).await.is_err() {
        return;
    }
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
        if stream.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
    _ = stream.write_all(b"bye").await;
    _ = stream.shutdown().await;
}
