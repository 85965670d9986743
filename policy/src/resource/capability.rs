//! What a FilterPolicy lets its filter do: capabilities, some with parameters, and limits.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::ser::SerializeMap as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::secret::is_secret_key;
use super::value;
use crate::bundle::{
    FilterLimits, KvScope, MAX_BODY_BYTES, MAX_CALLOUT_SERVICES, MAX_FILTER_MEMORY_BYTES, MAX_KV_BYTES, MAX_KV_ENTRIES,
    MAX_SECRETS, OverBody,
};
use crate::text::did_you_mean;

/// Capabilities that a policy may grant; `log` and `metrics` are always there.
pub const CAPABILITIES: [&str; 8] = ["log", "metrics", "token-bucket", "kv", "callout", "secret", "crypto", "wasi"];
/// A call may not last longer.
const MAX_CALL_TIMEOUT_MS: u64 = 1000;
const MIN_KV_BYTES: u64 = 1 << 10;

/// One entry of `capabilities`: a word, or a mapping of the word to its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Capability {
    Log,
    Metrics,
    TokenBucket,
    /// `None`: the word alone, with the parameters' defaults.
    Kv(Option<KvSpec>),
    Callout(CalloutSpec),
    Secret(SecretRefs),
    /// `None`: the word alone, with no keys by name.
    Crypto(Option<CryptoSpec>),
    /// Clocks and randomness of WASI.
    Wasi,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct KvSpec {
    pub entries: u64,
    pub bytes: u64,
    pub scope: KvScope,
}

impl Default for KvSpec {
    fn default() -> Self {
        Self { entries: 10_000, bytes: 1 << 20, scope: KvScope::default() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CalloutSpec {
    pub services: Vec<CalloutRef>,
}

/// A service that the filter may send requests to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CalloutRef {
    #[serde(default, skip_serializing_if = "value::is_default")]
    pub kind: CalloutKind,
    #[serde(deserialize_with = "value::object_name")]
    pub name: String,
    /// The policy's own where absent.
    #[serde(default, deserialize_with = "value::label_option", skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    #[serde(deserialize_with = "value::port")]
    pub port: u16,
    /// The name that the filter calls it by; `name` where absent.
    #[serde(
        default,
        rename = "as",
        deserialize_with = "value::object_name_option",
        skip_serializing_if = "Option::is_none"
    )]
    pub alias: Option<String>,
}

impl CalloutRef {
    pub(crate) fn called(&self) -> &str {
        self.alias.as_ref().unwrap_or(&self.name)
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub enum CalloutKind {
    #[default]
    Service,
    /// The first of its hosts that is no pattern.
    ExternalService,
}

/// Values that the filter reads by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRefs {
    pub values: Vec<SecretRef>,
}

/// Values that the filter uses as keys by name, and is not told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CryptoSpec {
    pub keys: Vec<SecretRef>,
}

/// One value of a Secret of the policy's own namespace: nobody is handed what is another's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SecretRef {
    /// Of the Secret.
    #[serde(deserialize_with = "value::object_name")]
    pub name: String,
    /// Of the value in it.
    pub key: String,
    /// The name that the filter knows it by; `key` where absent.
    #[serde(default, rename = "as", skip_serializing_if = "Option::is_none")]
    pub alias: Option<String>,
}

impl SecretRef {
    pub(crate) fn called(&self) -> &str {
        self.alias.as_ref().unwrap_or(&self.key)
    }
}

