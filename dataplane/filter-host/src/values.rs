//! What a filter of contract 0.2 can be told by name: the one table of values, the list that a hook asked for, and the
//! packed buffer in which they cross into the sandbox. Invariant: a filter is told nothing that it did not ask for.

use std::fmt::Display;
use std::io::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderMap;
use http::header::HeaderName;
use weft_policy::authz::is_alike;
use weft_policy::bundle::Direction;

use crate::failure::shown;
use crate::hook::{Hook, RequestPart, SetAttribute, Told};

mod table;

pub(crate) use table::{Family, Plain, Row, TABLE};

/// Values of one hook, and bytes of each name, at the most.
pub(crate) const MAX_VALUES: usize = 64;
pub(crate) const MAX_NAME: usize = 256;

/// One value that a hook asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Plain(Plain),
    /// One header, trailer or attribute.
    One(Family, Name),
    /// All whose names start so.
    All(Family, Box<str>),
    /// Asked for as optional by a filter that knows more than this release.
    Never,
}

/// Name of a field, or the whole name of an attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Name {
    Field(HeaderName),
    Attribute(Box<str>),
}

impl Value {
    /// Reads a name that `hook` asked for. `whole`: a body hook that is called once, with the whole body.
    ///
    /// # Errors
    /// No value has this name, or none can be given at this hook.
    pub(crate) fn parse(name: &str, optional: bool, hook: Hook, whole: bool) -> Result<Self, String> {
        if name.len() > MAX_NAME {
            return Err(format!("{:?}… has more than {MAX_NAME} bytes", shown(name)));
        }
        let Some((row, value)) = find(name)? else {
            return if optional { Ok(Value::Never) } else { Err(format!("{:?} is no value", shown(name))) };
        };
        if row.is_given_at(hook, whole) {
            return Ok(value);
        }
        if optional {
            return Ok(Value::Never);
        }
        let why = if row.is_given_at(hook, true) { "but with the option buffer" } else { "" };
        Err(format!("{:?} is not known at {} {why}", shown(name), hook.name()).trim_end().to_owned())
    }
}

/// The row and the value that a name means; an error where the family is known and the name can't be one of it.
fn find(name: &str) -> Result<Option<(&'static Row, Value)>, String> {
    if let Some((row, plain)) = TABLE.iter().find_map(|row| Some((row, row.plain?)).filter(|(row, _)| row.name == name))
    {
        return Ok(Some((row, Value::Plain(plain))));
    }
    let of_family = |row: &&'static Row| row.family.is_some_and(|family| name.starts_with(family.prefix()));
    let Some((row, family)) = TABLE.iter().find(of_family).and_then(|row| Some((row, row.family?))) else {
        return Ok(None);
    };
    let rest = &name[family.prefix().len()..];
    let bad = || format!("{:?} is not a name in lower case", shown(rest));
    let value = match rest.strip_suffix('*') {
        Some(prefix) => Value::All(family, Some(prefix).filter(|it| is_plain(it)).ok_or_else(bad)?.into()),
        None if family == Family::Attribute => {
            let sound = is_attribute(name).then_some(name).ok_or_else(bad)?;
            Value::One(family, Name::Attribute(sound.into()))
        }
        None => {
            let field = HeaderName::from_lowercase(rest.as_bytes()).map_err(|_| bad())?;
            Value::One(family, Name::Field(field))
        }
    };
    Ok(Some((row, value)))
}

/// True for a name that an attribute of a filter may have.
pub(crate) fn is_attribute(name: &str) -> bool {
    let rest = name.strip_prefix(Family::Attribute.prefix());
    name.len() <= MAX_NAME && rest.is_some_and(|rest| !rest.is_empty() && is_plain(rest))
}

fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.'))
}

