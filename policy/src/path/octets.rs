//! Percent escapes and UTF-8, octet by octet.

use super::PathError;

/// The octet that an escape at this place stands for; `None` where there is no whole escape.
pub(super) fn escape_at(bytes: &[u8], at: usize) -> Option<u8> {
    let [b'%', high, low] = *bytes.get(at..at + 3)? else { return None };
    let digit = |b: u8| char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    Some(digit(high)? << 4 | digit(low)?)
}

//= rfc3986#section-2.3
pub(super) fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

pub(super) fn push_escape(out: &mut Vec<u8>, octet: u8) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    out.extend([b'%', HEX[usize::from(octet >> 4)], HEX[usize::from(octet & 15)]]);
}

/// The octets of a path decoded once, and whether each was escaped.
pub(crate) fn octets(path: &[u8]) -> impl Iterator<Item = (u8, bool)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let octet = escape_at(path, at).map_or_else(|| path.get(at).map(|raw| (*raw, false)), |o| Some((o, true)))?;
        at += if octet.1 { 3 } else { 1 };
        Some(octet)
    })
}

/// True where the decoded path is UTF-8.
pub(super) fn is_utf8(path: &[u8]) -> bool {
    if path.iter().all(|byte| byte.is_ascii() && *byte != b'%') {
        return true;
    }
    let decoded: Vec<u8> = octets(path).map(|(octet, _)| octet).collect();
    std::str::from_utf8(&decoded).is_ok()
}

/// Refuses what some decoders take for another character: overlong forms of any length, and surrogates. Other octets
/// that are no UTF-8 may be Latin-1.
pub(super) fn check_utf8(decoded: &[u8]) -> Result<(), PathError> {
    for pair in decoded.windows(2) {
        match *pair {
            [0xc0 | 0xc1, 0x80..=0xbf]
            | [0xe0, 0x80..=0x9f]
            | [0xf0, 0x80..=0x8f]
            | [0xf8, 0x80..=0x87]
            | [0xfc, 0x80..=0x83] => return Err(PathError::Overlong),
            [0xed, 0xa0..=0xbf] => return Err(PathError::Surrogate),
            _ => {}
        }
    }
    Ok(())
}

/// The same path with each octet that is no UTF-8 as the Latin-1 character that it would be.
pub(super) fn as_latin1(path: &str) -> String {
    let source: Vec<(u8, bool)> = octets(path.as_bytes()).collect();
    let decoded: Vec<u8> = source.iter().map(|(octet, _)| *octet).collect();
    let mut out = Vec::with_capacity(path.len());
    let mut at = 0;
    for chunk in decoded.utf8_chunks() {
        for _ in 0..chunk.valid().len() {
            let (octet, escaped) = source[at];
            if escaped {
                push_escape(&mut out, octet)
            } else {
                out.push(octet)
            }
            at += 1;
        }
        for octet in chunk.invalid() {
            let mut buffer = [0; 2];
            let character = char::from(*octet).encode_utf8(&mut buffer);
            character.bytes().for_each(|octet| push_escape(&mut out, octet));
            at += 1;
        }
    }
    text(&out)
}

/// Path and query in characters of a URI, and of those each as it was.
//= rfc3986#appendix-A
pub(super) fn as_uri(target: &[u8]) -> String {
    let is_fit = |byte: u8| is_unreserved(byte) || b"%!$&'()*+,;=:@/?".contains(&byte);
    let mut out = Vec::with_capacity(target.len());
    target.iter().for_each(|byte| if is_fit(*byte) { out.push(*byte) } else { push_escape(&mut out, *byte) });
    String::from_utf8_lossy(&out).into_owned()
}

/// A path as text: raw octets that are no UTF-8 as escapes.
pub(super) fn text(path: &[u8]) -> String {
    let mut out = Vec::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        out.extend_from_slice(chunk.valid().as_bytes());
        chunk.invalid().iter().for_each(|octet| push_escape(&mut out, *octet));
    }
    String::from_utf8_lossy(&out).into_owned()
}
