//! Changes that filters may make, and changes that they may not.

use super::*;

const HEAD: AtHand = AtHand::Request { body: false };
const MOST: usize = 100;

fn field(name: &str, value: &[u8]) -> Field {
    Field { name: name.into(), value: value.into() }
}

fn set(name: &str, value: &[u8]) -> Edit {
    Edit::Set(field(name, value))
}

/// Why an edit is refused, in words.
fn refused(edit: Edit, at_hand: AtHand) -> String {
    parse(vec![edit], at_hand, MOST).expect_err("refused").detail
}

#[test]
fn framing_identity_and_pseudo_headers_are_out_of_reach() {
    let identity = ["x-forwarded-client-cert", "X_Forwarded-Client_Cert"];
    let others = ["host", "Content-Length", "transfer-encoding", "connection", "te", "weft-dst", "Weft-Source"];
    for name in identity.into_iter().chain(others) {
        assert!(refused(set(name, b"x"), HEAD).contains("the mesh's own"), "{name}");
        assert!(refused(Edit::Remove(name.into()), HEAD).contains("the mesh's own"), "{name}");
    }
    for name in [":path", ":method", ":authority", "", "a b", "a\r\nb"] {
        assert!(refused(set(name, b"x"), HEAD).contains("no header name"), "{name}");
    }
    assert_eq!(refused(set("x-a", b"1\r\nx-b: 2"), HEAD), "edit 1 (set \"x-a\") has a value that no header can have");
    assert!(refused(set("x-a", b"\0"), HEAD).contains("no header can have"));
    assert!(refused(set(&"x".repeat(257), b"1"), HEAD).contains("more than 256 bytes"));
    assert!(refused(set("x-a", &[b'1'; (64 << 10) + 1]), HEAD).contains("more than 64 KiB"));
}

type Made = fn() -> Edit;

#[test]
fn each_edit_wants_what_it_changes_at_hand() {
    let edits: [(&str, Made); 8] = [
        ("set", || set("x-a", b"1")),
        ("add", || Edit::Add(field("x-a", b"1"))),
        ("remove", || Edit::Remove("x-a".into())),
        ("path", || Edit::Path("/a".into())),
        ("authority", || Edit::Authority("a:1".into())),
        ("status", || Edit::Status(201)),
        ("body", || Edit::Body(b"b".to_vec())),
        ("attribute", || Edit::Attribute(field("filter.a", b"1"))),
    ];
    for (at_hand, possible) in [
        (AtHand::Nothing, "attribute"),
        (HEAD, "set add remove path authority attribute"),
        (AtHand::Request { body: true }, "set add remove path authority body attribute"),
        (AtHand::Response { body: false }, "set add remove status attribute"),
        (AtHand::Response { body: true }, "set add remove status body attribute"),
        (AtHand::Chunk, "body attribute"),
        (AtHand::Trailers, "set add remove attribute"),
    ] {
        for (name, edit) in &edits {
            let expect = possible.split(' ').any(|it| it == *name);
            let found = parse(vec![edit()], at_hand, MOST);
            assert_eq!(found.is_ok(), expect, "{name} with {at_hand:?}: {found:?}");
            if let Err(failure) = found {
                assert!(failure.detail.contains("not at hand"), "{failure}");
            }
        }
    }
    assert!(refused(Edit::Status(199), AtHand::Response { body: false }).contains("200 to 599"));
    assert!(refused(Edit::Body(vec![0; MOST + 1]), AtHand::Chunk).contains("limit for bodies"));
    assert!(refused(Edit::Unknown("push".into()), HEAD).contains("does not know"));
    for name in ["x", "filter.", "filter.A", "filter.a b"] {
        assert!(refused(Edit::Attribute(field(name, b"1")), HEAD).contains("no attribute"), "{name}");
    }
}

