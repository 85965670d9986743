//! Normal form and readings: matrices, and a slow model beside them over random paths.

use std::collections::BTreeSet;

use super::*;

#[test]
fn normal_form_of() {
    fn check(input: &str, expect: Result<&str, PathError>) {
        let got = normalize(input);
        assert_eq!(got.as_deref(), expect.as_deref(), "{input}");
        if let Ok(first) = got {
            assert_eq!(normalize(&first).as_deref(), Ok(&*first), "normal form of {input} is stable");
        }
    }
    check("/", Ok("/"));
    check("*", Ok("*"));
    check("/app/admin", Ok("/app/admin"));
    check("/app/%2E./admin", Ok("/admin"));
    check("/app/%2e%2e/admin", Ok("/admin"));
    check("/%61dmin", Ok("/admin"));
    check("/../../etc/passwd", Ok("/etc/passwd"));
    check("/a/./b", Ok("/a/b"));
    check("/a/.", Ok("/a/"));
    check("/a/..", Ok("/"));
    check("/.well-known/x", Ok("/.well-known/x"));
    check("/...", Ok("/..."));
    check("//admin", Ok("//admin"));
    check("/a///b//", Ok("/a///b//"));
    check("/a//../b", Ok("/a/b"));
    check("//..", Ok("/"));
    check("/a/;x=1/b", Ok("/a/;x=1/b"));
    check("/x/..;/admin", Ok("/x/..;/admin"));
    check("/caf%c3%a9", Ok("/caf%C3%A9"));
    check("/café", Ok("/café"));
    check("/caf%e9", Ok("/caf%E9"));
    check("/%ff", Ok("/%FF"));
    check("/a%20b", Ok("/a%20b"));
    check("/a%2bb", Ok("/a%2Bb"));
    check("/a%2fb", Ok("/a%2Fb"));
    check("/a%5cb", Ok("/a%5Cb"));
    check("/a\\b", Ok("/a\\b"));
    check("/\"<>`^{|}", Ok("/\"<>`^{|}"));
    check("/%252e%252e/admin", Ok("/%252e%252e/admin"));
    check("/%252fadmin", Ok("/%252fadmin"));
    check("admin", Err(PathError::Relative));
    check("", Err(PathError::Relative));
    check("/a%00b", Err(PathError::Nul));
    check("/a\0b", Err(PathError::Nul));
    check("/%c0%af", Err(PathError::Overlong));
    check("/%c1%9c", Err(PathError::Overlong));
    check("/%e0%80%af", Err(PathError::Overlong));
    check("/%f0%80%80%af", Err(PathError::Overlong));
    check("/%f8%80%80%80%af", Err(PathError::Overlong));
    check("/%fc%80%80%80%80%af", Err(PathError::Overlong));
    check("/%ed%a0%80", Err(PathError::Surrogate));
    check("/%ED%BF%BF", Err(PathError::Surrogate));
    check("/%", Err(PathError::BadEscape));
    check("/%4", Err(PathError::BadEscape));
    check("/%zz", Err(PathError::BadEscape));
    check("/%+1", Err(PathError::BadEscape));
    check("/a b", Err(PathError::BadCharacter));
    check("/a?b", Err(PathError::BadCharacter));
    check("/a\u{7f}", Err(PathError::BadCharacter));
    check("/a\r\nb", Err(PathError::LineBreak));
    check("/a%0d%0ab", Err(PathError::LineBreak));
    check("/a%0Ab", Err(PathError::LineBreak));
}

#[test]
fn usual_paths_are_borrowed() {
    for path in ["/", "/api/v1/items/42", "/static/app.js", "/caf%C3%A9", "/café", "//x", "/a%2Fb"] {
        assert!(matches!(normalize(path), Ok(Cow::Borrowed(_))), "{path}");
    }
}

#[test]
fn decodes_once() {
    fn check(reading: &str, expect: &[u8]) {
        assert_eq!(&*decode(reading), expect, "{reading}");
    }
    check("/%40x/%252e", b"/@x/%2e");
    check("/caf%C3%A9", "/café".as_bytes());
    check("/caf%E9", b"/caf\xe9");
    check("/a%2Fb", b"/a\0b");
    check("/a%252Fb", b"/a%2Fb");
    check("/a%5Cb", b"/a\\b");
}

#[cfg(feature = "http")]
fn target(text: &[u8]) -> Result<NormalPath, PathError> {
    NormalPath::new(bytes::Bytes::copy_from_slice(text))
}

