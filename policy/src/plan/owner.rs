//! Where the objects of a world come from. A world is the union of its layers: what was applied, what proxies registered,
//! and what further sources bring. Each object is of one layer, and only its owner changes it; the planner does not ask.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::identity::SpiffeId;
use crate::resource::ObjectKey;

/// A proxy is its name and the identity that its certificate proves: nobody can take over another's place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ProxyKey {
    pub name: String,
    pub identity: SpiffeId,
}

impl fmt::Display for ProxyKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.identity)
    }
}

/// The one who may change an object.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Owner {
    /// People and what acts for them, by the operator API; the control plane itself among them.
    #[default]
    Applied,
    /// The proxy that registered it, with whose session it lives.
    Proxy(ProxyKey),
    /// Stands in tests for a source that is still to come.
    #[cfg(test)]
    Elsewhere,
}

impl Owner {
    pub(super) fn is_applied(&self) -> bool {
        *self == Self::Applied
    }

    pub fn proxy(&self) -> Option<&ProxyKey> {
        match self {
            Self::Applied => None,
            #[cfg(test)]
            Self::Elsewhere => None,
            Self::Proxy(proxy) => Some(proxy),
        }
    }
}

/// An object is another's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key} {}", says(.owner))]
pub struct Owned {
    pub key: ObjectKey,
    pub owner: Box<Owner>,
}

fn says(owner: &Owner) -> String {
    match owner {
        Owner::Applied => "was applied, and is changed by applying it".to_owned(),
        #[cfg(test)]
        Owner::Elsewhere => "is brought from elsewhere".to_owned(),
        Owner::Proxy(proxy) => format!("lives with the proxy {proxy} and goes when it goes"),
    }
}
