//! The settings of a service as a request meets them, in words, and who says them.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::bundle::RouteName;
use crate::plan::Sources;
use crate::resource::duration_text;
use crate::route::{Plan, SaidBy, Setting};

/// How long a request and a stream may take, and how long until it is at another endpoint as well.
pub(super) fn timeouts(sources: &Sources, plan: &Plan<'_>) -> Option<String> {
    let text = |limit: Duration| duration_text(u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
    let all = plan
        .timeout
        .map(|limit| format!("{} in all, {}", text(limit), said_by(sources, plan, Setting::RequestTimeout)));
    let each = plan
        .attempt_timeout
        .map(|limit| format!("{} each attempt, {}", text(limit), said_by(sources, plan, Setting::AttemptTimeout)));
    let stream = plan.stream_timeout().map(|limit| {
        format!("{} where the answer is a stream, {}", text(limit), by_policies(sources, "timeouts.stream"))
    });
    let hedge = plan.service.traffic.as_ref().and_then(|traffic| traffic.hedge);
    let hedge = hedge.map(|hedge| format!("{hedge}, {}", by_policies(sources, "hedge")));
    let told: Vec<String> = all.into_iter().chain(each).chain(stream).chain(hedge).collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// Which endpoints are passed over for what they did, and which get less for being new.
pub(super) fn health(sources: &Sources, plan: &Plan<'_>) -> Option<String> {
    let (traffic, spread) = (plan.service.traffic.as_deref(), plan.service.spread.as_deref());
    let by = |key| by_policies(sources, key);
    let ejected = traffic.and_then(|traffic| traffic.outliers.as_ref());
    let ejected = ejected.map(|outliers| format!("ejected after {outliers}, {}", by("outlierDetection")));
    let checked = traffic.and_then(|traffic| traffic.health_check.as_ref());
    let checked = checked.map(|check| format!("checked by {check}, {}", by("healthCheck")));
    let panic = spread.map(|spread| spread.panic_percent).filter(|percent| *percent > 0);
    let panic = panic.map(|percent| format!("all of them where less than {percent} % are in, {}", by("loadBalancing")));
    let slow = spread.and_then(|spread| spread.slow_start.as_ref());
    let slow = slow.map(|slow| format!("new ones get {slow}, {}", by("loadBalancing")));
    let told: Vec<String> = [ejected, checked, panic, slow].into_iter().flatten().collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// How much may be under way to the service.
pub(super) fn limits(sources: &Sources, plan: &Plan<'_>) -> Option<String> {
    let limits = plan.service.traffic.as_ref()?.limits.as_ref()?;
    let source = sources.get("limits");
    Some(source.map_or_else(|| limits.to_string(), |source| format!("{limits}, as {}", source.says())))
}

/// What keeps it with others of its session.
pub(super) fn session(plan: &Plan<'_>) -> Option<String> {
    let (persistence, route) = plan.persistence.zip(plan.route)?;
    Some(format!("{persistence}, as {} says", RouteName::of(&route.name)))
}

/// What a request says of how long its caller waits, which every proxy on its way keeps to.
pub(super) fn patience(headers: &BTreeMap<String, &str>) -> impl Iterator<Item = String> {
    let said = ["weft-timeout-ms", "grpc-timeout"].into_iter().filter_map(|name| Some((name, headers.get(name)?)));
    let said: Vec<_> = said.map(|(name, value)| (name, (*value).to_owned())).collect();
    said.into_iter().map(|(name, value)| {
        format!(
            "{name} {value:?} shortens the time of the request here and at each proxy on its way, and lengthens none"
        )
    })
}

pub(super) fn said_by(sources: &Sources, plan: &Plan<'_>, setting: Setting) -> String {
    let route = plan.route.map(|route| &route.name);
    match (plan.says(setting), route) {
        (SaidBy::Rule, Some(route)) => format!("as {} says", RouteName::of(route)),
        (SaidBy::Policy, _) => by_policies(sources, key_of(setting)),
        (SaidBy::Rule | SaidBy::Mesh, _) => "as the Mesh says".to_owned(),
    }
}

/// Which policy says what is at this key inside `spec`.
fn by_policies(sources: &Sources, key: &str) -> String {
    sources.get(key).map_or_else(|| "as its policies say".to_owned(), |source| format!("as {}", source.says()))
}

/// As policies say it, inside `spec`.
fn key_of(setting: Setting) -> &'static str {
    match setting {
        Setting::RequestTimeout => "timeouts.request",
        Setting::AttemptTimeout => "timeouts.backendRequest",
        Setting::Retry => "retry",
    }
}
