//! The only differences that a pair of sidecars may make, each with the clause that demands or permits it. A rule makes equal what
//! may differ; what is left then is a fault. Nothing else in this suite forgives anything.

use weft_tests::exchange::h1::Act;
use weft_tests::exchange::seen::Seen;

use super::cases::{Case, Talk};
use super::ground::Way;
use super::run::Saw;
use crate::mesh::edge_cases::tests_of_the_tree;

/// Case and way of an exchange, which a rule may look at.
pub(super) struct Context<'c> {
    pub(super) case: &'c Case,
    pub(super) way: Way,
}

pub(super) struct Rule {
    /// The clause and what it says.
    pub(super) clause: &'static str,
    /// Makes equal what may differ in the direct and the meshed exchange.
    pub(super) make_equal: fn(&Context<'_>, &mut Saw, &mut Saw),
}

/// Fields that are of one connection (RFC 9110 7.6.1), with `te`, which is always nominated.
const HOP: &[&str] =
    &["connection", "keep-alive", "proxy-connection", "te", "transfer-encoding", "upgrade", "http2-settings", "x-hop"];

/// Fields that are no trailers.
const NEVER_TRAILERS: &[&str] =
    &["host", "content-length", "transfer-encoding", "connection", "te", "expect", "upgrade", "trailer", "x-hop"];

pub(super) const RULES: &[Rule] = &[
    Rule {
        clause: "RFC 9110 5.1: names of fields are case-insensitive",
        make_equal: |_, direct, meshed| each(direct, meshed, lower),
    },
    Rule {
        clause: "RFC 9110 7.6.1, RFC 9112 6: a nominated length is removed, and the content framed anew",
        make_equal: |_, direct, meshed| each_message(direct, meshed, nominated_length),
    },
    Rule {
        clause: "RFC 9110 6.5.1: fields that frame or route a message have no place in its trailers, and are dropped there",
        make_equal: |_, direct, meshed| {
            each(direct, meshed, |seen| {
                seen.forget(|key, _| {
                    key.rsplit_once("trailer.").is_some_and(|(_, name)| NEVER_TRAILERS.contains(&name))
                })
            });
        },
    },
    Rule {
        clause: "RFC 9110 5.3: the order of fields of different names means nothing",
        make_equal: |_, direct, meshed| each(direct, meshed, sort),
    },
    Rule {
        clause: "RFC 9110 7.6.1, 7.8: options of the connection and names of protocols are case-insensitive",
        make_equal: |_, direct, meshed| {
            each(direct, meshed, |seen| {
                for (_, value) in
                    seen.0.iter_mut().filter(|(key, _)| matches!(field(key), Some("connection" | "upgrade")))
                {
                    value.make_ascii_lowercase();
                }
            });
        },
    },
    Rule {
        clause: "RFC 9110 2.5, RFC 9112 2.3: an intermediary sends its own version",
        make_equal: |_, direct, meshed| each(direct, meshed, version),
    },
    Rule {
        clause: "gRPC, PROTOCOL-HTTP2.md, Timeout: what is left of it is told on",
        make_equal: |_, direct, meshed| {
            let is_it = |key: &str| key.ends_with(".field.grpc-timeout");
            let told = |seen: &Seen| seen.0.iter().find(|(key, _)| is_it(key)).map(|(_, value)| value.clone());
            // In a finer unit than any that these cases write it in.
            if told(&direct.origin).is_some() && told(&meshed.origin).is_some_and(|left| left.ends_with('u')) {
                direct.origin.forget(|key, _| is_it(key));
                meshed.origin.forget(|key, _| is_it(key) || key.ends_with(".field.weft-timeout-ms"));
            }
        },
    },
    Rule {
        clause: "RFC 9110 7.8, 8.6: a request to change protocols has no content, whether or not a length says so",
        make_equal: |_, direct, meshed| each_message(direct, meshed, upgrade_without_length),
    },
    Rule {
        clause: "RFC 9110 7.6.1: fields of the connection, and those that it nominates, are removed; 7.8: so are upgrades that are not taken",
        make_equal: |_, direct, meshed| {
            each(direct, meshed, |seen| {
                // A tunnel's are its own, and are compared.
                let tunnel = |key: &str, seen: &Seen| {
                    seen.get(&format!("{}.line", number(key))).is_some_and(|line| line.contains(" 101"))
                };
                let all = seen.clone();
                seen.forget(|key, _| field(key).is_some_and(|name| HOP.contains(&name)) && !tunnel(key, &all));
            });
        },
    },
    Rule {
        clause: "RFC 9112 3.2.2: a forward proxy replaces Host by the host of the target",
        make_equal: |context, direct, meshed| {
            if context.way == Way::Explicit {
                each_message(direct, meshed, |number, direct, meshed| {
                    let host = format!("{number}.field.host");
                    if let Some(of_target) = meshed.get(&host).filter(|host| host.starts_with("origin:")) {
                        direct.set(&host, of_target);
                    }
                });
            }
        },
    },
    Rule {
        clause: "RFC 9112 3.2, 3.2.2, 3.3: a request without Host, or with an empty one, gets the one by which it was asked for",
        make_equal: |_, direct, meshed| {
            each_message(direct, meshed, |number, direct, meshed| {
                let host = format!("{number}.field.host");
                let is_said = direct.get(&host).is_some_and(|host| !host.is_empty());
                if direct.get(&format!("{number}.line")).is_some() && !is_said {
                    direct.forget(|key, _| key == host);
                    // By its name, or by its address where that is all that was said.
                    meshed.forget(|key, value| key == host && value.contains(':'));
                }
            });
        },
    },
    Rule {
        clause: "RFC 9113 8.3.1: who forwards a request makes :authority of its Host, or of where it was asked",
        make_equal: |context, direct, meshed| {
            if context.case.family != "h2 name" {
                return;
            }
            each_message(direct, meshed, |number, direct, meshed| {
                let (authority, host) = (format!("{number}.authority"), format!("{number}.field.host"));
                let Some(named) = meshed.get(&authority).map(str::to_owned) else { return };
                let said = direct.get(&host).unwrap_or(&named).to_owned();
                if said == named {
                    direct.forget(|key, _| key == host);
                    direct.set(&authority, &named);
                }
            });
        },
    },
    Rule {
        clause: "RFC 9113 8.3.1, 8.1.1: a request whose Host is not its :authority is malformed; a forward proxy needs a name",
        make_equal: |context, direct, meshed| {
            let refused = match (context.case.name.as_str(), context.way) {
                ("Differently", _) => ("1.answer", "reset 1"),
                ("Nowhere", Way::Explicit) => ("1.line", "400"),
                _ => return,
            };
            let is_refused = meshed.client.get(refused.0) == Some(refused.1) && meshed.origin == Seen::default();
            if context.case.family == "h2 name" && is_refused {
                direct.clone_from(meshed);
            }
        },
    },
    Rule {
        clause: "RFC 9113 8.2.3: cookies may travel in crumbs, and are joined where they leave HTTP/2",
        make_equal: |_, direct, meshed| each(direct, meshed, cookies),
    },
    Rule {
        clause: "RFC 9110 10.1.1, 15.2.1: 100 is for the next hop, as is the wish for it",
        make_equal: |_, direct, meshed| {
            each(direct, meshed, |seen| {
                seen.forget(|key, _| key.contains(".interim.100.") || key.ends_with(".field.expect"))
            })
        },
    },
    Rule {
        clause: "RFC 9112 9.3, 9.6: an intermediary decides over each of its connections; where the client wants it closed it is",
        make_equal: |context, direct, meshed| {
            let as_asked = if wants_close(context.case) { "closed" } else { "kept" };
            if meshed.client.get("connection") == Some(as_asked) {
                direct.client.set("connection", as_asked);
            }
        },
    },
    Rule {
        clause: "RFC 9112 8: a message that ended early is incomplete, by whichever way the connection was closed",
        make_equal: |_, direct, meshed| {
            each(direct, meshed, |seen| {
                for (key, value) in &mut seen.0 {
                    if (key.ends_with(".end") || key == "raw end")
                        && ["truncated", "reset", "malformed", "Reset"].contains(&value.as_str())
                    {
                        "broken off".clone_into(value);
                    }
                }
            });
        },
    },
    Rule {
        clause: "RFC 9110 15.6.3: a gateway that got no answer, or none that it can read, says 502 (503, 504)",
        make_equal: |_, direct, meshed| {
            let nothing = direct.client.get("1.answer").is_some_and(|answer| answer != "never");
            let line = meshed.client.get("1.line").unwrap_or_default();
            if nothing && ["502", "503", "504"].iter().any(|status| line.split(' ').any(|word| word == *status)) {
                meshed.client = direct.client.clone();
            }
        },
    },
    Rule {
        clause: "RFC 9110 9.2.2, RFC 9112 9.3.1: what is idempotent may be sent again when a connection died before an answer",
        make_equal: |_, direct, meshed| {
            let unanswered = direct.client.get("1.answer").is_some_and(|answer| answer.starts_with("none"));
            let idempotent = !direct.origin.get("1.line").unwrap_or("POST").starts_with("POST");
            if unanswered && idempotent {
                let of = |seen: &Seen, number: &str| -> Vec<_> {
                    let own = seen.0.iter().filter(|(key, _)| key.split('.').next() == Some(number));
                    own.map(|(key, value)| (key.split_once('.').map(|(_, key)| key.to_owned()), value.clone()))
                        .collect()
                };
                if of(&meshed.origin, "1") == of(&meshed.origin, "2") {
                    meshed.origin.forget(|key, _| key.starts_with("2."));
                }
            }
        },
    },
    Rule {
        clause: "RFC 9112 2.2, 3, 5.1, 6.3: what is malformed is refused with 400 or cut, in words of one's own; it needn't travel",
        make_equal: |_, direct, meshed| {
            if !direct.origin.0.iter().any(|(key, _)| key.ends_with(".malformed")) {
                return;
            }
            let last = direct
                .origin
                .0
                .iter()
                .rfind(|(key, _)| key.ends_with(".malformed"))
                .map(|(key, _)| number(key).to_owned());
            for saw in [&mut *direct, &mut *meshed] {
                saw.origin.forget(|key, _| Some(number(key)) == last.as_deref());
                refusal(&mut saw.client, last.as_deref().unwrap_or("1"));
            }
        },
    },
    Rule {
        clause: "RFC 9110 8.6, RFC 9112 6.3: an answer that turned out empty may say so by its length",
        make_equal: |_, direct, meshed| {
            let empty = meshed.client.get("1.body").is_some_and(|body| body.starts_with("0 bytes"));
            if empty && direct.client.get("1.field.content-length").is_none() {
                meshed.client.forget(|key, value| key == "1.field.content-length" && value == "0");
            }
        },
    },
    Rule {
        clause: "RFC 9110 8.6, RFC 9112 6.3: a request without content may say so by its length where the method expects some",
        make_equal: |_, direct, meshed| each_message(direct, meshed, empty_request),
    },
    Rule {
        clause: "RFC 9110 8.6: a length is a number, however many zeros it starts with",
        make_equal: |_, direct, meshed| {
            each(direct, meshed, |seen| {
                for (_, value) in seen.0.iter_mut().filter(|(key, _)| key.ends_with(".field.content-length")) {
                    let number = value.trim_start_matches('0');
                    *value = if number.is_empty() { "0" } else { number }.to_owned();
                }
            });
        },
    },
    Rule {
        clause: "RFC 9110 8.6, RFC 9112 6.3: a length that is given several times and the same is one",
        make_equal: |_, direct, meshed| {
            each(direct, meshed, |seen| {
                seen.0.dedup_by(|next, one| next == one && one.0.ends_with(".field.content-length"));
            });
        },
    },
    Rule {
        clause: "RFC 3986 6.2.2: the case of a percent-encoding, one of an unreserved character, and dot segments mean nothing",
        make_equal: |_, direct, meshed| {
            for saw in [direct, meshed] {
                for (_, value) in saw.origin.0.iter_mut().filter(|(key, _)| key.ends_with(".line")) {
                    *value = normal_line(value);
                }
            }
        },
    },
    Rule {
        clause: "RFC 9114 4.1.1: a client that gives up on HTTP/3 cancels, whatever its code on HTTP/2 was",
        make_equal: |context, direct, meshed| {
            if context.case.family.ends_with("client cancels") {
                for saw in [direct, meshed] {
                    for (_, value) in saw.origin.0.iter_mut().filter(|(key, _)| key.ends_with(".end")) {
                        if value.starts_with("reset ") {
                            "cancelled".clone_into(value);
                        }
                    }
                }
            }
        },
    },
    Rule {
        clause: "gRPC, HTTP2 Transport Mapping, Errors: a stream error is told as the status that it stands for",
        make_equal: |context, direct, meshed| {
            if context.case.family == "gRPC" {
                grpc_status(&mut direct.client, &mut meshed.client);
            }
        },
    },
    Rule {
        clause: "DESIGN 4: the app is told who called by x-forwarded-client-cert",
        make_equal: |_, _, meshed| meshed.origin.forget(|key, _| key.ends_with(".field.x-forwarded-client-cert")),
    },
    Rule {
        clause: "DESIGN 4: weft-* is the mesh's own, and leaves it with nobody",
        make_equal: |_, direct, meshed| {
            each(direct, meshed, |seen| seen.forget(|key, _| field(key).is_some_and(|name| name.starts_with("weft-"))))
        },
    },
    Rule {
        clause: "RFC 9112 3.2.2: a forward proxy sends the origin form, and takes the host from the target",
        make_equal: |context, direct, meshed| {
            if context.way == Way::Explicit && context.case.name.contains("host that is none") {
                direct.origin = Seen::default();
                meshed.origin = Seen::default();
            }
        },
    },
];

/// Differences that no exchange here can show, since the clients and origins here read HTTP/2 by the same crate as the proxy: the
/// clause, what happens instead, and the test that holds it to that.
pub(super) const UNSEEN: &[(&str, &str)] = &[
    (
        "RFC 9113 8.3.1: a :path with a fragment is malformed; it is judged and sent without the fragment",
        "what_http2_hides_is_neither_judged_nor_sent",
    ),
    (
        "RFC 9113 8.1: trailers with pseudo-header fields are malformed; they are sent without these",
        "what_http2_hides_is_neither_judged_nor_sent",
    ),
];

fn each(direct: &mut Saw, meshed: &mut Saw, mut change: impl FnMut(&mut Seen)) {
    for saw in [direct, meshed] {
        change(&mut saw.client);
        change(&mut saw.origin);
    }
}

/// Changes the origin's view of each message by its number.
fn each_message(direct: &mut Saw, meshed: &mut Saw, change: fn(&str, &mut Seen, &mut Seen)) {
    for number in 1..20 {
        change(&number.to_string(), &mut direct.origin, &mut meshed.origin);
    }
}

/// A length that the connection nominates stays on its hop; the content is framed anew behind it.
fn nominated_length(number: &str, direct: &mut Seen, meshed: &mut Seen) {
    let nominates = |(key, value): &(String, String)| {
        *key == format!("{number}.field.connection") && value.to_ascii_lowercase().contains("content-length")
    };
    if direct.0.iter().any(nominates) {
        for seen in [direct, meshed] {
            let own = [format!("{number}.field.content-length"), format!("{number}.framing")];
            seen.forget(|key, _| own.iter().any(|own| own == key));
        }
    }
}

fn upgrade_without_length(number: &str, direct: &mut Seen, meshed: &mut Seen) {
    let key = |name: &str| format!("{number}.{name}");
    let asked = |seen: &Seen| seen.get(&key("field.upgrade")).is_some();
    if asked(direct) && asked(meshed) {
        for seen in [direct, meshed] {
            seen.forget(|name, value| name == key("field.content-length") && value == "0");
            if seen.get(&key("body")).is_some_and(|body| body.starts_with("0 bytes")) {
                seen.set(&key("framing"), "none");
            }
        }
    }
}

fn empty_request(number: &str, direct: &mut Seen, meshed: &mut Seen) {
    let key = |name: &str| format!("{number}.{name}");
    let expects = ["POST ", "PUT ", "PATCH "];
    let line = direct.get(&key("line")).unwrap_or_default();
    let expected = expects.iter().any(|method| line.starts_with(method));
    if !expected && direct.get(&key("framing")) == Some("chunked") && meshed.get(&key("framing")) == Some("none") {
        // Nothing in chunks is nothing, where nobody expects anything.
        let nothing = direct.get(&key("body")).is_some_and(|body| body.starts_with("0 bytes"));
        meshed.set(&key("framing"), if nothing { "chunked" } else { "none" });
        return;
    }
    let may = expected || direct.get(&key("framing")) == Some("chunked");
    let empty = meshed.get(&key("body")).is_some_and(|body| body.starts_with("0 bytes"));
    if may
        && empty
        && direct.get(&key("field.content-length")).is_none()
        && meshed.get(&key("framing")) == Some("length")
    {
        meshed.forget(|name, value| name == key("field.content-length") && value == "0");
        let framing = direct.get(&key("framing")).unwrap_or_default().to_owned();
        meshed.set(&key("framing"), &framing);
    }
}

/// A request line with its target in the one form that equivalent ones have.
fn normal_line(line: &str) -> String {
    let Some((method, rest)) = line.split_once(' ') else { return line.to_owned() };
    let Some((target, version)) = rest.rsplit_once(' ') else { return line.to_owned() };
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    };
    let mut path = normal_escapes(path, true);
    if path.starts_with('/') {
        path = without_dots(&path);
    }
    let query = query.map_or(String::new(), |query| format!("?{}", normal_escapes(query, false)));
    format!("{method} {path}{query} {version}")
}

