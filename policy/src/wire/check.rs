//! What the types of a bundle don't say. The planner makes nothing that fails here; what came from elsewhere is checked.

use super::WireError;
use crate::bundle::{
    AdaptiveLimit, Cors, Direction, External, FILTER_CONTRACTS, FilterAttachment, Grant, GrantedSecret, HashKey,
    HeaderModifier, HealthCheck, HealthProbe, Limits, MAX_BODY_BYTES, MAX_CALLOUT_SERVICES, MAX_KV_BYTES,
    MAX_KV_ENTRIES, MAX_SECRETS, Mirror, PathChange, PathMatch, Persistence, PlaceShares, Redirect, Retry, Route,
    RouteAction, RouteKind, RouteMatch, RouteRule, ServedWorkload, Service, SessionToken, Spread, SuccessRate, Traffic,
};
use crate::delta::Object;
use crate::identity::{is_label, is_subdomain};
use crate::resource::external::wrong_host;
use crate::resource::health::{is_path, is_range, is_service};
use crate::resource::retry::RETRIED_CODES;
use crate::resource::route::REDIRECTS;
use crate::resource::spread::{OVERPROVISIONING, is_place};
use crate::route::pattern;
use crate::secret::MAX_SECRET_BYTES;
use crate::statement::is_digest;

type Checked = Result<(), WireError>;

fn fault(field: impl Into<String>, message: impl ToString) -> Checked {
    Err(WireError { field: field.into(), message: message.to_string() })
}

/// Checks what the type of an object leaves open. The first part that can't be meant is an error.
pub(super) fn check(object: &Object) -> Checked {
    match object {
        Object::Mesh(_) => Ok(()),
        Object::Workload(workload) => workload_is_fit(workload),
        Object::Service(service) => service_is_fit(service),
        Object::Route(route) => route_is_fit(route),
        Object::External(external) => external_is_fit(external),
        Object::Filter(filter) => filter_is_fit(filter),
    }
}

fn workload_is_fit(workload: &ServedWorkload) -> Checked {
    match workload.ports.iter().position(|port| port.port == 0) {
        Some(index) => fault(format!("ports[{index}].port"), "0 is not a port"),
        None => Ok(()),
    }
}

fn service_is_fit(service: &Service) -> Checked {
    for (index, port) in service.ports.iter().enumerate() {
        for (field, number) in [("port", port.port), ("target_port", port.target_port)] {
            if number == 0 {
                return fault(format!("ports[{index}].{field}"), "0 is not a port");
            }
        }
        if let Some((workload, _)) = port.other_targets.iter().find(|(_, number)| **number == Some(0)) {
            return fault(format!("ports[{index}].other_targets"), format_args!("{workload}: 0 is not a port"));
        }
    }
    service.spread.as_ref().map_or(Ok(()), |spread| spread_is_fit(spread))?;
    service.traffic.as_deref().map_or(Ok(()), traffic_is_fit)
}

fn traffic_is_fit(traffic: &Traffic) -> Checked {
    if let Some(outliers) = &traffic.outliers
        && (outliers.ejection_ms == 0 || outliers.longest_ms < outliers.ejection_ms)
    {
        return fault("traffic.outliers", "an ejection takes time, and the longest not less than the first");
    }
    traffic.outliers.as_ref().and_then(|outliers| outliers.success_rate.as_ref()).map_or(Ok(()), rates_are_fit)?;
    traffic.health_check.as_ref().map_or(Ok(()), health_is_fit)?;
    traffic.limits.as_ref().map_or(Ok(()), limits_are_fit)?;
    traffic.retry.as_ref().map_or(Ok(()), |retry| retry_is_fit("traffic.retry", retry))?;
    if traffic.hedge.is_some_and(|hedge| hedge.after_ms == 0) {
        return fault("traffic.hedge", "the first attempt has some time for itself");
    }
    match traffic.balancing.hash_key() {
        Some(HashKey::Header(name)) if !is_lower(name) => {
            fault("traffic.balancing", format_args!("{name:?} is no field name in lower case"))
        }
        Some(HashKey::Cookie(name)) if name.is_empty() => fault("traffic.balancing", "a cookie has a name"),
        Some(HashKey::Header(_) | HashKey::Cookie(_) | HashKey::Source(_)) | None => Ok(()),
    }
}

