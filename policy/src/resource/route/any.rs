//! Routes of every kind as one: who plans them, tells of them or looks for mistakes asks the kind only where it matters.

use super::{GrpcRouteSpec, HttpRouteSpec, ParentRef, Place, RuleSpec, TcpRouteSpec, TlsRouteSpec};
use crate::bundle::{ObjectName, RouteKind};
use crate::resource::{Kind, Metadata, Object, ObjectKey, Resource, Unserved};

/// A route, whichever its kind.
#[derive(Debug, Clone, Copy)]
pub struct AnyRoute<'r> {
    pub kind: RouteKind,
    pub metadata: &'r Metadata,
    pub spec: &'r HttpRouteSpec,
}

impl Kind {
    /// The kinds of routes.
    pub const ROUTES: [Self; 4] = [Self::HttpRoute, Self::GrpcRoute, Self::TlsRoute, Self::TcpRoute];

    pub fn is_route(self) -> bool {
        Self::ROUTES.contains(&self)
    }
}

impl Resource {
    /// A route of this kind that says inside what `spec` does. `None`: the kind is none of routes.
    pub fn of_route(kind: Kind, metadata: Metadata, spec: HttpRouteSpec) -> Option<Self> {
        Some(match kind {
            Kind::HttpRoute => Self::HttpRoute(Object { metadata, spec }),
            Kind::GrpcRoute => Self::GrpcRoute(Object { metadata, spec: GrpcRouteSpec(spec) }),
            Kind::TlsRoute => Self::TlsRoute(Object { metadata, spec: TlsRouteSpec(spec) }),
            Kind::TcpRoute => Self::TcpRoute(Object { metadata, spec: TcpRouteSpec(spec) }),
            Kind::Namespace
            | Kind::Mesh
            | Kind::Service
            | Kind::Workload
            | Kind::ReferenceGrant
            | Kind::Filter
            | Kind::FilterPublisher
            | Kind::Secret
            | Kind::FilterPolicy
            | Kind::RateLimitPolicy
            | Kind::FaultPolicy
            | Kind::JwtPolicy
            | Kind::AccessPolicy
            | Kind::PolicyTemplate
            | Kind::ExternalService
            | Kind::TrafficPolicy => return None,
        })
    }
}

impl RouteKind {
    pub fn resource(self) -> Kind {
        match self {
            Self::Http => Kind::HttpRoute,
            Self::Grpc => Kind::GrpcRoute,
            Self::Tls => Kind::TlsRoute,
            Self::Tcp => Kind::TcpRoute,
        }
    }
}

impl<'r> AnyRoute<'r> {
    /// `None`: it is no route.
    pub fn of(resource: &'r Resource) -> Option<Self> {
        let (kind, metadata, spec) = match resource {
            Resource::HttpRoute(Object { metadata, spec }) => (RouteKind::Http, metadata, spec),
            Resource::GrpcRoute(Object { metadata, spec: GrpcRouteSpec(spec) }) => (RouteKind::Grpc, metadata, spec),
            Resource::TlsRoute(Object { metadata, spec: TlsRouteSpec(spec) }) => (RouteKind::Tls, metadata, spec),
            Resource::TcpRoute(Object { metadata, spec: TcpRouteSpec(spec) }) => (RouteKind::Tcp, metadata, spec),
            Resource::Namespace(_)
            | Resource::Mesh(_)
            | Resource::Service(_)
            | Resource::Workload(_)
            | Resource::ReferenceGrant(_)
            | Resource::Filter(_)
            | Resource::FilterPublisher(_)
            | Resource::Secret(_)
            | Resource::FilterPolicy(_)
            | Resource::RateLimitPolicy(_)
            | Resource::FaultPolicy(_)
            | Resource::JwtPolicy(_)
            | Resource::AccessPolicy(_)
            | Resource::PolicyTemplate(_)
            | Resource::ExternalService(_)
            | Resource::TrafficPolicy(_) => return None,
        };
        Some(Self { kind, metadata, spec })
    }

    pub fn key(self) -> ObjectKey {
        ObjectKey::new(self.kind.resource(), &self.metadata.namespace, &self.metadata.name)
    }

    pub fn name(self) -> ObjectName {
        ObjectName::new(&self.metadata.namespace, &self.metadata.name)
    }

    /// The name that it has in bundles at its first parent: no other route's.
    pub(crate) fn name_of_first(self) -> ObjectName {
        self.kind.at_parent(&self.name(), 0)
    }

    /// Services that it is attached to.
    pub(crate) fn parents(self) -> impl Iterator<Item = ObjectName> + use<'r> {
        self.parents_at(Place::Service)
    }

    /// ExternalServices that it is attached to.
    pub(crate) fn external_parents(self) -> impl Iterator<Item = ObjectName> + use<'r> {
        self.parents_at(Place::External)
    }

    fn parents_at(self, place: Place) -> impl Iterator<Item = ObjectName> + use<'r> {
        let parents = self.spec.parent_refs.iter().filter(move |parent| parent.place() == Some(place));
        parents.map(move |parent| self.named(parent.namespace.as_deref(), &parent.name))
    }

    /// True where the route may hold at what a parent names: connections are led from Services only.
    pub(crate) fn may_hold_at(self, parent: &ParentRef) -> bool {
        parent.is_service() || parent.is_external() && !self.kind.is_of_bytes()
    }

    /// Services and ExternalServices that it leads to, copies included.
    pub fn backends(self) -> impl Iterator<Item = ObjectName> + use<'r> {
        let referred = self.spec.rules.iter().flat_map(RuleSpec::referred);
        referred.map(move |(_, backend)| backend.object_name(&self.metadata.namespace))
    }

    /// What it asks for that nothing acts on: it holds without that.
    pub fn unserved(self) -> Vec<Unserved> {
        let mut found = self.spec.unserved();
        if self.kind.is_of_bytes() {
            let outside = self.spec.parent_refs.iter().enumerate().filter(|(_, parent)| parent.is_external());
            let message =
                format!("no {} holds at an ExternalService: its connections go as it says", self.kind.as_str());
            found.extend(
                outside
                    .map(|(index, _)| Unserved { key: format!("parentRefs[{index}].kind"), message: message.clone() }),
            );
            let message = "no connection meets it: the first rule takes all, since nothing tells connections apart";
            let further = (1..self.spec.rules.len()).map(|index| format!("rules[{index}]"));
            found.extend(further.map(|key| Unserved { key, message: message.to_owned() }));
        }
        found
    }

    /// What a reference means that may leave its namespace out.
    pub fn named(self, namespace: Option<&str>, name: &str) -> ObjectName {
        ObjectName::new(namespace.unwrap_or(&self.metadata.namespace), name)
    }
}