impl Capability {
    /// The word that names it.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Metrics => "metrics",
            Self::TokenBucket => "token-bucket",
            Self::Kv(_) => "kv",
            Self::Callout(_) => "callout",
            Self::Secret(_) => "secret",
            Self::Crypto(_) => "crypto",
            Self::Wasi => "wasi",
        }
    }

    /// True for what every filter has.
    #[must_use]
    pub fn is_always_there(&self) -> bool {
        matches!(self, Self::Log | Self::Metrics)
    }

    /// The services that callouts may go to.
    #[must_use]
    pub fn callouts(&self) -> &[CalloutRef] {
        match self {
            Self::Callout(callout) => &callout.services,
            Self::Log
            | Self::Metrics
            | Self::TokenBucket
            | Self::Kv(_)
            | Self::Secret(_)
            | Self::Crypto(_)
            | Self::Wasi => &[],
        }
    }

    /// The values of Secrets that come with it, and the place of their list inside it.
    #[must_use]
    pub fn secrets(&self) -> (&'static str, &[SecretRef]) {
        match self {
            Self::Secret(secrets) => ("secret.values", secrets.values.as_slice()),
            Self::Crypto(Some(crypto)) => ("crypto.keys", crypto.keys.as_slice()),
            Self::Log
            | Self::Metrics
            | Self::TokenBucket
            | Self::Kv(_)
            | Self::Callout(_)
            | Self::Crypto(None)
            | Self::Wasi => ("", &[]),
        }
    }

    fn of_word<E: Error>(word: &str) -> Result<Self, E> {
        Ok(match word {
            "log" => Self::Log,
            "metrics" => Self::Metrics,
            "token-bucket" => Self::TokenBucket,
            "kv" => Self::Kv(None),
            "crypto" => Self::Crypto(None),
            "wasi" => Self::Wasi,
            "callout" => {
                return Err(E::custom(
                    "\"callout\" needs its services: {callout: {services: [{name: quota, port: 8080}]}}",
                ));
            }
            "secret" => {
                return Err(E::custom("\"secret\" needs its values: {secret: {values: [{name: SECRET, key: KEY}]}}"));
            }
            _ => return Err(unknown(word)),
        })
    }

    /// Keys of mistakes are inside the entry.
    fn check(&self) -> Vec<(String, String)> {
        match self {
            Self::Log | Self::Metrics | Self::TokenBucket | Self::Crypto(None) | Self::Wasi => Vec::new(),
            Self::Kv(kv) => kv.unwrap_or_default().check(),
            Self::Callout(callout) => callout.check(),
            Self::Secret(_) | Self::Crypto(Some(_)) => {
                let (at, secrets) = self.secrets();
                check_secrets(at, secrets)
            }
        }
    }
}

fn unknown<E: Error>(word: &str) -> E {
    let meant = did_you_mean(word, CAPABILITIES);
    E::custom(format_args!("{word:?} is not a capability: {}{meant}", CAPABILITIES.join(", ")))
}

impl KvSpec {
    fn check(self) -> Vec<(String, String)> {
        let bounds =
            [("kv.entries", self.entries, 1, MAX_KV_ENTRIES), ("kv.bytes", self.bytes, MIN_KV_BYTES, MAX_KV_BYTES)];
        out_of_range(&bounds).collect()
    }
}

impl CalloutSpec {
    fn check(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        if self.services.is_empty() {
            wrong.push(("callout.services".to_owned(), "is empty: no callout would be allowed".to_owned()));
        }
        if self.services.len() > MAX_CALLOUT_SERVICES {
            let message = format!("has {} services; at most {MAX_CALLOUT_SERVICES} are allowed", self.services.len());
            wrong.push(("callout.services".to_owned(), message));
        }
        let mut names = BTreeSet::new();
        for (index, service) in self.services.iter().enumerate() {
            if !names.insert(service.called()) {
                let message = format!("{:?} names several services; give each its own `as`", service.called());
                wrong.push((format!("callout.services[{index}]"), message));
            }
        }
        wrong
    }
}

fn check_secrets(at: &str, secrets: &[SecretRef]) -> Vec<(String, String)> {
    let mut wrong = Vec::new();
    if !(1..=MAX_SECRETS).contains(&secrets.len()) {
        wrong.push((at.to_owned(), format!("has {} entries; 1 to {MAX_SECRETS} are allowed", secrets.len())));
    }
    let mut names = BTreeSet::new();
    for (index, secret) in secrets.iter().enumerate() {
        for (field, name) in [("key", Some(&secret.key)), ("as", secret.alias.as_ref())] {
            if let Some(name) = name.filter(|name| !is_secret_key(name)) {
                let message = format!("{name:?} is no name: letters, digits, '-', '_' and '.', at most 253");
                wrong.push((format!("{at}[{index}].{field}"), message));
            }
        }
        if !names.insert(secret.called()) {
            let message = format!("{:?} names several values; give each its own `as`", secret.called());
            wrong.push((format!("{at}[{index}]"), message));
        }
    }
    wrong
}

