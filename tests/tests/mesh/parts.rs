//! Answers that a filter gives part by part, to clients of each protocol: each part leaves when it is there, at the client's
//! pace, and an answer that breaks off never looks complete.

use std::sync::Arc;

use http::Method;
use http_body_util::BodyExt as _;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use weft_filter_host::{FilterStats, Hook};
use weft_policy::bundle::{CalloutGrant, CalloutService, Direction, Grant, OnFailure, Protocol};
use weft_tests::client::{empty, raw, tunnel};
use weft_tests::wait::{LIMIT, eventually};
use weft_tests::{Answer, App, Client};

use super::in_process::{Filter, Of, Pair, attach_all, attach_with};

const AUTHORITY: &str = "origin:8080";

fn on(direction: Direction, component: &'static str, config: &'static str) -> Filter {
    Filter { component, direction, config, authorization: false }
}

/// Both sides of the pair, each with the direction that its filters have.
const SIDES: [(Of, Direction); 2] = [(Of::Origin, Direction::Inbound), (Of::Caller, Direction::Outbound)];

async fn client(pair: &Pair, is_multiplexed: bool) -> Client {
    match is_multiplexed {
        true => Client::h2_in_tunnel(pair.proxy(), AUTHORITY).await,
        false => Client::h1_in_tunnel(pair.proxy(), AUTHORITY).await,
    }
}

/// Has one of the proxies answer by the filter; asks the app where a part says so.
fn answer_by(pair: &Pair, (of, direction): (Of, Direction), config: &'static str) {
    let authority = Some("origin.default.svc.cluster.local:8080".to_owned());
    let grant = CalloutGrant { services: vec![CalloutService { name: "quota".to_owned(), authority }] };
    attach_with(pair, of, &[on(direction, "hostile2", config)], |it| it.grants = vec![Grant::Callout(grant.clone())]);
}

async fn get(pair: &Pair, is_multiplexed: bool) -> Option<Answer> {
    client(pair, is_multiplexed).await.call(Method::GET, "/who", &[], empty()).await.ok()
}

fn stats(pair: &Pair, side: (Of, Direction)) -> Arc<FilterStats> {
    pair.shared(side.0).filter_host.stats().pop().expect("one filter").stats
}

const PARTS: &str = "part 0\npart 1\npart 2\npart 3\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_in_parts_arrives_whole() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let app = App::start("one", pair.origin, 8080).await;
    for side in SIDES {
        for is_multiplexed in [false, true] {
            for config in [r#"{"mode": "parts"}"#, r#"{"mode": "parts-wait"}"#, r#"{"mode": "parts-late"}"#] {
                answer_by(&pair, side, config);
                let answer = get(&pair, is_multiplexed).await.expect("an answer");
                assert_eq!((answer.status.as_u16(), answer.text().as_str()), (200, PARTS), "{side:?} {config}");
                assert_eq!(answer.header("content-length"), "", "nobody knows its length");
            }
        }
        answer_by(&pair, side, r#"{"mode": "parts"}"#);
        // HTTP/1.0 knows no chunks: the end of the connection is the end.
        let answer = raw(pair.proxy(), b"GET http://origin:8080/who HTTP/1.0\r\nhost: origin:8080\r\n\r\n").await;
        assert!(answer.starts_with("HTTP/1.") && answer.ends_with(PARTS), "{answer}");
        attach_all(&pair, side.0, &[]);
    }
    assert_eq!(app.served(), 0, "the app saw nothing of it");
}

/// What a part is made of may be asked of a service. Here it is the app itself, by the caller's proxy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_part_is_made_of_what_a_service_says() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let app = App::start("one", pair.origin, 8080).await;
    answer_by(&pair, SIDES[1], r#"{"mode": "parts-ask", "value": "2"}"#);
    let answer = get(&pair, false).await.expect("an answer");
    assert_eq!(answer.text(), "part 0\npart 1 after 200\npart 2 after 200\n");
    assert_eq!(app.served(), 2);
}

