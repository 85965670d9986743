//! `JwtPolicy`: whose tokens requests must carry. It becomes the shipped filter `jwt`.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::attaching::{self, Frame, Typed};
use super::capability::{CalloutKind, CalloutRef, CalloutSpec, Capability, KvSpec};
use super::filter::{Phase, PolicyMode, deny};
use super::health::is_path;
use super::value::SECOND_MS;
use super::{TargetRef, value};
use crate::bundle::{Direction, KvScope, MAX_CALLOUT_SERVICES, ObjectName, OnFailure};

/// Keys of all issuers together, and claims that are told: the filter takes no more.
const MAX_KEYS: usize = 32;
const MAX_CLAIMS: usize = 16;
const MAX_LEEWAY_MS: u64 = 3_600_000;
/// What is kept of fetched keys: for each issuer the keys, at most 44 KiB, and who fetches.
const KEPT: KvSpec = KvSpec { entries: 128, bytes: 2 << 20, scope: KvScope::Policy };

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwtPolicySpec {
    /// Empty: the whole namespace; in the root namespace the whole mesh.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub target_refs: Vec<TargetRef>,
    /// Beside other policies of its phase: smaller runs earlier, equals by name.
    #[serde(default)]
    pub order: i32,
    #[serde(default)]
    pub mode: PolicyMode,
    #[serde(default = "deny")]
    pub on_failure: OnFailure,
    pub issuers: Vec<IssuerSpec>,
    /// The header that holds the token. Absent: `authorization`, behind `Bearer`.
    #[serde(default, deserialize_with = "value::matchable_header_option", skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// Requests without a token pass, without claims; a bad token never does.
    #[serde(default)]
    pub optional: bool,
    /// The token goes no further.
    #[serde(default)]
    pub remove_token: bool,
    /// That clocks may differ by, whole seconds. Absent: 1m.
    #[serde(
        default,
        rename = "leeway",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub leeway_ms: Option<u64>,
    /// Told to the filters behind and the access log as `filter.jwt.CLAIM`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub claims: Vec<ClaimSpec>,
}

/// Whose tokens count, with the keys that they are signed by: no issuer's key makes a token of another's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct IssuerSpec {
    /// As tokens name it in `iss`.
    pub issuer: String,
    /// Of which a token must name one. Empty: any will do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub audiences: Vec<String>,
    pub jwks: JwksSpec,
}

/// A JSON Web Key Set, as issuers publish it, or where it is fetched.
//= rfc7517#section-5
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct JwksSpec {
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<Map<String, Value>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callout: Option<JwksCalloutSpec>,
}

/// Where keys are fetched: a service of the mesh or an ExternalService, which the filter may call by this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct JwksCalloutSpec {
    #[serde(default, skip_serializing_if = "value::is_default")]
    pub kind: CalloutKind,
    #[serde(deserialize_with = "value::object_name")]
    pub name: String,
    /// The policy's own where absent.
    #[serde(default, deserialize_with = "value::label_option", skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(deserialize_with = "value::port")]
    pub port: u16,
    /// Of the key set, with or without a query.
    pub path: String,
    /// How long keys count, whole seconds; they are fetched anew before. Absent: 5m.
    #[serde(
        default,
        rename = "cache",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub cache_ms: Option<u64>,
    /// How long the last ones count beyond that, while none can be fetched, whole seconds. Absent: 1h.
    #[serde(
        default,
        rename = "stale",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub stale_ms: Option<u64>,
    /// How long a request waits that fetches. Absent: 1s.
    #[serde(
        default,
        rename = "timeout",
        deserialize_with = "value::duration_ms",
        serialize_with = "value::serialize_duration",
        skip_serializing_if = "Option::is_none"
    )]
    pub timeout_ms: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClaimSpec {
    pub claim: String,
    /// Tells the app, too; what a caller sends under this name never passes.
    #[serde(default, deserialize_with = "value::matchable_header_option", skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
}

/// What is wrong about a key, with the member. Its numbers are the filter's to judge.
fn wrong_key(key: &Map<String, Value>) -> Option<(&'static str, String)> {
    let member = |name: &str| key.get(name).and_then(Value::as_str);
    if key.contains_key("d") {
        return Some(("d", "this is a private key; give its public part alone".to_owned()));
    }
    match (member("kty"), member("crv")) {
        (Some("RSA"), _) | (Some("EC"), Some("P-256")) | (Some("OKP"), Some("Ed25519")) => None,
        (Some("oct"), _) => {
            let message = "a shared secret would be told to whoever may read the policy; public keys are expected";
            Some(("kty", message.to_owned()))
        }
        (Some("EC"), _) => Some(("crv", "P-256 is expected".to_owned())),
        (Some("OKP"), _) => Some(("crv", "Ed25519 is expected".to_owned())),
        (_, _) => Some(("kty", "RSA, EC or OKP is expected".to_owned())),
    }
}