fn limits_are_fit(limits: &Limits) -> Checked {
    let Limits { active, pending: _, pending_ms: _, connections, retries, adaptive } = limits;
    if *active == 0 && connections.is_none() && retries.is_none() && adaptive.is_none() {
        return fault("traffic.limits", "0 requests under way are none at all");
    }
    if *connections == Some(0) {
        return fault("traffic.limits.connections", "0 connections are none at all");
    }
    match adaptive {
        Some(AdaptiveLimit { least, most, window_ms }) if *least == 0 || most < least || *window_ms == 0 => {
            fault("traffic.limits.adaptive", "at least 1, at most no less, and a window takes time")
        }
        Some(_) | None => Ok(()),
    }
}

fn spread_is_fit(spread: &Spread) -> Checked {
    let Spread { locality, slow_start, panic_percent, shares } = spread;
    if let Some(locality) = locality
        && !OVERPROVISIONING.contains(&locality.overprovisioning_percent)
    {
        let percent = locality.overprovisioning_percent;
        return fault(
            "spread.locality",
            format_args!("what endpoints carry is not {percent} % of their part that is in"),
        );
    }
    if let Some(slow) = slow_start
        && (slow.window_ms == 0 || !(1..=100).contains(&slow.least_percent))
    {
        return fault("spread.slow_start", "a weight grows from 1 to 100 % of itself on, and that takes time");
    }
    if *panic_percent > 100 {
        return fault("spread.panic_percent", format_args!("{panic_percent} is more than a hundred"));
    }
    let are_places = |shares: &PlaceShares| is_place(&shares.from) && shares.to.iter().all(|it| is_place(&it.place));
    let sum = |shares: &PlaceShares| shares.to.iter().map(|share| u64::from(share.percent)).sum::<u64>();
    if let Some(odd) = shares.iter().find(|shares| !are_places(shares) || sum(shares) != 100) {
        return fault("spread.shares", format_args!("{odd}: all of a place's come to a hundred"));
    }
    Ok(())
}

fn rates_are_fit(rates: &SuccessRate) -> Checked {
    if rates.minimum_hosts == 0 || rates.request_volume == 0 {
        return fault("traffic.outliers", "0 endpoints or requests are nothing to compare");
    }
    Ok(())
}

fn health_is_fit(health: &HealthCheck) -> Checked {
    let at = "traffic.health_check";
    if health.interval_ms == 0 || health.timeout_ms == 0 || health.unhealthy == 0 || health.healthy == 0 {
        return fault(at, "a check takes time, and a row has a length");
    }
    if health.port == Some(0) {
        return fault(at, "0 is not a port");
    }
    match &health.probe {
        HealthProbe::Http(http) if !is_path(&http.path) => {
            fault(at, format_args!("{:?} is no path in normal form", http.path))
        }
        HealthProbe::Http(http) if http.host.as_deref().is_some_and(|host| !is_subdomain(host)) => {
            fault(at, format_args!("{:?} is no host", http.host.as_deref().unwrap_or_default()))
        }
        HealthProbe::Http(http) if !http.statuses.iter().all(|range| is_range(*range)) => {
            fault(at, "statuses of answers are 200 to 599, the lower first")
        }
        HealthProbe::Grpc(service) if !is_service(service) => {
            fault(at, format_args!("{service:?} is no name of a gRPC service"))
        }
        HealthProbe::Http(_) | HealthProbe::Grpc(_) | HealthProbe::Tcp => Ok(()),
    }
}

