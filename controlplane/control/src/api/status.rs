//! The printed status of objects, in Kubernetes' shape: conditions with `True`, `False` or `Unknown`, a reason for programs
//! and a message for people.

use std::collections::BTreeSet;

use weft_api::{Condition, ParentStatus, Status};
use weft_policy::bundle::{ObjectName, Revision};
use weft_policy::plan::{
    self, CALLOUTS_RESOLVED, Entry, callees, external_status, policy_status, route_status, service_status,
    template_status, traffic_status,
};
use weft_policy::resource::capability::CalloutKind;
use weft_policy::resource::route::ParentRef;
use weft_policy::resource::{AnyRoute, Attaching, Kind, ObjectKey, Resource};

use super::Caller;
use super::objects::timestamp;
use crate::access::{Place, Rights, Thing, Verb};
use crate::hub::{Hub, Published};
use crate::registry::{ProxyStatus, SyncState};
use crate::token::Role;

/// The name by which routes' statuses say who wrote them.
const CONTROLLER: &str = "weft.dev/control-plane";

/// A control plane that holds proxies does not tell of them.
const NOT_TOLD: &str = "NotTold";

/// So many proxies are named in a message.
const NAMED: usize = 3;

/// How far each connected proxy is, and what the caller may read.
pub(super) struct Arrivals {
    proxies: Vec<Arrival>,
    caller: Rights,
}

struct Arrival {
    proxy: String,
    namespace: String,
    synced: Revision,
    /// Refusals because of which it does without an object, as `kind namespace/name: reason`.
    held: Vec<String>,
    /// Why nothing is known of it.
    unknown: Option<String>,
}

impl Arrivals {
    /// The state of the proxies that the caller may read, at whichever control plane they are.
    pub(super) async fn of(hub: &Hub, caller: &Caller) -> Self {
        Self::seen_by(hub.look_everywhere().await, &caller.rights)
    }

    fn seen_by(proxies: Vec<ProxyStatus>, rights: &Rights) -> Self {
        let is_seen = |status: &ProxyStatus| {
            rights.may(Verb::Read, Thing::Proxy, Place::Namespace(status.key.identity.namespace())).is_ok()
        };
        let is_elsewhere = |status: &ProxyStatus| status.state == SyncState::Elsewhere;
        let connected = proxies.into_iter().filter(is_seen);
        let connected = connected
            .filter(|status| status.connected_since.is_some() && !status.is_left_alone || is_elsewhere(status));
        let arrival = |status: ProxyStatus| {
            let unknown = is_elsewhere(&status).then_some(status.reason);
            let namespace = status.key.identity.namespace().to_owned();
            Arrival { proxy: status.key.name, namespace, synced: status.synced, held: status.held, unknown }
        };
        Self { proxies: connected.map(arrival).collect(), caller: rights.clone() }
    }

    fn may_read(&self, service: &ObjectKey) -> bool {
        self.caller.may_object(Verb::Read, service).is_ok()
    }

