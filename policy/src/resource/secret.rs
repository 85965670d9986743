//! `Secret`: values that filters of its namespace are handed by name. What is printed of one says how long each value
//! is and little more; it can't be applied again in the values' place.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256};

use super::{Object, Resource};
use crate::secret::{MAX_SECRET_BYTES, SecretBytes, Unspoken, UnspokenText, unspoken_mapping};

/// Values of one Secret.
const MAX_VALUES: usize = 64;
/// Bytes of all values of one Secret.
const MAX_BYTES: usize = 256 << 10;
/// Bytes of the name of a value.
const MAX_KEY: usize = 253;
/// Bytes of the shortest value of which a part of the hash is shown: what is shorter may be found among all that it
/// could be.
const LEAST_HASHED: usize = 16;
/// How what is shown of a value begins; no base64 does.
const SHOWN: &str = "redacted (";
/// How a value begins that the store keeps encrypted.
const SEALED: &str = "sealed:";

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct SecretSpec {
    /// Values by their names, in base64.
    pub data: BTreeMap<String, SecretValue>,
}

/// As people write it: some values as they are, which win.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Written {
    #[serde(default)]
    data: Unspoken<SecretValue>,
    #[serde(default)]
    string_data: Unspoken<UnspokenText>,
}

/// No error shows what stands in the place of a spec: it may be a value that was put there by mistake.
impl<'de> Deserialize<'de> for SecretSpec {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        unspoken_mapping::<Written, D>(deserializer, "a mapping with `data` or `stringData`").map(Self::from)
    }
}

impl From<Written> for SecretSpec {
    fn from(Written { data: Unspoken(mut data), string_data: Unspoken(string_data) }: Written) -> Self {
        let plain = |UnspokenText(text): UnspokenText| SecretValue::Known(SecretBytes::new(text.as_bytes()));
        data.extend(string_data.into_iter().map(|(key, text)| (key, plain(text))));
        Self { data }
    }
}

/// One value.
#[derive(Clone, PartialEq, Eq)]
pub enum SecretValue {
    Known(SecretBytes),
    /// In its place stands what a control plane shows of it, or what can't be opened. No filter is handed that.
    Unknown(String),
}

impl SecretValue {
    #[must_use]
    pub fn known(&self) -> Option<&SecretBytes> {
        match self {
            Self::Known(bytes) => Some(bytes),
            Self::Unknown(_) => None,
        }
    }

    /// The text that the store keeps encrypted, where it could not be opened yet.
    #[must_use]
    pub fn sealed(&self) -> Option<&str> {
        match self {
            Self::Known(_) => None,
            Self::Unknown(text) => text.strip_prefix(SEALED),
        }
    }
}

/// Its length and, unless it is short, 16 bits of its hash: enough to see that it has changed, too few to find it by.
impl fmt::Display for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(bytes) if bytes.len() < LEAST_HASHED => write!(f, "{SHOWN}{} bytes)", bytes.len()),
            Self::Known(bytes) => {
                let hash = Sha256::digest(bytes.reveal());
                write!(f, "{SHOWN}{} bytes, sha256 {:02x}{:02x}..)", bytes.len(), hash[0], hash[1])
            }
            Self::Unknown(text) if text.starts_with(SHOWN) => f.write_str(text),
            Self::Unknown(_) => f.write_str("redacted (it can't be opened)"),
        }
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for SecretValue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for SecretValue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        /// What is shown of a value, or sealed of the longest, has no more characters.
        const MOST: usize = MAX_SECRET_BYTES * 2;
        let UnspokenText(text) = UnspokenText::deserialize(deserializer)?;
        if text.len() <= MOST && (text.starts_with(SHOWN) || text.starts_with(SEALED)) {
            return Ok(Self::Unknown(text));
        }
        SecretBytes::of_base64(&text).map(Self::Known).ok_or_else(|| {
            D::Error::custom(format_args!(
                "is not the base64 of a value of 1 to {MAX_SECRET_BYTES} bytes; values as they are stand in `stringData`"
            ))
        })
    }
}

/// True for the name of a value: letters, digits, `-`, `_` and `.`, at most 253.
#[must_use]
pub fn is_secret_key(key: &str) -> bool {
    let is_fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=MAX_KEY).contains(&key.len()) && key.bytes().all(is_fit)
}

impl SecretSpec {
    /// Bytes of all values.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.data.values().filter_map(SecretValue::known).map(SecretBytes::len).sum()
    }

    /// True where the store keeps a value encrypted that could not be opened.
    #[must_use]
    pub fn is_sealed(&self) -> bool {
        self.data.values().any(|value| value.sealed().is_some())
    }

    /// Keys are inside `spec`.
    pub(super) fn check(&self) -> Vec<(String, String)> {
        let mut wrong = Vec::new();
        for (key, value) in &self.data {
            let mut refuse = |message: String| wrong.push((format!("data.{}", crate::text::printable(key)), message));
            if !is_secret_key(key) {
                refuse(format!("is no name of a value: letters, digits, '-', '_' and '.', at most {MAX_KEY}"));
            }
            match value {
                SecretValue::Known(bytes) if !(1..=MAX_SECRET_BYTES).contains(&bytes.len()) => {
                    refuse(format!("{} bytes; a value has 1 to {MAX_SECRET_BYTES}", bytes.len()));
                }
                SecretValue::Known(_) => {}
                SecretValue::Unknown(_) => {
                    let message = "is what is shown of a value, not the value, which nobody is told again: leave the \
                                   Secret out, or write the value";
                    refuse(message.to_owned());
                }
            }
        }
        let (count, bytes) = (self.data.len(), self.bytes());
        if count == 0 || count > MAX_VALUES {
            wrong.push(("data".to_owned(), format!("{count} values; a Secret has 1 to {MAX_VALUES}")));
        }
        if bytes > MAX_BYTES {
            wrong.push(("data".to_owned(), format!("{bytes} bytes in all; at most {MAX_BYTES} are taken")));
        }
        wrong
    }
}

impl Resource {
    /// The manifest with the values of a Secret, which it lacks wherever else it is written: for the store, and for the
    /// way to a control plane.
    ///
    /// # Errors
    /// Never: a manifest has string keys.
    pub fn revealed(&self) -> Result<serde_json::Value, serde_json::Error> {
        let mut manifest = serde_json::to_value(self)?;
        if let Self::Secret(secret) = self {
            secret.reveal_into(&mut manifest["spec"]);
        }
        Ok(manifest)
    }
}

impl Object<SecretSpec> {
    /// Puts the values into its spec as it is serialised.
    pub fn reveal_into(&self, spec: &mut serde_json::Value) {
        for (key, value) in &self.spec.data {
            let text = match value {
                SecretValue::Known(bytes) => bytes.to_base64(),
                SecretValue::Unknown(text) => text.clone(),
            };
            spec["data"][key] = text.into();
        }
    }
}

/// A value as the store keeps it where it has a key to encrypt by.
#[must_use]
pub fn sealed(inside: &str) -> String {
    let mut text = SEALED.to_owned();
    text.push_str(inside);
    text
}

#[cfg(test)]
mod tests;
