//! Problems between resources.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::World;
use super::select::selected_by;
use super::{http_only, route_status, unserved};
use crate::authz::Action;
use crate::bundle::{ObjectName, Protocol};
use crate::resource::{Kind, Metadata, Object, ObjectKey, ROOT_NAMESPACE, TargetKind, TargetRef, WorkloadSpec};

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub object: ObjectKey,
    /// Inside the manifest: `spec.filter.name`.
    pub key: String,
    pub message: String,
    pub severity: Severity,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Such a world is refused.
    Error,
    /// It works, but perhaps not as meant.
    Warning,
}

pub(super) fn validate(world: &World) -> Vec<Problem> {
    let mut problems = Vec::new();
    meshes(world, &mut problems);
    addresses(world, &mut problems);
    filter_policies(world, &mut problems);
    access_policies(world, &mut problems);
    http_only_ports(world, &mut problems);
    contradictions(world, &mut problems);
    route_status::problems(world, &mut problems);
    unserved::problems(world, &mut problems);
    problems
}

pub(super) fn key_of(kind: Kind, metadata: &Metadata) -> ObjectKey {
    ObjectKey::new(kind, &metadata.namespace, &metadata.name)
}

pub(super) fn problem(object: ObjectKey, key: &str, message: String, severity: Severity) -> Problem {
    Problem { object, key: key.to_owned(), message, severity }
}

fn meshes(world: &World, problems: &mut Vec<Problem>) {
    for (index, (key, entry)) in world.of_kind(Kind::Mesh).enumerate() {
        if index > 0 {
            let message = "there is a Mesh already; one holds for all".to_owned();
            problems.push(problem(key.clone(), "metadata.name", message, Severity::Error));
        }
        if let crate::resource::Resource::Mesh(mesh) = &entry.resource
            && mesh.spec.trust_domain != world.trust_domain
        {
            let (wanted, own) = (&mesh.spec.trust_domain, &world.trust_domain);
            let message = format!("{wanted} is not this control plane's trust domain, which is {own}");
            problems.push(problem(key.clone(), "spec.trustDomain", message, Severity::Error));
        }
    }
}

/// Two services with one virtual address can't be told apart.
fn addresses(world: &World, problems: &mut Vec<Problem>) {
    let mut seen = std::collections::BTreeMap::new();
    for service in world.services() {
        let Some(address) = service.spec.cluster_ip else { continue };
        if let Some(other) = seen.insert(address, service.name()) {
            let message = format!("{address} is the address of Service {other} already");
            problems.push(problem(
                key_of(Kind::Service, &service.metadata),
                "spec.clusterIP",
                message,
                Severity::Error,
            ));
        }
    }
}

fn filter_policies(world: &World, problems: &mut Vec<Problem>) {
    for policy in world.filter_policies() {
        let object = key_of(Kind::FilterPolicy, &policy.metadata);
        targets(world, &object, &policy.metadata, &policy.spec.target_refs, problems);
        let reference = &policy.spec.filter;
        let name = ObjectName::new(reference.namespace.clone(), reference.name.clone());
        let Some(filter) = world.filter(&name) else {
            let message = format!("Filter {name} is not published");
            problems.push(problem(object, "spec.filter.name", message, Severity::Error));
            continue;
        };
        let pinned = world.filter_version(&name, reference.version.as_deref());
        if let (None, Some(version)) = (pinned, &reference.version) {
            let message = format!("Filter {name} is published as {}, not as {version}", filter.spec.version);
            problems.push(problem(object.clone(), "spec.filter.version", message, Severity::Error));
        }
        let granted = &policy.spec.capabilities;
        for wanted in pinned.unwrap_or(&filter.spec).capabilities.iter().filter(|wanted| !granted.contains(wanted)) {
            if !matches!(wanted.as_str(), "log" | "metrics") {
                let message = format!("Filter {name} needs the capability {wanted}, which is not granted");
                problems.push(problem(object.clone(), "spec.capabilities", message, Severity::Error));
            }
        }
    }
}