fn normal_escapes(text: &str, decode: bool) -> String {
    let mut parts = text.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |out, part| {
        let digits = part.chars().take(2).filter(char::is_ascii_hexdigit).count();
        let byte = u8::from_str_radix(&part[..digits], 16).ok().filter(|_| digits == 2 && decode).map(char::from);
        match byte.filter(|byte| byte.is_ascii_alphanumeric() || "-._~".contains(*byte)) {
            Some(byte) => format!("{out}{byte}{}", &part[2..]),
            None => out + "%" + &part[..digits].to_ascii_uppercase() + &part[digits..],
        }
    })
}

/// RFC 3986 5.2.4.
fn without_dots(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let segments: Vec<&str> = path[1..].split('/').collect();
    for (index, segment) in segments.iter().enumerate() {
        let last = index + 1 == segments.len();
        match *segment {
            "." | ".." => {
                if *segment == ".." {
                    kept.pop();
                }
                if last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[test]
fn equivalent_targets_have_one_form() {
    for (line, normal) in [
        ("GET /%63%a9/./x/../y?%63%a9 HTTP/1.1", "GET /c%A9/y?%63%A9 HTTP/1.1"),
        ("GET /a/.. HTTP/1.1", "GET / HTTP/1.1"),
        ("GET /../%2e/a//b/%zz%4 HTTP/1.1", "GET /a//b/%zz%4 HTTP/1.1"),
        ("OPTIONS * HTTP/1.1", "OPTIONS * HTTP/1.1"),
    ] {
        assert_eq!(normal_line(line), normal);
    }
}

/// The number of the message that a line belongs to.
fn number(key: &str) -> &str {
    key.split('.').next().unwrap_or_default()
}

/// The name of the field that a line is about.
fn field(key: &str) -> Option<&str> {
    key.rsplit_once("field.").map(|(_, name)| name)
}

fn lower(seen: &mut Seen) {
    for (key, _) in &mut seen.0 {
        if key.contains("field.") || key.contains("trailer.") {
            *key = key.to_ascii_lowercase();
        }
    }
}

fn sort(seen: &mut Seen) {
    seen.0.sort_by(|(one, _), (other, _)| one.cmp(other));
}

fn version(seen: &mut Seen) {
    for (key, value) in &mut seen.0 {
        if key.ends_with("line") {
            for minor in ["0", "2", "3", "4", "5", "6", "7", "8", "9"] {
                *value = value.replace(&format!("HTTP/1.{minor}"), "HTTP/1.1");
            }
        }
    }
}

fn cookies(seen: &mut Seen) {
    let mut joined = Vec::<(String, String)>::new();
    for (key, value) in std::mem::take(&mut seen.0) {
        match joined.last_mut() {
            Some((last, all)) if *last == key && field(&key) == Some("cookie") => *all = format!("{all}; {value}"),
            _ => joined.push((key, value)),
        }
    }
    seen.0 = joined;
}

/// A reset before or inside an answer, and a status in its place, become the same line where they mean the same.
fn grpc_status(direct: &mut Seen, meshed: &mut Seen) {
    let broken = direct.get("1.end").or(direct.get("1.answer"));
    let Some(code) = broken.and_then(|end| end.strip_prefix("reset ")) else { return };
    let meant = match code {
        "7" => "14",
        "8" => "1",
        "11" => "8",
        "12" => "7",
        _ => "13",
    };
    let told = meshed.get("1.trailer.grpc-status").or(meshed.get("1.field.grpc-status"));
    if told == Some(meant) {
        let before_the_head = direct.get("1.answer").is_some();
        for seen in [direct, meshed] {
            seen.forget(|key, _| {
                key.starts_with("1.trailer.")
                    || ["1.end", "1.answer"].contains(&key)
                    || (before_the_head && key.starts_with("1."))
            });
            seen.note("1.status", meant);
        }
    }
}

fn wants_close(case: &Case) -> bool {
    let Talk::H1 { steps, .. } = &case.talk else { return false };
    steps.iter().any(|step| {
        let (Act::Send(bytes) | Act::Slowly(bytes, ..)) = step else { return false };
        let head = String::from_utf8_lossy(&bytes[..bytes.len().min(2_000)]).to_ascii_lowercase();
        head.contains("connection: close") || (head.contains("http/1.0\r\n") && !head.contains("keep-alive"))
    })
}

/// Leaves of a refusal that it was one: 4xx (505 for a version), or closed without a word.
fn refusal(client: &mut Seen, last: &str) {
    let line = client.get(&format!("{last}.line")).unwrap_or("closed");
    let refused =
        line == "closed" || line.split(' ').nth(1).is_some_and(|status| status.starts_with('4') || status == "505");
    let told = if refused { "refused".to_owned() } else { line.to_owned() };
    client.forget(|key, _| number(key) == last || key == "connection");
    client.note(format!("{last}.line"), told);
}

#[test]
fn every_rule_names_its_clause() {
    let unseen = UNSEEN.iter().map(|(clause, _)| *clause);
    for clause in RULES.iter().map(|rule| rule.clause).chain(unseen) {
        let named = ["RFC ", "DESIGN ", "gRPC, "].iter().any(|document| clause.starts_with(document));
        assert!(named && clause.contains(": "), "{clause}");
    }
    let tests = tests_of_the_tree();
    for (clause, test) in UNSEEN {
        assert!(tests.contains(*test), "{clause}: {test} is no test");
    }
}
