//! Changes that filters may make, and changes that they may not.

use super::*;

fn set(name: &str, value: &[u8]) -> types::Edit {
    types::Edit::Set(types::Field { name: name.into(), value: value.into() })
}

fn refused(edit: types::Edit) {
    let text = format!("{edit:?}");
    assert_eq!(parse(vec![edit], true), Err(Failure::InvalidResult), "{text}");
}

#[test]
fn framing_identity_and_pseudo_headers_are_out_of_reach() {
    for name in [":path", ":method", ":authority", "host", "Content-Length", "transfer-encoding", "connection", "te"] {
        refused(set(name, b"x"));
    }
    for name in ["weft-dst", "Weft-Source", "weft-reply", "x-forwarded-client-cert", "", "a b", "a\r\nb"] {
        refused(types::Edit::Remove(name.into()));
        refused(set(name, b"x"));
    }
    refused(set("x-a", b"1\r\nx-b: 2"));
    refused(set("x-a", b"\0"));
}

#[test]
fn paths_are_normalised_again() {
    let changed = |path: &str| parse(vec![types::Edit::Path(path.into())], true).map(|mut changes| changes.pop());
    let path = |text: &'static str| Ok(Some(Change::Path(NormalPath::new(Bytes::from(text)).expect(text))));
    assert_eq!(changed("/a/../b?c=d"), path("/b?c=d"));
    assert_eq!(changed("/a//b%2f"), path("/a//b%2F"));
    for bad in ["/a%", "/%c0%af", "/%00", "no-slash", "/a b", "/a#b"] {
        assert_eq!(changed(bad), Err(Failure::InvalidResult), "{bad}");
    }
    assert_eq!(parse(vec![types::Edit::Path("/".into())], false), Err(Failure::InvalidResult), "responses have none");
}

#[test]
fn edits_happen_in_order() {
    let edits = vec![
        set("x-a", b"1"),
        types::Edit::Add(types::Field { name: "x-a".into(), value: b"2".to_vec() }),
        types::Edit::Remove("x-b".into()),
        types::Edit::Authority("other:80".into()),
    ];
    let mut headers = HeaderMap::new();
    headers.insert("x-b", HeaderValue::from_static("old"));
    let (mut authority, mut path) = (None, None);
    let (method, path_reading) = (http::Method::GET, weft_policy::path::PathReading::default());
    let mut view = RequestView {
        method: &method,
        authority: &mut authority,
        path: &mut path,
        path_reading,
        headers: &mut headers,
    };
    apply_to_request(parse(edits, true).expect("sound"), &mut view);
    let values: Vec<_> = headers.get_all("x-a").iter().collect();
    assert_eq!(values, ["1", "2"]);
    assert!(!headers.contains_key("x-b"));
    assert_eq!(authority.expect("set").as_str(), "other:80");
    assert!(parse((0..65).map(|_| set("x-a", b"1")).collect(), true).is_err(), "too many");
}

#[test]
fn words_for_labels_are_clean() {
    assert_eq!(printable("ns/policy#rule".into()), "ns/policy#rule");
    assert_eq!(printable("a;b\r\nc\u{e9}".into()), "a?b??c?");
    assert_eq!(printable("x".repeat(1_000)).len(), MAX_RULE);
}
