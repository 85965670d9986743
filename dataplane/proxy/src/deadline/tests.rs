//! What fields mean, what is told on, and what a caller is answered whose time is over.

use http::{Method, Version};
use weft_transport::http::UpgradeToken;

use super::*;
use crate::mesh;

fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
    let fields = fields.iter();
    fields.map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
}

fn head(fields: &[(&'static str, &'static str)]) -> RequestHead {
    let mut headers = HeaderMap::new();
    for (name, value) in fields {
        headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    let path = Some("/".parse().unwrap());
    RequestHead { method: Method::POST, authority: None, path, protocol: None, headers, version: Version::HTTP_2 }
}

fn taken(fields: &[(&'static str, &'static str)], limit: Option<u64>) -> (Until, HeaderMap) {
    let mut head = head(fields);
    let until = Said::read(&head.headers).take(&mut head, Instant::now());
    (until.and(limit.map(Duration::from_millis), None), head.headers)
}

const GRPC: (&str, &str) = ("content-type", "application/grpc+proto");

/// What is told on; the clock stands still.
#[tokio::test(start_paused = true)]
async fn the_least_of_what_is_said_and_set_is_told_on() {
    fn check(fields: &[(&'static str, &'static str)], limit: Option<u64>, expect: &[(&'static str, &'static str)]) {
        let until = taken(fields, limit).0;
        assert_eq!(until.fields(Instant::now()).collect::<HeaderMap>(), headers(expect), "{fields:?} within {limit:?}");
    }
    check(&[], None, &[]);
    check(&[], Some(10_000), &[("weft-timeout-ms", "10000")]);
    check(&[("weft-timeout-ms", "250")], None, &[("weft-timeout-ms", "250")]);
    check(&[("weft-timeout-ms", "250")], Some(10_000), &[("weft-timeout-ms", "250")]);
    // Nobody lengthens what the operator set.
    check(&[("weft-timeout-ms", "20000")], Some(10_000), &[("weft-timeout-ms", "10000")]);
    check(&[("weft-timeout-ms", "99999999999999")], Some(10_000), &[("weft-timeout-ms", "10000")]);
    check(&[("weft-timeout-ms", "soon")], None, &[]);
    check(&[("weft-timeout-ms", "900"), ("weft-timeout-ms", "70")], None, &[("weft-timeout-ms", "70")]);
    let both = [("weft-timeout-ms", "5000"), ("grpc-timeout", "5000000u")];
    check(&[GRPC, ("grpc-timeout", "5S")], None, &both);
    check(&[GRPC, ("grpc-timeout", "5S")], Some(6_000), &both);
    let both = [("weft-timeout-ms", "70"), ("grpc-timeout", "70000000n")];
    check(&[GRPC, ("grpc-timeout", "5S"), ("weft-timeout-ms", "70")], None, &both);
    check(&[GRPC, ("grpc-timeout", "5S"), ("grpc-timeout", "70m")], Some(200), &both);
    // Servers end streams by the call's own field: it is the caller's word alone.
    let shorter = [("weft-timeout-ms", "200"), ("grpc-timeout", "5000000u")];
    check(&[GRPC, ("grpc-timeout", "5S")], Some(200), &shorter);
    // What only proxies tell each other is nobody's from an app.
    check(&[("weft-answer-ms", "70")], None, &[]);
    check(&[("weft-answer-ms", "70")], Some(10_000), &[("weft-timeout-ms", "10000")]);
    // Of what is no gRPC call it is a field as any other.
    check(&[("grpc-timeout", "5S")], None, &[]);
}

#[test]
fn a_grpc_timeout_that_means_nothing_is_the_apps() {
    for value in ["5s", "", "99999999H", "123456789m"] {
        let (until, left) = taken(&[GRPC, ("grpc-timeout", value)], None);
        assert!(until.end().is_none() && left["grpc-timeout"] == value, "{value:?}");
    }
    assert_eq!(taken(&[GRPC, ("grpc-timeout", "5S")], None).1, headers(&[GRPC]), "it is told as what is left");
    let plain = [("content-type", "text/plain"), ("grpc-timeout", "5S")];
    assert_eq!(taken(&plain, None).1, headers(&plain));
}

#[tokio::test(start_paused = true)]
async fn what_is_left_shrinks_to_nothing() {
    let (until, _) = taken(&[GRPC, ("grpc-timeout", "100m")], Some(500));
    let told = || until.fields(Instant::now()).map(|(_, value)| value.to_str().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(told(), ["100", "100000u"]);
    assert_eq!(until.plain_field(Instant::now()).unwrap().0, "grpc-timeout");
    tokio::time::advance(Duration::from_millis(60)).await;
    assert_eq!(told(), ["40", "40000000n"]);
    assert!(until.check(Instant::now()).is_ok());
    tokio::time::advance(Duration::from_millis(40)).await;
    assert_eq!(told(), ["0", "0n"]);
    assert!(matches!(until.check(Instant::now()), Err(Failure::NoTimeLeft)));
    assert_eq!(until.ends_behind().whole.unwrap().left(Instant::now()), BEHIND);
    // The operator's own is told as it always was.
    let (own, _) = taken(&[], Some(5));
    tokio::time::advance(Duration::from_millis(5)).await;
    assert!(matches!(own.check(Instant::now()), Err(Failure::Timeout(5))));
    // Time that went by before the fields were read counts.
    let mut late = head(&[GRPC, ("grpc-timeout", "100m")]);
    let (said, came) = (Said::read(&late.headers), Instant::now());
    tokio::time::advance(Duration::from_millis(70)).await;
    assert_eq!(said.take(&mut late, came).end().unwrap().left(Instant::now()), Duration::from_millis(30));
    assert!(taken(&[("weft-timeout-ms", "0")], None).0.check(Instant::now()).is_err());
}

#[test]
fn an_upgraded_request_has_none() {
    let upgraded = head(&[("weft-timeout-ms", "5")]);
    let mut upgraded = RequestHead { protocol: UpgradeToken::new("websocket"), ..upgraded };
    assert!(Said::read(&upgraded.headers).take(&mut upgraded, Instant::now()).end().is_none());
}

#[test]
fn a_caller_whose_time_is_over_is_told_so() {
    for (failure, stage, reason) in [
        (Failure::CallerDeadline(5), "response", "caller_deadline"),
        (Failure::NoTimeLeft, "request", "no_time_left"),
        (Failure::Timeout(5), "response", "timeout"),
    ] {
        let told = failure.verdict();
        assert_eq!((told.status.as_u16(), told.flag.letters(), told.grpc), (504, "UT", 4), "{failure}");
        assert_eq!((told.stage, told.reason), (stage, reason), "{failure}");
        // It is nothing after which another endpoint is tried.
        assert!(!failure.is_unreachable() && !failure.is_refusal() && !failure.is_unserved());
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_is_told_and_passes_on_what_is_left() {
    let mut call = head(&[GRPC, ("grpc-timeout", "1S"), ("weft-timeout-ms", "250")]);
    let said = Said::read(&call.headers);
    mesh::strip(&mut call.headers);
    let until = said.take(&mut call, Instant::now());
    tokio::time::advance(Duration::from_millis(50)).await;
    let value = HeaderValue::from_static("x");
    let stamp = mesh::Stamp::new(&call, &value, &value, 0).telling(&until);
    call.headers.extend(stamp.added().fields.iter().cloned());
    let (said, came) = (mesh::take(&mut call).deadline, Instant::now());
    assert_eq!(call.headers, headers(&[GRPC, ("grpc-timeout", "200000u")]), "the rest is for the proxy");
    tokio::time::advance(Duration::from_millis(20)).await;
    let until = said.take(&mut call, came);
    assert_eq!(
        until.fields(Instant::now()).collect::<HeaderMap>(),
        headers(&[("weft-timeout-ms", "180"), ("grpc-timeout", "180000u")])
    );
}

/// The caller's word and what only the operator set are told each by itself, and hold at the callee for what they are.
#[tokio::test(start_paused = true)]
async fn a_peer_is_told_whose_time_it_is() {
    type Told = &'static [(&'static str, &'static str)];
    fn check(fields: Told, limit: Option<u64>, told: Told, ends: [Option<u64>; 2], to_app: Told) {
        let (until, mut left) = taken(fields, limit);
        mesh::strip(&mut left);
        let of_call = left.into_iter().filter_map(|(name, value)| Some((name?, value)));
        let to_proxy: HeaderMap = of_call.chain(until.to_proxy(Instant::now())).collect();
        assert_eq!(to_proxy, headers(told), "{fields:?} within {limit:?}");
        let mut call = RequestHead { headers: to_proxy, ..head(&[]) };
        let said = mesh::take(&mut call).deadline;
        let until = said.take(&mut call, Instant::now());
        let behind = until.ends_behind();
        let ms =
            |end: Option<End>| end.map(|end| u64::try_from((end.left(Instant::now()) - BEHIND).as_millis()).unwrap());
        assert_eq!([ms(behind.whole), ms(behind.stream)], ends, "{fields:?} within {limit:?}");
        assert_eq!(until.fields(Instant::now()).collect::<HeaderMap>(), headers(to_app), "{fields:?} within {limit:?}");
    }
    let said: Told = &[("weft-timeout-ms", "500")];
    check(&[], None, &[], [None, None], &[]);
    check(said, None, said, [Some(500), Some(500)], said);
    check(said, Some(900), said, [Some(500), Some(500)], said);
    check(&[], Some(300), &[("weft-answer-ms", "300")], [Some(300), None], &[("weft-timeout-ms", "300")]);
    let both: Told = &[("weft-timeout-ms", "500"), ("weft-answer-ms", "300")];
    check(said, Some(300), both, [Some(300), Some(500)], &[("weft-timeout-ms", "300")]);
    let call: Told = &[GRPC, ("grpc-timeout", "500m")];
    let told: Told = &[GRPC, ("weft-timeout-ms", "500"), ("grpc-timeout", "500000u"), ("weft-answer-ms", "300")];
    let to_app: Told = &[("weft-timeout-ms", "300"), ("grpc-timeout", "500000u")];
    check(call, Some(300), told, [Some(300), Some(500)], to_app);
}

#[tokio::test(start_paused = true)]
async fn a_stream_has_the_time_of_streams_and_the_callers() {
    let until = |fields: &[(&'static str, &'static str)], stream: Option<u64>| {
        let mut head = head(fields);
        let said = Said::read(&head.headers).take(&mut head, Instant::now());
        said.and(Some(Duration::from_millis(300)), stream.map(Duration::from_millis)).ends()
    };
    let ms = |end: Option<End>| end.map(|end| end.left(Instant::now()).as_millis());
    let check = |ends: Ends, expect: [Option<u128>; 2]| assert_eq!([ms(ends.whole), ms(ends.stream)], expect);
    check(until(&[], None), [Some(300), None]);
    check(until(&[], Some(900)), [Some(300), Some(900)]);
    check(until(&[("weft-timeout-ms", "500")], Some(900)), [Some(300), Some(500)]);
    check(until(&[("weft-timeout-ms", "100")], Some(50)), [Some(100), Some(50)]);
    // A filter's time is that of its whole question.
    let callout = Until::whole(Duration::from_millis(80)).and(Some(Duration::from_millis(300)), None).ends();
    check(callout, [Some(80), Some(80)]);
}

#[tokio::test(start_paused = true)]
async fn a_time_that_is_nearly_over_is_told_from_others() {
    let is_nearly_over = |ms: &'static str| taken(&[("weft-timeout-ms", ms)], None).0.is_nearly_over();
    assert!(is_nearly_over("0") && is_nearly_over("50") && !is_nearly_over("51"));
    assert!(!taken(&[], None).0.is_nearly_over(), "without an end");
}
