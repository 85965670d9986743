//! The leg to an app over loopback: real HTTP/1 on both sides, no mesh and no process.

use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::LocalSet;
use weft_filter_host::{Chain, Host, HostConfig};
use weft_flow::Allowance;
use weft_transport::h3::Code;
use weft_transport::http::{Frame, ResponseHead};
use weft_transport::{h1, h2};

use super::*;
use crate::alarms::Alarms;
use crate::apps::Holder;
use crate::config::{Limits, Listen};
use crate::filtering::{self, Bodies, Filters, Place};
use crate::record::Record;
use crate::relay::Source;
use crate::reply::Side;
use crate::shares::ShareLimits;
use crate::sockets::Guard;
use crate::stalls::{StallBudget, Stalls};

const LISTEN: &str = "{mesh: '127.0.0.1:15008', admin: '127.0.0.1:15000'}";

/// Everything of a worker that the leg needs.
struct Parts {
    apps: AppPool,
    holder: Holder,
    counters: Counters,
    budget: Budget,
    filters: Filters,
    alarms: Alarms,
    stalls: Stalls,
    sockets: [PlainSocket; 1],
    version: Version,
}

impl Parts {
    fn new(app: &TcpListener, version: Version) -> Self {
        let guard = Guard::new(&serde_saphyr::from_str::<Listen>(LISTEN).unwrap(), true);
        let outside = guard.outside(app.local_addr().unwrap(), [127, 0, 0, 1].into()).unwrap();
        Self {
            apps: AppPool::new(None, guard, &Limits::default(), ShareLimits { destination: 64, caller: 32 }),
            holder: Holder::App([127, 0, 0, 1].into()),
            counters: Counters::register(),
            budget: Budget::new(Allowance { percent: 20, per_second: 3 }),
            filters: Filters::new(&Host::new(HostConfig::default()).unwrap(), Bodies::of_tests()),
            alarms: Alarms::default(),
            stalls: Stalls::of(&Arc::new(StallBudget::new(u64::MAX, Duration::from_secs(1)))),
            sockets: [PlainSocket::Outside(outside)],
            version,
        }
    }

    fn leg(&self) -> AppLeg<'_> {
        let second = Duration::from_secs(1);
        AppLeg {
            apps: &self.apps,
            counters: &self.counters,
            budget: &self.budget,
            start: Instant::now(),
            connect_timeout: second,
            resends: 16,
            idle: Idle::of(second * 10, (&self.alarms, &self.stalls)),
        }
    }

    /// Serves the requests of one client connection until it closes.
    async fn serve(&self, client: TcpStream) {
        let mut conn = h1::ServerConn::new(client, &Bytes::new(), h1::Limits::default());
        let chain = Chain::default();
        while let Ok(Some(h1::Exchange { mut head, body, responder })) = conn.next().await {
            let place = Place::of_nobody();
            let (mut filtered, permit) =
                filtering::request(&self.filters, &chain, &place, &mut head, None).await.unwrap();
            let mut record = Record::open(Side::Outbound, ([127, 0, 0, 1], 9).into(), &head, false);
            let (mut body, mut responder) = (Source::replayable(body, 1_024), Some(responder));
            let mut call = Call {
                head: &head,
                body: &mut body,
                responder: &mut responder,
                record: &mut record,
                holder: &self.holder,
                trial: None,
            };
            let carried = self.leg().carry(&self.sockets, self.version, permit, &mut filtered, &mut call).await;
            if let Err(failed) = carried {
                record.reply(&failed.failure(), &mut responder, self.leg().idle).await;
            }
        }
    }
}

/// Runs `client` against the leg to an app that `app` plays.
async fn play<A, C>(app: impl FnOnce(TcpListener) -> A, client: impl FnOnce(TcpStream) -> C) -> C::Output
where
    A: Future<Output = ()> + 'static,
    C: Future,
{
    play_in(Version::HTTP_11, app, client).await
}

/// The same with an app that is spoken to in `version`.
async fn play_in<A, C>(
    version: Version,
    app: impl FnOnce(TcpListener) -> A,
    client: impl FnOnce(TcpStream) -> C,
) -> C::Output
where
    A: Future<Output = ()> + 'static,
    C: Future,
{
    play_with(|app| Parts::new(app, version), app, client).await
}

/// The same with these parts.
async fn play_with<A, C>(
    parts: impl FnOnce(&TcpListener) -> Parts,
    app: impl FnOnce(TcpListener) -> A,
    client: impl FnOnce(TcpStream) -> C,
) -> C::Output
where
    A: Future<Output = ()> + 'static,
    C: Future,
{
    let (listener, front) = (listener().await, listener().await);
    let parts = Rc::new(parts(&listener));
    let address = front.local_addr().unwrap();
    let local = LocalSet::new();
    local.spawn_local(app(listener));
    local.spawn_local(async move {
        while let Ok((stream, _)) = front.accept().await {
            let parts = Rc::clone(&parts);
            tokio::task::spawn_local(async move { Box::pin(parts.serve(stream)).await });
        }
    });
    local.run_until(async move { client(TcpStream::connect(address).await.unwrap()).await }).await
}