#[cfg(feature = "http")]
#[test]
fn a_normal_path_keeps_its_query_and_its_bytes() {
    let path = target(b"/app/../x%2f?a=%2f..&b=\xe9").unwrap();
    assert_eq!((path.path(), path.query()), (&b"/x%2F"[..], Some(&b"a=%2f..&b=\xe9"[..])));
    assert_eq!(&path.as_bytes()[..], b"/x%2F?a=%2f..&b=\xe9");
    assert_eq!(path.to_string(), "/x%2F?a=%2f..&b=%E9");
    assert_eq!(target(b"/?").unwrap().query(), Some(&b""[..]));
    assert_eq!(target(b"/x").unwrap().query(), None);
    let raw = target(b"/caf\xe9").unwrap();
    assert_eq!((raw.path(), &*raw.standard()), (&b"/caf\xe9"[..], "/caf%E9"));
    assert_eq!(target(b"/x?a b"), Err(PathError::BadCharacter));
    assert_eq!(target(b"/x?a\r"), Err(PathError::BadCharacter));
}

#[cfg(feature = "http")]
#[test]
fn a_plain_path_is_shared() {
    let bytes = bytes::Bytes::from_static(b"/api/v1/items/42?x=y");
    let path = NormalPath::new(bytes.clone()).unwrap();
    assert_eq!(path.as_bytes().as_ptr(), bytes.as_ptr());
    assert!(!path.is_ambiguous());
    let readings = path.readings(&PathReading::default()).unwrap();
    let read: Vec<&str> = readings.iter().collect();
    assert_eq!((read[0].as_ptr(), read.len()), (bytes.as_ptr(), 1), "read where it lies");
}

#[cfg(feature = "http")]
fn readings(path: &[u8], reading: &str) -> Vec<String> {
    let reading = if reading.is_empty() { PathReading::default() } else { reading.parse().unwrap() };
    let path = target(path).unwrap();
    let readings = path.readings(&reading).unwrap();
    assert_eq!(readings.is_single(), readings.iter().count() == 1);
    readings.iter().map(str::to_owned).collect()
}

#[cfg(feature = "http")]
#[test]
fn readings_of() {
    fn check(path: &[u8], expect: &[&str]) {
        let got: BTreeSet<String> = readings(path, "").into_iter().collect();
        let expect: BTreeSet<String> = expect.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(got, expect, "{}", String::from_utf8_lossy(path));
    }
    check(b"/a/b", &["/a/b"]);
    check(b"/%2e%2e/a", &["/a"]);
    check(b"//admin", &["//admin", "/admin"]);
    check(b"/admin;x=1", &["/admin;x=1", "/admin"]);
    check(b"/a;x/b;y", &["/a;x/b;y", "/a/b"]);
    check(b"/a%2fb", &["/a%2Fb", "/a/b"]);
    check(b"/a%5cb", &["/a%5Cb", "/a/b"]);
    check(b"/a\\b", &["/a\\b", "/a/b"]);
    check(b"/x/..;/admin", &["/x/..;/admin", "/x/../admin", "/admin"]);
    check(b"/a%2f..%2fadmin", &["/a%2F..%2Fadmin", "/a/../admin", "/admin"]);
    check(b"/%5c../admin", &["/%5C../admin", "//../admin", "/../admin", "/admin"]);
    check(b"/caf%e9", &["/caf%E9", "/caf%C3%A9"]);
    check(b"/caf\xe9", &["/caf%E9", "/caf%C3%A9"]);
    check("/café".as_bytes(), &["/café"]);
    check(b"/\xc3%a9/%e9", &["/%C3%A9/%E9", "/%C3%A9/%C3%A9"]);
    check(b"/a%3bx", &["/a%3Bx"]);
    check(b"*", &["*"]);
}

#[cfg(feature = "http")]
#[test]
fn what_an_app_declares_leaves_fewer_readings() {
    fn check(path: &str, declared: &str, expect: &[&str]) {
        let got: BTreeSet<String> = readings(path.as_bytes(), declared).into_iter().collect();
        let expect: BTreeSet<String> = expect.iter().map(|text| (*text).to_owned()).collect();
        assert_eq!(got, expect, "{path} {declared}");
    }
    check("/a%2Fb", "encoded-slash=literal", &["/a%2Fb"]);
    check("/a%2Fb", "encoded-slash=separator", &["/a/b"]);
    check("/a%2F..%2Fb", "encoded-slash=separator", &["/a/../b", "/b"]);
    check("//a", "slashes=merged", &["/a"]);
    check("//a", "slashes=kept", &["//a"]);
    check("/a;x/b", "params=cut", &["/a/b"]);
    check("/a;x/b", "params=kept", &["/a;x/b"]);
    check("/a%2F/b;x", "encoded-slash=literal, params=cut, slashes=merged", &["/a%2F/b"]);
    check("/a%2F/b;x", "encoded-slash=separator,params=cut,slashes=merged", &["/a/b"]);
    check("/;x/b", "params=cut", &["//b", "/b"]);
    check("/;x/b", "params=cut, slashes=merged", &["/b"]);
}

