//! The request line: method, target in its four forms, version. Pure; keeps the target byte for byte.

use bytes::Bytes;
use http::uri::Authority;
use http::{Method, Version};

use super::{Refusal, Rejection};
use crate::http::{HttpLimits, Target, TargetError, is_plain};
use crate::upgrade::is_token;

/// Longer words are no method that anybody serves.
//= rfc9112#section-3
const MAX_METHOD: usize = 255;
/// Version and line end after the target.
const LINE_END: usize = " HTTP/1.1\r\n".len();

/// A request line, cut at its two spaces.
#[derive(Debug)]
pub(super) struct Line<'b> {
    pub(super) method: Method,
    pub(super) target: &'b [u8],
    pub(super) version: Version,
    /// Bytes of the line, its end included.
    pub(super) length: usize,
}

impl<'b> Line<'b> {
    /// Cuts the first line. `None` when it has not ended and may still become one.
    pub(super) fn parse(bytes: &'b [u8], limits: &HttpLimits) -> Result<Option<Self>, Rejection> {
        let malformed = Rejection { refusal: Refusal::Malformed, reason: "malformed request line" };
        let method_end = match bytes.iter().position(|byte| !is_token(*byte)) {
            None if bytes.len() <= MAX_METHOD => return Ok(None),
            Some(end) if end <= MAX_METHOD => end,
            None | Some(_) => {
                return Err(Rejection { refusal: Refusal::UnknownMethod, reason: "request method too long" });
            }
        };
        if method_end == 0 || bytes[method_end] != b' ' {
            return Err(malformed);
        }
        let rest = &bytes[method_end + 1..];
        let line_end = rest.iter().position(|byte| *byte == b'\n');
        let target_end = rest.iter().position(|byte| matches!(byte, b' ' | b'\n'));
        let target = &rest[..target_end.unwrap_or(rest.len())];
        if target.len() > limits.target_bytes {
            return Err(Rejection { refusal: Refusal::TargetTooLong, reason: "request target too long" });
        }
        let Some(line_end) = line_end else {
            let overlong = rest.len() > target.len() + LINE_END;
            return if overlong { Err(malformed) } else { Ok(None) };
        };
        if target.len() == line_end {
            return Err(malformed);
        }
        let after = rest[target.len()..=line_end].strip_suffix(b"\r\n").ok_or("line ends without CR")?;
        let version = version(after).ok_or(malformed)??;
        let method = Method::from_bytes(&bytes[..method_end]).map_err(|_| "malformed method")?;
        Ok(Some(Self { method, target, version, length: method_end + 1 + line_end + 1 }))
    }
}

/// ` HTTP/1.1` and its kin. A later minor version is read as the last one known.
//= rfc9110#section-2.5
fn version(text: &[u8]) -> Option<Result<Version, Rejection>> {
    let [major, b'.', minor] = text.strip_prefix(b" HTTP/")? else { return None };
    match (major, minor) {
        (b'1', b'0') => Some(Ok(Version::HTTP_10)),
        (b'1', b'1'..=b'9') => Some(Ok(Version::HTTP_11)),
        //= rfc9110#section-15.6.6
        (b'0'..=b'9', b'0'..=b'9') => {
            Some(Err(Rejection { refusal: Refusal::UnsupportedVersion, reason: "HTTP version not supported" }))
        }
        _ => None,
    }
}

/// The request target in its four forms.
//= rfc9112#section-3.2
#[derive(Debug)]
pub(super) enum Form {
    Origin(Target),
    Absolute(Authority, Target),
    Authority(Authority),
}

impl Form {
    pub(super) fn parse(method: &Method, bytes: Bytes) -> Result<Self, Rejection> {
        if *method == Method::CONNECT {
            let authority = plain_authority(bytes)?;
            //= rfc9110#section-9.3.6
            if authority.port_u16().is_none_or(|port| port == 0) || authority.host().is_empty() {
                return Err("CONNECT needs host:port".into());
            }
            return Ok(Form::Authority(authority));
        }
        match bytes.first() {
            Some(b'/') => Ok(Form::Origin(Target::from_shared(bytes).map_err(reason)?)),
            Some(b'*') if bytes.len() == 1 && *method == Method::OPTIONS => Ok(Form::Origin(Target::from_static("*"))),
            Some(_) | None => Self::absolute(method, bytes),
        }
    }

    fn absolute(method: &Method, bytes: Bytes) -> Result<Self, Rejection> {
        const SCHEME: &[u8] = b"http://";
        if !bytes.get(..SCHEME.len()).is_some_and(|scheme| scheme.eq_ignore_ascii_case(SCHEME)) {
            return Err("request target is not a path or an http URI".into());
        }
        let rest = bytes.slice(SCHEME.len()..);
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
        let authority = plain_authority(rest.slice(..end))?;
        if authority.host().is_empty() {
            return Err("request target without a host".into());
        }
        let path = rest.slice(end..);
        let target = match path.first() {
            //= rfc9112#section-3.2.4
            None if *method == Method::OPTIONS => Target::from_static("*"),
            None => Target::from_static("/"),
            Some(b'/') => Target::from_shared(path).map_err(reason)?,
            Some(_) => Target::from_shared([b"/", &path[..]].concat().into()).map_err(reason)?,
        };
        Ok(Form::Absolute(authority, target))
    }
}

pub(super) fn plain_authority(bytes: Bytes) -> Result<Authority, &'static str> {
    let authority = Authority::from_maybe_shared(bytes).map_err(|_| "malformed authority")?;
    if is_plain(&authority) { Ok(authority) } else { Err("malformed authority") }
}

fn reason(error: TargetError) -> &'static str {
    match error {
        TargetError::NoPath => "request target is not a path or an http URI",
        TargetError::Fragment => "fragment in the request target",
        TargetError::BadCharacter => "malformed request target",
    }
}
