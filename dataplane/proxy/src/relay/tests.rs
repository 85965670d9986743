//! The pump between real codecs, on sockets and pipes of one thread: how often it writes, whose turn it is, and what a
//! receiver that takes nothing costs others.

#![expect(clippy::large_futures, reason = "a future of a test is made once")]

mod matrix;

use std::rc::Rc;

use http::{HeaderName, Method, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::{LocalSet, spawn_local, yield_now};
use weft_filter_host::{Chain, Host, HostConfig};
use weft_transport::http::{RecvBody, RequestHead, Target};
use weft_transport::{h1, h2, tcp};

use super::*;
use crate::filtering::{self, Bodies, Filters, Place};
use crate::stalls::StallBudget;

const PATIENCE: Duration = Duration::from_secs(30);

async fn run<F: Future>(test: F) -> F::Output {
    tokio::time::timeout(PATIENCE, LocalSet::new().run_until(test)).await.expect("the test takes too long")
}

fn stalls(bytes: u64) -> Stalls {
    Stalls::of(&Arc::new(StallBudget::new(bytes, Duration::ZERO)))
}

fn get(path: &'static str) -> RequestHead {
    RequestHead {
        method: Method::GET,
        authority: Some("host:80".parse().unwrap()),
        path: Some(Target::from_static(path)),
        protocol: None,
        headers: HeaderMap::new(),
        version: Version::HTTP_2,
    }
}

/// Of an app's request, of which nothing else is known.
fn terms<'a, 'f>(filtered: &'a mut Filtered<'f>, status: &'a Cell<Option<Answered>>, idle: Idle<'a>) -> Terms<'a, 'f> {
    Terms {
        filtered,
        status,
        from_peer: false,
        grpc: false,
        upgrade: false,
        expects: false,
        again: None,
        received: None,
        begun: None,
        ends: Ends::default(),
        flow: None,
        idle,
    }
}

fn head(status: u16) -> ResponseHead {
    ResponseHead { status: StatusCode::from_u16(status).unwrap(), headers: HeaderMap::new() }
}

#[test]
fn a_proxy_says_by_its_own_answer_that_the_time_is_over() {
    fn check(status: u16, fields: &[(&'static str, &'static str)], expect: bool) {
        let mut head = head(status);
        head.headers.extend(
            fields.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))),
        );
        assert_eq!(is_late(&head, grpc_status(&head.headers)), expect, "{status} {fields:?}");
    }
    let reply = ("weft-reply", "inbound;request;-;nothing is left");
    check(504, &[reply], true);
    check(200, &[reply, ("grpc-status", "4")], true);
    check(504, &[], false);
    check(200, &[("grpc-status", "4")], false);
    check(503, &[reply], false);
    check(200, &[reply, ("grpc-status", "14")], false);
}

/// A client that leaves between two attempts has sent what the first of them was given.
#[test]
fn what_is_sent_again_is_counted_once() {
    let sent = Progress::default();
    let seen = |moved: usize| {
        sent.moved(moved);
        sent.bytes.get()
    };
    assert_eq!(seen(10), 10);
    sent.begin_again();
    assert_eq!([seen(0), seen(4), seen(6), seen(5)], [10, 10, 10, 15]);
}

#[tokio::test(start_paused = true)]
async fn a_tunnel_in_which_nothing_moves_ends_after_its_time() {
    const LIMIT: Duration = Duration::from_secs(3_600);
    let ((near, _client), (far, _app)) = (tcp_pair().await, tcp_pair().await);
    let ((mut near_read, mut near_write), (mut far_read, mut far_write)) =
        (tcp::split(near, b""), tcp::split(far, b""));
    let (mut from_client, mut to_client) =
        (Source::once(RecvBody::Tcp(&mut near_read)), SendBody::Tcp(&mut near_write));
    let (mut from_app, mut to_app) = (Source::once(RecvBody::Tcp(&mut far_read)), SendBody::Tcp(&mut far_write));
    let (up, down, stalls) = (Progress::default(), Progress::default(), stalls(u64::MAX));
    let (client, app) = ((&mut from_client, &mut to_client), (&mut from_app, &mut to_app));
    let begun = tokio::time::Instant::now();
    let end = tunnel(client, app, (&up, &down), Idle::of(LIMIT, (&Alarms::default(), &stalls))).await;
    assert_eq!(end, TunnelEnd::Idle);
    let took = begun.elapsed();
    assert!(took >= LIMIT && took < LIMIT + Duration::from_secs(1), "{took:?}");
}

