//! The manifests' types, in Kubernetes shape, strict: what isn't known is refused, what can't be meant doesn't parse.
//! `Resource::check` says whether one is fit in itself, whoever made it; whether what it refers to exists is `plan`'s
//! question.

pub mod access;
mod attaching;
pub mod capability;
mod check;
pub mod core;
pub mod external;
pub mod fault;
pub mod filter;
pub mod grant;
pub mod health;
pub mod hedge;
pub mod jwt;
mod kind;
pub mod mesh;
pub mod publisher;
pub mod ratelimit;
pub mod retry;
pub mod route;
pub mod secret;
pub mod spread;
pub mod template;
pub mod traffic;
mod value;

use std::collections::BTreeMap;
use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::bundle::{ObjectName, RouteKind};
use crate::identity::is_label;
pub use access::AccessPolicySpec;
pub use attaching::{Attaching, Holding, attachment_name, policy_of_attachment};
pub use check::wrong_labels;
pub use core::{NamespaceSpec, ServiceSpec};
pub use external::ExternalServiceSpec;
pub use fault::FaultPolicySpec;
pub use filter::{FilterPolicySpec, FilterSpec};
pub use grant::ReferenceGrantSpec;
pub use jwt::JwtPolicySpec;
pub(crate) use kind::SpecReader;
pub use kind::{Kind, KindError, Resource, Spec};
pub use mesh::{MeshSpec, WorkloadSpec};
pub use publisher::FilterPublisherSpec;
pub use ratelimit::RateLimitPolicySpec;
pub use route::{AnyRoute, GrpcRouteSpec, HttpRouteSpec, TcpRouteSpec, TlsRouteSpec};
pub use secret::{SecretSpec, SecretValue};
pub use template::PolicyTemplateSpec;
pub use traffic::TrafficPolicySpec;
pub use value::duration_text;

/// Namespace in which policies without targets hold for the whole mesh, and in which the shipped filters live.
pub const ROOT_NAMESPACE: &str = "weft-system";
/// The namespace of a namespaced object that names none.
pub const DEFAULT_NAMESPACE: &str = "default";

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

/// The annotation of a Namespace or a Workload with the services that its apps use, NAME or NAME.NAMESPACE apart by commas: the
/// proxies hold them before anybody asks.
pub const USES: &str = "weft.dev/uses";

impl Metadata {
    /// The services that its annotation lists, for apps of this namespace; what is no name is passed over.
    pub(crate) fn uses(&self, own: &str) -> impl Iterator<Item = ObjectName> {
        self.listed_uses().filter_map(move |text| used_service(text, own))
    }

    fn listed_uses(&self) -> impl Iterator<Item = &str> {
        let listed = self.annotations.get(USES).map(|text| text.split(',')).into_iter().flatten();
        listed.map(str::trim).filter(|text| !text.is_empty())
    }
}

/// NAME or NAME.NAMESPACE, as an app of the namespace `own` means it.
pub fn used_service(text: &str, own: &str) -> Option<ObjectName> {
    let (name, namespace) = text.split_once('.').unwrap_or((text, own));
    (is_label(name) && is_label(namespace)).then(|| ObjectName::new(namespace, name))
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

impl Resource {
    pub fn key(&self) -> ObjectKey {
        let metadata = self.metadata();
        ObjectKey::new(self.kind(), &metadata.namespace, &metadata.name)
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
    /// Of a route: its rule of this name. Absent: all of its rules.
    #[serde(default, deserialize_with = "value::label_option", skip_serializing_if = "Option::is_none")]
    pub section_name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum TargetKind {
    /// The workloads that the service selects.
    Service,
    /// Names outside, for what is set of them.
    ExternalService,
    Workload,
    Namespace,
    /// Every service, for what is set of services. A policy for all workloads has no target.
    Mesh,
    /// The requests that take a rule of a route, at callers of its namespace: for what filters do on the way out.
    #[serde(rename = "HTTPRoute")]
    HttpRoute,
    #[serde(rename = "GRPCRoute")]
    GrpcRoute,
}

impl TargetKind {
    /// The route that it is one of.
    pub fn route(self) -> Option<(Kind, RouteKind)> {
        match self {
            Self::HttpRoute => Some((Kind::HttpRoute, RouteKind::Http)),
            Self::GrpcRoute => Some((Kind::GrpcRoute, RouteKind::Grpc)),
            Self::Service | Self::Workload | Self::Namespace | Self::Mesh | Self::ExternalService => None,
        }
    }
}