    /// Tells whether the proxies that are told of a route run it as it is since `modified`: those of the `consumer`'s
    /// namespace, or all.
    fn programmed(&self, route: &ObjectKey, modified: Revision, consumer: Option<&str>) -> Condition {
        let is_told = |arrival: &&Arrival| consumer.is_none_or(|namespace| arrival.namespace == namespace);
        let told: Vec<_> = self.proxies.iter().filter(is_told).collect();
        if told.is_empty() {
            let nobody = if self.proxies.is_empty() { "no proxy" } else { "no proxy that is told of it" };
            return condition("Programmed", "Unknown", "NoProxy", &format!("{nobody} is connected"));
        }
        let word = route.to_string();
        let is_of = |held: &&String| {
            // A `Key` is written as `HTTPRoute NAMESPACE/NAME#PARENT`.
            let object = held.split(": ").next().and_then(|object| object.split('#').next());
            object == Some(word.as_str())
        };
        let refused = told.iter().find_map(|arrival| Some((&arrival.proxy, arrival.held.iter().find(is_of)?)));
        if let Some((proxy, reason)) = refused {
            return condition("Programmed", "False", "Invalid", &format!("proxy {proxy} refused {reason}"));
        }
        let is_behind = |arrival: &&&Arrival| arrival.unknown.is_none() && arrival.synced < modified;
        let behind: Vec<_> = told.iter().filter(is_behind).collect();
        let unknown = told.iter().find_map(|arrival| Some((&arrival.proxy, arrival.unknown.as_ref()?)));
        if let (true, Some((proxy, reason))) = (behind.is_empty(), unknown) {
            let count = told.iter().filter(|arrival| arrival.unknown.is_some()).count();
            let message =
                format!("of {count} of {} connected proxies it is not known: {proxy} is {reason}", told.len());
            return condition("Programmed", "Unknown", NOT_TOLD, &message);
        }
        if behind.is_empty() {
            let message = format!("acknowledged by all {} connected proxies", told.len());
            return condition("Programmed", "True", "Programmed", &message);
        }
        let named: Vec<_> = behind.iter().take(NAMED).map(|arrival| arrival.proxy.as_str()).collect();
        let more = if behind.len() > NAMED { " ..." } else { "" };
        let (count, all, named) = (behind.len(), told.len(), named.join(", "));
        let message = format!("{count} of {all} connected proxies have not acknowledged it: {named}{more}");
        condition("Programmed", "False", "Pending", &message)
    }
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Condition {
    let [kind, status, reason, message] = [kind, status, reason, message].map(str::to_owned);
    Condition { kind, status, reason, message, ..Condition::default() }
}

/// An object whose status is told.
#[derive(Clone, Copy)]
struct Subject<'a> {
    hub: &'a Hub,
    arrivals: &'a Arrivals,
    key: &'a ObjectKey,
    stored: &'a Entry,
    now: i64,
}

impl Subject<'_> {
    /// The conditions with the generation that they are about, and since when each has its status. `parent` tells those of
    /// several parents apart.
    fn about(self, parent: &str, conditions: impl IntoIterator<Item = Condition>) -> Vec<Condition> {
        let Self { hub, arrivals, key, stored, now } = self;
        let since = |condition: &Condition| {
            let place = format!("{parent}{}", condition.kind);
            match arrivals.caller.is_bound() {
                // After a start the proxies are still to come back, and some may not answer: that is no news, and the stored
                // time stays.
                false if matches!(condition.reason.as_str(), "NoProxy" | NOT_TOLD) => {
                    hub.transitions().since(key, stored, &place).unwrap_or(now)
                }
                false => hub.transitions().note(key, stored, &place, &condition.status, now),
                true if condition.reason == NOT_READABLE => stored.created_unix.unwrap_or(now),
                true => hub.transitions().since(key, stored, &place).unwrap_or(now),
            }
        };
        let timed = |condition: Condition| {
            let last_transition_time = timestamp(since(&condition)).unwrap_or_default();
            Condition { observed_generation: stored.generation, last_transition_time, ..condition }
        };
        conditions.into_iter().map(timed).collect()
    }

    /// What there is to say of a policy that holds for workloads.
    fn policy(self, published: &Published) -> Status {
        let resource = &self.stored.resource;
        let attaching = Attaching::of(resource);
        let is_hidden = |(kind, name): (CalloutKind, ObjectName)| {
            kind == CalloutKind::Service && !self.arrivals.may_read(&service(name))
        };
        let hides_callees = attaching.as_ref().is_some_and(|policy| callees(policy).any(is_hidden));
        let known = policy_status(&published.world, self.key.kind, resource.metadata());
        let conditions = told(&known).map(|condition| match hides_callees && condition.kind == CALLOUTS_RESOLVED {
            true => unknown(CALLOUTS_RESOLVED),
            false => condition,
        });
        let runs = attaching.as_ref().and_then(|policy| published.world.resolve(&policy.spec.filter));
        let filter_version = runs.map(|spec| spec.version.clone());
        Status { conditions: self.about("", conditions), filter_version, ..Status::default() }
    }

    /// What there is to say of each parent of a route. `None`: it is none.
    fn parents(self, published: &Published) -> Option<Vec<ParentStatus>> {
        let route = AnyRoute::of(&self.stored.resource)?;
        let arrivals = self.arrivals;
        let hides_backends = route.backends().map(service).any(|key| !arrivals.may_read(&key));
        let parents = route_status(&published.world, route).into_iter().map(|parent| {
            let named = service(route.named(parent.parent_ref.namespace.as_deref(), &parent.parent_ref.name));
            if !arrivals.may_read(&named) {
                let conditions = ["Accepted", "ResolvedRefs", "Programmed"].map(unknown);
                return parent_status(&parent.parent_ref, |place| self.about(place, conditions));
            }
            let is_accepted = parent.conditions.iter().any(|known| known.kind == "Accepted" && known.status);
            let programmed = match is_accepted {
                true => {
                    let own = &route.metadata.namespace;
                    let parent = parent.parent_ref.namespace.as_ref().unwrap_or(own);
                    let consumer = (parent != own).then_some(own.as_str());
                    arrivals.programmed(self.key, since(published, arrivals, route, self.stored), consumer)
                }
                false => condition("Programmed", "False", "Invalid", "the route is not accepted"),
            };
            let mut conditions: Vec<_> = told(&parent.conditions).chain([programmed]).collect();
            if hides_backends {
                let told = conditions.iter_mut().filter(|condition| condition.kind == "ResolvedRefs");
                told.for_each(|known| *known = unknown("ResolvedRefs"));
            }
            parent_status(&parent.parent_ref, |place| self.about(place, conditions))
        });
        Some(parents.collect())
    }
}

