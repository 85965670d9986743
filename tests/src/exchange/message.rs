//! The reference reading of HTTP/1: strict where RFC 9112 lets a reader be strict, so that what it can't read may be refused, and
//! what it reads has one meaning. Small and obvious; shares no line with the codec that it is held against.

use super::seen::{Seen, body, shown};
use super::wire::{End, Wire};

/// Heads larger than this are nobody's.
const MOST: usize = 1 << 20;

pub type Field = (Vec<u8>, Vec<u8>);

/// A start line and its fields, as they came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    pub start: Vec<u8>,
    pub fields: Vec<Field>,
}

/// Why there is no head.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoHead {
    /// The connection ended, or was silent, before a byte of it.
    Nothing(End),
    /// It ended inside the head.
    Inside(End),
    Malformed(&'static str),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(u64),
    Chunked,
    UntilClose,
}

/// Body and trailers that followed a head.
#[derive(Debug, Default)]
pub struct Body {
    pub bytes: Vec<u8>,
    pub trailers: Vec<Field>,
    /// Not there: the message is complete.
    pub broken: Option<&'static str>,
}

impl Head {
    /// The parts of the start line: method, target, version; or version, status, reason.
    pub fn parts(&self) -> Option<[&[u8]; 3]> {
        let mut parts = self.start.splitn(3, |byte| *byte == b' ');
        Some([parts.next()?, parts.next()?, parts.next().unwrap_or_default()])
    }

    pub fn values<'h>(&'h self, name: &'h str) -> impl Iterator<Item = &'h [u8]> {
        let named = self.fields.iter().filter(move |(known, _)| known.eq_ignore_ascii_case(name.as_bytes()));
        named.map(|(_, value)| value.as_slice())
    }

    /// True if a list field holds this member.
    pub fn lists(&self, name: &str, member: &str) -> bool {
        let all = self.values(name).flat_map(|value| value.split(|byte| *byte == b','));
        all.map(<[u8]>::trim_ascii).any(|known| known.eq_ignore_ascii_case(member.as_bytes()))
    }

    pub fn status(&self) -> u16 {
        self.parts().and_then(|[_, status, _]| std::str::from_utf8(status).ok()?.parse().ok()).unwrap_or(0)
    }

    pub fn is_old(&self) -> bool {
        self.start.ends_with(b"HTTP/1.0") || self.start.starts_with(b"HTTP/1.0")
    }

    /// True if the connection ends with this message (RFC 9112 9.3).
    pub fn closes(&self) -> bool {
        self.lists("connection", "close") || (self.is_old() && !self.lists("connection", "keep-alive"))
    }

    /// True if a request starts a tunnel when it is answered with 101.
    pub fn upgrades(&self) -> bool {
        self.lists("connection", "upgrade") && self.values("upgrade").next().is_some()
    }

    pub fn note(&self, into: &mut Seen) {
        into.note("line", shown(&self.start));
        for (name, value) in &self.fields {
            into.note(format!("field.{}", name.escape_ascii()), shown(value));
        }
    }
}

impl Body {
    pub fn note(&self, into: &mut Seen) {
        into.note("body", body(&self.bytes));
        for (name, value) in &self.trailers {
            into.note(format!("trailer.{}", name.escape_ascii()), shown(value));
        }
        into.note("end", self.broken.unwrap_or("complete"));
    }
}

/// Reads a head. Empty lines before a request are skipped (RFC 9112 2.2).
///
/// # Errors
/// There is none, or it can't be read.
pub async fn head(wire: &mut Wire, request: bool) -> Result<Head, NoHead> {
    let mut start = line(wire, true).await?;
    while request && start.is_empty() {
        start = line(wire, true).await?;
    }
    let well = if request { is_request_line(&start) } else { is_status_line(&start) };
    if !well {
        return Err(NoHead::Malformed("start line"));
    }
    Ok(Head { start, fields: fields(wire).await? })
}

async fn line(wire: &mut Wire, first: bool) -> Result<Vec<u8>, NoHead> {
    let before = wire.buffered().is_empty();
    let mut line = wire.line(MOST).await.map_err(|end| {
        if first && before && wire.buffered().is_empty() { NoHead::Nothing(end) } else { NoHead::Inside(end) }
    })?;
    line.pop();
    if line.pop() != Some(b'\r') {
        return Err(NoHead::Malformed("a line without CR"));
    }
    if line.contains(&b'\r') || line.contains(&0) {
        return Err(NoHead::Malformed("a bare CR or NUL"));
    }
    Ok(line)
}

