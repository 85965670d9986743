//! The printed status of objects, in Kubernetes' shape: conditions with `True`, `False` or `Unknown`, a reason for programs
//! and a message for people.

use weft_api::{Condition, ParentStatus, Status};
use weft_policy::bundle::Revision;
use weft_policy::plan::{self, Entry, policy_status, route_status, service_status};
use weft_policy::resource::{HttpRouteSpec, Kind, Object, ObjectKey, Resource};

use super::Caller;
use crate::access::Thing;
use crate::hub::{Hub, Published};
use crate::registry::ProxyStatus;

/// The name by which routes' statuses say who wrote them.
const CONTROLLER: &str = "weft.dev/control-plane";

/// So many proxies are named in a message.
const NAMED: usize = 3;

/// How far each connected proxy is.
pub(super) struct Arrivals(Vec<Arrival>);

struct Arrival {
    proxy: String,
    namespace: String,
    synced: Revision,
    /// Refusals because of which it does without an object, as `kind namespace/name: reason`.
    held: Vec<String>,
}

impl Arrivals {
    /// As far as the caller may know of proxies.
    pub(super) fn of(hub: &Hub, caller: &Caller) -> Self {
        let connected = hub.registry().list(Revision(0), Revision(u64::MAX)).into_iter();
        let is_seen = |status: &ProxyStatus| caller.sees(Thing::Proxy, status.key.identity.namespace());
        let connected = connected.filter(is_seen);
        let connected = connected.filter(|status| status.connected_since.is_some() && !status.is_left_alone);
        let arrival = |ProxyStatus { key, synced, held, .. }: ProxyStatus| {
            let namespace = key.identity.namespace().to_owned();
            Arrival { proxy: key.name, namespace, synced, held }
        };
        Self(connected.map(arrival).collect())
    }

    /// Tells whether the proxies that are told of a route run it as it is since `modified`: those of the `consumer`'s
    /// namespace, or all.
    fn programmed(&self, route: &ObjectKey, modified: Revision, consumer: Option<&str>) -> Condition {
        let is_told = |arrival: &&Arrival| consumer.is_none_or(|namespace| arrival.namespace == namespace);
        let told: Vec<_> = self.0.iter().filter(is_told).collect();
        if told.is_empty() {
            let nobody = if self.0.is_empty() { "no proxy" } else { "no proxy that is told of it" };
            return condition("Programmed", "Unknown", "NoProxy", &format!("{nobody} is connected"));
        }
        let word = format!("{}/{}", route.namespace, route.name);
        let is_of = |held: &&String| {
            // As `Key` writes it; what follows is the number of a parent.
            let object = held.split(": ").next().and_then(|object| object.strip_prefix("HTTPRoute "));
            object.is_some_and(|name| name.split('#').next() == Some(word.as_str()))
        };
        let refused = told.iter().find_map(|arrival| Some((&arrival.proxy, arrival.held.iter().find(is_of)?)));
        if let Some((proxy, reason)) = refused {
            return condition("Programmed", "False", "Invalid", &format!("proxy {proxy} refused {reason}"));
        }
        let behind: Vec<_> = told.iter().filter(|arrival| arrival.synced < modified).collect();
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

/// The conditions as they are told, each with the generation that it is about.
fn told(conditions: &[plan::Condition], more: Option<Condition>, stored: &Entry) -> Vec<Condition> {
    let own = conditions.iter().map(|known| {
        let plan::Condition { kind, status, reason, message, key } = known;
        let status = if *status { "True" } else { "False" };
        match key.is_empty() || message.contains(key) {
            true => condition(kind, status, reason, message),
            false => condition(kind, status, reason, &format!("{key}: {message}")),
        }
    });
    let with_generation = |condition| Condition { observed_generation: stored.generation, ..condition };
    own.chain(more).map(with_generation).collect()
}

/// The newest change of a route or of a service that it names: its proxies are told of it by what they make of all.
fn since(published: &Published, route: &Object<HttpRouteSpec>, stored: &Entry) -> Revision {
    let own = &route.metadata.namespace;
    let key = |namespace: Option<&String>, name: &str| ObjectKey::new(Kind::Service, namespace.unwrap_or(own), name);
    let parents = route.spec.parent_refs.iter().map(|parent| key(parent.namespace.as_ref(), &parent.name));
    let backends = route.spec.rules.iter().flat_map(|rule| &rule.backend_refs);
    let named = parents.chain(backends.map(|backend| key(backend.namespace.as_ref(), &backend.name)));
    let changed = named.filter_map(|key| published.world.get(&key)).map(|service| service.modified);
    changed.fold(stored.modified, Revision::max)
}

pub(super) fn of(
    hub: &Hub,
    published: &Published,
    arrivals: &Arrivals,
    key: &ObjectKey,
    stored: &Entry,
) -> Option<Status> {
    match &stored.resource {
        Resource::HttpRoute(route) => {
            let parents = route_status(&published.world, route).into_iter().map(|parent| {
                let is_accepted = parent.conditions.iter().any(|known| known.kind == "Accepted" && known.status);
                let programmed = match is_accepted {
                    true => {
                        let own = &route.metadata.namespace;
                        let parent = parent.parent_ref.namespace.as_ref().unwrap_or(own);
                        let consumer = (parent != own).then_some(own.as_str());
                        arrivals.programmed(key, since(published, route, stored), consumer)
                    }
                    false => condition("Programmed", "False", "Invalid", "the route is not accepted"),
                };
                ParentStatus {
                    parent_ref: serde_json::to_value(parent.parent_ref).unwrap_or_default(),
                    controller_name: CONTROLLER.to_owned(),
                    conditions: told(&parent.conditions, Some(programmed), stored),
                }
            });
            Some(Status { parents: parents.collect(), ..Status::default() })
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
        Resource::FilterPolicy(_) | Resource::AccessPolicy(_) => {
            let conditions = policy_status(&published.world, key.kind, stored.resource.metadata());
            Some(Status { conditions: told(&conditions, None, stored), ..Status::default() })
        }
        Resource::Service(service) => {
            let conditions = service_status(&published.world, service);
            Some(Status { conditions: told(&conditions, None, stored), ..Status::default() })
        }
        Resource::Namespace(_) | Resource::Mesh(_) | Resource::Filter(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_route_is_programmed_where_proxies_acknowledged_it() {
        fn check(arrivals: &[(&str, u64, &[&str])], expect: &str) {
            let arrival = |(proxy, synced, held): &(&str, u64, &[&str])| Arrival {
                proxy: (*proxy).to_owned(),
                namespace: "shop".to_owned(),
                synced: Revision(*synced),
                held: held.iter().map(|text| (*text).to_owned()).collect(),
            };
            let route = ObjectKey::new(weft_policy::resource::Kind::HttpRoute, "shop", "r");
            let arrivals = Arrivals(arrivals.iter().map(arrival).collect());
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
            &[("a", 5, &["HTTPRoute shop/other: shop/r"])],
            "True Programmed acknowledged by all 1 connected proxies",
        );
    }
}
