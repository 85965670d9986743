//! `Filter` (a published binary) and `FilterPolicy` (where it runs and with what configuration).

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::capability::{self, CalloutRef, Capability, LimitsSpec, SecretRef};
use super::value::{self, is_default};
use super::{ROOT_NAMESPACE, TargetRef};
use crate::bundle::{Direction, ObjectName, OnFailure};
use crate::identity::is_label;
use crate::statement::is_digest;

/// A filter as published: the binary is kept by its digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterSpec {
    pub version: String,
    /// `sha256:` and 64 hex digits in lower case.
    #[serde(deserialize_with = "digest")]
    pub digest: String,
    /// ed25519 over the 32 digest bytes, base64.
    pub signature: String,
    /// PEM.
    pub public_key: String,
    pub size: u64,
    /// `weft:filter@0.1.0`
    pub abi: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    /// JSON Schema of the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_schema: Option<serde_json::Value>,
}

fn digest<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if is_digest(&text) {
        Ok(text)
    } else {
        Err(D::Error::custom(format_args!("{text:?} is not sha256: and 64 hex digits in lower case")))
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterPolicySpec {
    /// Empty: the whole namespace; in the root namespace the whole mesh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_refs: Vec<TargetRef>,
    #[serde(default = "inbound")]
    pub direction: Direction,
    /// Absent, an older release can read it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub phase: Phase,
    /// Within the phase: smaller runs earlier, equals by name.
    #[serde(default)]
    pub order: i32,
    #[serde(default)]
    pub mode: PolicyMode,
    #[serde(default = "deny")]
    pub on_failure: OnFailure,
    pub filter: FilterRef,
    /// Handed to the filter as JSON.
    #[serde(default = "empty_object")]
    pub config: serde_json::Value,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<Capability>,
    #[serde(default)]
    pub limits: LimitsSpec,
}

fn inbound() -> Direction {
    Direction::Inbound
}

pub(super) fn deny() -> OnFailure {
    OnFailure::Deny
}

fn empty_object() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

/// The part of a chain that a filter runs in: phase by phase, in each by `order`, then by name. Authorization is none
/// of them: it comes last, always.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Phase {
    /// Before anybody asks who the caller's user is: what judges addresses and connections.
    Connection,
    AuthN,
    Traffic,
    RateLimit,
    #[default]
    Custom,
}

/// Places of one phase in a chain.
const PLACES: i32 = 1 << 24;
/// Orders from minus this to this have a place of their own in each phase.
pub(crate) const MAX_ORDER: i32 = PLACES / 2 - 1;

