//! Values inside manifests: each is parsed where it stands, so that an error points at its line.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use serde::de::{Error, IgnoredAny, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use crate::identity::{is_label, is_subdomain};
use crate::route::HOST;
pub use crate::text::duration_text;

/// Addresses of a workload beside its first.
const MAX_ADDRESSES: usize = 8;

/// A field of the standard that a cluster fills in and that changes nothing here: it is read past, whatever it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Filled;

impl<'de> Deserialize<'de> for Filled {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer).map(|_| Self)
    }
}

/// What is as by default is not written: an older release can read the rest.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

fn checked<'de, D: Deserializer<'de>>(
    deserializer: D,
    fits: impl Fn(&str) -> bool,
    what: &str,
) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if fits(&text) { Ok(text) } else { Err(D::Error::custom(format_args!("{text:?} is not {what}"))) }
}

pub(super) fn label<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, is_label, "a name: lower-case letters, digits and '-', at most 63")
}

pub(super) fn label_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    label(deserializer).map(Some)
}

pub(super) fn object_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, is_subdomain, "a name: lower-case letters, digits, '-' and '.', at most 253")
}

pub(super) fn object_name_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    object_name(deserializer).map(Some)
}

/// The group of a kind; Kubernetes' own is empty.
pub(super) fn api_group<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(
        deserializer,
        |text| text.is_empty() || is_subdomain(text),
        "the group of a kind, or '' for Kubernetes' own",
    )
}

/// A kind as the standard has it: letters and digits with '-' between them, at most 63.
pub(super) fn kind_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let is_fit = |text: &str| {
        is_label(&text.to_ascii_lowercase()) && text.starts_with(|first: char| first.is_ascii_alphabetic())
    };
    checked(deserializer, is_fit, "a kind, such as HTTPRoute or Service")
}

pub(super) fn target_group<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(
        deserializer,
        |group| matches!(group, "" | "core" | "weft.dev" | "gateway.networking.k8s.io"),
        "the group of a target this version knows",
    )
}

pub(super) fn port<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u16, D::Error> {
    port_number(deserializer.deserialize_i64(Whole("a port: 1 to 65535"))?).map_err(D::Error::custom)
}

pub(super) fn port_number(number: i64) -> Result<u16, String> {
    match u16::try_from(number) {
        Ok(port) if port != 0 => Ok(port),
        Ok(_) | Err(_) => Err(format!("{number} is not a port: 1 to 65535")),
    }
}

/// A whole number; the text says what of.
struct Whole(&'static str);

impl serde::de::Visitor<'_> for Whole {
    type Value = i64;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.0)
    }

    fn visit_i64<E>(self, number: i64) -> Result<i64, E> {
        Ok(number)
    }

    fn visit_u64<E>(self, number: u64) -> Result<i64, E> {
        Ok(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

pub(super) fn port_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    port(deserializer).map(Some)
}

pub(super) fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    let address: IpAddr = text.parse().map_err(|_| D::Error::custom(format_args!("{text:?} is not an IP address")))?;
    Ok(address.to_canonical())
}

pub(super) fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpAddr>, D::Error> {
    #[derive(Deserialize)]
    struct Address(#[serde(deserialize_with = "address")] IpAddr);
    let addresses: Vec<Address> = Vec::deserialize(deserializer)?;
    if addresses.len() > MAX_ADDRESSES {
        return Err(D::Error::custom(format_args!("a workload has at most {MAX_ADDRESSES} further addresses")));
    }
    Ok(addresses.into_iter().map(|address| address.0).collect())
}

pub(super) fn socket_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let text = String::deserialize(deserializer)?;
    match text.parse::<SocketAddr>() {
        Ok(socket) => Ok(Some(socket)),
        Err(_) => Err(D::Error::custom(format_args!("{text:?} is not ip:port"))),
    }
}

/// Header names in lower case.
pub(super) fn header_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    let name = http::HeaderName::try_from(&text);
    name.map(|name| name.as_str().to_owned())
        .map_err(|_| D::Error::custom(format_args!("{text:?} is not the name of a header")))
}