#[test]
fn paths_are_normalised_again() {
    let changed = |path: &str| parse(vec![Edit::Path(path.into())], HEAD, MOST).map(|mut changes| changes.pop());
    let path = |text: &'static str| Ok(Some(Change::Path(NormalPath::new(Bytes::from(text)).expect(text))));
    assert_eq!(changed("/a/../b?c=d"), path("/b?c=d"));
    assert_eq!(changed("/a//b%2f"), path("/a//b%2F"));
    for bad in ["/a%", "/%c0%af", "/%00", "no-slash", "/a b", "/a#b"] {
        assert!(refused(Edit::Path(bad.into()), HEAD).contains("no path"), "{bad}");
    }
}

#[test]
fn edits_happen_in_order() {
    let edits = vec![
        set("x-a", b"1"),
        Edit::Add(field("x-a", b"2")),
        Edit::Remove("x-b".into()),
        Edit::Authority("o:80".into()),
    ];
    let mut headers = HeaderMap::new();
    headers.insert("x-b", HeaderValue::from_static("old"));
    let authority = applied(edits, &mut headers);
    let values: Vec<_> = headers.get_all("x-a").iter().collect();
    assert_eq!(values, ["1", "2"]);
    assert!(!headers.contains_key("x-b"));
    assert_eq!(authority.expect("set").as_str(), "o:80");
    let many = (0..65).map(|_| set("x-a", b"1")).collect();
    assert!(parse(many, HEAD, MOST).expect_err("too many").detail.starts_with("65 edits"));
}

/// Makes the edits at a request with these headers; gives its authority then.
fn applied(edits: Vec<Edit>, headers: &mut HeaderMap) -> Option<Authority> {
    let (mut authority, mut path, mut body) = (None, None, None);
    let (method, path_reading) = (http::Method::GET, weft_policy::path::PathReading::default());
    let mut view = RequestView {
        method: &method,
        authority: &mut authority,
        path: &mut path,
        path_reading,
        headers,
        body: &mut body,
    };
    for change in parse(edits, HEAD, MOST).expect("sound") {
        apply_to_request(change, &mut view);
    }
    authority
}

#[test]
fn what_a_filter_says_nobody_says_in_another_spelling() {
    let said = |name: &'static str| (HeaderName::from_static(name), HeaderValue::from_static("forged"));
    let spellings = ["x-user-id", "x_user_id", "x-user_id", "x_roles", "x-roles", "x_more", "xuser-id"];
    let mut headers = HeaderMap::from_iter(spellings.map(said));
    let edits = vec![set("x-user-id", b"ada"), Edit::Remove("X-Roles".into()), Edit::Add(field("x-more", b"1"))];
    applied(edits, &mut headers);
    let mut left: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    left.sort_unstable();
    let expect: [(&str, &[u8]); 4] =
        [("x-more", b"1"), ("x-user-id", b"ada"), ("x_more", b"forged"), ("xuser-id", b"forged")];
    assert_eq!(left, expect);
}

#[test]
fn words_for_labels_are_clean() {
    assert_eq!(printable("ns/policy#rule".into()), "ns/policy#rule");
    assert_eq!(printable("a;b\r\nc\u{e9}".into()), "a?b??c?");
    assert_eq!(printable("x".repeat(1_000)).len(), MAX_RULE);
}

/// An edit, where it is possible, and whether it is sound there.
type Sample = (Edit, fn(AtHand) -> bool, bool);

