//! Objects that look at HTTP, at ports where other bytes may come.

use std::collections::{BTreeMap, BTreeSet};

use super::lens::Lens;
use super::{Code, Report};
use crate::authz::Action;
use crate::bundle::Protocol;
use crate::plan::{RoutesOf, http_policies, http_routes, service_protocol};
use crate::resource::{Kind, ObjectKey, ServiceSpec};

/// Effect of an object that looks at HTTP, at a port where other bytes may come.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum OffHttp {
    /// Nothing is declared: what is not HTTP is refused.
    Cut,
    /// Declared tcp: a route or filter never holds.
    Never,
    /// Declared tcp: the rules of an allow policy allow nothing.
    AllowsNothing,
    /// Declared tcp: the rules of a deny policy deny by their other conditions.
    DeniesByTheRest,
}

impl OffHttp {
    fn at(protocol: Protocol, action: Option<Action>, targeted: bool) -> Option<Self> {
        match (protocol, action) {
            (Protocol::Auto, _) => Some(Self::Cut),
            (Protocol::Http | Protocol::Grpc, _) => None,
            (Protocol::Tcp | Protocol::Udp, Some(Action::Allow)) => Some(Self::AllowsNothing),
            (Protocol::Tcp | Protocol::Udp, Some(Action::Deny)) => Some(Self::DeniesByTheRest),
            // An object that holds for a whole namespace is not meant for its databases.
            (Protocol::Tcp | Protocol::Udp, None) => targeted.then_some(Self::Never),
        }
    }

    fn tell(self, ports: &str) -> String {
        match self {
            Self::Cut => {
                format!("holds for HTTP: what is not HTTP is refused at {ports}, where no appProtocol is declared")
            }
            Self::Never => format!("holds for HTTP, and never at {ports}, which is declared tcp"),
            Self::AllowsNothing => {
                format!(
                    "its rules with methods, paths, hosts, headers or claims allow nothing at {ports}, which is declared tcp"
                )
            }
            Self::DeniesByTheRest => format!(
                "its rules with methods, paths, hosts, headers or claims deny by their other conditions alone at {ports}, which is \
                 declared tcp"
            ),
        }
    }
}

/// So many ports are named in one sentence.
const NAMED_PORTS: usize = 16;

/// Names the ports at which what looks at HTTP does something else than it says.
pub(super) fn check(lens: &Lens<'_>, report: &mut Report) {
    let mut told: BTreeMap<(OffHttp, ObjectKey), BTreeSet<String>> = BTreeMap::new();
    for service in lens.all::<ServiceSpec>() {
        let workloads = lens.behind(&service.name());
        for port in service.spec.served_ports() {
            let at = format!("port {} of Service {}", port.port, service.name());
            let routes = http_routes(lens.world, service, port.port, RoutesOf::Everybody);
            let routes = routes.map(|route| (route.key(), None, true));
            let policies = workloads.iter().flat_map(|workload| {
                let target = port.served_at(&workload.spec);
                target.into_iter().flat_map(|target| http_policies(lens.world, workload, target))
            });
            let all = routes.chain(policies.map(|policy| (policy.object, policy.action, policy.targeted)));
            let protocol = service_protocol(port, &workloads);
            for (object, action, targeted) in all {
                if let Some(what) = OffHttp::at(protocol, action, targeted) {
                    told.entry((what, object)).or_default().insert(at.clone());
                }
            }
        }
    }
    for ((what, object), ports) in told {
        let more = ports.len().saturating_sub(NAMED_PORTS);
        let mut ports = ports.into_iter().take(NAMED_PORTS).collect::<Vec<_>>().join(", ");
        if more > 0 {
            ports.push_str(&format!(" and {more} more"));
        }
        let code = if object.kind == Kind::AccessPolicy { Code::RuleOffHttp } else { Code::RouteOffHttp };
        report.tell(code, &object, "", what.tell(&ports));
    }
}
