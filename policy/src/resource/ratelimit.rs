//! `RateLimitPolicy`: how many requests callers may send. It becomes the shipped filter `ratelimit`.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::attaching::{self, Frame, Typed};
use super::capability::Capability;
use super::filter::{Phase, PolicyMode, deny};
use super::value::SECOND_MS;
use super::{TargetRef, value};
use crate::authz::PathTemplate;
use crate::bundle::{Direction, ObjectName, OnFailure};

/// Limits of one policy: a filter may have no more.
const MAX_LIMITS: usize = 32;
/// Requests, at once or in a period.
const MAX_REQUESTS: u32 = 1_000_000_000;
/// The longest period: a day.
const MAX_PERIOD_MS: u64 = 86_400_000;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimitPolicySpec {
    /// Empty: the whole namespace; in the root namespace the whole mesh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_refs: Vec<TargetRef>,
    /// Absent: inbound, and outbound for rules of routes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub direction: Option<Direction>,
    /// Beside other policies of its phase: smaller runs earlier, equals by name.
    #[serde(default)]
    pub order: i32,
    #[serde(default)]
    pub mode: PolicyMode,
    #[serde(default = "deny")]
    pub on_failure: OnFailure,
    /// A request pays all of them or none.
    pub limits: Vec<RateLimitSpec>,
    /// Answers say how the tightest limit stands.
    #[serde(default)]
    pub headers: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateLimitSpec {
    /// In replies, metrics and logs; a limit keeps its buckets by it. Absent: by what it tells requests apart.
    #[serde(default, deserialize_with = "value::label_option", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What tells requests apart. Absent: all share one bucket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<LimitedBySpec>,
    pub requests: u32,
    /// The time in which so many come to be allowed, whole seconds. Absent: one.
    #[serde(
        default,
        rename = "per",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub per_ms: Option<u64>,
    /// Requests that may come at once. Absent: as many as `requests`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

/// Exactly one of these.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitedBySpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<LimitedSource>,
    /// The first value of this header.
    #[serde(deserialize_with = "value::matchable_header_option", skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Of requests for such a path, its `{name}` elements; requests for another are not limited by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path_template: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LimitedSource {
    /// The caller's SPIFFE ID.
    Identity,
}

impl LimitedBySpec {
    /// As the filter's configuration names it.
    fn key(&self) -> String {
        let source = self.source.map(|LimitedSource::Identity| "identity".to_owned());
        let header = self.header.as_ref().map(|name| format!("header:{name}"));
        let path = self.path_template.as_ref().map(|template| format!("path:{template}"));
        source.or(header).or(path).unwrap_or_else(|| "none".to_owned())
    }

    /// Keys are inside `by`.
    fn check(&self) -> Vec<(&'static str, String)> {
        let Self { source, header, path_template } = self;
        let given = [source.is_some(), header.is_some(), path_template.is_some()];
        let mut wrong = Vec::new();
        if given.into_iter().filter(|given| *given).count() != 1 {
            wrong.push(("", "exactly one of `source`, `header` and `pathTemplate` is expected".to_owned()));
        }
        if let Some(Err(message)) = path_template.as_ref().map(|template| PathTemplate::parse(template)) {
            wrong.push((".pathTemplate", message));
        }
        wrong
    }
}

impl RateLimitSpec {
    fn key(&self) -> String {
        self.by.as_ref().map_or_else(|| "none".to_owned(), LimitedBySpec::key)
    }

    fn per_seconds(&self) -> u64 {
        self.per_ms.unwrap_or(SECOND_MS).div_ceil(SECOND_MS)
    }

    fn config(&self) -> Value {
        let mut config = json!({"key": self.key(), "requests": self.requests, "per_seconds": self.per_seconds()});
        if let Some(name) = &self.name {
            config["name"] = name.clone().into();
        }
        if let Some(burst) = self.burst {
            config["burst"] = burst.into();
        }
        config
    }

    /// Keys are inside the limit.
    fn check(&self) -> Vec<(String, String)> {
        let by = self.by.iter().flat_map(LimitedBySpec::check);
        let mut wrong: Vec<_> = by.map(|(key, message)| (format!("by{key}"), message)).collect();
        let burst = self.burst.map(|burst| ("burst", burst));
        for (key, number) in [("requests", self.requests)].into_iter().chain(burst) {
            if !(1..=MAX_REQUESTS).contains(&number) {
                wrong.push((key.to_owned(), format!("{number} is out of range: 1 to {MAX_REQUESTS}")));
            }
        }
        let per_ms = self.per_ms.unwrap_or(SECOND_MS);
        if !(SECOND_MS..=MAX_PERIOD_MS).contains(&per_ms) || !per_ms.is_multiple_of(SECOND_MS) {
            let given = value::duration_text(per_ms);
            wrong.push(("per".to_owned(), format!("{given} is out of range: whole seconds, 1s to 24h")));
        }
        wrong
    }
}

impl RateLimitPolicySpec {
    /// Everything that is wrong; keys are inside `spec`.
    pub(crate) fn check(&self) -> Vec<(String, String)> {
        let mut wrong = attaching::check_frame(self);
        if !(1..=MAX_LIMITS).contains(&self.limits.len()) {
            let message = format!("has {} limits; 1 to {MAX_LIMITS} are expected", self.limits.len());
            wrong.push(("limits".to_owned(), message));
        }
        let mut names = BTreeSet::new();
        for (index, limit) in self.limits.iter().enumerate() {
            let at = |key: &str| format!("limits[{index}].{key}");
            wrong.extend(limit.check().into_iter().map(|(key, message)| (at(&key), message)));
            if let Some(name) = limit.name.as_ref().filter(|name| !names.insert(*name)) {
                wrong.push((at("name"), format!("{name:?} is the name of an earlier limit")));
            }
        }
        wrong
    }
}

impl Typed for RateLimitPolicySpec {
    const FILTER: &'static str = "ratelimit";
    const PHASE: Phase = Phase::RateLimit;

    fn frame(&self) -> Frame<'_> {
        let Self { target_refs, direction, order, mode, on_failure, limits: _, headers: _ } = self;
        let direction = attaching::direction_for(*direction, target_refs);
        Frame { targets: target_refs, direction, order: *order, mode: *mode, on_failure: *on_failure }
    }

    fn capabilities(&self) -> Vec<Capability> {
        vec![Capability::TokenBucket]
    }

    fn config(&self, _: &ObjectName) -> Value {
        let limits: Vec<_> = self.limits.iter().map(RateLimitSpec::config).collect();
        // A component of the first contract does not know them.
        if self.headers { json!({"limits": limits, "headers": true}) } else { json!({"limits": limits}) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(text: &str) -> RateLimitPolicySpec {
        serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    #[test]
    fn it_is_the_filter_policy_of_the_shipped_filter() {
        let limits = "limits: [{name: each, by: {source: Identity}, requests: 5, per: 1m, burst: 9}, \
                      {by: {header: X-Team}, requests: 2}, {by: {pathTemplate: '/u/{id}/*'}, requests: 3}, {requests: 4}]";
        let policy = attaching::tested(&spec(&format!("{{{limits}, headers: true, order: 7, onFailure: Allow}}")));
        let config = json!({"headers": true, "limits": [
            {"name": "each", "key": "identity", "requests": 5, "per_seconds": 60, "burst": 9},
            {"key": "header:x-team", "requests": 2, "per_seconds": 1},
            {"key": "path:/u/{id}/*", "requests": 3, "per_seconds": 1},
            {"key": "none", "requests": 4, "per_seconds": 1},
        ]});
        assert_eq!(policy["config"], config);
        assert_eq!(policy["filter"], json!({"name": "ratelimit", "namespace": "weft-system"}));
        assert_eq!((&policy["phase"], &policy["order"]), (&json!("RateLimit"), &json!(7)));
        assert_eq!((&policy["direction"], &policy["onFailure"]), (&json!("Inbound"), &json!("Allow")));
        assert_eq!(policy["capabilities"], json!(["token-bucket"]));
        let of_route = format!("{{targetRefs: [{{kind: HTTPRoute, name: r, sectionName: buy}}], {limits}}}");
        assert_eq!(attaching::tested(&spec(&of_route))["direction"], "Outbound");
    }

    #[test]
    fn every_mistake_is_told() {
        fn check(limits: &str, expect: &[&str]) {
            let wrong = spec(&format!("{{limits: [{limits}]}}")).check();
            let wrong: Vec<_> = wrong.iter().map(|(key, message)| format!("{key}: {message}")).collect();
            assert_eq!(wrong, expect, "{limits}");
        }
        check("{requests: 1}", &[]);
        check("", &["limits: has 0 limits; 1 to 32 are expected"]);
        let one = "exactly one of `source`, `header` and `pathTemplate` is expected";
        check(
            "{name: a, requests: 0, per: 1500ms, burst: 0, by: {}}, {name: a, requests: 1, per: 25h, by: {source: Identity, header: b}}",
            &[
                &format!("limits[0].by: {one}"),
                "limits[0].requests: 0 is out of range: 1 to 1000000000",
                "limits[0].burst: 0 is out of range: 1 to 1000000000",
                "limits[0].per: 1s500ms is out of range: whole seconds, 1s to 24h",
                &format!("limits[1].by: {one}"),
                "limits[1].per: 25h is out of range: whole seconds, 1s to 24h",
                "limits[1].name: \"a\" is the name of an earlier limit",
            ],
        );
        let template = "limits[0].by.pathTemplate: \"/a*\": `*` stands only alone or as the last element, as in /x/*";
        check("{requests: 1, by: {pathTemplate: '/a*'}}", &[template]);
        let inbound = spec("{direction: Inbound, targetRefs: [{kind: HTTPRoute, name: r}], limits: [{requests: 1}]}");
        assert_eq!(inbound.check()[0].0, "direction");
        assert!(
            serde_saphyr::from_str::<RateLimitPolicySpec>("{limits: [{requests: 1, by: {header: host}}]}").is_err()
        );
    }
}