impl Phase {
    /// The order that an attachment carries: one number, which every release of a proxy sorts by. That of `Custom` is
    /// the policy's own, as it was before there were phases.
    pub(crate) fn place(self, order: i32) -> i32 {
        let ahead = match self {
            Self::Connection => 4,
            Self::AuthN => 3,
            Self::Traffic => 2,
            Self::RateLimit => 1,
            Self::Custom => 0,
        };
        order.clamp(-MAX_ORDER, MAX_ORDER) - ahead * PLACES
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum PolicyMode {
    #[default]
    Enforce,
    /// Verdicts are counted and logged only.
    Audit,
    /// Not attached.
    Off,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FilterRef {
    #[serde(deserialize_with = "value::object_name")]
    pub name: String,
    #[serde(default = "root", deserialize_with = "value::label")]
    pub namespace: String,
    /// `1.2.3` is that version and no other, `^1.2` and `~1.2` the newest of a range that its channel has or had; absent:
    /// the version that its channel stands for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// `stable` where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub channel: Option<String>,
}

/// The channel of policies that name none.
pub const STABLE: &str = "stable";

/// Which version of a filter a policy wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Wanted<'a> {
    Exact(&'a str),
    Range(semver::VersionReq, &'a str),
    Channel(&'a str),
}

impl FilterRef {
    /// What it says, read once.
    ///
    /// # Errors
    /// The field that is wrong, and why.
    pub fn wanted(&self) -> Result<Wanted<'_>, (&'static str, String)> {
        let channel = self.channel.as_deref().unwrap_or(STABLE);
        if !is_label(channel) {
            let message = format!("{channel:?} is not the name of a channel: lower-case letters, digits and '-'");
            return Err(("channel", message));
        }
        let Some(version) = self.version.as_deref() else { return Ok(Wanted::Channel(channel)) };
        let exact = version.strip_prefix('=').unwrap_or(version).trim();
        if semver::Version::parse(exact).is_ok() {
            return match &self.channel {
                None => Ok(Wanted::Exact(exact)),
                Some(_) => {
                    Err(("channel", format!("{exact} is one version, in whatever channel: leave one of them out")))
                }
            };
        }
        match semver::VersionReq::parse(version) {
            Ok(range) => Ok(Wanted::Range(range, channel)),
            Err(_) => Err(("version", format!("{version:?} is neither a version, 1.2.3, nor a range, ^1.2 or ~1.2.3"))),
        }
    }

    /// The filter that it names, whatever the version.
    pub fn object_name(&self) -> ObjectName {
        ObjectName::new(&self.namespace, &self.name)
    }

    /// Whether it names a filter, whatever the version.
    pub fn is_of(&self, filter: &ObjectName) -> bool {
        (&self.namespace, &self.name) == (&filter.namespace, &filter.name)
    }
}

impl std::fmt::Display for Wanted<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exact(version) => f.write_str(version),
            Self::Range(range, channel) => write!(f, "{range} of channel {channel}"),
            Self::Channel(channel) => write!(f, "channel {channel}"),
        }
    }
}

fn root() -> String {
    ROOT_NAMESPACE.to_owned()
}

impl FilterPolicySpec {
    /// The services that its callouts may go to, each with its place inside `spec`.
    pub(crate) fn callouts(&self) -> impl Iterator<Item = (String, &CalloutRef)> {
        self.capabilities.iter().enumerate().flat_map(|(index, capability)| {
            let services = capability.callouts().iter().enumerate();
            services.map(move |(at, service)| (format!("capabilities[{index}].callout.services[{at}]"), service))
        })
    }

    /// The values of Secrets that it grants, each with its place inside `spec`.
    pub(crate) fn secrets(&self) -> impl Iterator<Item = (String, &SecretRef)> {
        self.capabilities.iter().enumerate().flat_map(|(index, capability)| {
            let (list, secrets) = capability.secrets();
            let secrets = secrets.iter().enumerate();
            secrets.map(move |(at, secret)| (format!("capabilities[{index}].{list}[{at}]"), secret))
        })
    }

    /// True where it grants a value of the Secret of this name, of its own namespace.
    #[must_use]
    pub fn names_secret(&self, name: &str) -> bool {
        self.secrets().any(|(_, secret)| secret.name == name)
    }

    /// True where what it would judge is refused while its filter can't run.
    pub(crate) fn is_closed_without_filter(&self) -> bool {
        self.mode == PolicyMode::Enforce && self.on_failure == OnFailure::Deny
    }

    /// What becomes of it while its filter can't run.
    pub(crate) fn outcome_without_filter(&self) -> &'static str {
        if self.is_closed_without_filter() {
            "what it would judge is refused (onFailure: Deny)"
        } else {
            "it does not run"
        }
    }

    pub(crate) fn check(&self) -> Vec<(String, String)> {
        let mut wrong = capability::check_all(&self.capabilities);
        wrong.extend(self.limits.check());
        if let Err((key, message)) = self.filter.wanted() {
            wrong.push((format!("filter.{key}"), message));
        }
        if !(-MAX_ORDER..=MAX_ORDER).contains(&self.order) {
            let message = format!("{} is out of range: {} to {MAX_ORDER}", self.order, -MAX_ORDER);
            wrong.push(("order".to_owned(), message));
        }
        wrong.extend(self.check_targets());
        if self.filter.name == "authz" && self.filter.namespace == ROOT_NAMESPACE {
            let message = "the authz filter is attached by AccessPolicy, not by FilterPolicy".to_owned();
            wrong.push(("filter.name".to_owned(), message));
        }
        wrong
    }

