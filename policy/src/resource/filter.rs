//! `Filter` (a published binary) and `FilterPolicy` (where it runs and with what configuration).

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use super::value::{self, NotYet};
use super::{ROOT_NAMESPACE, TargetRef};
use crate::bundle::{Direction, FilterLimits, ObjectName, OnFailure};
use crate::identity::is_label;

/// Capabilities that a filter may ask for and a policy may grant; `log` and `metrics` are always there.
pub const CAPABILITIES: [&str; 3] = ["log", "metrics", "token-bucket"];
/// More memory than this is not given to any filter.
const MAX_MEMORY_BYTES: u64 = 256 << 20;
/// A call may not last longer.
const MAX_CALL_TIMEOUT_MS: u64 = 1000;

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
    let hex = text.strip_prefix("sha256:").unwrap_or_default();
    if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)) {
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
    #[serde(default, skip_serializing)]
    pub phase: NotYet,
    /// Smaller runs earlier; equals by name.
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
    #[serde(default, deserialize_with = "capabilities", skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
    #[serde(default)]
    pub limits: LimitsSpec,
}

fn inbound() -> Direction {
    Direction::Inbound
}

fn deny() -> OnFailure {
    OnFailure::Deny
}

fn empty_object() -> serde_json::Value {
    serde_json::Value::Object(serde_json::Map::new())
}

fn capabilities<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    struct One(#[serde(deserialize_with = "capability")] String);
    Ok(Vec::<One>::deserialize(deserializer)?.into_iter().map(|one| one.0).collect())
}

fn capability<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let name = String::deserialize(deserializer)?;
    if CAPABILITIES.contains(&name.as_str()) {
        return Ok(name);
    }
    let meant = crate::text::did_you_mean(&name, CAPABILITIES);
    Err(D::Error::custom(format_args!("{name:?} is not a capability: {}{meant}", CAPABILITIES.join(", "))))
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitsSpec {
    pub memory_bytes: u64,
    pub call_timeout_ms: u64,
}

impl Default for LimitsSpec {
    fn default() -> Self {
        let FilterLimits { memory_bytes, call_timeout_ms } = FilterLimits::default();
        Self { memory_bytes, call_timeout_ms }
    }
}

impl FilterPolicySpec {
    pub(crate) fn check(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        let LimitsSpec { memory_bytes, call_timeout_ms } = self.limits;
        let limits = [
            ("memoryBytes", memory_bytes, 1 << 16, MAX_MEMORY_BYTES),
            ("callTimeoutMs", call_timeout_ms, 1, MAX_CALL_TIMEOUT_MS),
        ];
        for (key, value, least, most) in limits {
            if !(least..=most).contains(&value) {
                wrong.push((format!("limits.{key}"), format!("{value} is out of range: {least} to {most}")));
            }
        }
        if let Err((key, message)) = self.filter.wanted() {
            wrong.push((format!("filter.{key}"), message));
        }
        if self.filter.name == "authz" && self.filter.namespace == ROOT_NAMESPACE {
            let message = "the authz filter is attached by AccessPolicy, not by FilterPolicy".to_owned();
            wrong.push(("filter.name".to_owned(), message));
        }
        wrong
    }
}