fn samples() -> Vec<Sample> {
    let fields: fn(AtHand) -> bool = |it| !matches!(it, AtHand::Nothing | AtHand::Chunk);
    let request: fn(AtHand) -> bool = |it| matches!(it, AtHand::Request { .. });
    let response: fn(AtHand) -> bool = |it| matches!(it, AtHand::Response { .. });
    let body: fn(AtHand) -> bool =
        |it| matches!(it, AtHand::Chunk | AtHand::Request { body: true } | AtHand::Response { body: true });
    let always: fn(AtHand) -> bool = |_| true;
    let mut samples = Vec::new();
    for (name, is_own) in
        [("x-a", true), ("X-B", true), ("TE", false), ("weft-x", false), (":path", false), ("a b", false)]
    {
        for (value, is_sound) in [(&b""[..], true), (b"\xff/a", true), (b"1\r\nx-b: 2", false), (b"\0", false)] {
            samples.push((set(name, value), fields, is_own && is_sound));
            samples.push((Edit::Add(field(name, value)), fields, is_own && is_sound));
        }
        samples.push((Edit::Remove(name.into()), fields, is_own));
    }
    for (path, is_sound) in [("/a/../b?c", true), ("/%zz", false), ("no-slash", false), ("", false)] {
        samples.push((Edit::Path(path.into()), request, is_sound));
    }
    for (authority, is_sound) in [("o:80", true), ("a b", false)] {
        samples.push((Edit::Authority(authority.into()), request, is_sound));
    }
    for (status, is_sound) in [(0, false), (101, false), (200, true), (599, true), (600, false), (u16::MAX, false)] {
        samples.push((Edit::Status(status), response, is_sound));
    }
    for (length, is_sound) in [(0, true), (MOST, true), (MOST + 1, false)] {
        samples.push((Edit::Body(vec![b'x'; length]), body, is_sound));
    }
    for (name, is_sound) in [("filter.a", true), ("filter.A", false), ("source.principal", false)] {
        samples.push((Edit::Attribute(field(name, b"\0\xff")), always, is_sound));
    }
    samples.push((Edit::Unknown("push".into()), always, false));
    samples
}

fn copy(edit: &Edit) -> Edit {
    let same = |field: &Field| Field { name: field.name.clone(), value: field.value.clone() };
    match edit {
        Edit::Set(field) => Edit::Set(same(field)),
        Edit::Add(field) => Edit::Add(same(field)),
        Edit::Remove(name) => Edit::Remove(name.clone()),
        Edit::Path(path) => Edit::Path(path.clone()),
        Edit::Authority(authority) => Edit::Authority(authority.clone()),
        Edit::Status(status) => Edit::Status(*status),
        Edit::Body(bytes) => Edit::Body(bytes.clone()),
        Edit::Attribute(field) => Edit::Attribute(same(field)),
        Edit::Unknown(name) => Edit::Unknown(name.clone()),
    }
}

/// Random edits, most of them sound, with nothing or something at hand: all of them are made, or none.
#[test]
fn whatever_a_filter_wants_is_done_as_a_whole_or_refused() {
    let samples = samples();
    let places = [
        AtHand::Nothing,
        HEAD,
        AtHand::Request { body: true },
        AtHand::Response { body: false },
        AtHand::Response { body: true },
        AtHand::Chunk,
        AtHand::Trailers,
    ];
    let mut done = 0;
    for seed in 0..20_000_u64 {
        let mut state = seed;
        let mut roll = |sides: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(state >> 33).expect("31 bits") % sides
        };
        let at_hand = places[roll(places.len())];
        let count = if roll(50) == 0 { MAX_EDITS + roll(2) } else { roll(5) };
        let is_careful = roll(4) > 0;
        let possible: Vec<_> =
            samples.iter().filter(|(_, at, is_sound)| !is_careful || at(at_hand) && *is_sound).collect();
        let chosen: Vec<_> = (0..count).map(|_| possible[roll(possible.len())]).collect();
        let expect = count <= MAX_EDITS && chosen.iter().all(|(_, at, is_sound)| at(at_hand) && *is_sound);
        let edits: Vec<_> = chosen.iter().map(|(edit, ..)| copy(edit)).collect();
        match parse(edits, at_hand, MOST) {
            Ok(changes) => assert!(expect && changes.len() == count, "seed {seed}, {at_hand:?}: {chosen:?}"),
            Err(failure) => assert!(!expect, "seed {seed}, {at_hand:?}: {failure}: {chosen:?}"),
        }
        done += usize::from(expect);
    }
    assert!((5_000..20_000).contains(&done), "{done} of them were sound");
}