    /// Routes are decided by callers, and a policy is for whom or for what they send, not for both.
    fn check_targets(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        let is_route = |target: &TargetRef| target.kind.route().is_some();
        let of_routes = self.target_refs.iter().any(is_route);
        for (index, target) in self.target_refs.iter().enumerate() {
            let at = |key: &str| format!("targetRefs[{index}].{key}");
            if of_routes && !is_route(target) {
                wrong.push((at("kind"), "a policy is for routes or for workloads, not for both".to_owned()));
            }
            if target.section_name.is_some() && !is_route(target) {
                wrong.push((at("sectionName"), "only a route has named rules".to_owned()));
            }
        }
        if of_routes && self.direction != Direction::Outbound {
            let message = "the callee decides no routes: a filter of a route runs at its callers, Outbound".to_owned();
            wrong.push(("direction".to_owned(), message));
        }
        wrong
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_policy_is_for_workloads_or_for_rules_of_routes() {
        fn check(direction: &str, targets: serde_json::Value, expect: &[(&str, &str)]) {
            let spec = json!({"direction": direction, "targetRefs": targets, "filter": {"name": "limit"}});
            let spec: FilterPolicySpec = serde_json::from_value(spec).unwrap();
            let wrong = spec.check();
            let wrong: Vec<_> = wrong.iter().map(|(key, message)| (key.as_str(), message.as_str())).collect();
            assert_eq!(wrong, expect, "{direction} {targets}");
        }
        let route =
            json!({"group": "gateway.networking.k8s.io", "kind": "HTTPRoute", "name": "r", "sectionName": "buy"});
        let (all, service) = (json!({"kind": "GRPCRoute", "name": "r"}), json!({"kind": "Service", "name": "web"}));
        check("Outbound", json!([route, all]), &[]);
        let callee = "the callee decides no routes: a filter of a route runs at its callers, Outbound";
        check("Inbound", json!([route]), &[("direction", callee)]);
        let both = "a policy is for routes or for workloads, not for both";
        check("Outbound", json!([route, service]), &[("targetRefs[1].kind", both)]);
        let named = json!({"kind": "Service", "name": "web", "sectionName": "buy"});
        check("Outbound", json!([named]), &[("targetRefs[0].sectionName", "only a route has named rules")]);
    }

    #[test]
    fn phases_follow_each_other_whatever_the_orders() {
        let phases = [Phase::Connection, Phase::AuthN, Phase::Traffic, Phase::RateLimit, Phase::Custom];
        for pair in phases.windows(2) {
            assert!(pair[0].place(i32::MAX) < pair[1].place(i32::MIN), "{pair:?}");
        }
        let orders = [i32::MIN, -MAX_ORDER, -1, 0, 7, MAX_ORDER, i32::MAX];
        let places = orders.map(|order| Phase::Custom.place(order));
        assert_eq!(places, [-MAX_ORDER, -MAX_ORDER, -1, 0, 7, MAX_ORDER, MAX_ORDER], "as proxies always had it");
        let spec = |order: i64| {
            let spec = json!({"order": order, "filter": {"name": "limit"}});
            serde_json::from_value::<FilterPolicySpec>(spec).unwrap().check()
        };
        assert!(spec(i64::from(MAX_ORDER)).is_empty());
        let wrong = "8388608 is out of range: -8388607 to 8388607".to_owned();
        assert_eq!(spec(i64::from(MAX_ORDER) + 1), [("order".to_owned(), wrong)]);
    }
}
