//! The one form of a request path: what authorization reads is what the app is sent. Anything that could be read in two
//! ways is refused, never guessed.

use std::borrow::Cow;

/// Why a path is answered 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("path does not begin with '/'")]
    Relative,
    #[error("path has a broken percent escape")]
    BadEscape,
    #[error("path has an encoded slash")]
    EncodedSlash,
    #[error("path has a backslash")]
    Backslash,
    #[error("path has a NUL")]
    Nul,
    #[error("path is not UTF-8 when decoded")]
    NotUtf8,
    #[error("path has a character that must be encoded")]
    BadCharacter,
}

/// Brings a path (without query) into normal form: unreserved characters decoded, other escapes in upper case, dot
/// segments resolved, slashes merged. Encoded slashes, backslashes, NUL and what does not decode to UTF-8 are
/// refused. Double encoding stays as it is: the app decodes once, and so does a rule.
///
/// `*` (of `OPTIONS *`) is its own normal form. Borrowed where nothing changes, which is the usual case.
pub fn normalize(path: &str) -> Result<Cow<'_, str>, PathError> {
    if path == "*" {
        return Ok(Cow::Borrowed(path));
    }
    if !path.starts_with('/') {
        return Err(PathError::Relative);
    }
    if is_normal(path.as_bytes()) {
        return Ok(Cow::Borrowed(path));
    }
    let unescaped = unescape_unreserved(path.as_bytes())?;
    let resolved = resolve_dots_and_slashes(&unescaped);
    if resolved == path { Ok(Cow::Borrowed(path)) } else { Ok(Cow::Owned(resolved)) }
}

/// What the app reads after decoding a normalised path once; rules are compared with this. Encoded slashes can't occur,
/// so segments stay segments.
pub fn decode(normalised: &str) -> Cow<'_, str> {
    if !normalised.contains('%') {
        return Cow::Borrowed(normalised);
    }
    let bytes = normalised.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match escape_at(bytes, at) {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    Cow::Owned(String::from_utf8_lossy(&out).into_owned())
}

/// No escape, no dot segment, no double slash, nothing to refuse.
fn is_normal(bytes: &[u8]) -> bool {
    let mut previous = 0;
    bytes.iter().all(|&byte| {
        let plain = byte > b' ' && byte < 0x7f && !matches!(byte, b'%' | b'\\' | b'?' | b'#');
        let fine = plain && !(previous == b'/' && matches!(byte, b'/' | b'.'));
        previous = byte;
        fine
    })
}

fn unescape_unreserved(bytes: &[u8]) -> Result<String, PathError> {
    let mut out = String::with_capacity(bytes.len() + 8);
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let byte = bytes[at];
        let (value, escaped) = if byte == b'%' {
            at += 3;
            (escape_at(bytes, at - 3).ok_or(PathError::BadEscape)?, true)
        } else {
            at += 1;
            (byte, false)
        };
        match value {
            0 => return Err(PathError::Nul),
            b'\\' => return Err(PathError::Backslash),
            b'/' if escaped => return Err(PathError::EncodedSlash),
            _ => {}
        }
        if !escaped && (value <= b' ' || value == 0x7f || matches!(value, b'?' | b'#')) {
            return Err(PathError::BadCharacter);
        }
        decoded.push(value);
        if is_unreserved(value) || (!escaped && value < 0x80) {
            out.push(char::from(value));
        } else {
            push_escape(&mut out, value);
        }
    }
    // Overlong forms and lone continuation bytes end here.
    std::str::from_utf8(&decoded).map_err(|_| PathError::NotUtf8)?;
    Ok(out)
}

/// Dots first, then slashes, as URL parsers do: `/a//../b` is `/a/b`.
//= rfc3986#section-5.2.4
fn resolve_dots_and_slashes(path: &str) -> String {
    let mut segments: Vec<&str> = Vec::new();
    let mut directory = false;
    for segment in path.split('/').skip(1) {
        directory = matches!(segment, "" | "." | "..");
        match segment {
            "." => {}
            ".." => {
                segments.pop();
            }
            _ => segments.push(segment),
        }
    }
    let mut out = String::with_capacity(path.len());
    for segment in segments.into_iter().filter(|s| !s.is_empty()) {
        out.push('/');
        out.push_str(segment);
    }
    if directory || out.is_empty() {
        out.push('/');
    }
    out
}

fn escape_at(bytes: &[u8], at: usize) -> Option<u8> {
    let [b'%', high, low] = *bytes.get(at..at + 3)? else { return None };
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

//= rfc3986#section-2.3
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

fn push_escape(out: &mut String, byte: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.push('%');
    out.push(char::from(HEX[usize::from(byte >> 4)]));
    out.push(char::from(HEX[usize::from(byte & 15)]));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrix() {
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
        check("//admin", Ok("/admin"));
        check("/a///b//", Ok("/a/b/"));
        check("/a//../b", Ok("/a/b"));
        check("/a/;x=1/b", Ok("/a/;x=1/b"));
        check("/caf%c3%a9", Ok("/caf%C3%A9"));
        check("/café", Ok("/caf%C3%A9"));
        check("/a%20b", Ok("/a%20b"));
        check("/a%2bb", Ok("/a%2Bb"));
        check("/%252e%252e/admin", Ok("/%252e%252e/admin"));
        check("/%252fadmin", Ok("/%252fadmin"));
        check("admin", Err(PathError::Relative));
        check("", Err(PathError::Relative));
        check("/a%2fb", Err(PathError::EncodedSlash));
        check("/a%2Fb", Err(PathError::EncodedSlash));
        check("/a%5cb", Err(PathError::Backslash));
        check("/a\\b", Err(PathError::Backslash));
        check("/a%00b", Err(PathError::Nul));
        check("/a\0b", Err(PathError::Nul));
        check("/%c0%af", Err(PathError::NotUtf8));
        check("/%e0%80%af", Err(PathError::NotUtf8));
        check("/%ff", Err(PathError::NotUtf8));
        check("/%ed%a0%80", Err(PathError::NotUtf8));
        check("/%", Err(PathError::BadEscape));
        check("/%4", Err(PathError::BadEscape));
        check("/%zz", Err(PathError::BadEscape));
        check("/%+1", Err(PathError::BadEscape));
        check("/a b", Err(PathError::BadCharacter));
        check("/a?b", Err(PathError::BadCharacter));
        check("/a\r\nb", Err(PathError::BadCharacter));
    }

    #[test]
    fn usual_paths_are_borrowed() {
        for path in ["/", "/api/v1/items/42", "/static/app.js", "/caf%C3%A9"] {
            assert!(matches!(normalize(path), Ok(Cow::Borrowed(_))), "{path}");
        }
    }

    #[test]
    fn decodes_once() {
        assert_eq!(decode("/%40x/%252e"), "/@x/%2e");
        assert_eq!(decode("/caf%C3%A9"), "/café");
    }
}