impl IssuerSpec {
    /// Keys are inside the issuer.
    fn check(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        if self.issuer.is_empty() {
            wrong.push(("issuer".to_owned(), "is empty".to_owned()));
        }
        match &self.jwks.callout {
            None if self.jwks.keys.is_empty() => {
                wrong.push(("jwks.keys".to_owned(), "is empty: no token would count".to_owned()));
            }
            None => {}
            Some(_) if !self.jwks.keys.is_empty() => {
                wrong.push(("jwks.callout".to_owned(), "stands beside keys: one of them is expected".to_owned()));
            }
            Some(callout) => wrong.extend(callout.check()),
        }
        for (index, key) in self.jwks.keys.iter().enumerate() {
            wrong.extend(wrong_key(key).map(|(member, message)| (format!("jwks.keys[{index}].{member}"), message)));
        }
        wrong
    }

    fn config(&self) -> Value {
        match &self.jwks.callout {
            None => json!({"issuer": self.issuer, "audiences": self.audiences, "keys": self.jwks.keys}),
            Some(callout) => json!({"issuer": self.issuer, "audiences": self.audiences, "jwks": callout.config()}),
        }
    }
}

impl JwksCalloutSpec {
    /// As the filter calls it. It says all of where it leads: keys that were kept of one place are never taken for
    /// those of another.
    fn alias(&self) -> String {
        let kind = match self.kind {
            CalloutKind::Service => "service",
            CalloutKind::ExternalService => "external",
        };
        let namespace = self.namespace.as_deref().unwrap_or_default();
        format!("{kind}/{namespace}/{}:{}", self.name, self.port)
    }

    fn granted(&self) -> CalloutRef {
        let Self { kind, name, namespace, port, .. } = self;
        let (name, namespace) = (name.clone(), namespace.clone());
        CalloutRef { kind: *kind, name, namespace, port: *port, alias: Some(self.alias()) }
    }

    /// Keys are inside the issuer.
    fn check(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        if !is_path(&self.path) {
            let message = format!("{:?} is no path that all servers take alike", self.path);
            wrong.push(("jwks.callout.path".to_owned(), message));
        }
        for (name, given, unit, least, most) in [
            ("cache", self.cache_ms, SECOND_MS, 10 * SECOND_MS, 86_400 * SECOND_MS),
            ("stale", self.stale_ms, SECOND_MS, 0, 604_800 * SECOND_MS),
            ("timeout", self.timeout_ms, 1, 1, 10 * SECOND_MS),
        ] {
            let is_wrong = |ms: &u64| !(least..=most).contains(ms) || !ms.is_multiple_of(unit);
            if let Some(ms) = given.filter(is_wrong) {
                let [ms, least, most] = [ms, least, most].map(value::duration_text);
                let whole = if unit == SECOND_MS { "whole seconds, " } else { "" };
                let message = format!("{ms} is out of range: {whole}{least} to {most}");
                wrong.push((format!("jwks.callout.{name}"), message));
            }
        }
        wrong
    }

    fn config(&self) -> Value {
        let mut config = json!({"callout": self.alias(), "path": self.path});
        for (name, given, unit) in [
            ("cache_seconds", self.cache_ms, SECOND_MS),
            ("stale_seconds", self.stale_ms, SECOND_MS),
            ("timeout_ms", self.timeout_ms, 1),
        ] {
            if let Some(ms) = given {
                config[name] = (ms / unit).into();
            }
        }
        config
    }
}

impl JwtPolicySpec {
    /// Everything that is wrong; keys are inside `spec`.
    pub(crate) fn check(&self) -> Vec<(String, String)> {
        let mut wrong = self.check_targets();
        wrong.extend(self.check_issuers());
        if let Some(ms) = self.leeway_ms.filter(|ms| *ms > MAX_LEEWAY_MS || !ms.is_multiple_of(SECOND_MS)) {
            let message = format!("{} is out of range: whole seconds, 0s to 1h", value::duration_text(ms));
            wrong.push(("leeway".to_owned(), message));
        }
        if self.claims.len() > MAX_CLAIMS {
            let message = format!("has {} claims; at most {MAX_CLAIMS} are allowed", self.claims.len());
            wrong.push(("claims".to_owned(), message));
        }
        for (index, _) in self.claims.iter().enumerate().filter(|(_, claim)| claim.claim.is_empty()) {
            wrong.push((format!("claims[{index}].claim"), "is empty".to_owned()));
        }
        wrong
    }

