//! `ReferenceGrant` of Gateway API: a namespace permits that objects of others refer to its own. Written by whoever may write
//! in the namespace that is referred to, and believed there only.

use serde::{Deserialize, Serialize};

use super::route::{EXTERNAL_GROUP, Place};
use super::value;

/// The group of routes.
pub(crate) const GATEWAY: &str = "gateway.networking.k8s.io";
/// Limits of the standard.
const MAX_ENTRIES: usize = 16;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReferenceGrantSpec {
    /// Who may refer: any of these.
    pub from: Vec<GrantFrom>,
    /// To what: any of these, of the grant's own namespace.
    pub to: Vec<GrantTo>,
}

/// Objects of one kind in one namespace.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantFrom {
    #[serde(deserialize_with = "value::api_group")]
    pub group: String,
    #[serde(deserialize_with = "value::kind_name")]
    pub kind: String,
    #[serde(deserialize_with = "value::label")]
    pub namespace: String,
}

/// Objects of one kind, or one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantTo {
    #[serde(deserialize_with = "value::api_group")]
    pub group: String,
    #[serde(deserialize_with = "value::kind_name")]
    pub kind: String,
    /// Absent: all of them.
    #[serde(default, deserialize_with = "value::object_name_option", skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

impl ReferenceGrantSpec {
    /// Limits of the standard.
    pub(crate) fn check(&self) -> Vec<(String, String)> {
        [("from", self.from.len()), ("to", self.to.len())]
            .into_iter()
            .filter_map(|(key, count)| {
                let message = match count {
                    0 => "is empty: it would permit nothing".to_owned(),
                    count if count > MAX_ENTRIES => format!("has {count} entries; at most {MAX_ENTRIES} are allowed"),
                    _ => return None,
                };
                Some((key.to_owned(), message))
            })
            .collect()
    }

    /// True where it is about routes of this kind and namespace.
    pub(crate) fn is_for(&self, kind: &str, namespace: &str) -> bool {
        self.from.iter().any(|from| from.is(kind, namespace))
    }

    /// True where they may lead to this Service or ExternalService of the grant's namespace.
    pub(crate) fn leads_to(&self, place: Place, name: &str) -> bool {
        self.to.iter().any(|to| match place {
            Place::Service => to.is_service(name),
            Place::External => to.is_external(name),
        })
    }
}

impl GrantFrom {
    fn is(&self, kind: &str, namespace: &str) -> bool {
        self.group == GATEWAY && self.kind == kind && self.namespace == namespace
    }
}

impl GrantTo {
    /// True where it is about Services, and about this one.
    pub fn is_service(&self, name: &str) -> bool {
        let is_of_services = matches!(self.group.as_str(), "" | "core") && self.kind == "Service";
        is_of_services && self.is_this(name)
    }

    /// The same of ExternalServices.
    fn is_external(&self, name: &str) -> bool {
        self.group == EXTERNAL_GROUP && self.kind == "ExternalService" && self.is_this(name)
    }

    fn is_this(&self, name: &str) -> bool {
        self.name.as_ref().is_none_or(|own| own == name)
    }
}
