//! `NormalPath`: a path that was normalised, as a type. Routes, authorization, filters, `explain` and the application's
//! leg take nothing else; only normalisation makes one.

use std::borrow::Cow;
use std::fmt;

use bytes::Bytes;

use super::{Ambiguous, PathError, PathReading, Readings, normal_form, octets};

/// Path and query of a request, the path in normal form. Cheap to clone; a path that was normal keeps its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NormalPath {
    whole: Bytes,
    /// Bytes of `whole` that are path.
    path_len: usize,
    ambiguous: bool,
}

impl NormalPath {
    /// Normalises path and query as they came. The query stays as it is.
    ///
    /// # Errors
    /// The request is answered 400.
    pub fn new(target: Bytes) -> Result<Self, PathError> {
        let path_len = target.iter().position(|byte| *byte == b'?').unwrap_or(target.len());
        let (path, query) = target.split_at(path_len);
        if query.iter().any(|byte| *byte <= b' ' || matches!(byte, 0x7f | b'#')) {
            return Err(PathError::BadCharacter);
        }
        let form = normal_form(path)?;
        let Some(mut rewritten) = form.rewritten else {
            return Ok(Self { whole: target, path_len, ambiguous: form.ambiguous });
        };
        let path_len = rewritten.len();
        rewritten.extend_from_slice(query);
        Ok(Self { whole: Bytes::from(rewritten), path_len, ambiguous: form.ambiguous })
    }

    /// Path and query as they are sent.
    pub fn as_bytes(&self) -> &Bytes {
        &self.whole
    }

    /// The path as it is sent.
    pub fn path(&self) -> &[u8] {
        &self.whole[..self.path_len]
    }

    /// Path and query as a URI has them: what is no character of one as escapes.
    pub(crate) fn to_uri(&self) -> String {
        octets::as_uri(&self.whole)
    }

    /// The part after `?`.
    pub fn query(&self) -> Option<&[u8]> {
        self.whole.get(self.path_len + 1..)
    }

    /// The query as text; raw bytes that are no UTF-8 as escapes.
    pub fn query_text(&self) -> Option<Cow<'_, str>> {
        self.query().map(as_text)
    }

    /// The path as text; raw bytes that are no UTF-8 as escapes.
    pub fn standard(&self) -> Cow<'_, str> {
        as_text(self.path())
    }

    /// True where servers may read the path in several ways.
    pub fn is_ambiguous(&self) -> bool {
        self.ambiguous
    }

    /// All readings of an application that reads as it declared. A plain path costs no allocation.
    ///
    /// # Errors
    /// There are too many: the request is answered 400.
    pub fn readings(&self, reading: &PathReading) -> Result<Readings<'_>, Ambiguous> {
        if self.ambiguous { Readings::of(self.standard(), *reading) } else { Ok(Readings::one(self.standard())) }
    }
}

fn as_text(bytes: &[u8]) -> Cow<'_, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) => Cow::Owned(octets::text(bytes)),
    }
}

impl fmt::Display for NormalPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.standard())?;
        self.query_text().map_or(Ok(()), |query| write!(f, "?{query}"))
    }
}