async fn listener() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.unwrap()
}

/// Reads until `end` was seen or the stream ended.
async fn until(stream: &mut TcpStream, end: &str) -> String {
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains(end) {
        if stream.read_buf(&mut seen).await.unwrap_or(0) == 0 {
            break;
        }
    }
    String::from_utf8_lossy(&seen).into_owned()
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// Answers once on its first connection, ends it at the next request, answers on the second.
async fn forgetful(app: TcpListener) {
    let (mut first, _) = app.accept().await.unwrap();
    until(&mut first, "\r\n\r\n").await;
    first.write_all(OK).await.unwrap();
    until(&mut first, "\r\n\r\n").await;
    drop(first);
    let (mut second, _) = app.accept().await.unwrap();
    until(&mut second, "\r\n\r\n").await;
    second.write_all(OK).await.unwrap();
    std::future::pending().await
}

async fn twice(client: TcpStream, request: &str) -> String {
    let mut client = client;
    client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    assert!(until(&mut client, "ok").await.starts_with("HTTP/1.1 200"));
    client.write_all(request.as_bytes()).await.unwrap();
    let answer = until(&mut client, "\r\n\r\n").await;
    answer.lines().next().unwrap_or("nothing").to_owned()
}

#[tokio::test]
async fn what_is_idempotent_is_sent_again_when_a_kept_connection_dies() {
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(play(forgetful, |client| twice(client, get)).await, "HTTP/1.1 200 OK");
    let put = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    assert_eq!(play(forgetful, |client| twice(client, put)).await, "HTTP/1.1 200 OK");
}

/// The same over HTTP/2: the first connection ends without a GOAWAY at its second request, as that of an app that is killed.
async fn forgetful_h2(app: TcpListener) {
    let mut requests = 1;
    loop {
        let (stream, _) = app.accept().await.unwrap();
        let mut conn = h2::ServerConn::new(stream, Bytes::new(), &h2::Limits::default()).await.unwrap();
        while let Ok(Some(h2::Exchange { mut answer, mut body, .. })) = conn.accept().await {
            if requests == 2 {
                requests += 1;
                break;
            }
            requests += 1;
            tokio::task::spawn_local(async move {
                while let Ok(Some(_)) = body.frame().await {}
                answer
                    .response(&ResponseHead { status: StatusCode::OK, headers: HeaderMap::new() }, false)
                    .await
                    .unwrap();
                answer.data(Bytes::from_static(b"ok")).await.unwrap();
                answer.finish(None).await.unwrap();
            });
        }
    }
}

#[tokio::test]
async fn a_kept_connection_of_either_version_that_dies_costs_nothing_idempotent() {
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let put = "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    for (request, expect) in [(get, "200 OK"), (put, "200 OK"), (post, "502 Bad Gateway")] {
        let answer = play_in(Version::HTTP_2, forgetful_h2, |client| twice(client, request)).await;
        assert_eq!(answer, format!("HTTP/1.1 {expect}"), "{request}");
    }
}

#[tokio::test]
async fn nothing_is_sent_again_beyond_the_budget() {
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let bare = |version| {
        move |app: &TcpListener| Parts {
            budget: Budget::new(Allowance { percent: 0, per_second: 0 }),
            ..Parts::new(app, version)
        }
    };
    let answer = play_with(bare(Version::HTTP_11), forgetful, |client| twice(client, get)).await;
    assert_eq!(answer, "HTTP/1.1 502 Bad Gateway");
    let answer = play_with(bare(Version::HTTP_2), forgetful_h2, |client| twice(client, get)).await;
    assert_eq!(answer, "HTTP/1.1 502 Bad Gateway");
}

#[tokio::test]
async fn what_may_have_been_processed_is_not_sent_again() {
    let post = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 3\r\n\r\nabc";
    assert_eq!(play(forgetful, |client| twice(client, post)).await, "HTTP/1.1 502 Bad Gateway");
}

#[tokio::test]
async fn a_first_use_that_dies_is_not_sent_again() {
    let app = async |app: TcpListener| {
        let (mut first, _) = app.accept().await.unwrap();
        until(&mut first, "\r\n\r\n").await;
        drop(first);
        assert!(app.accept().await.is_err(), "a second connection");
    };
    let client = async |mut client: TcpStream| {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        until(&mut client, "\r\n\r\n").await
    };
    assert!(play(app, client).await.starts_with("HTTP/1.1 502"));
}

#[tokio::test]
async fn an_app_that_refuses_is_refused() {
    // Nothing else is tried in its place: the port is closed as soon as its number is known.
    let app = async |app: TcpListener| drop(app);
    let client = async |mut client: TcpStream| {
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
        until(&mut client, "\r\n\r\n").await
    };
    assert!(play(app, client).await.starts_with("HTTP/1.1 502"));
}