/// A server of HTTP/2 that hands each exchange to `handle`, and a client of it.
async fn h2_pair<H, F>(limits: h2::Limits, handle: H) -> h2::ClientConn
where
    H: Fn(h2::Exchange) -> F + 'static,
    F: Future<Output = ()> + 'static,
{
    let (near, far) = duplex(64 * 1024);
    spawn_local(async move {
        let mut server = h2::ServerConn::new(far, Bytes::new(), &h2::Limits::default()).await.unwrap();
        while let Ok(Some(exchange)) = server.accept().await {
            spawn_local(handle(exchange));
        }
    });
    h2::ClientConn::connect(near, &limits).await.unwrap()
}

/// Both ends of a connection over loopback, the server's first.
async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (listener.accept().await.unwrap().0, client)
}

/// Frames of a body as they come, counted.
#[derive(Default)]
struct Received {
    frames: Cell<usize>,
    bytes: Cell<usize>,
    ended: Cell<bool>,
}

/// Carries a request that comes by HTTP/1 on `server` to a server of HTTP/2 that tells what it receives.
async fn carry(server: TcpStream, received: &Rc<Received>) {
    let counted = Rc::clone(received);
    let client = h2_pair(h2::Limits::default(), move |mut exchange: h2::Exchange| {
        let received = Rc::clone(&counted);
        async move {
            while let Ok(Some(Frame::Data(data))) = exchange.body.frame().await {
                received.frames.set(received.frames.get() + 1);
                received.bytes.set(received.bytes.get() + data.len());
            }
            received.ended.set(true);
            exchange.answer.response(&head(200), true).await.unwrap();
        }
    });
    let client = client.await;
    let mut conn = h1::ServerConn::new(server, &Bytes::new(), h1::Limits::default());
    let exchange = conn.next().await.unwrap().unwrap();
    let (mut send, _answer) = client.send(&get("/"), false).await.unwrap();
    let (mut from, mut to) = (Source::once(exchange.body), SendBody::H2(&mut send));
    pump(&mut from, &mut to, &Progress::default(), &stalls(u64::MAX)).await.unwrap();
    while !received.ended.get() {
        yield_now().await;
    }
}

const CHUNKED: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n";
const PIECES: usize = 10_000;

#[tokio::test]
async fn tiny_pieces_leave_together_and_others_have_their_turn() {
    run(async {
        let (server, mut client) = tcp_pair().await;
        let chunks = [CHUNKED, &b"1\r\nx\r\n".repeat(PIECES), b"0\r\n\r\n"].concat();
        client.write_all(&chunks).await.unwrap();
        let turns = Rc::new(Cell::new(0_usize));
        let other = Rc::clone(&turns);
        let other = spawn_local(async move {
            loop {
                other.set(other.get() + 1);
                yield_now().await;
            }
        });
        let received = Rc::<Received>::default();
        carry(server, &received).await;
        other.abort();
        assert_eq!(received.bytes.get(), PIECES);
        // One for each read of the socket at the most.
        assert!(received.frames.get() <= 8, "{} frames", received.frames.get());
        assert!(turns.get() >= PIECES / 200, "{} turns of another task", turns.get());
    })
    .await;
}

#[tokio::test]
async fn a_piece_leaves_when_its_sender_pauses() {
    run(async {
        let (server, mut client) = tcp_pair().await;
        let received = Rc::<Received>::default();
        let sender = async {
            client.write_all(CHUNKED).await.unwrap();
            for event in 1..=3 {
                client.write_all(b"5\r\nevent\r\n").await.unwrap();
                while received.bytes.get() < 5 * event {
                    yield_now().await;
                }
            }
            client.write_all(b"0\r\n\r\n").await.unwrap();
        };
        tokio::join!(carry(server, &received), sender);
        assert_eq!((received.frames.get(), received.bytes.get()), (3, 15));
    })
    .await;
}