fn access_policies(world: &World, problems: &mut Vec<Problem>) {
    let authz = ObjectName::new(ROOT_NAMESPACE, "authz");
    let published = world.filter(&authz).is_some();
    for policy in world.access_policies() {
        let object = key_of(Kind::AccessPolicy, &policy.metadata);
        targets(world, &object, &policy.metadata, &policy.spec.target_refs, problems);
        if !published {
            let message = format!("Filter {authz} is not published: it enforces access policies");
            problems.push(problem(object, "", message, Severity::Error));
        }
    }
}

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
                format!("its rules with methods, paths or headers allow nothing at {ports}, which is declared tcp")
            }
            Self::DeniesByTheRest => format!(
                "its rules with methods, paths or headers deny by their other conditions alone at {ports}, which is \
                 declared tcp"
            ),
        }
    }
}

/// So many ports are named in one sentence.
const NAMED_PORTS: usize = 16;

/// Names the ports at which what looks at HTTP does something else than it says.
fn http_only_ports(world: &World, problems: &mut Vec<Problem>) {
    let mut told: BTreeMap<(OffHttp, ObjectKey), BTreeSet<String>> = BTreeMap::new();
    for service in world.services() {
        let workloads: Vec<_> = selected_by(world, service).collect();
        for port in service.spec.served_ports() {
            let at = format!("port {} of Service {}", port.port, service.name());
            let routes = http_only::routes(world, service, port.port);
            let routes = routes.map(|route| (key_of(Kind::HttpRoute, &route.metadata), None, true));
            let policies = workloads.iter().flat_map(|workload| {
                let target = port.target_at(&workload.spec);
                target.into_iter().flat_map(|target| http_only::policies(world, workload, target))
            });
            let all = routes.chain(policies.map(|policy| (policy.object, policy.action, policy.targeted)));
            let protocol = http_only::service_protocol(port, &workloads);
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
        problems.push(problem(object, "", what.tell(&ports), Severity::Warning));
    }
}

/// A service and a workload behind it that declare one port differently.
fn contradictions(world: &World, problems: &mut Vec<Problem>) {
    for service in world.services() {
        for (index, port) in service.spec.ports.iter().enumerate() {
            let declared = port.protocol();
            let own = |workload: &Object<WorkloadSpec>| {
                let target = port.target_at(&workload.spec);
                workload.spec.ports.iter().find(|own| target == Some(own.port)).cloned()
            };
            let differs = |workload: &Object<WorkloadSpec>| {
                own(workload).filter(|own| own.protocol != Protocol::Auto && own.protocol != declared)
            };
            let mut behind = selected_by(world, service);
            if declared != Protocol::Auto
                && let Some((workload, own)) = behind.find_map(|workload| Some((workload, differs(workload)?)))
            {
                let message = format!("port {} of Workload {} is declared otherwise", own.port, workload.name());
                let (object, key) =
                    (key_of(Kind::Service, &service.metadata), format!("spec.ports[{index}].appProtocol"));
                problems.push(problem(object, &key, message, Severity::Warning));
            }
        }
    }
}

fn targets(world: &World, object: &ObjectKey, policy: &Metadata, targets: &[TargetRef], problems: &mut Vec<Problem>) {
    for (index, target) in targets.iter().enumerate() {
        let key = format!("spec.targetRefs[{index}]");
        let name = ObjectName::new(policy.namespace.clone(), target.name.clone());
        let missing = match target.kind {
            TargetKind::Service => world.service(&name).is_none().then(|| format!("Service {name} does not exist")),
            TargetKind::Workload => world.workload(&name).is_none().then(|| format!("Workload {name} does not exist")),
            TargetKind::Namespace if target.name != policy.namespace && policy.namespace != ROOT_NAMESPACE => {
                let message = format!("a policy of {} can't target namespace {}", policy.namespace, target.name);
                problems.push(problem(object.clone(), &key, message, Severity::Error));
                None
            }
            TargetKind::Namespace => None,
        };
        if let Some(message) = missing {
            problems.push(problem(object.clone(), &key, message, Severity::Warning));
        }
    }
}
