//! What failures are told as.

use super::*;

fn check(failure: &Failure, form: Form, expect: &str) {
    let (head, body) = failure.reply(Side::Inbound, form, true);
    let header = |name: &str| head.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or("-").to_owned();
    let seen = format!(
        "{} {} grpc={} [{}] {}",
        head.status.as_u16(),
        failure.verdict().flag.letters(),
        header("grpc-status"),
        header("weft-reply"),
        String::from_utf8_lossy(&body).trim_end()
    );
    assert_eq!(seen, expect);
}

/// A peer's reason for closing its connection is the peer's text.
#[test]
fn nothing_that_a_peer_says_steers_the_terminal_of_who_reads_an_answer() {
    let said = StreamError::ConnectionLost("closed: \u{1b}[2J\u{7}\r\ngone".to_owned());
    let failure = Failure::NoAnswer { to: Party::Peer, error: said };
    for form in [Form::Http, Form::Grpc, Form::GrpcWeb] {
        let (head, body) = failure.reply(Side::Outbound, form, true);
        let body = String::from_utf8(body.to_vec()).unwrap();
        assert!(!body.trim_end_matches('\n').contains(char::is_control), "{body:?}");
        for value in head.headers.values() {
            assert!(value.to_str().is_ok_and(|value| !value.contains(char::is_control)), "{value:?}");
            assert!(!value.to_str().unwrap().contains("%1B"), "{value:?}");
        }
    }
}

#[test]
fn each_failure_tells_one_story() {
    let denied = Failure::Filter(Box::new(FilterReply {
        status: StatusCode::FORBIDDEN,
        headers: HeaderMap::new(),
        body: Bytes::from_static(b"denied"),
        filter: "authz".into(),
        cause: ReplyCause::Denied,
        rule: Some("shop/reviews#0".to_owned()),
        reason: "no allow rule matched".to_owned(),
        more: None,
    }));
    check(&denied, Form::Http, "403 UAEX grpc=- [inbound;filter;shop/reviews#0;no allow rule matched] denied");
    check(&denied, Form::Grpc, "200 UAEX grpc=7 [inbound;filter;shop/reviews#0;no allow rule matched] ");
    let faulty = |named: &'static str| {
        Failure::Filter(Box::new(FilterReply {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            headers: HeaderMap::from_iter([("grpc-status".parse().unwrap(), HeaderValue::from_static(named))]),
            body: Bytes::new(),
            filter: "shop/chaos".into(),
            cause: ReplyCause::Filter,
            rule: None,
            reason: "fault_abort".to_owned(),
            more: None,
        }))
    };
    check(&faulty("10"), Form::Grpc, "200 FI grpc=10 [inbound;filter;shop/chaos;fault_abort] ");
    check(&faulty("17"), Form::Grpc, "200 FI grpc=2 [inbound;filter;shop/chaos;fault_abort] ");
    let timeout = Failure::Timeout(5);
    check(
        &timeout,
        Form::Http,
        "504 UT grpc=- [inbound;response;-;no answer within 5 ms] weft inbound response: no answer within 5 ms",
    );
    let nowhere = Failure::NoEndpoints { service: "shop/ü".to_owned() };
    check(&nowhere, Form::Grpc, "200 UH grpc=14 [inbound;balance;-;shop/? has no endpoints] ");
}

#[test]
fn a_destination_that_is_full_says_why() {
    let full = |full| Failure::DestinationFull { service: "shop/cart".to_owned(), full };
    let sentence = "shop/cart takes no more of this proxy: 2 are under way, and none may wait";
    check(
        &full(GateFull::Active(2)),
        Form::Http,
        &format!("503 UO grpc=- [inbound;balance;-;{sentence}] weft inbound balance: {sentence}"),
    );
    let reasons = [GateFull::Active(2), GateFull::Pending(2), GateFull::Late(5)].map(|it| full(it).verdict().reason);
    assert_eq!(reasons, ["active_requests", "pending_requests", "pending_time"]);
    assert!(!full(GateFull::Late(5)).is_unreachable());
}

#[test]
fn a_saturated_app_is_no_unreachable_one() {
    let saturated = Failure::AppSaturated { address: "127.0.0.9:80".to_owned(), wait_ms: 5_000, connections: 16 };
    let told = "no free stream to 127.0.0.9:80 within 5000 ms on 16 connections";
    let expect = format!("503 UO grpc=- [inbound;connect;-;{told}] weft inbound connect: {told}");
    check(&saturated, Form::Http, &expect);
    assert!(!saturated.is_unreachable() && !saturated.is_refusal());
}

#[test]
fn a_peer_is_told_what_nobody_has_seen() {
    let away = Failure::AppConnect { address: "10.0.0.1:80".to_owned(), reason: "refused".to_owned() };
    let unserved = Failure::Unserved(Box::new(away));
    let sentence = "cannot connect to the app at 10.0.0.1:80: refused";
    check(
        &unserved,
        Form::Http,
        &format!("503 UF grpc=- [inbound;connect;-;{sentence}] weft inbound connect: {sentence}"),
    );
    let marked = |to_peer| unserved.reply(Side::Inbound, Form::Grpc, to_peer).0.headers.contains_key(WEFT_UNSERVED);
    assert!(marked(true) && !marked(false));
}

#[test]
fn grpc_messages_are_percent_encoded() {
    assert_eq!(percent_encode("50% ü\n"), "50%25 %C3%BC%0A");
}