/// The conditions in print.
fn told(conditions: &[plan::Condition]) -> impl Iterator<Item = Condition> {
    conditions.iter().map(|known| {
        let plan::Condition { kind, status, reason, message, key } = known;
        let status = if *status { "True" } else { "False" };
        match key.is_empty() || message.contains(key) {
            true => condition(kind, status, reason, message),
            false => condition(kind, status, reason, &format!("{key}: {message}")),
        }
    })
}

/// The status towards one parent; its conditions are those of the parent as the route writes it.
fn parent_status(parent: &ParentRef, conditions: impl FnOnce(&str) -> Vec<Condition>) -> ParentStatus {
    let parent_ref = serde_json::to_value(parent).unwrap_or_default();
    let conditions = conditions(&format!("{parent_ref} "));
    ParentStatus { parent_ref, controller_name: CONTROLLER.to_owned(), conditions }
}

/// Looks at every object's status, so that its changes have their times whether or not somebody asks. Without a new world
/// only those of routes may have changed, by what proxies say.
pub(crate) fn watch(hub: &Hub, proxies: Vec<ProxyStatus>, is_new: bool) {
    // As somebody sees them who may read everything.
    let all = Rights { role: Role::Viewer, namespaces: BTreeSet::new(), addresses: BTreeSet::new() };
    let (published, arrivals) = (hub.published(), Arrivals::seen_by(proxies, &all));
    for (key, stored) in published.world.iter().filter(|(key, _)| is_new || key.kind.is_route()) {
        of(hub, &published, &arrivals, key, stored);
    }
}

fn service(name: ObjectName) -> ObjectKey {
    key(Kind::Service, &name)
}

fn key(kind: Kind, name: &ObjectName) -> ObjectKey {
    ObjectKey::new(kind, &name.namespace, &name.name)
}

/// The status of a route towards a service, or by backends, and of a policy by its callees, of which its reader may not know
/// whether they exist.
fn unknown(kind: &str) -> Condition {
    let message = "it names a Service of a namespace that this token may not read";
    condition(kind, "Unknown", NOT_READABLE, message)
}

const NOT_READABLE: &str = "NotReadable";

/// The newest change of a route, of a service that it names or of a grant beside one: its proxies are told of it by what they make
/// of all.
fn since(published: &Published, arrivals: &Arrivals, route: AnyRoute<'_>, stored: &Entry) -> Revision {
    let parents = route.spec.parent_refs.iter();
    let parents = parents.map(|parent| route.named(parent.namespace.as_deref(), &parent.name));
    let named = parents.chain(route.backends());
    let named = named.flat_map(|name| [Kind::Service, Kind::ExternalService].map(|kind| key(kind, &name)));
    let named = named.filter(|key| arrivals.may_read(key));
    let changed = named.filter_map(|key| published.world.get(&key)).map(|service| service.modified);
    // Looked for where it leads to alone: the mesh may have many.
    let backends = route.backends().map(|backend| backend.namespace);
    let foreign: BTreeSet<String> = backends.filter(|namespace| *namespace != route.metadata.namespace).collect();
    let beside = foreign.iter().flat_map(|namespace| published.world.within(Kind::ReferenceGrant, namespace));
    let grants = beside.filter(|(key, _)| arrivals.may_read(key));
    changed.chain(grants.map(|(_, grant)| grant.modified)).fold(stored.modified, Revision::max)
}