#[test]
fn declarations_are_read_strictly() {
    for text in ["encoded-slash=literal", "params=cut, slashes=merged", "encoded-slash=separator, slashes=kept"] {
        assert_eq!(text.parse::<PathReading>().map(|reading| reading.to_string()).as_deref(), Ok(text));
    }
    for wrong in ["", "params", "params=", "params=yes", "params=cut;slashes=merged", "params=cut, params=kept", "x=y"]
    {
        assert!(wrong.parse::<PathReading>().is_err(), "{wrong}");
    }
    let parse = |text: &str| text.parse::<PathReading>().unwrap();
    let common = parse("params=cut, slashes=merged").common(parse("params=cut, slashes=kept"));
    assert_eq!(common, parse("params=cut"));
    assert!(common.common(PathReading::default()).is_default());
}

#[cfg(feature = "http")]
#[test]
fn too_many_readings_are_refused() {
    let many = b"/%e9;a//..;b%2f%5c/;x%2f\\/%2e%2e;%2f..//c";
    let path = target(many).unwrap();
    assert_eq!(path.readings(&PathReading::default()), Err(Ambiguous));
    let declared = "encoded-slash=literal, params=cut, slashes=merged".parse().unwrap();
    assert!(path.readings(&declared).is_ok(), "a declaration helps");
}

/// The closure, written so that it can be seen to be right: every step applied to every member until nothing is new.
#[cfg(feature = "http")]
fn model(path: &str) -> BTreeSet<String> {
    fn dots(path: &str) -> String {
        let mut out: Vec<&str> = Vec::new();
        let segments: Vec<&str> = path.split('/').skip(1).collect();
        for (index, segment) in segments.iter().enumerate() {
            let last = index + 1 == segments.len();
            match *segment {
                "." => {}
                ".." => drop(out.pop()),
                other => out.push(other),
            }
            if last && matches!(*segment, "." | "..") {
                out.push("");
            }
        }
        format!("/{}", out.join("/"))
    }
    fn merged(path: &str) -> String {
        let mut path = path.to_owned();
        while path.contains("//") {
            path = path.replace("//", "/");
        }
        path
    }
    fn cut(path: &str) -> String {
        let mut out = String::new();
        let mut inside = false;
        for c in path.chars() {
            inside = (inside || c == ';') && c != '/';
            if !inside {
                out.push(c);
            }
        }
        out
    }
    fn latin1(path: &str) -> String {
        // The random paths have one octet that is no UTF-8.
        path.replace("%E9", "%C3%A9")
    }
    let mut all = BTreeSet::from([path.to_owned()]);
    loop {
        let before = all.len();
        for member in all.clone() {
            all.insert(member.replace("%5C", "/").replace('\\', "/"));
            all.insert(member.replace("%2F", "/"));
            all.insert(cut(&member));
            all.insert(merged(&member));
            all.insert(dots(&member));
            all.insert(latin1(&member));
        }
        if all.len() == before {
            return all;
        }
    }
}

#[cfg(feature = "http")]
#[test]
fn agrees_with_the_model() {
    const PARTS: [&str; 14] =
        ["/", "/", "a", "admin", ".", "..", ";", ";x=1", "%2f", "%5C", "\\", "%e9", "%2e%2E", "//"];
    let mut state = 5_u64;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((state >> 33) % bound as u64).unwrap()
    };
    let (mut several, mut refused) = (0, 0);
    for _ in 0..30_000 {
        let parts: String = (0..below(9)).map(|_| PARTS[below(PARTS.len())]).collect();
        let text = format!("/{parts}");
        let path = target(text.as_bytes()).unwrap();
        let expect = model(&path.standard());
        match path.readings(&PathReading::default()) {
            Ok(readings) => {
                let got: BTreeSet<String> = readings.iter().map(str::to_owned).collect();
                assert_eq!(got, expect, "{text}");
                assert_eq!(readings.iter().next(), Some(&*path.standard()), "the standard reading is first");
                several += usize::from(got.len() > 1);
            }
            Err(Ambiguous) => {
                assert!(expect.len() > MAX_READINGS, "{text}: {expect:?}");
                refused += 1;
            }
        }
    }
    assert!(several > 10_000 && refused > 10, "{several} {refused}");
}

/// No byte that a peer sends does harm, and what is normal stays as it is.
#[cfg(feature = "http")]
#[test]
fn random_bytes_do_no_harm() {
    let mut state = 7_u64;
    let mut below = |bound: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from((state >> 33) % bound as u64).unwrap()
    };
    for _ in 0..50_000 {
        let mut text = vec![b'/'];
        text.extend((0..below(12)).map(|_| match below(3) {
            0 => b"/.%;2fF5cC?\\"[below(12)],
            1 => u8::try_from(0x80 + below(128)).unwrap(),
            _ => u8::try_from(below(256)).unwrap(),
        }));
        let Ok(path) = target(&text) else { continue };
        assert_eq!(target(path.as_bytes()).as_ref(), Ok(&path), "{text:?}");
        if let Ok(readings) = path.readings(&PathReading::default()) {
            assert!(readings.iter().all(|reading| reading.starts_with('/')), "{text:?}");
        }
    }
}
