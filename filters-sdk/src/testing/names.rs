//! The values that the host knows by name, at which hooks it can give them, and the packed buffer in which they come. As
//! docs/filters/values.md lists them.

use super::Stream;
use super::judge::AtHand;
use super::simulated;
use crate::bindings::weft::filter::types::{self, ValueName};
use crate::rules;

/// Refuses what the host refuses of an interest.
pub(super) fn judge(interest: &types::Interest) -> Result<(), String> {
    for hook in &interest.hooks {
        let refused = |what: String| format!("{}: {what}", hook.name);
        if hook.values.len() > rules::VALUES {
            return Err(refused(format!("{} values, at most {}", hook.values.len(), rules::VALUES)));
        }
        options(hook).map_err(refused)?;
        let whole = buffer(hook) > 0;
        for value in &hook.values {
            match places(&value.name).map_err(refused)? {
                Some(place) if is_given_at(place, &hook.name, whole) => {}
                None | Some(_) if value.optional => {}
                Some(_) => return Err(refused(format!("{:?} is not known here", value.name))),
                None => return Err(refused(format!("{:?} is no value", value.name))),
            }
        }
    }
    Ok(())
}

fn options(hook: &types::Hook) -> Result<(), String> {
    let is_body = matches!(hook.name.as_str(), "request-body" | "response-body");
    for option in &hook.options {
        let value = String::from_utf8_lossy(&option.value);
        let is_sound = match option.name.as_str() {
            "buffer" => value.parse::<u64>().is_ok(),
            "frames" => value == "grpc",
            _ => false,
        };
        if !is_body || !is_sound {
            return Err(format!("{}={value} is no option", option.name));
        }
    }
    Ok(())
}