fn external_is_fit(external: &External) -> Checked {
    for (index, host) in external.hosts.iter().enumerate() {
        if let Some(message) = wrong_host(host, true) {
            return fault(format!("hosts[{index}]"), message);
        }
    }
    for (index, port) in external.ports.iter().enumerate() {
        for (field, number) in [("port", port.port), ("target_port", port.target_port)] {
            if number == 0 {
                return fault(format!("ports[{index}].{field}"), "0 is not a port");
            }
        }
    }
    for (index, endpoint) in external.endpoints.iter().enumerate() {
        if endpoint.port == Some(0) {
            return fault(format!("endpoints[{index}].port"), "0 is not a port");
        }
        let is_address = endpoint.address.parse::<std::net::IpAddr>().is_ok();
        if let Some(message) = wrong_host(&endpoint.address, false).filter(|_| !is_address) {
            return fault(format!("endpoints[{index}].address"), message);
        }
    }
    external.traffic.as_deref().map_or(Ok(()), traffic_is_fit)?;
    let certificate = external.tls.as_ref().and_then(|tls| tls.certificate.as_deref());
    if let Some(name) = certificate.filter(|name| !is_label(name)) {
        return fault("tls.certificate", format_args!("{name:?} is no name of a certificate"));
    }
    let name = external.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
    name.and_then(|name| wrong_host(name, false)).map_or(Ok(()), |message| fault("tls.server_name", message))
}

fn route_is_fit(route: &Route) -> Checked {
    if route.parent_port == Some(0) {
        return fault("parent_port", "0 is not a port");
    }
    if route.kind != RouteKind::Tls && !route.hostnames.is_empty() {
        return fault("hostnames", "server names are of a TLSRoute");
    }
    let is_name = |name: &String| is_subdomain(name.strip_prefix("*.").unwrap_or(name));
    if let Some(name) = route.hostnames.iter().find(|name| !is_name(name)) {
        return fault("hostnames", format_args!("{name:?} is no name of a server"));
    }
    let looks_at_requests = route.actions().next().is_some() || route.rules.iter().any(|rule| !rule.matches.is_empty());
    if route.kind.is_of_bytes() && looks_at_requests {
        return fault("rules", "nothing of a connection is matched or changed");
    }
    if route.kind.is_of_bytes() && route.outside {
        return fault("outside", "connections are led from Services only");
    }
    route.rules.iter().enumerate().try_for_each(|(index, rule)| rule_is_fit(&format!("rules[{index}]"), rule))
}

fn rule_is_fit(at: &str, rule: &RouteRule) -> Checked {
    for (index, matching) in rule.matches.iter().enumerate() {
        expressions_are_fit(&format!("{at}.matches[{index}]"), matching)?;
        if let Some(header) = matching.headers.iter().find(|header| !is_lower(&header.name)) {
            return fault(
                format!("{at}.matches[{index}].headers"),
                format_args!("{:?} is no field name in lower case", header.name),
            );
        }
    }
    actions_are_fit(at, &rule.actions)?;
    for (index, backend) in rule.backends.iter().enumerate() {
        let at = format!("{at}.backends[{index}]");
        actions_are_fit(&at, &backend.actions)?;
        for action in &backend.actions {
            match action {
                RouteAction::RequestTimeoutMs(_) | RouteAction::AttemptTimeoutMs(_) => {
                    return fault(format!("{at}.actions"), "a deadline is of a rule, not of a backend");
                }
                RouteAction::Retry(_) => {
                    return fault(format!("{at}.actions"), "what is sent again is of a rule, not of a backend");
                }
                RouteAction::Persistence(_) => {
                    return fault(format!("{at}.actions"), "a session is of a rule, not of a backend");
                }
                RouteAction::Redirect(_)
                | RouteAction::Cors(_)
                | RouteAction::RequestHeaders(_)
                | RouteAction::ResponseHeaders(_)
                | RouteAction::Rewrite(_)
                | RouteAction::Mirror(_) => {}
            }
        }
    }
    Ok(())
}

/// A proxy of another version may know other expressions than its control plane.
fn expressions_are_fit(at: &str, matching: &RouteMatch) -> Checked {
    let path = matching.path.iter().flat_map(|path| match path {
        PathMatch::Regex(text) => vec![("path", text)],
        PathMatch::Rpc(rpc) if rpc.regex => rpc.service.iter().chain(&rpc.method).map(|text| ("path", text)).collect(),
        PathMatch::Exact(_) | PathMatch::Prefix(_) | PathMatch::Rpc(_) => Vec::new(),
    });
    let headers = matching.headers.iter().filter(|it| it.regex).map(|it| ("headers", &it.value));
    let query = matching.query.iter().filter(|it| it.regex).map(|it| ("query", &it.value));
    for (key, text) in path.chain(headers).chain(query) {
        pattern::check(text).or_else(|error| fault(format!("{at}.{key}"), error))?;
    }
    Ok(())
}