    /// The callee wants the token: a caller's own proxy that refused its own app would keep nobody out.
    fn check_targets(&self) -> Vec<(String, String)> {
        let routes = self.target_refs.iter().enumerate().filter(|(_, target)| target.kind.route().is_some());
        let mut wrong: Vec<_> = routes
            .map(|(index, _)| {
                let message = "no JwtPolicy is for a route: it judges at the callee, which decides none".to_owned();
                (format!("targetRefs[{index}].kind"), message)
            })
            .collect();
        if wrong.is_empty() {
            // What is wrong with a grant is told at the issuer that needs it.
            wrong = attaching::check_frame(self);
            wrong.retain(|(key, _)| !key.starts_with("capabilities"));
        }
        wrong
    }

    /// The services that keys are fetched from, by the names that the filter calls them.
    fn services(&self) -> BTreeMap<String, CalloutRef> {
        let callouts = self.issuers.iter().filter_map(|issuer| issuer.jwks.callout.as_ref());
        callouts.map(|callout| (callout.alias(), callout.granted())).collect()
    }

    fn check_issuers(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        if self.issuers.is_empty() {
            wrong.push(("issuers".to_owned(), "is empty: no token would count".to_owned()));
        }
        let keys: usize = self.issuers.iter().map(|issuer| issuer.jwks.keys.len()).sum();
        if keys > MAX_KEYS {
            wrong.push(("issuers".to_owned(), format!("have {keys} keys in all; at most {MAX_KEYS} are allowed")));
        }
        let services = self.services().len();
        if services > MAX_CALLOUT_SERVICES {
            let message = format!("fetch keys of {services} services; at most {MAX_CALLOUT_SERVICES} are allowed");
            wrong.push(("issuers".to_owned(), message));
        }
        if services > 0 && self.mode == PolicyMode::Audit {
            let message = "an audited filter waits for nothing, so no keys are fetched; Enforce or Off is expected";
            wrong.push(("mode".to_owned(), message.to_owned()));
        }
        let mut names = BTreeSet::new();
        for (index, issuer) in self.issuers.iter().enumerate() {
            let at = |key: &str| format!("issuers[{index}].{key}");
            wrong.extend(issuer.check().into_iter().map(|(key, message)| (at(&key), message)));
            if !names.insert(&issuer.issuer) {
                wrong.push((at("issuer"), format!("{:?} is listed already", issuer.issuer)));
            }
        }
        wrong
    }
}

impl Typed for JwtPolicySpec {
    const FILTER: &'static str = "jwt";
    const PHASE: Phase = Phase::AuthN;

    fn frame(&self) -> Frame<'_> {
        let Self { target_refs, order, mode, on_failure, .. } = self;
        let direction = Direction::Inbound;
        Frame { targets: target_refs, direction, order: *order, mode: *mode, on_failure: *on_failure }
    }

    fn capabilities(&self) -> Vec<Capability> {
        let services: Vec<_> = self.services().into_values().collect();
        match services.is_empty() {
            true => vec![Capability::Crypto(None)],
            false => {
                let callout = Capability::Callout(CalloutSpec { services });
                vec![Capability::Crypto(None), Capability::Kv(Some(KEPT)), callout]
            }
        }
    }

    fn config(&self, _: &ObjectName) -> Value {
        let providers: Vec<_> = self.issuers.iter().map(IssuerSpec::config).collect();
        let mut config = json!({"providers": providers, "optional": self.optional, "remove": self.remove_token});
        if let Some(header) = &self.header {
            config["header"] = header.clone().into();
        }
        if let Some(ms) = self.leeway_ms {
            config["leeway_seconds"] = (ms / SECOND_MS).into();
        }
        if !self.claims.is_empty() {
            let claim = |it: &ClaimSpec| match &it.header {
                Some(header) => json!({"claim": it.claim, "header": header}),
                None => json!({"claim": it.claim}),
            };
            config["claims"] = self.claims.iter().map(claim).collect();
        }
        config
    }
}

#[cfg(test)]
mod tests;