/// A part is there before the next one, and those that nobody takes are not made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_leave_one_by_one_and_end_with_their_client() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let _app = App::start("one", pair.origin, 8080).await;
    for side in SIDES {
        for is_multiplexed in [false, true] {
            for (config, wanted) in [
                // The second one is held back for minutes, or waited for.
                (r#"{"mode": "parts-hold"}"#, 7),
                (r#"{"mode": "parts-idle"}"#, 7),
                (r#"{"mode": "parts-endless"}"#, 1 << 20),
            ] {
                answer_by(&pair, side, config);
                let stats = stats(&pair, side);
                let before = stats.calls_at(Hook::Done);
                let mut client = client(&pair, is_multiplexed).await;
                let mut answer = client.start(Method::GET, "/who", &[], empty()).await.expect("a head");
                let mut length = 0;
                while length < wanted {
                    length += answer.frame().await.expect("no end").expect("sound").into_data().expect("data").len();
                }
                drop((answer, client));
                let ended = || async { (stats.calls_at(Hook::Done) == before + 1).then_some(()) };
                eventually(&format!("{side:?} {config} ends with its client"), ended).await;
            }
        }
        attach_all(&pair, side.0, &[]);
    }
}

/// What has no body, and what an answer is answered with, is whole: the filter is not asked for more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_without_a_body_has_no_parts() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let _app = App::start("one", pair.origin, 8080).await;
    for side in SIDES {
        answer_by(&pair, side, r#"{"mode": "parts"}"#);
        let before = stats(&pair, side).calls_at(Hook::ReplyBody);
        let mut h1 = client(&pair, false).await;
        let head = h1.call(Method::HEAD, "/who", &[], empty()).await.expect("an answer");
        assert_eq!((head.status.as_u16(), head.header("content-length")), (200, ""), "{side:?}: as GET's");
        let grpc = [("content-type", "application/grpc"), ("te", "trailers")];
        let call = client(&pair, true).await.call(Method::POST, "/s/m", &grpc, empty()).await.expect("an answer");
        assert_eq!((call.header("content-type"), call.text().as_str()), ("application/grpc", ""));
        answer_by(&pair, side, r#"{"mode": "parts-304"}"#);
        assert_eq!(get(&pair, false).await.expect("an answer").status.as_u16(), 304);
        answer_by(&pair, side, r#"{"mode": "response-replace", "at": "every"}"#);
        assert_eq!(get(&pair, false).await.expect("an answer").text(), "replaced\n");
        assert_eq!(stats(&pair, side).calls_at(Hook::ReplyBody), before, "{side:?}");
        attach_all(&pair, side.0, &[]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_part_breaks_the_answer_off() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let _app = App::start("one", pair.origin, 8080).await;
    for side in SIDES {
        for (config, on_failure) in [
            (r#"{"mode": "parts-respond"}"#, OnFailure::Deny),
            (r#"{"mode": "parts-header"}"#, OnFailure::Deny),
            (r#"{"mode": "parts-long"}"#, OnFailure::Deny),
            (r#"{"mode": "parts-empty"}"#, OnFailure::Allow),
            (r#"{"mode": "parts-delay"}"#, OnFailure::Deny),
            (r#"{"mode": "trap-panic", "at": "reply-body"}"#, OnFailure::Allow),
            (r#"{"mode": "close", "at": "reply-body"}"#, OnFailure::Deny),
        ] {
            attach_with(&pair, side.0, &[on(side.1, "hostile2", config)], |it| it.on_failure = on_failure);
            for is_multiplexed in [false, true] {
                let ended = get(&pair, is_multiplexed).await.map(|answer| (answer.status, answer.text()));
                assert_eq!(ended, None, "{side:?} {config}");
            }
            // HTTP/1.0 has no end of its own: the connection is reset.
            let mut stream = TcpStream::connect(pair.proxy()).await.unwrap();
            stream.write_all(b"GET http://origin:8080/who HTTP/1.0\r\nhost: origin:8080\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            stream.read_to_end(&mut answer).await.expect_err("it looks complete");
        }
        attach_all(&pair, side.0, &[]);
    }
}

/// A client may send all of its request before it reads a byte of the answer.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_left_of_the_request_is_read_meanwhile() {
    const LENGTH: usize = 32 << 20;
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let _app = App::start("one", pair.origin, 8080).await;
    for side in SIDES {
        answer_by(&pair, side, r#"{"mode": "parts", "value": "200"}"#);
        let mut stream = tunnel(pair.proxy(), AUTHORITY).await;
        let head = format!(
            "POST /digest HTTP/1.1\r\nhost: {AUTHORITY}\r\ncontent-length: {LENGTH}\r\nconnection: close\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let sent = tokio::time::timeout(LIMIT, stream.write_all(&vec![b'x'; LENGTH])).await;
        sent.expect("it is taken").expect("it is not reset");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("part 200"), "{side:?}: {answer}");
        attach_all(&pair, side.0, &[]);
    }
}

/// Crumbs without end, gathered for a filter before: others are served meanwhile.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gathering_an_answer_in_parts_leaves_others_their_turn() {
    let limits = json!({"filter_body_timeout_ms": 500});
    let pair = Pair::start_limited(&[(8080, Protocol::Http)], &limits);
    let _app = App::start("one", pair.origin, 8080).await;
    let guard = on(Direction::Inbound, "hostile2", r#"{"mode": "gather-response"}"#);
    let crumbs = on(Direction::Inbound, "hostile2", r#"{"mode": "parts-crumbs"}"#);
    attach_all(&pair, Of::Origin, &[guard, crumbs]);
    // The time of a body ends it, for which the worker must come to look at its clock.
    let answer = get(&pair, false).await.expect("an answer");
    assert_eq!(answer.status.as_u16(), 504, "{}", answer.text());
}

/// Filters before the one that answers see its head, its chunks, and all of it where they asked for that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_filters_before_it_see_an_answer_in_parts() {
    let pair = Pair::start(&[(8080, Protocol::Http)]);
    let _app = App::start("one", pair.origin, 8080).await;
    for (of, direction) in SIDES {
        let parts = on(direction, "hostile2", r#"{"mode": "parts"}"#);
        let mark = on(direction, "header-edit", r#"{"response": {"set": [{"name": "x-mark", "value": "1"}]}}"#);
        let upper = on(direction, "hostile2", r#"{"mode": "body-upper-case"}"#);
        attach_all(&pair, of, &[mark, upper, parts]);
        let answer = get(&pair, true).await.expect("an answer");
        assert_eq!((answer.header("x-mark"), answer.text()), ("1", PARTS.to_uppercase()), "{of:?}");
        let checked = on(direction, "hostile2", r#"{"mode": "body-check-response"}"#);
        attach_all(&pair, of, &[checked, parts]);
        let answer = get(&pair, false).await.expect("an answer");
        assert_eq!((answer.text().as_str(), answer.header("content-length")), ("checked", "7"), "{of:?}");
        let replaced = on(direction, "hostile2", r#"{"mode": "response-replace"}"#);
        let endless = on(direction, "hostile2", r#"{"mode": "parts-endless"}"#);
        attach_all(&pair, of, &[replaced, endless]);
        assert_eq!(get(&pair, false).await.expect("an answer").text(), "replaced\n", "{of:?}");
        // One that breaks off while it is gathered is not sent, and what comes instead is seen, too.
        let trapping = on(direction, "hostile2", r#"{"mode": "trap-panic", "at": "reply-body"}"#);
        attach_all(&pair, of, &[mark, checked, trapping]);
        let answer = get(&pair, false).await.expect("an answer");
        assert_eq!((answer.status.as_u16(), answer.header("x-mark")), (503, "1"), "{of:?}");
        attach_all(&pair, of, &[]);
    }
}
