//! Verdicts of filters: they see, change and answer only what they may, and nothing changes after authorization.

use std::time::Duration;

use http::StatusCode;
use weft_filter_host::{Chain, FilterSpec, Outcome, Position, ReplyCause, Summary, Worker};

use crate::support::{Head, ask, host, hostile, refused, spec, wasm};

fn chain(change: impl FnOnce(&mut FilterSpec)) -> (Worker, Chain) {
    let host = host();
    (Worker::new(&host), Chain::new(vec![hostile(&host, change)]))
}

#[test]
fn an_answer_carries_everything() {
    let (mut worker, chain) = chain(|_| ());
    let reply = ask(&mut worker, &chain, 1, Head::told("teapot")).expect_err("an answer");
    assert_eq!(reply.status, StatusCode::IM_A_TEAPOT);
    assert_eq!(reply.headers["content-type"], "text/plain");
    assert_eq!((&*reply.body, reply.rule.as_deref(), &*reply.reason), (&b"short and stout"[..], Some("pot"), "teapot"));
    assert_eq!(reply.cause, ReplyCause::Filter);
}

#[test]
fn what_the_contract_forbids_is_a_failure() {
    let (mut worker, chain) = chain(|_| ());
    for (stream, what) in (1..).zip(["pseudo", "framing", "identity", "bad-path", "split", "status", "flood"]) {
        assert_eq!(refused(ask(&mut worker, &chain, stream, Head::told(what))), "filter_result_invalid", "{what}");
    }
}

#[test]
fn a_new_path_is_normalised() {
    let (mut worker, chain) = chain(|_| ());
    let head = ask(&mut worker, &chain, 1, Head::told("path")).expect("fine");
    assert_eq!(head.path.expect("a path").to_string(), "/other?q=1");
}

#[test]
fn a_filter_sees_what_it_asked_for() {
    let (mut worker, chain) = chain(|_| ());
    let head = ask(&mut worker, &chain, 1, Head::get("/a?b=c").with("x-do", "shown")).expect("fine");
    let expect = format!(
        r#"Some("GET") Some("/a") Some("b=c") Some("app.test:80") Some("{}") Some("127.0.0.1") Some(80) Some(Direction::Inbound)"#,
        crate::support::CALLER
    );
    assert_eq!(head.header("x-shown"), Some(expect.as_str()));
}

#[test]
fn a_delay_goes_on_behind_its_filter() {
    let host = host();
    let first = hostile(&host, |spec| spec.name = "first".to_owned());
    let second = hostile(&host, |spec| spec.name = "second".to_owned());
    let (mut worker, chain) = (Worker::new(&host), Chain::new(vec![first, second]));
    let mut head = Head::told("delay");
    let mut position = Position::START;
    for _ in 0..2 {
        let Outcome::Delay { after, resume } = head.send(&mut worker, &chain, position, 1) else {
            panic!("a delay by each");
        };
        assert_eq!(after, Duration::from_millis(30));
        position = resume;
    }
    assert_eq!(head.header("x-delayed"), Some("yes"), "edits come with the delay");
    assert!(matches!(head.send(&mut worker, &chain, position, 1), Outcome::Permitted(_)));
    worker.done(&chain, 1, &Summary::default());
}

#[test]
fn an_answer_may_come_late_and_is_forgotten_with_its_stream() {
    let (mut worker, chain) = chain(|_| ());
    let delayed = |worker: &mut Worker| {
        let mut head = Head::told("late");
        let Outcome::Delay { after, resume } = head.send(worker, &chain, Position::START, 1) else { panic!("late") };
        assert_eq!(after, Duration::from_millis(20));
        (head, resume)
    };
    let (mut head, resume) = delayed(&mut worker);
    let Outcome::Respond(reply) = head.send(&mut worker, &chain, resume, 1) else { panic!("the answer") };
    assert_eq!(reply.reason, "late");
    let (mut head, resume) = delayed(&mut worker);
    worker.done(&chain, 1, &Summary::default());
    assert!(matches!(head.send(&mut worker, &chain, resume, 1), Outcome::Permitted(_)), "another stream by now");
}

#[test]
fn authorization_runs_last_fails_closed_and_changes_nothing() {
    let host = host();
    let authz = hostile(&host, |spec| {
        spec.name = "authz".to_owned();
        spec.authorization = true;
        spec.on_failure = weft_policy::bundle::OnFailure::Allow;
    });
    let other = hostile(&host, |spec| spec.name = "other".to_owned());
    let chain = Chain::new(vec![authz.clone(), other]);
    assert!(chain.has_authorization());
    assert_eq!(chain.filters()[1].spec().name, "authz");
    let only = Chain::new(vec![authz]);
    let mut worker = Worker::new(&host);
    assert!(ask(&mut worker, &only, 1, Head::get("/")).is_ok());
    for (stream, what) in [(2, "path"), (3, "calls"), (4, "trap")] {
        let reply = ask(&mut worker, &only, stream, Head::told(what)).expect_err("closed, whatever onFailure says");
        assert_eq!(reply.cause, ReplyCause::Failed, "{what}");
    }
    let reply = ask(&mut worker, &only, 5, Head::told("teapot")).expect_err("a denial");
    assert_eq!(reply.cause, ReplyCause::Denied);
}

#[test]
fn authorization_sees_what_the_others_left() {
    let host = host();
    let rules = r#"{"policies": [{"name": "a/b", "action": "Deny", "rules": [{"name": "no", "to": [{"paths": ["/other"]}]}]}]}"#;
    let bytes = wasm("authz");
    let mut authz = spec("authz", &bytes, rules);
    authz.authorization = true;
    let authz = host.prepare(&authz, &bytes).expect("sound");
    let chain = Chain::new(vec![authz, hostile(&host, |_| ())]);
    let mut worker = Worker::new(&host);
    let reply = ask(&mut worker, &chain, 1, Head::told("path")).expect_err("rewritten to the denied path");
    assert_eq!((reply.status.as_u16(), reply.rule.as_deref()), (403, Some("a/b#no")));
    assert!(ask(&mut worker, &chain, 2, Head::told("nothing")).is_ok());
}
