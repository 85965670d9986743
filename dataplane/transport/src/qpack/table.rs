//! The static table of RFC 9204 Appendix A, ready as `http` types, and the way from a field to its index.

use std::sync::LazyLock;

use http::{HeaderName, HeaderValue};

use super::Pseudo;

/// A row of the table.
pub(super) enum Entry {
    Pseudo(Pseudo, &'static str),
    Field(HeaderName, HeaderValue),
}

const fn pseudo(name: Pseudo, value: &'static str) -> Entry {
    Entry::Pseudo(name, value)
}

const fn field(name: &'static str, value: &'static str) -> Entry {
    Entry::Field(HeaderName::from_static(name), HeaderValue::from_static(value))
}

/// Entry of the table that the encoder can refer to for a field.
pub(super) enum Match {
    Indexed(u8),
    NameOnly(u8),
    None,
}

/// One name of the table with its values; the first index stands for the name.
struct Named {
    name: &'static str,
    values: Vec<(&'static [u8], u8)>,
}

const LONGEST_NAME: usize = 32;

/// By length of the name, so that a lookup compares one or two candidates.
static LOOKUP: LazyLock<[Vec<Named>; LONGEST_NAME + 1]> = LazyLock::new(|| {
    let mut lookup = [const { Vec::new() }; LONGEST_NAME + 1];
    for (index, entry) in (0..).zip(&STATIC) {
        let (name, value) = match entry {
            Entry::Pseudo(pseudo, value) => (pseudo.as_str(), value.as_bytes()),
            Entry::Field(name, value) => (name.as_str(), value.as_bytes()),
        };
        let same_length: &mut Vec<Named> = &mut lookup[name.len()];
        match same_length.iter_mut().find(|named| named.name == name) {
            Some(named) => named.values.push((value, index)),
            None => same_length.push(Named { name, values: vec![(value, index)] }),
        }
    }
    lookup
});

pub(super) fn find(name: &str, value: &[u8]) -> Match {
    let Some(named) = LOOKUP.get(name.len()).and_then(|names| names.iter().find(|named| named.name == name)) else {
        return Match::None;
    };
    match named.values.iter().find(|(known, _)| *known == value) {
        Some((_, index)) => Match::Indexed(*index),
        None => named.values.first().map_or(Match::None, |(_, index)| Match::NameOnly(*index)),
    }
}

pub(super) fn get(index: u64) -> Option<&'static Entry> {
    STATIC.get(usize::try_from(index).ok()?)
}

//= rfc9204#appendix-A
static STATIC: [Entry; 99] = [
    pseudo(Pseudo::Authority, ""),
    pseudo(Pseudo::Path, "/"),
    field("age", "0"),
    field("content-disposition", ""),
    field("content-length", "0"),
    field("cookie", ""),
    field("date", ""),
    field("etag", ""),
    field("if-modified-since", ""),
    field("if-none-match", ""),
    field("last-modified", ""),
    field("link", ""),
    field("location", ""),
    field("referer", ""),
    field("set-cookie", ""),
    pseudo(Pseudo::Method, "CONNECT"),
    pseudo(Pseudo::Method, "DELETE"),
    pseudo(Pseudo::Method, "GET"),
    pseudo(Pseudo::Method, "HEAD"),
    pseudo(Pseudo::Method, "OPTIONS"),
    pseudo(Pseudo::Method, "POST"),
    pseudo(Pseudo::Method, "PUT"),
    pseudo(Pseudo::Scheme, "http"),
    pseudo(Pseudo::Scheme, "https"),
    pseudo(Pseudo::Status, "103"),
    pseudo(Pseudo::Status, "200"),
    pseudo(Pseudo::Status, "304"),
    pseudo(Pseudo::Status, "404"),
    pseudo(Pseudo::Status, "503"),
    field("accept", "*/*"),
    field("accept", "application/dns-message"),
    field("accept-encoding", "gzip, deflate, br"),
    field("accept-ranges", "bytes"),
    field("access-control-allow-headers", "cache-control"),
    field("access-control-allow-headers", "content-type"),
    field("access-control-allow-origin", "*"),
    field("cache-control", "max-age=0"),
    field("cache-control", "max-age=2592000"),
    field("cache-control", "max-age=604800"),
    field("cache-control", "no-cache"),
    field("cache-control", "no-store"),
    field("cache-control", "public, max-age=31536000"),
    field("content-encoding", "br"),
    field("content-encoding", "gzip"),
    field("content-type", "application/dns-message"),
    field("content-type", "application/javascript"),
    field("content-type", "application/json"),
    field("content-type", "application/x-www-form-urlencoded"),
    field("content-type", "image/gif"),
    field("content-type", "image/jpeg"),
    field("content-type", "image/png"),
    field("content-type", "text/css"),
    field("content-type", "text/html; charset=utf-8"),
    field("content-type", "text/plain"),
    field("content-type", "text/plain;charset=utf-8"),
    field("range", "bytes=0-"),
    field("strict-transport-security", "max-age=31536000"),
    field("strict-transport-security", "max-age=31536000; includesubdomains"),
    field("strict-transport-security", "max-age=31536000; includesubdomains; preload"),
    field("vary", "accept-encoding"),
    field("vary", "origin"),
    field("x-content-type-options", "nosniff"),
    field("x-xss-protection", "1; mode=block"),
    pseudo(Pseudo::Status, "100"),
    pseudo(Pseudo::Status, "204"),
    pseudo(Pseudo::Status, "206"),
    pseudo(Pseudo::Status, "302"),
    pseudo(Pseudo::Status, "400"),
    pseudo(Pseudo::Status, "403"),
    pseudo(Pseudo::Status, "421"),
    pseudo(Pseudo::Status, "425"),
    pseudo(Pseudo::Status, "500"),
    field("accept-language", ""),
    field("access-control-allow-credentials", "FALSE"),
    field("access-control-allow-credentials", "TRUE"),
    field("access-control-allow-headers", "*"),
    field("access-control-allow-methods", "get"),
    field("access-control-allow-methods", "get, post, options"),
    field("access-control-allow-methods", "options"),
    field("access-control-expose-headers", "content-length"),
    field("access-control-request-headers", "content-type"),
    field("access-control-request-method", "get"),
    field("access-control-request-method", "post"),
    field("alt-svc", "clear"),
    field("authorization", ""),
    field("content-security-policy", "script-src 'none'; object-src 'none'; base-uri 'none'"),
    field("early-data", "1"),
    field("expect-ct", ""),
    field("forwarded", ""),
    field("if-range", ""),
    field("origin", ""),
    field("purpose", "prefetch"),
    field("server", ""),
    field("timing-allow-origin", "*"),
    field("upgrade-insecure-requests", "1"),
    field("user-agent", ""),
    field("x-forwarded-for", ""),
    field("x-frame-options", "deny"),
    field("x-frame-options", "sameorigin"),
];
