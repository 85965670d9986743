//! Which texts are origins, and which origins an entry allows.

use super::*;

#[test]
fn an_entry_allows_its_origins_and_no_other() {
    let check = |pattern: &str, allowed: &[&str], others: &[&str]| {
        let parsed: OriginPattern = pattern.parse().unwrap();
        assert_eq!(parsed.to_string(), pattern);
        for origin in allowed {
            assert!(parsed.allows(origin), "{pattern} allows {origin}");
        }
        for origin in others {
            assert!(!parsed.allows(origin), "{pattern} does not allow {origin}");
        }
    };
    check("*", &["https://a.example", "http://[::1]:3000", "null", "chrome-extension://abc"], &[]);
    check(
        "https://a.example",
        &["https://a.example", "https://A.example", "https://a.example:443"],
        &[
            "http://a.example",
            "https://a.example:8443",
            "https://a.example.evil",
            "https://x.a.example",
            "https://a.example/",
            "https://u@a.example",
            "HTTPS://a.example",
            "null",
            "",
        ],
    );
    check("http://a.example", &["http://a.example:80"], &["http://a.example:443", "http://a.example:080"]);
    check("http://127.0.0.1:3000", &["http://127.0.0.1:3000"], &["http://127.0.0.1", "http://127.0.0.1:30001"]);
    check("http://[::1]:3000", &["http://[::1]:3000"], &["http://[::1]", "http://::1:3000"]);
    check(
        "https://*.bar.example",
        &["https://www.bar.example", "https://x.www.bar.example", "https://x_y.BAR.example"],
        &[
            "https://bar.example",
            "https://.bar.example",
            "https://evilbar.example",
            "https://www.bar.example:8443",
            "https://evil.example/.bar.example",
            "https://evil.example#.bar.example",
            "https://u@x.bar.example",
            "https://\u{e9}.bar.example",
            "https://x.b\u{e9}r.example",
        ],
    );
    check(
        "https://*:8443",
        &["https://a:8443", "https://[::1]:8443"],
        &["https://a", "https://:8443", "https://a/b:8443"],
    );
}

#[test]
fn texts_that_mean_no_origin() {
    for text in [
        "",
        "a.example",
        "ftp://a.example",
        "https://",
        "https://A.example",
        "https://a.example/",
        "https://a.*.example",
        "https://*a.example",
        "https://*.",
        "https://*.*.example",
        "https://a.example:0",
        "https://a.example:70000",
        "https://a.example:",
        "https://a:80:80",
        "https://[::1",
        "null",
        "**",
    ] {
        let error = text.parse::<OriginPattern>().unwrap_err();
        assert!(error.to_string().starts_with(&format!("{text:?} is not an origin: ")), "{error}");
    }
}