/// Checks each entry, and that no capability is granted twice; keys are inside `spec`.
pub(super) fn check_all(capabilities: &[Capability]) -> Vec<(String, String)> {
    let (mut wrong, mut words) = (Vec::new(), BTreeSet::new());
    for (index, capability) in capabilities.iter().enumerate() {
        let at = format!("capabilities[{index}]");
        // Words alone may be repeated: two of a kind with parameters would not say which hold.
        let has_parameters = match capability {
            Capability::Kv(_) | Capability::Callout(_) | Capability::Secret(_) | Capability::Crypto(Some(_)) => true,
            Capability::Log
            | Capability::Metrics
            | Capability::TokenBucket
            | Capability::Crypto(None)
            | Capability::Wasi => false,
        };
        if !words.insert(capability.word()) && has_parameters {
            wrong.push((at.clone(), format!("\"{}\" is granted twice", capability.word())));
        }
        wrong.extend(capability.check().into_iter().map(|(key, message)| (format!("{at}.{key}"), message)));
    }
    wrong
}

type Bound<'a> = (&'a str, u64, u64, u64);

fn out_of_range(bounds: &[Bound<'_>]) -> impl Iterator<Item = (String, String)> {
    let wrong = bounds.iter().filter(|(_, value, least, most)| !(least..=most).contains(&value));
    wrong.map(|(key, value, least, most)| ((*key).to_owned(), format!("{value} is out of range: {least} to {most}")))
}

impl<'de> Deserialize<'de> for Capability {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AsCapability)
    }
}

struct AsCapability;

impl<'de> Visitor<'de> for AsCapability {
    type Value = Capability;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a capability, or a mapping of one to its parameters")
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<Capability, E> {
        Capability::of_word(word)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Capability, A::Error> {
        let Some(word) = map.next_key::<String>()? else {
            return Err(A::Error::custom("is empty: a capability is wanted"));
        };
        let capability = match word.as_str() {
            "kv" => Capability::Kv(Some(map.next_value()?)),
            "callout" => Capability::Callout(map.next_value()?),
            "secret" => Capability::Secret(map.next_value()?),
            "crypto" => Capability::Crypto(Some(map.next_value()?)),
            "log" | "metrics" | "token-bucket" | "wasi" => {
                return Err(A::Error::custom(format_args!("{word:?} has no parameters; write the word alone")));
            }
            _ => return Err(unknown(&word)),
        };
        match map.next_key::<IgnoredAny>()? {
            None => Ok(capability),
            Some(IgnoredAny) => Err(A::Error::custom("has several capabilities; each is an entry of its own")),
        }
    }
}

impl Serialize for Capability {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        fn with<S: Serializer>(serializer: S, word: &str, parameters: &impl Serialize) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(1))?;
            map.serialize_entry(word, parameters)?;
            map.end()
        }
        match self {
            Self::Log | Self::Metrics | Self::TokenBucket | Self::Crypto(None) | Self::Wasi | Self::Kv(None) => {
                serializer.serialize_str(self.word())
            }
            Self::Kv(Some(kv)) => with(serializer, self.word(), kv),
            Self::Callout(callout) => with(serializer, self.word(), callout),
            Self::Secret(secrets) => with(serializer, self.word(), secrets),
            Self::Crypto(Some(crypto)) => with(serializer, self.word(), crypto),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct LimitsSpec {
    pub memory_bytes: u64,
    pub call_timeout_ms: u64,
    /// The longest body that is gathered for the filter, bytes.
    #[serde(skip_serializing_if = "is_default_body")]
    pub body_bytes: u64,
    #[serde(skip_serializing_if = "value::is_default")]
    pub over_body: OverBody,
}

impl Default for LimitsSpec {
    fn default() -> Self {
        let FilterLimits { memory_bytes, call_timeout_ms, body_bytes, over_body } = FilterLimits::default();
        Self { memory_bytes, call_timeout_ms, body_bytes, over_body }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_default_body(bytes: &u64) -> bool {
    *bytes == FilterLimits::default().body_bytes
}

impl LimitsSpec {
    /// Keys are inside `spec`.
    pub(super) fn check(&self) -> Vec<(String, String)> {
        let bounds = [
            ("limits.memoryBytes", self.memory_bytes, 1 << 16, MAX_FILTER_MEMORY_BYTES),
            ("limits.callTimeoutMs", self.call_timeout_ms, 1, MAX_CALL_TIMEOUT_MS),
            ("limits.bodyBytes", self.body_bytes, 1, MAX_BODY_BYTES),
        ];
        out_of_range(&bounds).collect()
    }
}