pub(super) fn of(
    hub: &Hub,
    published: &Published,
    arrivals: &Arrivals,
    key: &ObjectKey,
    stored: &Entry,
) -> Option<Status> {
    let subject = Subject { hub, arrivals, key, stored, now: crate::now_unix() };
    match &stored.resource {
        Resource::HttpRoute(_) | Resource::GrpcRoute(_) | Resource::TlsRoute(_) | Resource::TcpRoute(_) => {
            Some(Status { parents: subject.parents(published)?, ..Status::default() })
        }
        Resource::Workload(_) => {
            let owner = published.world.registered_by(&key.object_name())?;
            Some(Status {
                registered_by: Some(owner.name.clone()),
                identity: Some(owner.identity.to_string()),
                connected: Some(hub.registry().is_connected(owner)),
                ..Status::default()
            })
        }
        Resource::FilterPolicy(_)
        | Resource::RateLimitPolicy(_)
        | Resource::FaultPolicy(_)
        | Resource::JwtPolicy(_)
        | Resource::AccessPolicy(_) => Some(subject.policy(published)),
        Resource::PolicyTemplate(template) => {
            let conditions = template_status(&published.world, template);
            Some(Status { conditions: subject.about("", told(&conditions)), ..Status::default() })
        }
        Resource::TrafficPolicy(policy) => {
            let conditions = traffic_status(&published.world, policy);
            Some(Status { conditions: subject.about("", told(&conditions)), ..Status::default() })
        }
        Resource::ExternalService(external) => {
            let conditions = external_status(&published.world, external);
            Some(Status { conditions: subject.about("", told(&conditions)), ..Status::default() })
        }
        Resource::Service(service) => {
            let conditions = service_status(&published.world, service);
            Some(Status { conditions: subject.about("", told(&conditions)), ..Status::default() })
        }
        Resource::Namespace(_)
        | Resource::Mesh(_)
        | Resource::ReferenceGrant(_)
        | Resource::Filter(_)
        | Resource::FilterPublisher(_)
        | Resource::Secret(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_programmed_where_proxies_acknowledged_it() {
        /// The revision of one of which nothing is known.
        const UNKNOWN: u64 = u64::MAX;
        fn check(arrivals: &[(&str, u64, &[&str])], expect: &str) {
            let arrival = |(proxy, synced, held): &(&str, u64, &[&str])| Arrival {
                proxy: (*proxy).to_owned(),
                namespace: "shop".to_owned(),
                synced: Revision(*synced),
                held: held.iter().map(|text| (*text).to_owned()).collect(),
                unknown: (*synced == UNKNOWN).then(|| "nowhere".to_owned()),
            };
            let route = ObjectKey::new(weft_policy::resource::Kind::HttpRoute, "shop", "r");
            let caller = Rights { role: Role::Viewer, namespaces: BTreeSet::new(), addresses: BTreeSet::new() };
            let arrivals = Arrivals { proxies: arrivals.iter().map(arrival).collect(), caller };
            for consumer in [None, Some("shop")] {
                let got = arrivals.programmed(&route, Revision(5), consumer);
                assert_eq!([got.status, got.reason, got.message].join(" "), expect);
            }
            assert_eq!(arrivals.programmed(&route, Revision(5), Some("bank")).reason, "NoProxy");
        }
        check(&[], "Unknown NoProxy no proxy is connected");
        check(&[("a", 5, &[]), ("b", 7, &[])], "True Programmed acknowledged by all 2 connected proxies");
        check(&[("a", 5, &[]), ("b", 4, &[])], "False Pending 1 of 2 connected proxies have not acknowledged it: b");
        let refused = "HTTPRoute shop/r#1: no such backend: shop/x";
        check(&[("a", 5, &[]), ("b", 5, &[refused])], &format!("False Invalid proxy b refused {refused}"));
        check(
            &[("a", 5, &[]), ("b", UNKNOWN, &[])],
            "Unknown NotTold of 1 of 2 connected proxies it is not known: b is nowhere",
        );
        check(
            &[("a", 4, &[]), ("b", UNKNOWN, &[])],
            "False Pending 1 of 2 connected proxies have not acknowledged it: a",
        );
        check(
            &[("a", 5, &["HTTPRoute shop/other: shop/r"])],
            "True Programmed acknowledged by all 1 connected proxies",
        );
    }
}