/// Bytes of the whole body that a hook gathers; 0: chunks.
pub(super) fn buffer(hook: &types::Hook) -> usize {
    let option = hook.options.iter().find(|option| option.name == "buffer");
    option.and_then(|option| std::str::from_utf8(&option.value).ok()?.parse().ok()).unwrap_or_default()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Always,
    Source,
    Request,
    Status,
    Response,
    Only(&'static str),
}

/// Where a value can be given; `None` where there is no such value.
fn places(name: &str) -> Result<Option<Place>, String> {
    if name.len() > rules::NAME {
        return Err(format!("{name:?} has more than {} bytes", rules::NAME));
    }
    let place = match name {
        "source.principal"
        | "source.namespace"
        | "source.service-account"
        | "source.address"
        | "destination.port"
        | "destination.service"
        | "direction"
        | "connection.tls"
        | "connection.protocol"
        | "route.name" => Place::Source,
        "request.method"
        | "request.path"
        | "request.path.ambiguous"
        | "request.path.readings"
        | "request.query"
        | "request.authority"
        | "request.id" => Place::Request,
        "response.status" => Place::Status,
        "stream.from" => Place::Only("stream-data"),
        "stream.duration-ms" | "request.bytes" | "response.bytes" => Place::Only("done"),
        "time" | "dice" => Place::Always,
        _ => return family(name),
    };
    Ok(Some(place))
}

fn family(name: &str) -> Result<Option<Place>, String> {
    let families = [
        ("request.header.", Place::Request),
        ("request.trailer.", Place::Only("request-trailers")),
        ("response.header.", Place::Response),
        ("response.trailer.", Place::Only("response-trailers")),
        ("filter.", Place::Always),
    ];
    for (prefix, place) in families {
        let Some(rest) = name.strip_prefix(prefix) else { continue };
        let plain = |text: &str| text.bytes().all(|byte| rules::is_token(byte) && !byte.is_ascii_uppercase());
        let is_sound = rest.strip_suffix('*').map_or_else(|| !rest.is_empty() && plain(rest), plain);
        return if is_sound { Ok(Some(place)) } else { Err(format!("{name:?} is not a name in lower case")) };
    }
    Ok(None)
}

fn is_given_at(place: Place, hook: &str, whole: bool) -> bool {
    let waits = matches!(hook, "callout" | "tick");
    let request = hook == "request-head" || (hook == "request-body" && whole) || waits;
    let response = hook == "response-head" || (hook == "response-body" && whole) || waits;
    match place {
        Place::Always => true,
        Place::Source => hook == "connection" || request,
        Place::Request => request,
        Place::Status => response || hook == "done",
        Place::Response => response,
        Place::Only(only) => hook == only,
    }
}

/// The packed values of one call. While an answer is given nothing of the request is at hand any more.
pub(super) fn encode(asked: &[ValueName], stream: &Stream, at_hand: AtHand) -> Vec<u8> {
    let is_known = |name: &str| at_hand.answers || matches!(places(name), Ok(Some(Place::Always)));
    let mut buffer = Vec::new();
    for (value, position) in asked.iter().zip(0_u16..).filter(|(value, _)| is_known(&value.name)) {
        for (name, value) in look_up(&value.name, stream) {
            let name_length = u16::try_from(name.len()).expect("a name in a test is short");
            let value_length = u32::try_from(value.len()).expect("a value in a test is short");
            buffer.extend_from_slice(&position.to_le_bytes());
            buffer.extend_from_slice(&name_length.to_le_bytes());
            buffer.extend_from_slice(&value_length.to_le_bytes());
            buffer.extend_from_slice(name.as_bytes());
            buffer.extend_from_slice(&value);
        }
    }
    buffer
}

fn look_up(name: &str, stream: &Stream) -> Vec<(String, Vec<u8>)> {
    let families = [
        ("request.header.", &stream.request.headers),
        ("request.trailer.", &stream.trailers),
        ("response.header.", &stream.response.headers),
        ("response.trailer.", &stream.trailers),
    ];
    for (prefix, fields) in families {
        let Some(rest) = name.strip_prefix(prefix) else { continue };
        return match rest.strip_suffix('*') {
            Some(start) => fields.iter().filter(|(name, _)| name.starts_with(start)).cloned().collect(),
            None => {
                let values = fields.iter().filter(|(name, _)| name == rest);
                values.map(|(_, value)| (String::new(), value.clone())).collect()
            }
        };
    }
    if let Some(start) = name.strip_suffix('*') {
        return stream.set.iter().filter(|(name, _)| name.starts_with(start)).cloned().collect();
    }
    if name.starts_with("filter.") {
        let values = stream.set.iter().filter(|(known, _)| known == name);
        return values.map(|(_, value)| (String::new(), value.clone())).collect();
    }
    single(name, stream).map(|value| (String::new(), value.into_bytes())).into_iter().collect()
}

fn single(name: &str, stream: &Stream) -> Option<String> {
    let request = &stream.request;
    let (path, query) = match request.target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (request.target.as_str(), None),
    };
    match name {
        "source.principal" => request.principal.clone(),
        "source.namespace" => part_of(request.principal.as_deref()?, "ns"),
        "source.service-account" => part_of(request.principal.as_deref()?, "sa"),
        "source.address" => request.source_address.clone(),
        "destination.port" => Some(request.destination_port.to_string()),
        "direction" => Some(request.direction.clone()),
        "request.method" => Some(request.method.clone()),
        "request.path" => Some(path.to_owned()),
        "request.query" => query.map(str::to_owned),
        "request.authority" => request.authority.clone(),
        "response.status" => Some(stream.response.status).filter(|status| *status != 0).map(|it| it.to_string()),
        "time" => Some(simulated::now().as_millis().to_string()),
        "dice" => Some(request.dice.to_string()),
        name => request.values.get(name).cloned(),
    }
}

/// The part behind `kind` in `spiffe://DOMAIN/ns/NAMESPACE/sa/ACCOUNT`.
fn part_of(principal: &str, kind: &str) -> Option<String> {
    let mut parts = principal.strip_prefix("spiffe://")?.split('/').skip(1);
    while let Some(name) = parts.next() {
        let value = parts.next()?;
        if name == kind {
            return Some(value.to_owned());
        }
    }
    None
}
