//! What the host takes of a filter, so that a filter can judge its configuration by it before a request does. The test
//! harness refuses by the same rules.

/// Edits of one outcome, and headers of one reply.
pub const EDITS: usize = 64;
/// Bytes of the body of a reply or of a callout.
pub const REPLY_BODY: usize = 64 << 10;
/// Bytes of a header's or an attribute's name.
pub const NAME: usize = 256;
/// Bytes of a header's or an attribute's value.
pub const VALUE: usize = 64 << 10;
/// Bytes of a stream's state.
pub const COOKIE: usize = 4 << 10;
/// Milliseconds of one wait.
pub const WAIT_MS: u32 = 300_000;
/// Values of one hook.
pub const VALUES: usize = 64;

/// Headers of framing, of one hop and of identity, which filters leave alone, as those that begin with `weft-`.
const FORBIDDEN: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A header that filters may set, add or remove.
pub fn header_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.len() > NAME || !name.bytes().all(is_token) {
        return Err(format!("{name:?} is no name of a header"));
    }
    let lower = name.to_ascii_lowercase();
    // Servers fold `_` into `-`: who calls is not to be said in another spelling either.
    let folded = lower.replace('_', "-");
    let is_identity = folded == "x-forwarded-client-cert";
    if folded.starts_with("weft-") || is_identity || FORBIDDEN.contains(&lower.as_str()) {
        return Err(format!("the header {lower} is not for filters to change"));
    }
    Ok(())
}

/// Octets that a header's value may have.
pub fn header_value(value: &[u8]) -> Result<(), String> {
    if value.len() > VALUE {
        return Err(format!("a header's value has at most {VALUE} bytes"));
    }
    let is_sound = |byte: &u8| (*byte >= b' ' && *byte != 0x7f) || *byte == b'\t';
    match value.iter().all(is_sound) {
        true => Ok(()),
        false => Err(format!("{:?} is no value of a header", String::from_utf8_lossy(value))),
    }
}

/// The status of an answer.
pub fn status(status: u16) -> Result<(), String> {
    match status {
        200..600 => Ok(()),
        0..200 | 600.. => Err(format!("{status} is not between 200 and 599")),
    }
}

/// A path, with or without a query: what surely is none. The host normalises what this lets pass, and refuses text that is
/// no UTF-8 once it is decoded.
pub fn path(path: &str) -> Result<(), String> {
    let bytes = path.split_once('?').map_or(path, |(path, _)| path).as_bytes();
    let whole_escapes = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'%').all(|(at, _)| {
        let digits = bytes.get(at + 1..at + 3);
        digits.is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit) && digits != b"00")
    });
    let is_sound = |byte: &u8| !matches!(*byte, 0..=b' ' | 0x7f | b'#');
    if bytes.first() != Some(&b'/') || !whole_escapes || !bytes.iter().all(is_sound) {
        return Err(format!("{path:?} is no path"));
    }
    Ok(())
}

/// Names of metrics and of their labels.
pub fn metric_name(name: &str) -> Result<(), String> {
    let is_sound = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_');
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) || name.len() > 64 || !name.bytes().all(is_sound) {
        return Err(format!("{name:?}: names of metrics and labels are [a-z][a-z0-9_]*, at most 64 bytes"));
    }
    Ok(())
}

/// The name of an attribute that a filter sets.
pub fn attribute_name(name: &str) -> Result<(), String> {
    let is_sound = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    match name.strip_prefix("filter.") {
        Some(own) if !own.is_empty() && name.len() <= NAME && own.bytes().all(is_sound) => Ok(()),
        None | Some(_) => {
            Err(format!("{name:?}: an attribute is filter.NAME of a-z, 0-9, -, _ and ., at most {NAME} bytes"))
        }
    }
}

//= rfc9110#section-5.6.2
pub(crate) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(rule: impl Fn(&str) -> Result<(), String>, good: &[&str], bad: &[&str]) {
        good.iter().for_each(|text| rule(text).unwrap_or_else(|error| panic!("{text}: {error}")));
        bad.iter().for_each(|text| assert!(rule(text).is_err(), "{text:?}"));
    }

    #[test]
    fn names_and_values_that_the_host_refuses() {
        let (long, longer) = ("x".repeat(256), "x".repeat(257));
        let bad = [
            "",
            "a b",
            ":path",
            "Host",
            "content-length",
            "weft-rule",
            "Weft-Rule",
            "te",
            "a\u{e9}",
            &longer,
            "X_Forwarded-Client_Cert",
        ];
        check(header_name, &["x-a", "X-A", "x_a.b", &long], &bad);
        check(|text| header_value(text.as_bytes()), &["", "a b", "\t", "\u{e9}"], &["a\nb", "\r", "\0", "\x7f"]);
        check(path, &["/", "/a/../b?q=%", "/%41"], &["", "a", "*", "/%", "/%4", "/%zz", "/%00", "/a b", "/a\n", "/#"]);
        check(metric_name, &["a", "a_1"], &["", "A", "1a", "a-b", &"a".repeat(65)]);
        check(
            attribute_name,
            &["filter.a", "filter.jwt.sub"],
            &["filter.", "jwt.sub", "filter.a b", "filter", "filter.A"],
        );
        assert!(status(200).is_ok() && status(599).is_ok());
        assert!(status(199).is_err() && status(600).is_err());
    }
}
