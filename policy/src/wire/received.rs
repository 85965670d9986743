//! A delta as a proxy takes it: whole, or refused with the object at fault.

use super::object::{Opened, open};
use super::v1;
use crate::bundle::Revision;
use crate::delta::{Delta, Key, Versions};
use crate::scope::Ask;

/// Version of an object that no sender has numbered.
const NO_VERSION: u64 = 0;

/// A delta that can be applied.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Received {
    pub delta: Delta,
    /// Versions of the objects that it brings, as their sender numbers them.
    pub versions: Versions,
    /// Objects of kinds that this version does not know.
    pub skipped: Vec<v1::Key>,
}

/// Why nothing of a delta is taken.
#[derive(Debug, Clone, PartialEq)]
pub struct Refused {
    /// The object at fault, in its sender's words; `None`: the message as a whole.
    pub key: Option<v1::Key>,
    pub reason: String,
}

impl Refused {
    pub(super) fn whole(reason: impl Into<String>) -> Self {
        Self { key: None, reason: reason.into() }
    }

    pub(super) fn object(key: v1::Key, reason: impl Into<String>) -> Self {
        Self { key: Some(key), reason: reason.into() }
    }
}

impl TryFrom<v1::Delta> for Received {
    type Error = Refused;

    fn try_from(message: v1::Delta) -> Result<Self, Refused> {
        if message.subtractive && (message.full || !message.upserts.is_empty() || !message.answered.is_empty()) {
            return Err(Refused::whole("a subtractive delta only removes"));
        }
        if message.ahead && (message.full || message.subtractive || !message.removals.is_empty()) {
            return Err(Refused::whole("answers ahead only add"));
        }
        let mut received = Self {
            delta: Delta {
                revision: Revision(message.revision),
                subtractive: message.subtractive,
                ahead: message.ahead,
                full: message.full,
                ..Delta::default()
            },
            ..Self::default()
        };
        for envelope in message.upserts {
            match open(envelope)? {
                Opened::Object { key, .. } if message.ahead && !matches!(key, Key::Service(_) | Key::Route(_)) => {
                    return Err(Refused::object((&key).into(), "answers ahead are services and routes"));
                }
                Opened::Object { key, object, version } => {
                    if received.versions.insert(key.clone(), version).is_some() {
                        return Err(Refused::whole(format!("{key} comes twice")));
                    }
                    received.delta.upserts.push(*object);
                }
                Opened::Unknown(key) => received.skipped.push(key),
            }
        }
        for ask in message.answered {
            let ask = Ask::try_from(ask).map_err(|error| Refused::whole(format!("answered: {error}")))?;
            received.delta.answered.insert(ask);
        }
        for key in message.removals {
            // One of a kind that is not known was never held.
            if v1::Kind::try_from(key.kind).is_ok() {
                let removed = Key::try_from(key.clone());
                received.delta.removals.push(removed.map_err(|error| Refused::object(key, error.to_string()))?);
            }
        }
        Ok(received)
    }
}

impl Received {
    /// Brings the versions that a proxy holds in step with what it holds. A service that lost an endpoint is none that
    /// anybody has numbered: it stays known, under no version.
    pub fn note(&self, versions: &mut Versions) {
        if self.delta.full {
            versions.clear();
        }
        for key in &self.delta.removals {
            match key {
                Key::Endpoint { service, .. } => {
                    if let Some(version) = versions.get_mut(&Key::Service(service.clone())) {
                        *version = NO_VERSION;
                    }
                }
                Key::Mesh | Key::Workload(_) | Key::Service(_) | Key::Route(_) | Key::External(_) | Key::Filter(_) => {
                    versions.remove(key);
                }
            }
        }
        versions.extend(self.versions.iter().map(|(key, version)| (key.clone(), *version)));
    }
}
