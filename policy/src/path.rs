//! The one form of a request path, and all the ways in which an application may read it. Equivalent spellings are made
//! one and sent so; what is legal but ambiguous is sent as it came and judged in each of its readings.
//!
//! Not judged: letter case, a trailing slash, suffixes such as `.json`, decoding twice, and Unicode folding.

#[cfg(feature = "http")]
mod normal;
#[cfg_attr(
    not(feature = "http"),
    allow(dead_code, reason = "readings are made of a NormalPath, which needs the feature")
)]
mod octets;
#[cfg_attr(
    not(feature = "http"),
    allow(dead_code, reason = "readings are made of a NormalPath, which needs the feature")
)]
mod reading;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use octets::{escape_at, is_unreserved, push_escape};

#[cfg(feature = "http")]
pub use normal::NormalPath;
#[cfg(feature = "http")]
pub(crate) use octets::octets;
pub use reading::{Ambiguous, MAX_READINGS, PathReading, PathReadingError, Readings};

/// Why a path is answered 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("path does not begin with '/'")]
    Relative,
    #[error("path has a broken percent escape")]
    BadEscape,
    #[error("path has a NUL")]
    Nul,
    #[error("path has a line break")]
    LineBreak,
    #[error("path has overlong UTF-8")]
    Overlong,
    #[error("path has an encoded surrogate")]
    Surrogate,
    #[error("path has a character that must be encoded")]
    BadCharacter,
}

/// Brings a path (without query) into normal form: unreserved characters decoded, other escapes in upper case, dot
/// segments resolved. Everything else stays as it came, raw bytes too.
///
/// `*` (of `OPTIONS *`) is its own normal form. Borrowed where nothing changes, which is the usual case.
///
/// # Errors
/// No server may be sent such a path.
pub fn normalize(path: &str) -> Result<Cow<'_, str>, PathError> {
    match normal_form(path.as_bytes())?.rewritten {
        None => Ok(Cow::Borrowed(path)),
        // Text stays text: only ASCII is decoded, and only whole segments go.
        Some(bytes) => Ok(Cow::Owned(String::from_utf8_lossy(&bytes).into_owned())),
    }
}

/// Result of normalising a path.
#[derive(Debug, Default)]
#[cfg_attr(
    not(feature = "http"),
    allow(dead_code, reason = "readings are made of a NormalPath, which needs the feature")
)]
struct NormalForm {
    /// `None`: the path is normal as it came.
    rewritten: Option<Vec<u8>>,
    /// Some servers may read it differently.
    ambiguous: bool,
}

fn normal_form(path: &[u8]) -> Result<NormalForm, PathError> {
    if path == b"*" || is_plain(path) {
        return Ok(NormalForm::default());
    }
    if path.first() != Some(&b'/') {
        return Err(PathError::Relative);
    }
    let unescaped = unescape_unreserved(path)?;
    let resolved = resolve_dots(&unescaped);
    let ambiguous = is_ambiguous(&resolved);
    Ok(NormalForm { rewritten: (resolved != path).then_some(resolved), ambiguous })
}

/// Nothing to decode, to resolve, to refuse or to read in two ways. Empty: not plain.
fn is_plain(path: &[u8]) -> bool {
    let mut previous = 0;
    path.first() == Some(&b'/')
        && path.iter().all(|&byte| {
            let plain = byte > b' ' && byte < 0x7f && !matches!(byte, b'%' | b'\\' | b';' | b'?' | b'#');
            let fine = plain && !(previous == b'/' && matches!(byte, b'/' | b'.'));
            previous = byte;
            fine
        })
}

fn unescape_unreserved(path: &[u8]) -> Result<Vec<u8>, PathError> {
    let mut out = Vec::with_capacity(path.len());
    let mut decoded = Vec::with_capacity(path.len());
    let mut at = 0;
    while at < path.len() {
        let escaped = path[at] == b'%';
        let octet = if escaped { escape_at(path, at).ok_or(PathError::BadEscape)? } else { path[at] };
        at += if escaped { 3 } else { 1 };
        match octet {
            0 => return Err(PathError::Nul),
            b'\r' | b'\n' => return Err(PathError::LineBreak),
            0x01..=b' ' | 0x7f | b'?' | b'#' if !escaped => return Err(PathError::BadCharacter),
            _ => {}
        }
        decoded.push(octet);
        if escaped && !is_unreserved(octet) { push_escape(&mut out, octet) } else { out.push(octet) }
    }
    octets::check_utf8(&decoded)?;
    Ok(out)
}

/// Resolves `.` and `..` segments; empty segments are segments like others.
//= rfc3986#section-5.2.4
fn resolve_dots(path: &[u8]) -> Vec<u8> {
    let mut segments: Vec<&[u8]> = Vec::new();
    let mut directory = false;
    for segment in path.split(|byte| *byte == b'/').skip(1) {
        directory = matches!(segment, b"." | b"..");
        match segment {
            b"." => {}
            b".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    if directory || segments.is_empty() {
        segments.push(b"");
    }
    let mut out = Vec::with_capacity(path.len());
    for segment in segments {
        out.push(b'/');
        out.extend_from_slice(segment);
    }
    out
}

/// True where a normalised path has something that servers read in several ways.
fn is_ambiguous(path: &[u8]) -> bool {
    path.iter().any(|byte| matches!(byte, b'\\' | b';'))
        || path.windows(2).any(|pair| pair == b"//")
        || path.windows(3).any(|escape| matches!(escape, b"%2F" | b"%5C"))
        || !octets::is_utf8(path)
}

/// The octets that an application sees after decoding a reading once; rules are compared with this. An encoded slash is
/// no separator: it stands as NUL, which no path has.
pub fn decode(reading: &str) -> Cow<'_, [u8]> {
    let bytes = reading.as_bytes();
    if !bytes.contains(&b'%') {
        return Cow::Borrowed(bytes);
    }
    let octets = octets::octets(bytes).map(|(octet, escaped)| if escaped && octet == b'/' { 0 } else { octet });
    Cow::Owned(octets.collect())
}