/// Packs the values that a hook asked for into `buffer`. `alike`: fields whose names servers take for those asked for
/// come too, under the last of the names that they are like.
pub(crate) fn pack(values: &[Value], told: &Told<'_>, alike: bool, buffer: &mut Vec<u8>) {
    buffer.clear();
    for (value, position) in values.iter().zip(0_u16..) {
        match value {
            Value::Plain(plain) => pack_plain(*plain, told, position, buffer),
            Value::One(Family::Attribute, Name::Attribute(name)) => {
                for set in told.set.iter().filter(|set| set.name == *name) {
                    put(buffer, position, "", &set.value);
                }
            }
            Value::One(family, Name::Field(name)) => {
                for value in fields(*family, told).into_iter().flat_map(|fields| fields.get_all(name)) {
                    put(buffer, position, "", value.as_bytes());
                }
            }
            Value::All(Family::Attribute, prefix) => {
                for SetAttribute { name, value } in told.set {
                    if name.strip_prefix(Family::Attribute.prefix()).is_some_and(|rest| rest.starts_with(&**prefix)) {
                        put(buffer, position, name, value);
                    }
                }
            }
            Value::All(family, prefix) => {
                for (name, value) in fields(*family, told).into_iter().flatten() {
                    if starts_so(name.as_str(), prefix, alike) {
                        put(buffer, position, name.as_str(), value.as_bytes());
                    }
                }
            }
            Value::One(_, Name::Attribute(_)) | Value::Never => {}
        }
    }
    if alike && let Some(request) = &told.request {
        pack_alike(values, request.headers, buffer);
    }
}

/// Adds the request's fields whose names differ from one that was asked for only by `_` in place of `-`.
fn pack_alike(values: &[Value], headers: &HeaderMap, buffer: &mut Vec<u8>) {
    for name in headers.keys() {
        let is = |value: &Value| asked_header(value) == Some(name);
        let like = |value: &Value| asked_header(value).is_some_and(|asked| is_alike(asked.as_str(), name.as_str()));
        if values.iter().any(is) {
            continue;
        }
        let Some(position) = values.iter().rposition(like).and_then(|position| u16::try_from(position).ok()) else {
            continue;
        };
        for value in headers.get_all(name) {
            put(buffer, position, "", value.as_bytes());
        }
    }
}

fn asked_header(value: &Value) -> Option<&HeaderName> {
    match value {
        Value::One(Family::RequestHeader, Name::Field(name)) => Some(name),
        Value::Plain(_) | Value::One(..) | Value::All(..) | Value::Never => None,
    }
}

fn starts_so(name: &str, prefix: &str, alike: bool) -> bool {
    match name.get(..prefix.len()) {
        Some(start) if alike => is_alike(start, prefix),
        Some(start) => start == prefix,
        None => false,
    }
}

fn fields<'a>(family: Family, told: &Told<'a>) -> Option<&'a HeaderMap> {
    match family {
        Family::RequestHeader => told.request.map(|request| request.headers),
        Family::ResponseHeader => told.response.map(|(_, headers)| headers),
        Family::RequestTrailer => told.trailers.filter(|_| told.hook == Hook::RequestTrailers),
        Family::ResponseTrailer => told.trailers.filter(|_| told.hook == Hook::ResponseTrailers),
        Family::Attribute => None,
    }
}

/// Each reading of an ambiguous path. Nothing where there are too many, which no reading is.
fn readings(request: &RequestPart<'_>) -> Option<String> {
    let path = request.path.filter(|path| path.is_ambiguous())?;
    let all = path.readings(&request.path_reading);
    Some(all.map_or_else(|_| String::new(), |all| all.iter().collect::<Vec<_>>().join("\n")))
}

