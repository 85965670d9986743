//! gRPC: kinds of calls by how they end, messages cut across frames, metadata, cancels.

use weft_tests::app::message;
use weft_tests::exchange::h2::{Act, Call, Fields, Named, Script};

use super::{Case, Talk, millis, noise};
use crate::mesh::differential::ground::Declared;

fn fields(pairs: &[(&'static str, &str)]) -> Fields {
    pairs.iter().map(|(name, value)| (*name, value.as_bytes().to_vec())).collect()
}

fn asked(more: &[(&'static str, &str)]) -> Fields {
    let mut all = fields(&[("content-type", "application/grpc"), ("te", "trailers"), ("user-agent", "grpc-test/1")]);
    all.extend(fields(more));
    all
}

fn head() -> Act {
    Act::Head(200, fields(&[("content-type", "application/grpc"), ("grpc-encoding", "identity")]), false)
}

fn status(code: &str, text: &str) -> Act {
    Act::Trailers(fields(&[("grpc-status", code), ("grpc-message", text), ("x-trailer-bin", "AAEC")]))
}

fn messages(count: usize, size: usize) -> Vec<Act> {
    (0..count).map(|_| Act::Data(message(&noise(size)).to_vec(), false)).collect()
}

fn with_end(mut acts: Vec<Act>) -> Vec<Act> {
    match acts.last_mut() {
        Some(Act::Data(_, end)) => *end = true,
        _ => acts.push(Act::Data(vec![], true)),
    }
    acts
}

fn once(cases: &mut Vec<Case>, name: String, more: &[(&'static str, &str)], steps: Vec<Act>, script: Script) {
    let (path, named) = ("/test.Echo/Call".to_owned(), Named::Authority);
    let call = Call { method: "POST", path, named, fields: asked(more), end: false, acts: steps };
    let talk = Talk::H2 { calls: vec![call], scripts: vec![script] };
    cases.push(Case { family: "gRPC", name, declared: Declared::Grpc, talk });
}

pub(super) fn add(cases: &mut Vec<Case>) {
    for (name, asked, answered) in
        [("unary", 1, 1), ("client stream", 5, 1), ("server stream", 1, 5), ("both", 4, 4), ("no message", 0, 0)]
    {
        for size in [0, 10, 50_000] {
            let acts = [vec![head()], messages(answered, size), vec![status("0", "")]].concat();
            let script = Script { whole: true, acts };
            once(cases, format!("{name} of {size} bytes"), &[], with_end(messages(asked, size)), script);
        }
    }
    statuses(cases);
    frames(cases);
    ends(cases);
}

fn statuses(cases: &mut Vec<Case>) {
    for code in 0..=16 {
        let (code, unary) = (code.to_string(), || with_end(messages(1, 5)));
        let acts = [vec![head()], messages(1, 5), vec![status(&code, "p%C3%A9 %25")]].concat();
        once(cases, format!("status {code} in trailers"), &[], unary(), Script { whole: true, acts });
        let only = fields(&[("content-type", "application/grpc"), ("grpc-status", &code), ("grpc-message", "no")]);
        let acts = vec![Act::Head(200, only, true)];
        once(cases, format!("status {code} without a body"), &[], unary(), Script { whole: true, acts });
    }
    for code in [400, 401, 404, 429, 502, 503] {
        let acts = vec![
            Act::Head(code, fields(&[("content-type", "text/plain")]), false),
            Act::Data(b"no gRPC".to_vec(), true),
        ];
        once(cases, format!("HTTP {code}"), &[], with_end(messages(1, 5)), Script { whole: true, acts });
    }
    let acts = [vec![head()], with_end(messages(1, 5))].concat();
    once(cases, "no status at all".to_owned(), &[], with_end(messages(1, 5)), Script { whole: true, acts });
}

fn frames(cases: &mut Vec<Case>) {
    let whole = message(&noise(40)).to_vec();
    for size in [1, 4, 5, 6, 20] {
        let cut = |end: bool| -> Vec<Act> {
            let acts = whole
                .chunks(size)
                .flat_map(|piece| [Act::Data(piece.to_vec(), false), Act::Pause(millis(2))])
                .collect();
            if end { with_end(acts) } else { acts }
        };
        let acts = [vec![head()], cut(false), vec![status("0", "")]].concat();
        once(cases, format!("a message in frames of {size}"), &[], cut(true), Script { whole: true, acts });
    }
    let metadata: [(&str, &[(&'static str, &str)]); 5] = [
        ("a deadline", &[("grpc-timeout", "5S")]),
        ("binary metadata", &[("x-data-bin", "AAECAwQ="), ("x-data-bin", "BQY")]),
        ("compression", &[("grpc-encoding", "gzip"), ("grpc-accept-encoding", "gzip,identity")]),
        ("a subtype", &[("x-kind", "proto")]),
        ("authorization", &[("authorization", "Bearer a.b.c")]),
    ];
    for (name, more) in metadata {
        let acts = [vec![head()], messages(1, 5), vec![status("0", "")]].concat();
        once(cases, format!("with {name}"), more, with_end(messages(1, 5)), Script { whole: true, acts });
    }
}

fn ends(cases: &mut Vec<Case>) {
    for (code, name) in [(0, "NO_ERROR"), (2, "INTERNAL_ERROR"), (8, "CANCEL"), (11, "ENHANCE_YOUR_CALM")] {
        for (moment, acts) in [
            ("before the head", vec![]),
            ("after the head", vec![head()]),
            ("after two messages", [vec![head()], messages(2, 10)].concat()),
            ("after 50 messages", [vec![head()], messages(50, 2_000)].concat()),
        ] {
            let acts = [acts, vec![Act::Pause(millis(60)), Act::Reset(code)]].concat();
            once(cases, format!("{name} {moment}"), &[], with_end(messages(1, 5)), Script { whole: true, acts });
        }
    }
    for (moment, awaits, says) in [
        ("before the answer", vec![], vec![]),
        ("after its head", vec![Act::Answered(0)], vec![head()]),
        ("after a message", vec![Act::Answered(15)], [vec![head()], messages(1, 10)].concat()),
    ] {
        let steps = [with_end(messages(1, 5)), vec![Act::Arrived], awaits, vec![Act::Pause(millis(40)), Act::Reset(8)]]
            .concat();
        let script = Script { whole: true, acts: [says, vec![Act::Gone]].concat() };
        once(cases, format!("cancelled {moment}"), &[], steps, script);
    }
    let steps = [messages(2, 5), vec![Act::Arrived, Act::Pause(millis(40)), Act::Reset(8)]].concat();
    once(cases, "cancelled while asking".to_owned(), &[], steps, Script { whole: true, acts: vec![] });
    let acts = [vec![head()], messages(1, 5), vec![status("8", "enough"), Act::Read]].concat();
    let steps = [messages(3, 5), vec![Act::Pause(millis(40))], with_end(messages(1, 5))].concat();
    once(cases, "a status before the call is complete".to_owned(), &[], steps, Script { whole: false, acts });
}