/// Refuses names of fields that never reach a rule: those of one hop and of framing, which each proxy makes anew, and
/// those that are told otherwise.
//= rfc9110#section-7.6.1
pub(super) fn matchable_header(name: &str) -> Result<(), String> {
    let instead = match name {
        "host" => "a service is named by `targetRefs` or `parentRefs`, its port by `ports`",
        "content-length" | "transfer-encoding" | "trailer" => "framing is made anew on each hop",
        "connection" | "keep-alive" | "proxy-connection" | "te" | "upgrade" | "http2-settings" => {
            "it belongs to one hop and is not passed on"
        }
        _ if name.starts_with("weft-") => "it is the mesh's own",
        _ => return Ok(()),
    };
    Err(format!("{name:?} never reaches a rule: {instead}"))
}

/// The name of a header that the rules of a route can see: the host of a request, too, as GEP-1294 has it for meshes.
pub(super) fn matchable_header_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = header_name(deserializer)?;
    if name.eq_ignore_ascii_case(HOST) {
        return Ok(name);
    }
    matchable_header(&name).map(|()| name).map_err(D::Error::custom)
}

/// The name of a header that filters can see: they are told the host otherwise.
pub(super) fn matchable_header_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let name = header_name(deserializer)?;
    matchable_header(&name).map(|()| Some(name)).map_err(D::Error::custom)
}

pub(super) fn header_names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    struct Name(#[serde(deserialize_with = "header_name")] String);
    Ok(Vec::<Name>::deserialize(deserializer)?.into_iter().map(|name| name.0).collect())
}

pub(super) fn header_value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    checked(deserializer, |text| http::HeaderValue::try_from(text).is_ok(), "the value of a header")
}

/// A host as redirects and rewrites name it: a name, no address and no port.
pub(super) fn host_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    checked(deserializer, is_subdomain, "a host: lower-case letters, digits, '-' and '.', at most 253").map(Some)
}

/// The name of a query parameter, of the characters that the standard allows.
pub(super) fn parameter_name<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let is_fit = |text: &str| (1..=256).contains(&text.len()) && http::HeaderName::try_from(text).is_ok();
    checked(deserializer, is_fit, "the name of a query parameter")
}

pub(super) fn parameter_value<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let is_fit = |text: &str| (1..=1024).contains(&text.chars().count());
    checked(deserializer, is_fit, "the value of a query parameter: 1 to 1024 characters")
}

pub(super) const SECOND_MS: u64 = 1_000;
/// The longest that five digits of hours can say: what is longer could not be written again.
const MAX_DURATION_MS: u64 = 99_999 * 3_600_000;

/// Gateway API durations (GEP-2257): `1h30m`, `15s`, `250ms`; at most five digits and four units, together at most
/// `99999h`.
pub(super) fn duration_ms<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    deserializer.deserialize_string(AsDuration).map(Some)
}

/// Takes a duration for what it is: a bare number is told at once how one is written.
struct AsDuration;

impl Visitor<'_> for AsDuration {
    type Value = u64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as 15s, 250ms or 1m30s")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<u64, E> {
        parse_duration(text).ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

pub(super) fn parse_duration(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total: u64 = 0;
    let mut parts = 0;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let units = rest[digits..].bytes().take_while(u8::is_ascii_alphabetic).count();
        if digits == 0 || digits > 5 || parts == 4 {
            return None;
        }
        let unit = match &rest[digits..digits + units] {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => SECOND_MS,
            "ms" => 1,
            _ => return None,
        };
        total += rest[..digits].parse::<u64>().ok()? * unit;
        rest = &rest[digits + units..];
        parts += 1;
    }
    (parts > 0 && total <= MAX_DURATION_MS).then_some(total)
}

pub(super) fn serialize_duration<S: serde::Serializer>(ms: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match ms {
        Some(ms) => serializer.serialize_str(&duration_text(*ms)),
        None => serializer.serialize_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        fn check(text: &str, expect: Option<u64>) {
            assert_eq!(parse_duration(text), expect, "{text}");
            if let Some(ms) = expect {
                assert_eq!(parse_duration(&duration_text(ms)), Some(ms), "{text}");
            }
        }
        check("15s", Some(15_000));
        check("250ms", Some(250));
        check("1h2m3s4ms", Some(3_723_004));
        check("0s", Some(0));
        check("90m", Some(5_400_000));
        check("99999h", Some(MAX_DURATION_MS));
        for wrong in
            ["99999h1ms", "99999h99999h", "", "15", "s", "-1s", "1.5s", "1d", "123456s", "1s1s1s1s1s", "1 s", "1s "]
        {
            check(wrong, None);
        }
    }
}
