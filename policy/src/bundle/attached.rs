//! The requests that a filter on the way out runs for, where not for all.

use serde::{Deserialize, Serialize};

use super::{ObjectName, Route, RouteKind, RouteName};

/// The rules of a route that a filter runs for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttachedRule {
    pub kind: RouteKind,
    /// The route itself, whichever of its parents is called.
    pub route: ObjectName,
    /// `None`: all of its rules.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

impl AttachedRule {
    /// True where the rule at this place of a route is one of them.
    #[must_use]
    pub fn is_of(&self, route: &Route, rule_index: usize) -> bool {
        let rule = route.rules.get(rule_index).and_then(|rule| rule.name.as_ref());
        self.kind == route.kind
            && self.route == RouteName::of(&route.name).object()
            && (self.rule.is_none() || self.rule.as_ref() == rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bundle::{Revision, RouteRule};

    #[test]
    fn rules_are_met_by_name_at_each_parent_of_their_route() {
        let named = |name: Option<&str>| RouteRule { name: name.map(str::to_owned), ..RouteRule::refusing() };
        let route = |kind: RouteKind, parent: usize| Route {
            name: kind.at_parent(&ObjectName::new("shop", "r"), parent),
            kind,
            parent: ObjectName::new("shop", "web"),
            outside: false,
            parent_port: None,
            consumer_namespace: None,
            hostnames: Vec::new(),
            created: Revision(1),
            rules: vec![named(None), named(Some("buy"))],
        };
        let attached = |rule: Option<&str>| AttachedRule {
            kind: RouteKind::Http,
            route: ObjectName::new("shop", "r"),
            rule: rule.map(str::to_owned),
        };
        for parent in [0, 1] {
            let met = |rule, kind| [0, 1, 2].map(|index| attached(rule).is_of(&route(kind, parent), index));
            assert_eq!(met(None, RouteKind::Http), [true; 3]);
            assert_eq!(met(Some("buy"), RouteKind::Http), [false, true, false]);
            assert_eq!(met(Some("sell"), RouteKind::Http), [false; 3]);
            assert_eq!(met(None, RouteKind::Grpc), [false; 3]);
        }
    }
}