fn actions_are_fit(at: &str, actions: &[RouteAction]) -> Checked {
    for (index, action) in actions.iter().enumerate() {
        match action {
            RouteAction::RequestHeaders(modifier) | RouteAction::ResponseHeaders(modifier) => {
                modifier_is_fit(&format!("{at}.actions[{index}]"), modifier)?;
            }
            RouteAction::Redirect(redirect) => redirect_is_fit(&format!("{at}.actions[{index}]"), redirect)?,
            RouteAction::Rewrite(rewrite) => {
                target_is_fit(&format!("{at}.actions[{index}]"), rewrite.host.as_deref(), rewrite.path.as_ref())?;
            }
            RouteAction::Cors(cors) => cors_is_fit(&format!("{at}.actions[{index}]"), cors)?,
            RouteAction::Mirror(mirror) => mirror_is_fit(&format!("{at}.actions[{index}]"), mirror)?,
            RouteAction::Retry(retry) => retry_is_fit(&format!("{at}.actions[{index}]"), retry)?,
            RouteAction::Persistence(persistence) => {
                persistence_is_fit(&format!("{at}.actions[{index}]"), persistence)?;
            }
            RouteAction::RequestTimeoutMs(_) | RouteAction::AttemptTimeoutMs(_) => {}
        }
    }
    Ok(())
}

fn persistence_is_fit(at: &str, persistence: &Persistence) -> Checked {
    let Persistence { name, by, absolute_ms, idle_ms } = persistence;
    if http::HeaderName::try_from(name).is_err() {
        return fault(at, format_args!("{name:?} is no name of a cookie or a field"));
    }
    let path = match by {
        SessionToken::Header if !is_lower(name) => {
            return fault(at, format_args!("{name:?} is no field name in lower case"));
        }
        SessionToken::Header => "/",
        SessionToken::Cookie { permanent: true, .. } if absolute_ms.is_none() => {
            return fault(at, "a cookie that is kept has a time");
        }
        SessionToken::Cookie { path, .. } => path.as_str(),
    };
    if !path.starts_with('/') || !path.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';') {
        return fault(at, format_args!("{path:?} is no path of a cookie"));
    }
    match [absolute_ms, idle_ms].contains(&&Some(0)) {
        true => fault(at, "a session takes time"),
        false => Ok(()),
    }
}

fn retry_is_fit(at: &str, retry: &Retry) -> Checked {
    if let Some(code) = retry.codes.iter().find(|code| !RETRIED_CODES.contains(code)) {
        return fault(at, format_args!("{code} is no status of an error"));
    }
    if let Some(code) = retry.grpc_codes.iter().find(|code| !(1..=16).contains(*code)) {
        return fault(at, format_args!("{code} is no status of a gRPC error"));
    }
    Ok(())
}

fn mirror_is_fit(at: &str, mirror: &Mirror) -> Checked {
    if mirror.port == 0 {
        return fault(at, "0 is not a port");
    }
    let Mirror { numerator, denominator, .. } = mirror;
    if numerator > denominator || *denominator == 0 {
        return fault(at, format_args!("{numerator} of {denominator} is no part of all"));
    }
    Ok(())
}

fn cors_is_fit(at: &str, cors: &Cors) -> Checked {
    if let Some(method) = cors.methods.iter().find(|method| http::Method::from_bytes(method.as_bytes()).is_err()) {
        return fault(at, format_args!("{method:?} is no method"));
    }
    match cors.headers.iter().chain(&cors.expose).find(|name| !is_lower(name)) {
        Some(name) => fault(at, format_args!("{name:?} is no field name in lower case")),
        None => Ok(()),
    }
}

fn redirect_is_fit(at: &str, redirect: &Redirect) -> Checked {
    if !REDIRECTS.contains(&redirect.status) {
        return fault(at, format_args!("{} is no status of a redirect", redirect.status));
    }
    if redirect.port == Some(0) {
        return fault(at, "0 is not a port");
    }
    target_is_fit(at, redirect.host.as_deref(), redirect.path.as_ref())
}

