//! HTTP/2 with prior knowledge: methods by statuses, targets, fields, bodies in frames, resets and cancels by code and moment.

use weft_tests::exchange::h2::{Act, Call, Fields, Named, Script};

use super::{Case, Talk, millis, noise};
use crate::mesh::differential::ground::Declared;

const METHODS: &[&str] = &["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"];
const STATUSES: &[u16] = &[200, 201, 204, 205, 206, 304, 400, 404, 413, 500, 503, 599];

const TARGETS: &[&str] = &[
    "/",
    "/a?x=1",
    "/a//b",
    "/a%2Fb",
    "/a;v=1/b",
    "/a%5Cb",
    "/caf%E9",
    "/a?",
    "/a?q=%zz",
    "/{id}?a[0]=1",
    "/*",
    "/a|b",
];

/// Codes of RFC 9113 7 that an origin or a client may reset with.
const CODES: &[(u32, &str)] =
    &[(0, "NO_ERROR"), (2, "INTERNAL_ERROR"), (8, "CANCEL"), (11, "ENHANCE_YOUR_CALM"), (13, "HTTP_1_1_REQUIRED")];

fn fields(pairs: &[(&'static str, &str)]) -> Fields {
    pairs.iter().map(|(name, value)| (*name, value.as_bytes().to_vec())).collect()
}

fn call(method: &'static str, path: &str, fields: Fields, body: Option<Vec<u8>>) -> Call {
    let end = body.is_none();
    let acts = body.map(|body| Act::Data(body, true)).into_iter().collect();
    Call { method, path: path.to_owned(), named: Named::Authority, fields, end, acts }
}

fn get() -> Call {
    call("GET", "/", vec![], None)
}

fn once(cases: &mut Vec<Case>, family: &'static str, name: String, call: Call, whole: bool, acts: Vec<Act>) {
    let talk = Talk::H2 { calls: vec![call], scripts: vec![Script { whole, acts }] };
    cases.push(Case { family, name, declared: Declared::Http, talk });
}

fn ok() -> Vec<Act> {
    vec![Act::Head(200, vec![], false), Act::Data(b"ok".to_vec(), true)]
}

pub(super) fn add(cases: &mut Vec<Case>) {
    for method in METHODS {
        for status in STATUSES {
            let body = ["POST", "PUT"].contains(method).then(|| b"sent".to_vec());
            let empty = *method == "HEAD" || [204, 205, 304].contains(status);
            let acts = if empty {
                vec![Act::Head(*status, fields(&[("etag", "\"x\"")]), true)]
            } else {
                vec![Act::Head(*status, fields(&[("content-length", "4")]), false), Act::Data(b"said".to_vec(), true)]
            };
            let name = format!("{method}, {status}");
            once(cases, "h2 method and status", name, call(method, "/", vec![], body), true, acts);
        }
    }
    for target in TARGETS {
        once(cases, "h2 target", (*target).to_owned(), call("GET", target, vec![], None), true, ok());
    }
    for named in [Named::Host, Named::Nowhere, Named::Differently] {
        once(cases, "h2 name", format!("{named:?}"), Call { named, ..get() }, true, ok());
    }
    heads(cases);
    bodies(cases);
    resets(cases);
    cancels(cases);
    let calls = (0..5).map(|index| call("POST", &format!("/{index}"), vec![], Some(noise(index * 1_000)))).collect();
    let scripts = (0..5).map(|_| Script { whole: true, acts: ok() }).collect();
    let talk = Talk::H2 { calls, scripts };
    cases.push(Case { family: "h2 connection", name: "five calls".to_owned(), declared: Declared::Http, talk });
}

fn heads(cases: &mut Vec<Case>) {
    let tables = [
        ("twice", fields(&[("x-a", "one"), ("x-a", "two")])),
        ("empty", fields(&[("x-a", "")])),
        ("Latin-1", vec![("x-a", b"caf\xE9".to_vec())]),
        ("cookies in crumbs", fields(&[("cookie", "a=1"), ("cookie", "b=2"), ("cookie", "c=3")])),
        ("te", fields(&[("te", "trailers")])),
        ("8 KiB", vec![("x-a", vec![b'a'; 8 << 10])]),
        ("expect", fields(&[("expect", "100-continue")])),
        ("forwarding", fields(&[("via", "2 a"), ("forwarded", "for=1.2.3.4"), ("x-forwarded-for", "1.2.3.4")])),
        ("set-cookie", fields(&[("set-cookie", "a=1; path=/"), ("set-cookie", "b=2")])),
    ];
    for (name, table) in tables {
        once(cases, "h2 fields", format!("asked with {name}"), call("GET", "/", table.clone(), None), true, ok());
        let acts = vec![Act::Head(200, table, false), Act::Data(b"ok".to_vec(), true)];
        once(cases, "h2 fields", format!("answered with {name}"), get(), true, acts);
    }
    for (name, interims) in [("103", vec![103]), ("102 and 103", vec![102, 103]), ("100", vec![100])] {
        let said = interims.into_iter().map(|status| Act::Interim(status, fields(&[("link", "</a>")])));
        once(cases, "h2 interim", name.to_owned(), get(), true, said.chain(ok()).collect());
    }
}

fn bodies(cases: &mut Vec<Case>) {
    for (name, pieces) in [
        ("none in a frame of its own", vec![vec![]]),
        ("1 byte", vec![vec![b'x']]),
        ("three frames", vec![noise(10), noise(20_000), noise(5)]),
        ("300,000 bytes", vec![noise(300_000)]),
    ] {
        for (how, pause) in [("at once", 0), ("apart", 20)] {
            for trailers in [false, true] {
                let mut acts: Vec<Act> = Vec::new();
                for (index, piece) in pieces.iter().enumerate() {
                    acts.push(Act::Pause(millis(pause)));
                    acts.push(Act::Data(piece.clone(), !trailers && index + 1 == pieces.len()));
                }
                if trailers {
                    acts.push(Act::Trailers(fields(&[("x-sum", "42")])));
                }
                let with = if trailers { "with trailers" } else { "without trailers" };
                let name = format!("{name}, {how}, {with}");
                let sent =
                    Call { acts: acts.clone(), ..call("POST", "/", fields(&[("te", "trailers")]), Some(vec![])) };
                once(cases, "h2 body", format!("asked: {name}"), sent, true, ok());
                let said = std::iter::once(Act::Head(200, vec![], false)).chain(acts).collect();
                once(
                    cases,
                    "h2 body",
                    format!("answered: {name}"),
                    call("GET", "/", fields(&[("te", "trailers")]), None),
                    true,
                    said,
                );
            }
        }
    }
    let early = vec![Act::Head(413, vec![], false), Act::Data(b"early".to_vec(), true), Act::Read];
    let slow = |pieces: usize| {
        (0..pieces).flat_map(move |index| [Act::Pause(millis(10)), Act::Data(noise(5_000), index + 1 == pieces)])
    };
    let sent = Call { acts: slow(8).collect(), ..call("POST", "/", vec![], Some(vec![])) };
    once(cases, "h2 early answer", "reads on".to_owned(), sent.clone(), false, early);
    // An origin that lets go of a request which it has answered and not read resets it at once behind the answer: a reset of
    // its own would take the place of what is queued.
    let early = vec![Act::Head(202, vec![], false), Act::Data(b"early".to_vec(), true)];
    once(cases, "h2 early answer", "NO_ERROR behind it".to_owned(), sent.clone(), false, early);
    let early = vec![Act::Head(202, vec![], false), Act::Data(noise(60_000), true)];
    once(cases, "h2 early answer", "NO_ERROR behind 60,000 bytes".to_owned(), sent.clone(), false, early);
    let early = vec![Act::Head(202, vec![], false), Act::Trailers(fields(&[("x-sum", "42")]))];
    once(cases, "h2 early answer", "NO_ERROR behind trailers".to_owned(), sent.clone(), false, early);
    let early = vec![Act::Head(202, fields(&[("content-length", "0")]), true)];
    once(cases, "h2 early answer", "NO_ERROR behind its head".to_owned(), sent, false, early);
}

/// The origin resets; what it said before has to arrive, and its code with it.
fn resets(cases: &mut Vec<Case>) {
    for (code, name) in CODES {
        let moments: [(&str, Vec<Act>); 4] = [
            ("before the head", vec![]),
            ("after the head", vec![Act::Head(200, vec![], false)]),
            ("after 100 bytes", vec![Act::Head(200, vec![], false), Act::Data(noise(100), false)]),
            ("after 400,000 bytes", vec![Act::Head(200, vec![], false), Act::Data(noise(400_000), false)]),
        ];
        for (moment, acts) in moments {
            // A reset may overtake what is queued in front of it, so it waits until that has gone.
            let acts = [acts, vec![Act::Pause(millis(60)), Act::Reset(*code)]].concat();
            once(cases, "h2 origin resets", format!("{name} {moment}"), get(), true, acts);
        }
    }
}

/// The client cancels; the origin has to hear of it.
fn cancels(cases: &mut Vec<Case>) {
    for (code, name) in &CODES[1..3] {
        let moments: [(&str, Vec<Act>, Vec<Act>); 3] = [
            ("before the answer", vec![], vec![]),
            ("after its head", vec![Act::Answered(0)], vec![Act::Head(200, vec![], false)]),
            (
                "inside its body",
                vec![Act::Answered(3)],
                vec![Act::Head(200, vec![], false), Act::Data(b"abc".to_vec(), false)],
            ),
        ];
        for (moment, awaits, says) in moments {
            let steps = [vec![Act::Arrived], awaits, vec![Act::Pause(millis(40)), Act::Reset(*code)]].concat();
            let sent = Call { acts: steps, ..get() };
            once(cases, "h2 client cancels", format!("{name} {moment}"), sent, true, [says, vec![Act::Gone]].concat());
        }
        let steps = vec![Act::Data(noise(100), false), Act::Arrived, Act::Pause(millis(40)), Act::Reset(*code)];
        let sent = Call { acts: steps, ..call("POST", "/", vec![], Some(vec![])) };
        once(cases, "h2 client cancels", format!("{name} inside the request"), sent, true, vec![]);
    }
}