async fn fields(wire: &mut Wire) -> Result<Vec<Field>, NoHead> {
    let mut fields = Vec::new();
    loop {
        let line = line(wire, false).await?;
        if line.is_empty() {
            return Ok(fields);
        }
        let colon = line.iter().position(|byte| *byte == b':').ok_or(NoHead::Malformed("a field without colon"))?;
        let (name, value) = (&line[..colon], line[colon + 1..].trim_ascii());
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err(NoHead::Malformed("a field's name"));
        }
        if value.iter().any(|byte| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7F) {
            return Err(NoHead::Malformed("a control character"));
        }
        fields.push((name.to_vec(), value.to_vec()));
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_version(version: &[u8]) -> bool {
    // RFC 9110 2.5: a later minor version is read as the last one known.
    version.strip_prefix(b"HTTP/1.").is_some_and(|minor| minor.len() == 1 && minor[0].is_ascii_digit())
}

fn is_request_line(line: &[u8]) -> bool {
    let parts: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else { return false };
    let legal = |byte: &u8| *byte > 0x20 && *byte != 0x7F;
    !method.is_empty()
        && method.iter().all(|byte| is_token(*byte))
        && !target.is_empty()
        && target.iter().all(legal)
        && is_version(version)
}

fn is_status_line(line: &[u8]) -> bool {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (version, status) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    is_version(version) && status.len() == 3 && status.iter().all(u8::is_ascii_digit)
}

/// How a request's body is framed (RFC 9112 6.3), if the request has one meaning at all.
///
/// # Errors
/// It says two things, or nothing that can be relied on.
pub fn of_request(head: &Head) -> Result<Framing, &'static str> {
    host(head)?;
    let [method, target, _] = head.parts().ok_or("a request line")?;
    let form = target.starts_with(b"/") || target.starts_with(b"http://") || (target == b"*" && method == b"OPTIONS");
    if !form || target.contains(&b'#') {
        return Err("a target of no known form");
    }
    match (codings(head)?, length(head)?) {
        (Some(_), Some(_)) => Err("both a length and a coding"),
        (Some(_), None) if head.is_old() => Err("a coding in HTTP/1.0"),
        (Some(true), None) => Ok(Framing::Chunked),
        (Some(false), None) => Err("a coding that isn't chunked"),
        (None, Some(length)) => Ok(Framing::Length(length)),
        (None, None) => Ok(Framing::None),
    }
}

/// RFC 9112 3.2: one Host, which HTTP/1.0 may leave out, and of letters that a host is made of.
fn host(head: &Head) -> Result<(), &'static str> {
    let mut hosts = head.values("host");
    let (first, more) = (hosts.next(), hosts.next());
    let legal = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:[]%".contains(byte);
    match (first, more) {
        (_, Some(_)) => Err("two hosts"),
        (None, None) if !head.is_old() => Err("no host"),
        (Some(host), None) if !host.iter().all(legal) => Err("a host that is none"),
        _ => Ok(()),
    }
}

/// How the body of the answer to `method` is framed.
///
/// # Errors
/// It says two things, or nothing that can be relied on.
pub fn of_response(head: &Head, method: &str) -> Result<Framing, &'static str> {
    let status = head.status();
    if method == "HEAD" || status < 200 || status == 204 || status == 304 {
        return Ok(Framing::None);
    }
    match (codings(head)?, length(head)?) {
        (Some(true), _) => Ok(Framing::Chunked),
        (Some(false), _) | (None, None) => Ok(Framing::UntilClose),
        (None, Some(length)) => Ok(Framing::Length(length)),
    }
}

/// Tells the transfer codings: `None` without any, true for `chunked` alone; any others are an error.
fn codings(head: &Head) -> Result<Option<bool>, &'static str> {
    let values: Vec<_> = head.values("transfer-encoding").collect();
    match values[..] {
        [] => Ok(None),
        [one] if one.eq_ignore_ascii_case(b"chunked") => Ok(Some(true)),
        _ => Err("transfer codings other than chunked once"),
    }
}

fn length(head: &Head) -> Result<Option<u64>, &'static str> {
    let mut values = head.values("content-length");
    let Some(first) = values.next() else { return Ok(None) };
    let number =
        |text: &[u8]| std::str::from_utf8(text).ok().filter(|text| !text.starts_with('+'))?.parse::<u64>().ok();
    let length = number(first).ok_or("a length that is no number, or too large")?;
    // RFC 9112 6.3: the same number twice is one.
    if values.any(|value| number(value) != Some(length)) {
        return Err("two lengths");
    }
    Ok(Some(length))
}

/// Reads a body to its end, or to where it breaks.
pub async fn read_body(wire: &mut Wire, framing: Framing) -> Body {
    let mut body = Body::default();
    let broken = match framing {
        Framing::None => Ok(()),
        Framing::Length(length) => piece(wire, length, &mut body.bytes).await,
        Framing::Chunked => chunks(wire, &mut body).await,
        Framing::UntilClose => {
            let (bytes, end) = wire.rest().await;
            body.bytes = bytes;
            if end == End::Finished { Ok(()) } else { Err(told(end)) }
        }
    };
    body.broken = broken.err();
    body
}

fn told(end: End) -> &'static str {
    match end {
        End::Finished => "truncated",
        End::Reset => "reset",
        End::Silent => "silent",
    }
}

async fn piece(wire: &mut Wire, length: u64, into: &mut Vec<u8>) -> Result<(), &'static str> {
    let mut left = length;
    while left > 0 {
        let bytes = wire.some(left).await.map_err(told)?;
        left -= bytes.len() as u64;
        into.extend(bytes);
    }
    Ok(())
}

async fn chunks(wire: &mut Wire, body: &mut Body) -> Result<(), &'static str> {
    loop {
        let line = line(wire, false).await.map_err(broken)?;
        if line.iter().any(|byte| byte.is_ascii_control() && *byte != b'\t') {
            return Err("malformed");
        }
        let size = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
        let digits = std::str::from_utf8(size).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let size = digits.and_then(|text| u64::from_str_radix(text, 16).ok()).ok_or("malformed")?;
        if size == 0 {
            body.trailers = fields(wire).await.map_err(broken)?;
            return Ok(());
        }
        piece(wire, size, &mut body.bytes).await?;
        let (end, ended) = wire.exactly(2).await;
        if let Some(end) = ended {
            return Err(told(end));
        }
        if end != b"\r\n" {
            return Err("malformed");
        }
    }
}

fn broken(why: NoHead) -> &'static str {
    match why {
        NoHead::Nothing(end) | NoHead::Inside(end) => told(end),
        NoHead::Malformed(_) => "malformed",
    }
}
