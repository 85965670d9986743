//! The manifests' types, in Kubernetes shape, strict: what isn't known is refused, what can't be meant doesn't parse.
//! `Resource::check` says whether one is fit in itself, whoever made it; whether what it refers to exists is `plan`'s
//! question.

pub mod access;
mod check;
pub mod core;
pub mod filter;
pub mod mesh;
pub mod route;
mod value;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::Error as _;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::bundle::ObjectName;
pub use access::AccessPolicySpec;
pub(crate) use check::wrong_labels;
pub use core::{NamespaceSpec, ServiceSpec};
pub use filter::{FilterPolicySpec, FilterSpec};
pub use mesh::{MeshSpec, WorkloadSpec};
pub use route::HttpRouteSpec;
pub use value::{NotYet, duration_text};

/// Namespace in which policies without targets hold for the whole mesh, and in which the shipped filters live.
pub const ROOT_NAMESPACE: &str = "weft-system";
/// The namespace of a namespaced object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

/// The kinds that this version knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Kind {
    Namespace,
    Mesh,
    Service,
    Workload,
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    Filter,
    FilterPolicy,
    AccessPolicy,
}

impl Kind {
    /// In the order in which they are best applied and listed.
    pub const ALL: [Self; 8] = [
        Self::Namespace,
        Self::Mesh,
        Self::Service,
        Self::Workload,
        Self::HttpRoute,
        Self::Filter,
        Self::FilterPolicy,
        Self::AccessPolicy,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Namespace => "Namespace",
            Self::Mesh => "Mesh",
            Self::Service => "Service",
            Self::Workload => "Workload",
            Self::HttpRoute => "HTTPRoute",
            Self::Filter => "Filter",
            Self::FilterPolicy => "FilterPolicy",
            Self::AccessPolicy => "AccessPolicy",
        }
    }

    pub fn api_version(self) -> &'static str {
        match self {
            Self::Namespace | Self::Service => "v1",
            Self::HttpRoute => "gateway.networking.k8s.io/v1",
            Self::Mesh | Self::Workload | Self::Filter | Self::FilterPolicy | Self::AccessPolicy => "weft.dev/v1alpha1",
        }
    }

    /// True for the versions whose manifests are read: those that differ from the own one in nothing.
    pub(crate) fn is_read_as(self, version: &str) -> bool {
        version == self.api_version() || self == Self::HttpRoute && version == "gateway.networking.k8s.io/v1beta1"
    }

    /// As in URLs and on the command line.
    pub fn plural(self) -> &'static str {
        match self {
            Self::Namespace => "namespaces",
            Self::Mesh => "meshes",
            Self::Service => "services",
            Self::Workload => "workloads",
            Self::HttpRoute => "httproutes",
            Self::Filter => "filters",
            Self::FilterPolicy => "filterpolicies",
            Self::AccessPolicy => "accesspolicies",
        }
    }

    /// Short forms for the command line.
    pub fn aliases(self) -> &'static [&'static str] {
        match self {
            Self::Namespace => &["ns"],
            Self::Mesh => &[],
            Self::Service => &["svc"],
            Self::Workload => &["wl"],
            Self::HttpRoute => &["route", "routes"],
            Self::Filter => &[],
            Self::FilterPolicy => &["fp"],
            Self::AccessPolicy => &["ap"],
        }
    }

    pub fn is_namespaced(self) -> bool {
        !matches!(self, Self::Namespace | Self::Mesh)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Not the name of a kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("kind {0:?} is not known{meant}; known are {known}", meant = did_you_mean(.0), known = Kind::ALL.map(Kind::as_str).join(", "))]
pub struct KindError(String);

fn did_you_mean(name: &str) -> String {
    let plurals = Kind::ALL.iter().map(|kind| kind.plural());
    crate::text::did_you_mean(name, Kind::ALL.iter().map(|kind| kind.as_str()).chain(plurals))
}

impl FromStr for Kind {
    type Err = KindError;

    /// Any of its names, in any case.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let lower = text.to_ascii_lowercase();
        let is = |kind: &Self| {
            kind.as_str().eq_ignore_ascii_case(text)
                || kind.plural() == lower
                || kind.aliases().contains(&lower.as_str())
        };
        Self::ALL.into_iter().find(is).ok_or_else(|| KindError(text.to_owned()))
    }
}

/// The address of an object. The namespace of cluster-scoped kinds is empty.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ObjectKey {
    pub kind: Kind,
    pub namespace: String,
    pub name: String,
}