#[tokio::test]
async fn bytes_before_a_break_arrive() {
    run(async {
        let (server, mut client) = tcp_pair().await;
        client.write_all(&[CHUNKED, b"1\r\nx\r\n1\r\ny\r\n"].concat()).await.unwrap();
        client.shutdown().await.unwrap();
        let mut conn = h1::ServerConn::new(server, &Bytes::new(), h1::Limits::default());
        let exchange = conn.next().await.unwrap().unwrap();
        let (near, mut far) = tcp_pair().await;
        let (_reader, mut writer) = weft_transport::tcp::split(near, b"");
        let (mut from, mut to) = (Source::once(exchange.body), SendBody::Tcp(&mut writer));
        let (progress, stalls) = (Progress::default(), stalls(u64::MAX));
        let (end, ()) = tokio::join!(pump(&mut from, &mut to, &progress, &stalls), async {
            let mut got = [0; 2];
            far.read_exact(&mut got).await.unwrap();
            assert_eq!(&got, b"xy");
        });
        assert!(matches!(end, Err(PumpError::Source(StreamError::Truncated))), "{end:?}");
    })
    .await;
}

const CALLS: usize = 20;
const MESSAGES: usize = 4_000;
const MESSAGE: &[u8] = b"0123456789";
/// Of one stream between the app and the proxy.
const WINDOW: u32 = 16 * 1_024;

/// An app that streams small messages; `sent` counts those that it could send.
async fn streaming_app(sent: &Rc<Cell<usize>>) -> h2::ClientConn {
    let sent = Rc::clone(sent);
    // A few small frames are all that may be left unread: those of one stream's window.
    let limits = h2::Limits { stream_window: WINDOW, unread_frames: 1_024, ..h2::Limits::default() };
    h2_pair(limits, move |mut exchange: h2::Exchange| {
        let sent = Rc::clone(&sent);
        async move {
            let is_one = exchange.head.path.as_ref().is_some_and(|path| *path == "/one");
            exchange.answer.response(&head(200), is_one).await.unwrap();
            for _ in 0..if is_one { 0 } else { MESSAGES } {
                if exchange.answer.data(Bytes::from_static(MESSAGE)).await.is_err() {
                    return;
                }
                sent.set(sent.get() + 1);
            }
            let trailers = [("grpc-status".parse().unwrap(), HeaderValue::from_static("0"))];
            let _ = exchange.answer.finish(Some(trailers.into_iter().collect())).await;
        }
    })
    .await
}

/// A proxy that carries each call to `app`, and a client of it that has little room.
async fn caller_of(app: &h2::ClientConn) -> h2::ClientConn {
    let app = app.clone();
    h2_pair(h2::Limits { stream_window: 1_000, ..h2::Limits::default() }, move |exchange: h2::Exchange| {
        let app = app.clone();
        async move {
            let mut exchange = exchange;
            let (_up, mut answer) = app.send(&get("/many"), true).await.unwrap();
            let told = answer.response_head().await.unwrap();
            exchange.answer.response(&told, false).await.unwrap();
            let (mut from, mut to) = (Source::once(RecvBody::H2(&mut answer)), SendBody::H2(&mut exchange.answer));
            let _ = pump(&mut from, &mut to, &Progress::default(), &stalls(u64::MAX)).await;
        }
    })
    .await
}

