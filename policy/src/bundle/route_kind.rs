//! The kinds of routes, and how a bundle names routes: routes of two kinds may have the same name, and each is there
//! once for each of its parents.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{ObjectName, Protocol};

/// What a route is about: requests, or connections whose bytes are not looked into. Of the routes that hold for a caller at a port of a service those of one kind count: the
/// first kind in this order (GEP-1294, Route types).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RouteKind {
    Grpc,
    #[default]
    Http,
    Tls,
    Tcp,
}

impl RouteKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "GRPCRoute",
            Self::Http => "HTTPRoute",
            Self::Tls => "TLSRoute",
            Self::Tcp => "TCPRoute",
        }
    }

    /// True where it is about connections whose bytes are not looked into.
    #[must_use]
    pub fn is_of_bytes(self) -> bool {
        match self {
            Self::Grpc | Self::Http => false,
            Self::Tls | Self::Tcp => true,
        }
    }

    /// True where it holds at a port of this protocol.
    #[must_use]
    pub fn holds_at(self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Http | Protocol::Grpc => !self.is_of_bytes(),
            Protocol::Tcp | Protocol::Udp => self.is_of_bytes(),
            Protocol::Auto => true,
        }
    }

    /// Stands behind the name of a route in bundles; no object's name has a `#`.
    fn mark(self) -> &'static str {
        match self {
            Self::Grpc => "#grpc",
            Self::Http => "#",
            Self::Tls => "#tls",
            Self::Tcp => "#tcp",
        }
    }

    /// The name that a route has in bundles at one of its parents, by the parent's place: `r` and `r#1`, of a GRPCRoute
    /// `r#grpc` and `r#grpc1`, and so on.
    #[must_use]
    pub fn at_parent(self, route: &ObjectName, parent: usize) -> ObjectName {
        let ObjectName { namespace, name } = route.clone();
        let number = if parent == 0 { String::new() } else { parent.to_string() };
        let suffix = match (self, parent) {
            (Self::Http, 0) => "",
            (kind, _) => kind.mark(),
        };
        ObjectName { namespace, name: format!("{name}{suffix}{number}") }
    }
}

/// The name of a route in a bundle, taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RouteName<'n> {
    pub kind: RouteKind,
    namespace: &'n str,
    name: &'n str,
    /// The number of its parent; empty for the first.
    parent: &'n str,
}

impl<'n> RouteName<'n> {
    pub fn of(ObjectName { namespace, name }: &'n ObjectName) -> Self {
        let marked = |kind: RouteKind| Some((kind, name.split_once(kind.mark())?));
        // The mark of HTTPRoutes is in every other.
        let found = [RouteKind::Grpc, RouteKind::Tls, RouteKind::Tcp, RouteKind::Http].into_iter().find_map(marked);
        let (kind, (name, parent)) = found.unwrap_or((RouteKind::Http, (name, "")));
        Self { kind, namespace, name, parent }
    }

    /// The route itself.
    #[must_use]
    pub fn object(&self) -> ObjectName {
        ObjectName::new(self.namespace, self.name)
    }

    /// The route, and which of its parents is meant where it is not the first: `shop/r#1`.
    #[must_use]
    pub fn place(&self) -> String {
        let Self { kind: _, namespace, name, parent } = self;
        let mark = if parent.is_empty() { "" } else { "#" };
        format!("{namespace}/{name}{mark}{parent}")
    }
}

/// With its kind: `GRPCRoute shop/r#1`.
impl fmt::Display for RouteName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.as_str(), self.place())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routes_name_says_its_kind_and_its_parent() {
        let check = |kind: RouteKind, parent: usize, named: &str, told: &str| {
            let name = kind.at_parent(&ObjectName::new("shop", "r"), parent);
            assert_eq!(name.to_string(), named);
            let read = RouteName::of(&name);
            assert_eq!((read.kind, read.object().to_string()), (kind, "shop/r".to_owned()));
            assert_eq!(read.to_string(), told);
        };
        check(RouteKind::Http, 0, "shop/r", "HTTPRoute shop/r");
        check(RouteKind::Http, 12, "shop/r#12", "HTTPRoute shop/r#12");
        check(RouteKind::Grpc, 0, "shop/r#grpc", "GRPCRoute shop/r");
        check(RouteKind::Grpc, 1, "shop/r#grpc1", "GRPCRoute shop/r#1");
        check(RouteKind::Tls, 0, "shop/r#tls", "TLSRoute shop/r");
        check(RouteKind::Tcp, 3, "shop/r#tcp3", "TCPRoute shop/r#3");
    }
}
