//! The kinds, each declared once: its names, its scope and the type of its spec. Everything that is the same for all kinds
//! follows from the declaration at the end; a further kind is a line there and a check in `check`.

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::ser::SerializeStruct as _;
use serde::{Deserialize, Serialize, Serializer};

use super::{
    AccessPolicySpec, ExternalServiceSpec, FaultPolicySpec, FilterPolicySpec, FilterPublisherSpec, FilterSpec,
    GrpcRouteSpec, HttpRouteSpec, JwtPolicySpec, MeshSpec, Metadata, NamespaceSpec, Object, PolicyTemplateSpec,
    RateLimitPolicySpec, ReferenceGrantSpec, SecretSpec, ServiceSpec, TcpRouteSpec, TlsRouteSpec, TrafficPolicySpec,
    WorkloadSpec,
};

/// Whether an object is one of a namespace or of the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Namespace,
    Mesh,
}

/// The names and the scope of a kind.
struct Declaration {
    /// As manifests write it.
    name: &'static str,
    api_version: &'static str,
    /// Versions that differ from the own one in nothing.
    also_read: &'static [&'static str],
    /// As in URLs and on the command line.
    plural: &'static str,
    /// Short forms for the command line.
    aliases: &'static [&'static str],
    scope: Scope,
    /// The spec may be missing.
    is_spec_optional: bool,
}

/// The spec of one kind: the way between an object and the resource that holds it.
pub trait Spec: Serialize + DeserializeOwned + Sized + 'static {
    const KIND: Kind;

    /// The object, where the resource is of this kind.
    fn of(resource: &Resource) -> Option<&Object<Self>>;
}

/// Gives a spec of the type that is asked for.
pub(crate) trait SpecReader {
    fn read<S: Spec>(&mut self) -> Option<S>;
}

macro_rules! kinds {
    ($($kind:ident: $spec:ty = $declaration:expr;)+) => {
        /// The kinds that this version knows.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $($kind,)+
        }

        impl Kind {
            /// In the order in which they are best applied and listed.
            pub const ALL: [Self; [$(Kind::$kind),+].len()] = [$(Self::$kind),+];

            const fn declaration(self) -> &'static Declaration {
                match self {
                    $(Self::$kind => const { &$declaration },)+
                }
            }
        }

        /// An object of any kind. In serde it is the whole manifest: `apiVersion`, `kind`, `metadata`, `spec`.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Resource {
            $($kind(Object<$spec>),)+
        }

        impl Resource {
            pub fn kind(&self) -> Kind {
                match self {
                    $(Self::$kind(_) => Kind::$kind,)+
                }
            }

            pub fn metadata(&self) -> &Metadata {
                match self {
                    $(Self::$kind(object) => &object.metadata,)+
                }
            }

            pub fn metadata_mut(&mut self) -> &mut Metadata {
                match self {
                    $(Self::$kind(object) => &mut object.metadata,)+
                }
            }

            pub(crate) fn build(kind: Kind, metadata: Metadata, reader: &mut impl SpecReader) -> Option<Self> {
                Some(match kind {
                    $(Kind::$kind => Self::$kind(Object { metadata, spec: reader.read()? }),)+
                })
            }
        }

        impl Serialize for Resource {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let kind = self.kind();
                let mut out = serializer.serialize_struct("Resource", 4)?;
                out.serialize_field("apiVersion", kind.api_version())?;
                out.serialize_field("kind", kind.as_str())?;
                out.serialize_field("metadata", self.metadata())?;
                match self {
                    $(Self::$kind(object) => out.serialize_field("spec", &object.spec)?,)+
                }
                out.end()
            }
        }

        $(impl Spec for $spec {
            const KIND: Kind = Kind::$kind;

            fn of(resource: &Resource) -> Option<&Object<Self>> {
                if let Resource::$kind(object) = resource { Some(object) } else { None }
            }
        })+
    };
}

impl Kind {
    pub fn as_str(self) -> &'static str {
        self.declaration().name
    }

    pub fn api_version(self) -> &'static str {
        self.declaration().api_version
    }

    /// True for the versions whose manifests are read.
    pub(crate) fn is_read_as(self, version: &str) -> bool {
        version == self.api_version() || self.declaration().also_read.contains(&version)
    }

    /// As in URLs and on the command line.
    pub fn plural(self) -> &'static str {
        self.declaration().plural
    }

    pub fn is_namespaced(self) -> bool {
        self.declaration().scope == Scope::Namespace
    }

    pub(crate) fn is_spec_optional(self) -> bool {
        self.declaration().is_spec_optional
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

impl Serialize for Kind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// By the name that manifests write.
impl<'de> Deserialize<'de> for Kind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == name);
        found.ok_or_else(|| serde::de::Error::custom(KindError(name)))
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
            let Declaration { name, plural, aliases, .. } = kind.declaration();
            name.eq_ignore_ascii_case(text) || *plural == lower || aliases.contains(&lower.as_str())
        };
        Self::ALL.into_iter().find(is).ok_or_else(|| KindError(text.to_owned()))
    }
}

