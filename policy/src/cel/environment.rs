//! The values that an expression can name: how each is written, what the host calls it, its type, and what stands for
//! it where it is not there. A name that is not in here can't be asked of the host.

/// The type of a value that the host tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scalar {
    Bool,
    Int,
    Uint,
    Text,
}

pub(super) struct Variable {
    /// As it is written.
    #[cfg_attr(not(feature = "manifest"), expect(dead_code, reason = "read by the checker alone"))]
    pub(super) path: &'static str,
    /// As the host knows it.
    pub(super) name: &'static str,
    pub(super) scalar: Scalar,
    /// What it is where the host tells none; without it, to read such a value is an error.
    pub(super) absent: Option<&'static str>,
}

const fn variable(path: &'static str, name: &'static str, scalar: Scalar) -> Variable {
    Variable { path, name, scalar, absent: None }
}

pub(super) const VARIABLES: &[Variable] = &[
    variable("request.method", "request.method", Scalar::Text),
    variable("request.path", "request.path", Scalar::Text),
    variable("request.pathAmbiguous", "request.path.ambiguous", Scalar::Bool),
    Variable { path: "request.query", name: "request.query", scalar: Scalar::Text, absent: Some("") },
    variable("request.authority", "request.authority", Scalar::Text),
    variable("request.id", "request.id", Scalar::Text),
    variable("source.principal", "source.principal", Scalar::Text),
    variable("source.namespace", "source.namespace", Scalar::Text),
    variable("source.serviceAccount", "source.service-account", Scalar::Text),
    variable("source.address", "source.address", Scalar::Text),
    variable("destination.port", "destination.port", Scalar::Int),
    variable("destination.service", "destination.service", Scalar::Text),
    variable("connection.tls", "connection.tls", Scalar::Bool),
    variable("connection.protocol", "connection.protocol", Scalar::Text),
    variable("direction", "direction", Scalar::Text),
    variable("route", "route.name", Scalar::Text),
    variable("time", "time", Scalar::Int),
    variable("dice", "dice", Scalar::Uint),
];

pub(super) const HEADER: &str = "request.header.";
pub(super) const ATTRIBUTE: &str = "filter.";

/// The type of a value by the host's name of it, and what it is where it is absent.
pub(super) fn told(name: &str) -> Option<(Scalar, Option<&'static str>)> {
    if let Some(known) = VARIABLES.iter().find(|known| known.name == name) {
        return Some((known.scalar, known.absent));
    }
    let is_sound = match name.strip_prefix(HEADER) {
        Some(header) => is_header(header),
        None => name.strip_prefix(ATTRIBUTE).is_some_and(is_attribute),
    };
    is_sound.then_some((Scalar::Text, None))
}

/// True for the name of a header in lower case.
pub(super) fn is_header(name: &str) -> bool {
    crate::authz::is_token(name) && name.len() <= 200 && !name.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// True for the name of an attribute of a filter, without its `filter.`.
pub(super) fn is_attribute(name: &str) -> bool {
    let is_plain = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    !name.is_empty() && name.len() <= 200 && name.bytes().all(is_plain)
}
