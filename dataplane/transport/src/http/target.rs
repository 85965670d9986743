//! The request target of a message: path and query, byte for byte as they came. It may hold what a URI may not (`"`, `<`,
//! raw Latin-1), because applications take it; it never holds white space, a control character or a fragment.

use std::fmt;
use std::str::FromStr;

use bytes::{BufMut, Bytes, BytesMut};
use http::uri::{InvalidUri, PathAndQuery};

/// Path and query (`/a?b`), or `*`. Cloning is cheap. No rule judges it: policy reads a normalised path.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Target(Bytes);

/// Why bytes are no request target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    #[error("request target is neither a path nor '*'")]
    NoPath,
    #[error("fragment in the request target")]
    Fragment,
    #[error("white space or a control character in the request target")]
    BadCharacter,
}

impl Target {
    /// Takes the bytes as they are, without copying them.
    pub fn from_shared(bytes: Bytes) -> Result<Self, TargetError> {
        if bytes.first() != Some(&b'/') && &bytes[..] != b"*" {
            return Err(TargetError::NoPath);
        }
        let mut refused = bytes.iter().filter(|byte| **byte <= b' ' || matches!(**byte, b'#' | 0x7f));
        match refused.next() {
            None => Ok(Self(bytes)),
            Some(b'#') => Err(TargetError::Fragment),
            Some(_) => Err(TargetError::BadCharacter),
        }
    }

    /// A target that is known to be one.
    ///
    /// # Panics
    /// The text is no target.
    pub fn from_static(text: &'static str) -> Self {
        Self::from_shared(Bytes::from_static(text.as_bytes())).expect("a literal is a request target")
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The same bytes, shared.
    pub fn to_bytes(&self) -> Bytes {
        self.0.clone()
    }

    /// The part before the first `?`.
    pub fn path(&self) -> &[u8] {
        &self.0[..self.query_mark().unwrap_or(self.0.len())]
    }

    /// The part after the first `?`; `None` without one.
    pub fn query(&self) -> Option<&[u8]> {
        self.query_mark().map(|at| &self.0[at + 1..])
    }

    /// True for the target of `OPTIONS *`.
    pub fn is_asterisk(&self) -> bool {
        &self.0[..] == b"*"
    }

    fn query_mark(&self) -> Option<usize> {
        self.0.iter().position(|byte| *byte == b'?')
    }

    /// The nearest URI: what `http::Uri` can't hold is percent-encoded, everything else stays. Fails only on a target of
    /// more than 64 KiB.
    pub fn to_uri(&self) -> Result<PathAndQuery, InvalidUri> {
        if let Ok(same) = PathAndQuery::from_maybe_shared(self.0.clone()) {
            return Ok(same);
        }
        let mut encoded = BytesMut::with_capacity(self.0.len() + 16);
        for byte in &self.0 {
            if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%[]{}|\\^".contains(byte) {
                encoded.put_u8(*byte);
            } else {
                encoded.put_slice(format!("%{byte:02X}").as_bytes());
            }
        }
        PathAndQuery::from_maybe_shared(encoded.freeze())
    }
}

impl From<PathAndQuery> for Target {
    fn from(path: PathAndQuery) -> Self {
        let text = path.as_str();
        if text.starts_with('/') || text == "*" {
            return Self(Bytes::copy_from_slice(text.as_bytes()));
        }
        // A path and query may begin with `?`, or be empty.
        Self(Bytes::from(format!("/{text}")))
    }
}

impl TryFrom<&[u8]> for Target {
    type Error = TargetError;

    fn try_from(bytes: &[u8]) -> Result<Self, TargetError> {
        Self::from_shared(Bytes::copy_from_slice(bytes))
    }
}

impl TryFrom<String> for Target {
    type Error = TargetError;

    fn try_from(text: String) -> Result<Self, TargetError> {
        Self::from_shared(Bytes::from(text))
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        Self::try_from(text.as_bytes())
    }
}

/// For logs: what is not printable ASCII is percent-encoded, and so is what would end a quoted string.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.chunk_by(|a, b| is_printable(*a) == is_printable(*b)) {
            match std::str::from_utf8(chunk) {
                Ok(text) if is_printable(chunk[0]) => f.write_str(text)?,
                Ok(_) | Err(_) => chunk.iter().try_for_each(|byte| write!(f, "%{byte:02X}"))?,
            }
        }
        Ok(())
    }
}

fn is_printable(byte: u8) -> bool {
    byte.is_ascii_graphic() && byte != b'"'
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl PartialEq<str> for Target {
    fn eq(&self, text: &str) -> bool {
        self.0 == text.as_bytes()
    }
}

impl PartialEq<&str> for Target {
    fn eq(&self, text: &&str) -> bool {
        self.0 == text.as_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(bytes: &[u8], path: &[u8], query: Option<&[u8]>, uri: &str) {
        let target = Target::try_from(bytes).unwrap();
        assert_eq!((target.as_bytes(), target.path(), target.query()), (bytes, path, query));
        assert_eq!(target.to_uri().unwrap(), uri);
    }

    #[test]
    fn what_came_stays_and_a_uri_is_made_only_on_demand() {
        check(b"*", b"*", None, "*");
        check(b"/", b"/", None, "/");
        check(b"/a?b?c", b"/a", Some(b"b?c"), "/a?b?c");
        check(b"/a?", b"/a", Some(b""), "/a?");
        check(b"/%2f/%", b"/%2f/%", None, "/%2f/%");
        check(b"/<a>?\"b\"", b"/<a>", Some(b"\"b\""), "/%3Ca%3E?%22b%22");
        check(b"/`\\^{|}", b"/`\\^{|}", None, "/%60\\^{|}");
        check(b"/caf\xe9?\xff", b"/caf\xe9", Some(b"\xff"), "/caf%E9?%FF");
        for byte in (0x21..=0xffu8).filter(|byte| !matches!(byte, b'#' | 0x7f)) {
            let target = Target::try_from(&[b'/', byte][..]).unwrap();
            assert!(target.to_uri().unwrap().path().len() > 1 || byte == b'?', "{byte}");
        }
    }

    #[test]
    fn what_could_end_a_request_line_is_refused() {
        for (bytes, error) in [
            (&b""[..], TargetError::NoPath),
            (b"a", TargetError::NoPath),
            (b"**", TargetError::NoPath),
            (b"?a", TargetError::NoPath),
            (b"/a#b", TargetError::Fragment),
            (b"/a b", TargetError::BadCharacter),
            (b"/\r\n", TargetError::BadCharacter),
            (b"/\0", TargetError::BadCharacter),
            (b"/\x7f", TargetError::BadCharacter),
        ] {
            assert_eq!(Target::try_from(bytes), Err(error));
        }
    }

    #[test]
    fn a_log_line_stays_one_line_of_ascii() {
        let target = Target::try_from(&b"/a<b>\"\xe9\xff%20"[..]).unwrap();
        assert_eq!(target.to_string(), "/a<b>%22%E9%FF%20");
    }
}