/// A kind of Weft's own, of a namespace.
const OWN: Declaration = Declaration {
    name: "",
    api_version: "weft.dev/v1alpha1",
    also_read: &[],
    plural: "",
    aliases: &[],
    scope: Scope::Namespace,
    is_spec_optional: false,
};

kinds! {
    Namespace: NamespaceSpec = Declaration {
        name: "Namespace",
        plural: "namespaces",
        api_version: "v1",
        aliases: &["ns"],
        scope: Scope::Mesh,
        is_spec_optional: true,
        ..OWN
    };
    Mesh: MeshSpec = Declaration { name: "Mesh", plural: "meshes", scope: Scope::Mesh, is_spec_optional: true, ..OWN };
    Service: ServiceSpec =
        Declaration { name: "Service", plural: "services", api_version: "v1", aliases: &["svc"], ..OWN };
    Workload: WorkloadSpec = Declaration { name: "Workload", plural: "workloads", aliases: &["wl"], ..OWN };
    ReferenceGrant: ReferenceGrantSpec = Declaration {
        name: "ReferenceGrant",
        plural: "referencegrants",
        api_version: "gateway.networking.k8s.io/v1",
        also_read: &["gateway.networking.k8s.io/v1beta1"],
        aliases: &["refgrant", "grant"],
        ..OWN
    };
    HttpRoute: HttpRouteSpec = Declaration {
        name: "HTTPRoute",
        plural: "httproutes",
        api_version: "gateway.networking.k8s.io/v1",
        also_read: &["gateway.networking.k8s.io/v1beta1"],
        aliases: &["route", "routes"],
        ..OWN
    };
    GrpcRoute: GrpcRouteSpec =
        Declaration { name: "GRPCRoute", plural: "grpcroutes", api_version: "gateway.networking.k8s.io/v1", ..OWN };
    TlsRoute: TlsRouteSpec = Declaration {
        name: "TLSRoute",
        plural: "tlsroutes",
        api_version: "gateway.networking.k8s.io/v1",
        also_read: &["gateway.networking.k8s.io/v1alpha3", "gateway.networking.k8s.io/v1alpha2"],
        ..OWN
    };
    TcpRoute: TcpRouteSpec = Declaration {
        name: "TCPRoute",
        plural: "tcproutes",
        api_version: "gateway.networking.k8s.io/v1",
        also_read: &["gateway.networking.k8s.io/v1alpha2"],
        ..OWN
    };
    Filter: FilterSpec = Declaration { name: "Filter", plural: "filters", ..OWN };
    FilterPublisher: FilterPublisherSpec =
        Declaration { name: "FilterPublisher", plural: "filterpublishers", scope: Scope::Mesh, ..OWN };
    Secret: SecretSpec = Declaration { name: "Secret", plural: "secrets", ..OWN };
    FilterPolicy: FilterPolicySpec =
        Declaration { name: "FilterPolicy", plural: "filterpolicies", aliases: &["fp"], ..OWN };
    RateLimitPolicy: RateLimitPolicySpec =
        Declaration { name: "RateLimitPolicy", plural: "ratelimitpolicies", aliases: &["rlp"], ..OWN };
    FaultPolicy: FaultPolicySpec = Declaration { name: "FaultPolicy", plural: "faultpolicies", ..OWN };
    JwtPolicy: JwtPolicySpec = Declaration { name: "JwtPolicy", plural: "jwtpolicies", aliases: &["jwt"], ..OWN };
    AccessPolicy: AccessPolicySpec =
        Declaration { name: "AccessPolicy", plural: "accesspolicies", aliases: &["ap"], ..OWN };
    PolicyTemplate: PolicyTemplateSpec = Declaration {
        name: "PolicyTemplate",
        plural: "policytemplates",
        aliases: &["pt"],
        scope: Scope::Mesh,
        ..OWN
    };
    TrafficPolicy: TrafficPolicySpec =
        Declaration { name: "TrafficPolicy", plural: "trafficpolicies", aliases: &["tp"], ..OWN };
    ExternalService: ExternalServiceSpec =
        Declaration { name: "ExternalService", plural: "externalservices", aliases: &["es"], ..OWN };
}