#[tokio::test]
async fn an_app_that_answers_early_still_gets_the_rest() {
    let (told, whole) = tokio::sync::oneshot::channel();
    let app = async move |app: TcpListener| {
        let (mut conn, _) = app.accept().await.unwrap();
        until(&mut conn, "\r\n\r\n").await;
        conn.write_all(b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await.unwrap();
        let body = until(&mut conn, "the end").await;
        let _ = told.send(body);
        std::future::pending().await
    };
    let client = async move |mut client: TcpStream| {
        client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 40007\r\n\r\n").await.unwrap();
        client.write_all(b"x").await.unwrap();
        assert!(until(&mut client, "\r\n\r\n").await.starts_with("HTTP/1.1 202"));
        client.write_all(&[b'y'; 39_999]).await.unwrap();
        client.write_all(b"the end").await.unwrap();
        whole.await.unwrap()
    };
    let body = play(app, client).await;
    assert!(body.ends_with("the end") && body.len() >= 40_006, "{} bytes", body.len());
}

#[tokio::test]
async fn own_answers_to_head_have_no_body() {
    let app = async |app: TcpListener| drop(app);
    let client = async |mut client: TcpStream| {
        client.write_all(b"HEAD / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n").await.unwrap();
        until(&mut client, "never").await
    };
    let answer = play(app, client).await;
    assert!(answer.starts_with("HTTP/1.1 502") && answer.ends_with("\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_connection_is_kept_no_longer_than_its_app_says() {
    let app = async |app: TcpListener| {
        for _ in 0..2 {
            let (mut conn, _) = app.accept().await.unwrap();
            tokio::task::spawn_local(async move {
                until(&mut conn, "\r\n\r\n").await;
                let answer = b"HTTP/1.1 200 OK\r\nkeep-alive: timeout=0\r\ncontent-length: 2\r\n\r\nok";
                conn.write_all(answer).await.unwrap();
                assert_eq!(until(&mut conn, "\r\n\r\n").await, "", "it is not used again");
            });
        }
        std::future::pending().await
    };
    let get = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    assert_eq!(play(app, |client| twice(client, get)).await, "HTTP/1.1 200 OK");
}

/// Refuses the first request once a part of its body has come, and serves the next.
async fn choosy(app: TcpListener, refused: Rc<Notify>) {
    let (stream, _) = app.accept().await.unwrap();
    let mut conn = h2::ServerConn::new(stream, Bytes::new(), &h2::Limits::default()).await.unwrap();
    let mut first = true;
    while let Ok(Some(h2::Exchange { mut body, mut answer, .. })) = conn.accept().await {
        let (refuse, refused) = (std::mem::take(&mut first), Rc::clone(&refused));
        tokio::task::spawn_local(async move {
            let mut all = Vec::new();
            while let Ok(Some(Frame::Data(data))) = body.frame().await {
                all.extend_from_slice(&data);
                if refuse {
                    answer.reset(Code::REQUEST_REJECTED);
                    return refused.notify_one();
                }
            }
            let status = if all == b"helloworld" { StatusCode::OK } else { StatusCode::IM_A_TEAPOT };
            answer.response(&ResponseHead { status, headers: HeaderMap::new() }, true).await.unwrap();
        });
    }
}

#[tokio::test]
async fn a_request_that_was_refused_half_sent_is_sent_again_whole() {
    let refused = Rc::new(Notify::new());
    let client = async |mut client: TcpStream| {
        client.write_all(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhello").await.unwrap();
        refused.notified().await;
        client.write_all(b"world").await.unwrap();
        until(&mut client, "\r\n\r\n").await
    };
    let app = |listener| choosy(listener, Rc::clone(&refused));
    let answer = play_in(Version::HTTP_2, app, client).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A socket that is there and takes no connection: its queue is full.
async fn silent() -> (TcpListener, Vec<TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let (address, mut waiting) = (listener.local_addr().unwrap(), Vec::new());
    while let Ok(Ok(stream)) = tokio::time::timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
        waiting.push(stream);
    }
    (listener, waiting)
}

/// RFC 8305: the next address is tried beside one that does not answer at once.
#[tokio::test]
async fn an_address_that_is_silent_is_not_waited_for_alone() {
    let (good, (silent, _waiting)) = (listener().await, silent().await);
    let parts = Parts::new(&good, Version::HTTP_11);
    let guard = Guard::new(&serde_saphyr::from_str::<Listen>(LISTEN).unwrap(), true);
    let first = guard.outside(silent.local_addr().unwrap(), [127, 0, 0, 1].into()).unwrap();
    let sockets = [PlainSocket::Outside(first), parts.sockets[0]];
    let place = Place::of_nobody();
    let (_filtered, permit) = filtering::connection(&parts.filters, &Chain::default(), &place).await.unwrap();
    let connecting = parts.apps.connect(&sockets, Duration::from_secs(60), &parts.holder, permit);
    let connected = tokio::time::timeout(Duration::from_secs(20), connecting).await.expect("beside the first");
    let (stream, _share) = connected.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), good.local_addr().unwrap());
}