impl ObjectKey {
    pub fn new(kind: Kind, namespace: &str, name: &str) -> Self {
        let namespace = if kind.is_namespaced() { namespace.to_owned() } else { String::new() };
        Self { kind, namespace, name: name.to_owned() }
    }

    pub fn object_name(&self) -> ObjectName {
        ObjectName::new(self.namespace.clone(), self.name.clone())
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.namespace.is_empty() {
            write!(f, "{} {}", self.kind, self.name)
        } else {
            write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
        }
    }
}

/// Something that an object asks for, that is a field of the standard, and that nothing here acts on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unserved {
    /// Inside `spec`.
    pub key: String,
    pub message: String,
}

/// Metadata that every object has. Fields by which a cluster keeps its books are read past.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    pub name: String,
    /// Empty for cluster-scoped kinds.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An object of one kind.
#[derive(Debug, Clone, PartialEq)]
pub struct Object<S> {
    pub metadata: Metadata,
    pub spec: S,
}

impl<S> Object<S> {
    pub fn name(&self) -> ObjectName {
        ObjectName::new(self.metadata.namespace.clone(), self.metadata.name.clone())
    }
}

/// An object of any kind. In serde it is the whole manifest: `apiVersion`, `kind`, `metadata`, `spec`.
#[derive(Debug, Clone, PartialEq)]
pub enum Resource {
    Namespace(Object<NamespaceSpec>),
    Mesh(Object<MeshSpec>),
    Service(Object<ServiceSpec>),
    Workload(Object<WorkloadSpec>),
    HttpRoute(Object<HttpRouteSpec>),
    Filter(Object<FilterSpec>),
    FilterPolicy(Object<FilterPolicySpec>),
    AccessPolicy(Object<AccessPolicySpec>),
}

/// Runs `$body` with `$object` bound to the inner `Object<_>`, whatever the kind.
macro_rules! each_kind {
    ($resource:expr, $object:ident => $body:expr) => {
        match $resource {
            Resource::Namespace($object) => $body,
            Resource::Mesh($object) => $body,
            Resource::Service($object) => $body,
            Resource::Workload($object) => $body,
            Resource::HttpRoute($object) => $body,
            Resource::Filter($object) => $body,
            Resource::FilterPolicy($object) => $body,
            Resource::AccessPolicy($object) => $body,
        }
    };
}

impl Resource {
    pub fn kind(&self) -> Kind {
        match self {
            Self::Namespace(_) => Kind::Namespace,
            Self::Mesh(_) => Kind::Mesh,
            Self::Service(_) => Kind::Service,
            Self::Workload(_) => Kind::Workload,
            Self::HttpRoute(_) => Kind::HttpRoute,
            Self::Filter(_) => Kind::Filter,
            Self::FilterPolicy(_) => Kind::FilterPolicy,
            Self::AccessPolicy(_) => Kind::AccessPolicy,
        }
    }

    pub fn metadata(&self) -> &Metadata {
        each_kind!(self, object => &object.metadata)
    }

    pub fn metadata_mut(&mut self) -> &mut Metadata {
        each_kind!(self, object => &mut object.metadata)
    }

    pub fn key(&self) -> ObjectKey {
        let metadata = self.metadata();
        ObjectKey::new(self.kind(), &metadata.namespace, &metadata.name)
    }
}

impl Serialize for Resource {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = self.kind();
        let mut out = serializer.serialize_struct("Resource", 4)?;
        out.serialize_field("apiVersion", kind.api_version())?;
        out.serialize_field("kind", kind.as_str())?;
        out.serialize_field("metadata", self.metadata())?;
        each_kind!(self, object => out.serialize_field("spec", &object.spec))?;
        out.end()
    }
}

/// As a store has it: what was taken once is read again, also where it would be refused today.
impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let json = serde_json::Value::deserialize(deserializer)?;
        crate::manifest::unchecked(json)
            .map_err(|wrong| D::Error::custom(format_args!("{}: {}", wrong.key, wrong.message)))
    }
}

/// Object that a policy holds for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetRef {
    #[serde(default, deserialize_with = "value::target_group", skip_serializing_if = "String::is_empty")]
    pub group: String,
    pub kind: TargetKind,
    #[serde(deserialize_with = "value::object_name")]
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetKind {
    /// The workloads that the service selects.
    Service,
    Workload,
    Namespace,
}