fn target_is_fit(at: &str, host: Option<&str>, path: Option<&PathChange>) -> Checked {
    if let Some(host) = host.filter(|host| !is_subdomain(host)) {
        return fault(at, format_args!("{host:?} is no host"));
    }
    let texts = match path {
        Some(PathChange::Full(full)) => [Some(full), None],
        // In the place of a prefix there may be nothing.
        Some(PathChange::Prefix { matched, to }) => [Some(matched), Some(to).filter(|to| !to.is_empty())],
        None => [None, None],
    };
    match texts.into_iter().flatten().find(|text| !text.starts_with('/') || !is_normal(text)) {
        Some(text) => fault(at, format_args!("{text:?} is no path in normal form")),
        None => Ok(()),
    }
}

fn modifier_is_fit(at: &str, modifier: &HeaderModifier) -> Checked {
    let given = modifier.set.iter().chain(&modifier.add);
    if let Some((name, value)) = given.clone().find(|(_, value)| http::HeaderValue::from_str(value).is_err()) {
        return fault(at, format_args!("{name}: {value:?} is no field value"));
    }
    match given.map(|(name, _)| name).chain(&modifier.remove).find(|name| !is_lower(name)) {
        Some(name) => fault(at, format_args!("{name:?} is no field name in lower case")),
        None => Ok(()),
    }
}

fn is_normal(path: &str) -> bool {
    crate::path::normalize(path).is_ok_and(|normal| normal == path)
}

fn is_lower(name: &str) -> bool {
    http::HeaderName::from_lowercase(name.as_bytes()).is_ok()
}

/// Bytes of what a publisher has signed of a filter, with the signature: more than any statement has.
const MAX_STATEMENT: usize = 2 << 10;

fn filter_is_fit(filter: &FilterAttachment) -> Checked {
    if !is_digest(&filter.digest) {
        return fault("digest", "is not sha256: and 64 hex digits");
    }
    if filter.statement.as_ref().is_some_and(|signed| signed.text.len() + signed.signature.len() > MAX_STATEMENT) {
        return fault("statement", format_args!("has more than {MAX_STATEMENT} bytes"));
    }
    if !FILTER_CONTRACTS.contains(&filter.contract.as_str()) {
        return fault("contract", format_args!("{:?} is none that this version runs", filter.contract));
    }
    if !filter.rules.is_empty() && (filter.direction != Direction::Outbound || filter.authorization) {
        return fault("rules", "are of requests on the way out");
    }
    if !filter.takes_grants() && !filter.grants.is_empty() {
        return fault("grants", "are for components of a later contract");
    }
    if filter.limits.body_bytes > MAX_BODY_BYTES {
        return fault("limits.body_bytes", format_args!("is more than {MAX_BODY_BYTES}"));
    }
    filter.grants.iter().try_for_each(grant_is_fit)
}

fn grant_is_fit(grant: &Grant) -> Checked {
    match grant {
        Grant::Kv(kv) => {
            if !(1..=MAX_KV_ENTRIES).contains(&kv.entries) || !(1..=MAX_KV_BYTES).contains(&kv.bytes) {
                return fault("grants", format_args!("{} entries of {} bytes are out of range", kv.entries, kv.bytes));
            }
        }
        Grant::Callout(callout) => {
            if callout.services.len() > MAX_CALLOUT_SERVICES {
                return fault("grants", format_args!("more than {MAX_CALLOUT_SERVICES} services for callouts"));
            }
            let is_wrong = |authority: &&String| authority.parse::<http::uri::Authority>().is_err();
            if let Some(wrong) = callout.services.iter().filter_map(|it| it.authority.as_ref()).find(is_wrong) {
                return fault("grants", format_args!("{wrong:?} is no host and port"));
            }
        }
        Grant::Secret(granted) | Grant::CryptoKeys(granted) => {
            let is_long = |secret: &GrantedSecret| secret.value.len() > MAX_SECRET_BYTES;
            if granted.values.len() > MAX_SECRETS || granted.values.iter().any(is_long) {
                let message = format!("at most {MAX_SECRETS} secrets of {MAX_SECRET_BYTES} bytes are taken");
                return fault("grants", message);
            }
        }
    }
    Ok(())
}