fn pack_plain(plain: Plain, told: &Told<'_>, position: u16, buffer: &mut Vec<u8>) {
    let mut text = |text: Option<&str>| {
        if let Some(text) = text {
            put(buffer, position, "", text.as_bytes());
        }
    };
    let attributes = told.attributes;
    let principal = attributes.and_then(|it| it.principal);
    let request = told.request.as_ref();
    match plain {
        Plain::SourcePrincipal => text(principal),
        Plain::SourceNamespace => text(principal.and_then(|it| part_of(it, "ns"))),
        Plain::SourceServiceAccount => text(principal.and_then(|it| part_of(it, "sa"))),
        Plain::SourceAddress => number(buffer, position, attributes.and_then(|it| it.source)),
        Plain::DestinationPort => number(buffer, position, attributes.map(|it| it.destination_port)),
        Plain::DestinationService => text(attributes.and_then(|it| it.destination_service)),
        Plain::Direction => text(attributes.map(|it| direction(it.direction))),
        Plain::ConnectionTls => text(attributes.map(|it| yes_no(it.tls))),
        Plain::ConnectionProtocol => text(attributes.map(|it| it.protocol)),
        Plain::RequestId => text(attributes.and_then(|it| it.request_id)),
        Plain::RouteName => text(attributes.and_then(|it| it.route)),
        Plain::RequestMethod => text(request.map(|it| it.method.as_str())),
        Plain::RequestPath => text(request.and_then(path).as_deref()),
        Plain::RequestQuery => text(request.and_then(|it| it.path?.query_text()).as_deref()),
        Plain::RequestAuthority => text(request.and_then(|it| it.authority).map(|it| it.as_str())),
        Plain::RequestPathAmbiguous => text(request.and_then(|it| it.path).map(|it| yes_no(it.is_ambiguous()))),
        Plain::RequestPathReadings => text(request.and_then(readings).as_deref()),
        Plain::ResponseStatus => number(buffer, position, status(told)),
        Plain::StreamFrom => text(told.up.map(|up| if up { "caller" } else { "destination" })),
        Plain::StreamDuration => number(buffer, position, told.summary.map(|it| it.duration.as_millis())),
        Plain::RequestBytes => number(buffer, position, told.summary.map(|it| it.request_bytes)),
        Plain::ResponseBytes => number(buffer, position, told.summary.map(|it| it.response_bytes)),
        Plain::Time => number(buffer, position, Some(told.time.unwrap_or_else(unix_millis))),
        Plain::Dice => number(buffer, position, Some(told.dice)),
    }
}

fn path<'a>(request: &RequestPart<'a>) -> Option<std::borrow::Cow<'a, str>> {
    request.reading.map(Into::into).or_else(|| request.path.map(|path| path.standard()))
}

/// Of a head, or of how the stream ended; a stream without an answer has none.
fn status(told: &Told<'_>) -> Option<u16> {
    let ended = told.summary.map(|summary| summary.status).filter(|status| *status != 0);
    told.response.map(|(status, _)| status.as_u16()).or(ended)
}

const fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Inbound => "inbound",
        Direction::Outbound => "outbound",
    }
}

const fn yes_no(is: bool) -> &'static str {
    if is { "true" } else { "false" }
}

/// The part behind `kind` in `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
fn part_of<'a>(principal: &'a str, kind: &str) -> Option<&'a str> {
    let mut parts = principal.strip_prefix("spiffe://")?.split('/').skip(1);
    while let Some(name) = parts.next() {
        let value = parts.next()?;
        if name == kind {
            return Some(value);
        }
    }
    None
}

pub(crate) fn unix_millis() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// One entry: position, lengths of name and value, both.
fn put(buffer: &mut Vec<u8>, position: u16, name: &str, value: &[u8]) {
    let (Ok(name_len), Ok(value_len)) = (u16::try_from(name.len()), u32::try_from(value.len())) else {
        return;
    };
    buffer.extend_from_slice(&position.to_le_bytes());
    buffer.extend_from_slice(&name_len.to_le_bytes());
    buffer.extend_from_slice(&value_len.to_le_bytes());
    buffer.extend_from_slice(name.as_bytes());
    buffer.extend_from_slice(value);
}

/// An entry whose value is written in place, without a copy in between.
fn number(buffer: &mut Vec<u8>, position: u16, value: Option<impl Display>) {
    let Some(value) = value else { return };
    let start = buffer.len();
    put(buffer, position, "", &[]);
    let text = buffer.len();
    // A vector takes every write.
    let _ = write!(buffer, "{value}");
    let len = u32::try_from(buffer.len() - text).unwrap_or_default();
    buffer[start + 4..text].copy_from_slice(&len.to_le_bytes());
}

#[cfg(test)]
mod tests;