#[tokio::test]
async fn callers_that_read_no_small_messages_end_no_call_of_others() {
    run(async {
        let sent = Rc::<Cell<usize>>::default();
        let app = streaming_app(&sent).await;
        let caller = caller_of(&app).await;
        let mut calls = Vec::new();
        for _ in 0..CALLS {
            let (up, mut answer) = caller.send(&get("/"), true).await.unwrap();
            assert_eq!(answer.response_head().await.unwrap().status, StatusCode::OK);
            calls.push((up, answer));
        }
        // Each has filled its window with frames of a few bytes, and its caller takes none of it.
        while sent.get() < CALLS * (WINDOW as usize / MESSAGE.len()) {
            assert!(!app.is_closed(), "the app's connection has ended after {} messages", sent.get());
            yield_now().await;
        }
        let (_up, mut other) = app.send(&get("/one"), true).await.unwrap();
        assert_eq!(other.response_head().await.unwrap().status, StatusCode::OK);
        for (_up, mut answer) in calls {
            let (mut body, mut trailers) = (Vec::new(), None);
            while let Some(frame) = answer.frame().await.unwrap() {
                match frame {
                    Frame::Data(data) => body.extend_from_slice(&data),
                    Frame::Trailers(fields) => trailers = Some(fields),
                }
            }
            assert!(body == MESSAGE.repeat(MESSAGES), "{} bytes in their order", body.len());
            assert_eq!(trailers.unwrap()["grpc-status"], "0");
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_reads_no_interim_answers_is_let_go() {
    run(async {
        let app = h2_pair(h2::Limits::default(), |mut exchange: h2::Exchange| async move {
            let mut hint = head(103);
            hint.headers.insert("link", HeaderValue::from_bytes(&[b'x'; 16 * 1_024]).unwrap());
            for _ in 0..32 {
                exchange.answer.interim(&hint).await.unwrap();
            }
            // The final head never comes.
            exchange.answer.gone().await;
        })
        .await;
        let (_client, server) = deaf().await;
        let mut conn = h1::ServerConn::new(server, &Bytes::new(), h1::Limits::default());
        let h1::Exchange { mut head, body, responder } = conn.next().await.unwrap().unwrap();
        let (mut up, mut answer) = app.send(&get("/"), true).await.unwrap();

        let filters = Filters::new(&Host::new(HostConfig::default()).unwrap(), Bodies::of_tests());
        let place = Place::of_nobody();
        let chain = Chain::default();
        let (mut filtered, _permit) = filtering::request(&filters, &chain, &place, &mut head, None).await.unwrap();
        let (status, alarms, stalls) = (Cell::default(), Alarms::default(), stalls(0));
        let terms = terms(&mut filtered, &status, Idle::of(PATIENCE, (&alarms, &stalls)));
        let (mut body, mut responder) = (Source::once(body), Some(responder));
        let (sent, received) = (Progress::default(), Progress::default());
        let ways = (SendBody::H2(&mut up), ResponseRecv::H2(&mut answer));
        let exchange = exchange((&mut body, &mut responder), ways, terms, (&sent, &received));
        let sweeps = async {
            loop {
                stalls.sweep(Instant::now());
                yield_now().await;
            }
        };
        let end = match select(pin!(exchange), pin!(sweeps)).await {
            Either::Left((end, _)) => end,
            Either::Right(((), _)) => unreachable!("it sweeps for ever"),
        };
        assert!(matches!(end, Err(ExchangeError::Stalled(_))), "{end:?}");
        assert!(responder.is_none(), "nobody tries to tell it anything more");
    })
    .await;
}

/// A request of HTTP/1.1 whose client reads no answer.
async fn deaf() -> (TcpStream, TcpStream) {
    let listening = TcpSocket::new_v4().unwrap();
    listening.set_send_buffer_size(4_096).unwrap();
    listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listening.listen(1).unwrap();
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut client = socket.connect(listener.local_addr().unwrap()).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    (client, listener.accept().await.unwrap().0)
}

#[tokio::test]
async fn an_answer_of_the_proxys_own_that_nobody_takes_is_on_the_books_and_has_an_end() {
    const BYTES: usize = 8 << 20;
    let refused = head(403);
    run(async {
        for (budget, own_answer) in [(u64::MAX, Duration::from_millis(50)), (0, PATIENCE)] {
            let (_client, server) = deaf().await;
            let mut conn = h1::ServerConn::new(server, &Bytes::new(), h1::Limits::default());
            let exchange = conn.next().await.unwrap().unwrap();
            let budget = Arc::new(StallBudget::new(budget, Duration::ZERO));
            let (alarms, stalls) = (Alarms::default(), Stalls::of(&budget));
            let idle = Idle { own_answer, ..Idle::of(PATIENCE, (&alarms, &stalls)) };
            let held = Cell::new(0);
            let sweeps = async {
                loop {
                    held.set(budget.sums().bytes.max(held.get()));
                    stalls.sweep(Instant::now());
                    yield_now().await;
                }
            };
            let told = answer(exchange.responder, &refused, Bytes::from(vec![b'x'; BYTES]), idle);
            match select(pin!(told), pin!(sweeps)).await {
                Either::Left((told, _)) => assert!(matches!(told, Err(NotTaken))),
                Either::Right(((), _)) => unreachable!("it sweeps for ever"),
            }
            assert!(held.get() >= BYTES as u64, "{} bytes were on the books", held.get());
            assert_eq!(budget.sums().bytes, 0);
        }
    })
    .await;
}
