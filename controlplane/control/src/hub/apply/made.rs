//! Objects that the control plane makes itself: workloads that proxies register, the services that they ask for, and the
//! `Filter` of a publication.

use std::collections::BTreeMap;

use weft_policy::authz;
use weft_policy::bundle::{ObjectName, Protocol, Revision};
use weft_policy::identity::TrustDomain;
use weft_policy::plan::{Action, Entry, Owner, ProxyKey, Release, World};
use weft_policy::registration::{Field, Registration};
use weft_policy::resource::core::{
    ACCOUNTS, GRANTED_SERVICES, MADE_FOR, PortSpec, REGISTERED_BY, STARTING, TargetPort, Transport,
};
use weft_policy::resource::filter::PolicyMode;
use weft_policy::resource::mesh::WorkloadPortSpec;
use weft_policy::resource::route::{ParentRef, RuleSpec};
use weft_policy::resource::{
    AccessPolicySpec, FilterPolicySpec, FilterSpec, HttpRouteSpec, Kind, Metadata, Object, ObjectKey, ROOT_NAMESPACE,
    Resource, ServiceSpec, TrafficPolicySpec, WorkloadSpec,
};

use super::super::registration::{Presence, RegisterError};
use super::super::{AUTHZ, Draft, FilterVersion, SYSTEM};
use super::PutError;
use crate::store::{StoreError, Unreadable, Write};

/// The label by which a made service selects the workloads that asked for it.
const SERVICE_LABEL: &str = "weft.dev/service";
/// The label that people select by.
const APP_LABEL: &str = "app";
/// Why the object stands for a record that can't be read.
const UNREADABLE: &str = "weft.dev/unreadable";
/// Service port that is added for an HTTP app, unless the app has a port of this number already.
const HTTP_PORT: u16 = 80;

/// Puts a registered workload into the world, if it differs from what is there; with it the service that it asks for.
pub(in crate::hub) fn put_registered(
    draft: &mut Draft,
    proxy: &ProxyKey,
    (registration, presence): (&Registration, Presence),
) -> Result<(), RegisterError> {
    let mut workload = registration.workload().clone();
    if let Some(service) = registration.service() {
        workload.metadata.labels = stand_behind(draft, registration, proxy, service)?;
    }
    may_be_selected(draft, proxy, registration, &workload)?;
    workload.metadata.annotations = annotations(draft, proxy);
    if presence == Presence::Starting {
        workload.metadata.annotations.insert(STARTING.to_owned(), "true".to_owned());
    }
    let resource = Resource::Workload(workload);
    let key = resource.key();
    let owner = Owner::Proxy(proxy.clone());
    let is_taken_over = draft.world.hand_over(&key, &owner);
    let action = draft.store(&owner, resource)?;
    if is_taken_over && action == Action::Unchanged {
        draft.record(&key)?;
    }
    Ok(())
}

/// The proxy has a configuration in force: callers may be sent to its workloads from now on.
pub(in crate::hub) fn put_in_discovery(draft: &mut Draft, proxy: &ProxyKey) -> Result<(), RegisterError> {
    let names: Vec<_> = draft.world.registered_of(proxy).cloned().collect();
    for name in names {
        let Some(mut workload) = draft.world.workload(&name).cloned() else { continue };
        if workload.metadata.annotations.remove(STARTING).is_some() {
            draft.store(&Owner::Proxy(proxy.clone()), Resource::Workload(workload))?;
        }
    }
    Ok(())
}

/// The proxy that registered a workload, and what its account was granted.
fn annotations(draft: &Draft, proxy: &ProxyKey) -> BTreeMap<String, String> {
    let granted = &draft.claims.grants(&proxy.identity).services;
    let granted = granted.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let annotations = [(REGISTERED_BY, proxy.name.clone()), (GRANTED_SERVICES, granted)];
    let annotations = annotations.into_iter().filter(|(_, value)| !value.is_empty());
    annotations.map(|(key, value)| (key.to_owned(), value)).collect()
}

/// Notes in a registered workload what its account is granted now.
pub(in crate::hub) fn note_grants(draft: &mut Draft, name: &ObjectName) -> Result<(), PutError> {
    let Some(proxy) = draft.world.registered_by(name).cloned() else { return Ok(()) };
    let Some(mut workload) = draft.world.workload(name).cloned() else { return Ok(()) };
    // A grant does not make it serve.
    let starting = workload.metadata.annotations.remove_entry(STARTING);
    workload.metadata.annotations = annotations(draft, &proxy);
    workload.metadata.annotations.extend(starting);
    draft.store(&Owner::Proxy(proxy), Resource::Workload(workload)).map(drop)
}

/// Takes a registered workload out of the world; its name stays its account's. The service that was made for it stays:
/// routes may name it.
pub(in crate::hub) fn remove_registered(draft: &mut Draft, name: &ObjectName, age: u64) -> Result<(), StoreError> {
    let key = ObjectKey::new(Kind::Workload, &name.namespace, &name.name);
    draft.claim(|draft| draft.claims.leave(name, age, crate::now_unix()));
    if draft.world.remove(&key).is_some() {
        draft.writes.push(Write::DeleteObject { key: super::store_key(&key) });
        draft.changed = true;
        draft.removal = true;
    }
    Ok(())
}

/// Refuses labels by which a service would select a workload that its account may not put there.
fn may_be_selected(
    draft: &Draft,
    proxy: &ProxyKey,
    registration: &Registration,
    workload: &Object<WorkloadSpec>,
) -> Result<(), RegisterError> {
    let account = proxy.identity.service_account();
    let grants = draft.claims.grants(&proxy.identity);
    for service in draft.world.selecting(workload) {
        if grants.may_stand_behind(account, &service.metadata.name, Some(service)) {
            continue;
        }
        let labels: Vec<_> = service.spec.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let reason = format!(
            "{} would put it behind Service {}, where account {} may not stand: {}",
            labels.join(","),
            service.name(),
            proxy.identity,
            how_to_grant(&service.metadata.name, account)
        );
        return Err(RegisterError::NotGranted { name: registration.name(), field: Field::Labels, reason });
    }
    Ok(())
}

fn how_to_grant(service: &str, account: &str) -> String {
    format!(
        "join with a token that grants it (weft token create --service {service}), or list {account} in the Service's \
         annotation {ACCOUNTS}"
    )
}

/// The labels that make the workload one of the service's, which is made where it is missing.
fn stand_behind(
    draft: &mut Draft,
    registration: &Registration,
    proxy: &ProxyKey,
    service: &str,
) -> Result<BTreeMap<String, String>, RegisterError> {
    let name = ObjectName::new(registration.name().namespace, service);
    let refused = |reason: String| RegisterError::Invalid { name: registration.name(), field: Field::Service, reason };
    let account = proxy.identity.service_account();
    let existing = draft.world.service(&name);
    if !draft.claims.grants(&proxy.identity).may_stand_behind(account, service, existing) {
        let reason = format!(
            "account {} may not stand behind Service {name}: {}",
            proxy.identity,
            how_to_grant(service, account)
        );
        return Err(RegisterError::NotGranted { name: registration.name(), field: Field::Service, reason });
    }
    let mut labels = registration.workload().metadata.labels.clone();
    labels.entry(APP_LABEL.to_owned()).or_insert_with(|| service.to_owned());
    labels.insert(SERVICE_LABEL.to_owned(), service.to_owned());
    if let Some(existing) = existing {
        if existing.spec.selector.is_empty() {
            return Err(refused(format!("Service {name} selects nothing: give it a selector")));
        }
        for (label, value) in &existing.spec.selector {
            let have = labels.entry(label.clone()).or_insert_with(|| value.clone());
            if have != value {
                return Err(refused(format!(
                    "Service {name} selects {label}={value}, the workload has {label}={have}"
                )));
            }
        }
        return Ok(labels);
    }
    let spec = ServiceSpec {
        selector: BTreeMap::from([(SERVICE_LABEL.to_owned(), service.to_owned())]),
        ports: service_ports(&registration.workload().spec.ports),
        ..ServiceSpec::default()
    };
    let annotations = BTreeMap::from([(MADE_FOR.to_owned(), registration.name().to_string())]);
    let metadata = Metadata { annotations, ..named(&name) };
    draft.store(&Owner::Applied, Resource::Service(Object { metadata, spec }))?;
    Ok(labels)
}

/// Every port of the app, and port 80 for the first that speaks HTTP.
fn service_ports(own: &[WorkloadPortSpec]) -> Vec<PortSpec> {
    let port = |name: String, port: u16, target: u16, protocol: Protocol| PortSpec {
        name: Some(name),
        port,
        target_port: Some(TargetPort::Number(target)),
        protocol: Transport::default(),
        app_protocol: match protocol {
            Protocol::Http => Some("http".to_owned()),
            Protocol::Grpc => Some("grpc".to_owned()),
            Protocol::Tcp => Some("tcp".to_owned()),
            Protocol::Udp | Protocol::Auto => None,
        },
        node_port: Default::default(),
    };
    let mut ports: Vec<_> = own.iter().map(|p| port(format!("port-{}", p.port), p.port, p.port, p.protocol)).collect();
    let speaks_http = |protocol| matches!(protocol, Protocol::Http | Protocol::Grpc | Protocol::Auto);
    let first = own.iter().find(|p| speaks_http(p.protocol));
    if let Some(first) = first.filter(|_| own.iter().all(|p| p.port != HTTP_PORT)) {
        ports.insert(0, port("web".to_owned(), HTTP_PORT, first.port, first.protocol));
    }
    ports
}

/// The stand-in for an access or filter policy whose record can't be read. It allows nothing to the targets that the
/// record names, or to its whole namespace if the targets can't be read either.
pub(super) fn closed_policy(unreadable: &Unreadable, revision: Revision) -> Option<Entry> {
    let own = unreadable.object().filter(|key| key.kind == Kind::AccessPolicy);
    let name = own.or_else(|| stand_in_aside(unreadable))?.object_name();
    let targets = written_spec(unreadable)["targetRefs"].clone();
    let annotations = BTreeMap::from([(UNREADABLE.to_owned(), unreadable.reason.clone())]);
    let spec = AccessPolicySpec {
        target_refs: serde_json::from_value(targets).unwrap_or_default(),
        action: authz::Action::Allow,
        mode: PolicyMode::Enforce,
        rules: Vec::new(),
    };
    let resource = Resource::AccessPolicy(Object { metadata: Metadata { annotations, ..named(&name) }, spec });
    Some(Entry::applied(resource, revision, super::new_uid()))
}

/// The stand-in for a route whose record can't be read, under its own name: whatever meets it is answered with an error, and
/// the planner closes what else is attached there by its namespace. It is attached where the record says, or to every one
/// of `services` if that can't be read either; of another namespace's services it keeps its own callers only.
pub(super) fn closed_route(unreadable: &Unreadable, revision: Revision, services: &[ObjectName]) -> Option<Entry> {
    let key = unreadable.object().filter(|key| key.kind.is_route())?;
    let read = serde_json::from_value(written_spec(unreadable)["parentRefs"].clone());
    let parent = |service: &ObjectName| ParentRef {
        group: String::new(),
        kind: Kind::Service.as_str().to_owned(),
        namespace: Some(service.namespace.clone()),
        name: service.name.clone(),
        port: None,
        section_name: None,
    };
    let parent_refs = read.unwrap_or_else(|_| services.iter().map(parent).collect());
    let annotations = BTreeMap::from([(UNREADABLE.to_owned(), unreadable.reason.clone())]);
    let spec = HttpRouteSpec { parent_refs, rules: vec![RuleSpec::default()], ..HttpRouteSpec::default() };
    let metadata = Metadata { annotations, ..named(&key.object_name()) };
    let resource = Resource::of_route(key.kind, metadata, spec)?;
    Some(Entry::applied(resource, revision, super::new_uid()))
}

/// The stand-in for a traffic policy whose record can't be read, under its own name and of its own age: what can be read of it
/// by itself holds as it did, and the rest is as by default. Where not even its targets can be read it is for nobody.
pub(super) fn partial_traffic_policy(unreadable: &Unreadable, revision: Revision) -> Option<Entry> {
    let key = unreadable.object().filter(|key| key.kind == Kind::TrafficPolicy)?;
    let record: serde_json::Value = serde_json::from_str(&unreadable.record).unwrap_or_default();
    let written = record["entry"]["resource"]["spec"].as_object();
    let mut spec = serde_json::json!({"targetRefs": []});
    for (field, value) in written.into_iter().flatten() {
        let mut with = spec.clone();
        with[field] = value.clone();
        if serde_json::from_value::<TrafficPolicySpec>(with.clone()).is_ok() {
            spec = with;
        }
    }
    let annotations = BTreeMap::from([(UNREADABLE.to_owned(), unreadable.reason.clone())]);
    let metadata = Metadata { annotations, ..named(&key.object_name()) };
    let resource = Resource::TrafficPolicy(Object { metadata, spec: serde_json::from_value(spec).ok()? });
    let mut entry = Entry::applied(resource, revision, super::new_uid());
    entry.created = serde_json::from_value(record["entry"]["created"].clone()).unwrap_or(revision);
    Some(entry)
}

/// The stand-in for a policy that attaches a filter: an access policy, which has a name of its own. One that makes
/// faults has none, since nobody is kept out by it.
fn stand_in_aside(unreadable: &Unreadable) -> Option<ObjectKey> {
    stand_in_of_known(unreadable).or_else(|| stand_in_of_unknown(unreadable))
}

/// The same for a policy of a kind that only a newer release knows, which wrote it to this store: nobody here can tell whom it
/// keeps out. The newer release is to write `"restricts": false` into the record of one that keeps out nobody.
fn stand_in_of_unknown(unreadable: &Unreadable) -> Option<ObjectKey> {
    let mut parts = unreadable.key.splitn(3, '/').filter(|_| unreadable.table == "objects");
    let (kind, namespace, name) = (parts.next()?, parts.next()?, parts.next()?);
    if kind.parse::<Kind>().is_ok() || !kind.ends_with("policies") {
        return None;
    }
    let record: serde_json::Value = serde_json::from_str(&unreadable.record).unwrap_or_default();
    if record["restricts"].as_bool() == Some(false) {
        return None;
    }
    let namespace = if namespace.is_empty() { ROOT_NAMESPACE } else { namespace };
    Some(ObjectKey::new(Kind::AccessPolicy, namespace, &format!("{name}.unreadable-{kind}")))
}

fn stand_in_of_known(unreadable: &Unreadable) -> Option<ObjectKey> {
    let is_guarding = |key: &ObjectKey| key.kind.attaches_filters() && key.kind != Kind::FaultPolicy;
    let key = unreadable.object().filter(is_guarding)?;
    let kind = match key.kind == Kind::FilterPolicy {
        true => "filter-policy".to_owned(),
        false => key.kind.as_str().to_ascii_lowercase(),
    };
    Some(ObjectKey::new(Kind::AccessPolicy, &key.namespace, &format!("{}.unreadable-{kind}", key.name)))
}

/// The stand-in for what such a policy judges of what workloads send: a filter policy that lets no call out. Only where the
/// record says that its filter judges calls, or does not say what it judges; the access policy keeps out what comes.
fn stand_in_outbound(unreadable: &Unreadable) -> Option<ObjectKey> {
    let aside = stand_in_aside(unreadable)?;
    let spec = written_spec(unreadable);
    let is_route = |target: &serde_json::Value| matches!(target["kind"].as_str(), Some("HTTPRoute" | "GRPCRoute"));
    let direction = &spec["direction"];
    let judges_calls = if direction.is_null() {
        !spec.is_object() || spec["targetRefs"].as_array().into_iter().flatten().any(is_route)
    } else {
        direction != "Inbound"
    };
    judges_calls.then(|| ObjectKey::new(Kind::FilterPolicy, &aside.namespace, &aside.name))
}

/// The stand-ins that have names of their own.
pub(in crate::hub) fn stand_ins(unreadable: &Unreadable) -> Vec<ObjectKey> {
    [stand_in_aside(unreadable), stand_in_outbound(unreadable)].into_iter().flatten().collect()
}

/// The spec in a record that can't be read; null where there is none.
fn written_spec(unreadable: &Unreadable) -> serde_json::Value {
    let record: serde_json::Value = serde_json::from_str(&unreadable.record).unwrap_or_default();
    record["entry"]["resource"]["spec"].clone()
}

/// The policy by which the calls of those whom it is for are refused, as its stand-in.
pub(super) fn closed_calls(unreadable: &Unreadable, domain: &TrustDomain, revision: Revision) -> Option<Entry> {
    let name = stand_in_outbound(unreadable)?.object_name();
    let denied = authz::Policy { name: name.to_string(), action: authz::Action::Deny, rules: Vec::new() };
    let config = authz::Config { trust_domain: domain.to_string(), policies: vec![denied] };
    let read = |targets: serde_json::Value| {
        let filter = serde_json::json!({"name": AUTHZ, "namespace": ROOT_NAMESPACE});
        let spec =
            serde_json::json!({"targetRefs": targets, "direction": "Outbound", "filter": filter, "config": config});
        serde_json::from_value::<FilterPolicySpec>(spec).ok()
    };
    let targets = written_spec(unreadable)["targetRefs"].clone();
    let spec = read(targets).or_else(|| read(serde_json::json!([])))?;
    let annotations = BTreeMap::from([(UNREADABLE.to_owned(), unreadable.reason.clone())]);
    let resource = Resource::FilterPolicy(Object { metadata: Metadata { annotations, ..named(&name) }, spec });
    Some(Entry::applied(resource, revision, super::new_uid()))
}

/// Has the `Filter` stand for a published version.
pub(in crate::hub) fn put_filter(draft: &mut Draft, published: &FilterVersion) -> Result<(), PutError> {
    let name = ObjectName::new(ROOT_NAMESPACE, published.name.clone());
    let resource = Resource::Filter(Object { metadata: named(&name), spec: release(published).spec });
    draft.store(&Owner::Applied, resource).map(drop)
}

/// Has the world say what the record of a version says. True where that is news.
pub(in crate::hub) fn note_version(world: &mut World, record: &FilterVersion) -> bool {
    let name = ObjectName::new(ROOT_NAMESPACE, record.name.clone());
    let known = world.release(&name, &record.version);
    if record.deleted {
        let was_there = known.is_some();
        world.forget_release(&record.name, &record.version);
        return was_there;
    }
    let release = release(record);
    if known == Some(&release) {
        return false;
    }
    world.note_release(&record.name, release);
    true
}

/// A version as planners know it.
pub(in crate::hub) fn release(published: &FilterVersion) -> Release {
    let spec = FilterSpec {
        version: published.version.clone(),
        digest: published.digest.clone(),
        signature: published.signature.clone(),
        public_key: published.public_key_pem.clone(),
        size: published.size_bytes,
        abi: published.abi.clone(),
        capabilities: published.capabilities.clone(),
        config_schema: published.config_schema.clone(),
    };
    Release {
        statement: published.statement.clone(),
        shipped: published.published_by == SYSTEM,
        yanked: published.yanked,
        channels: published.channels.clone(),
        spec,
    }
}

fn named(name: &ObjectName) -> Metadata {
    Metadata { name: name.name.clone(), namespace: name.namespace.clone(), ..Metadata::default() }
}

#[cfg(test)]
mod tests {
    use weft_policy::bundle::Direction;

    use super::*;

    /// What closes for a record that can't be read: the policy's name, and the targets that it holds for.
    fn check(key: &str, record: &str, expect: Option<(&str, &[&str])>) {
        let (reason, record) = ("unknown variant".to_owned(), record.to_owned());
        let unreadable = Unreadable { table: "objects", key: key.to_owned(), reason, record };
        let closed = closed_policy(&unreadable, Revision(1)).map(|entry| {
            let Resource::AccessPolicy(policy) = entry.resource else { panic!("no access policy: {key}") };
            assert!(
                policy.spec.rules.is_empty() && policy.spec.mode == PolicyMode::Enforce,
                "{key}: it allows nothing"
            );
            let targets: Vec<_> = policy.spec.target_refs.iter().map(|target| target.name.clone()).collect();
            (policy.name().to_string(), targets)
        });
        let closed = closed
            .as_ref()
            .map(|(name, targets)| (name.as_str(), targets.iter().map(String::as_str).collect::<Vec<_>>()));
        assert_eq!(closed, expect.map(|(name, targets)| (name, targets.to_vec())), "{key}");
    }

    /// After a control plane went back to a release that does not know a kind.
    #[test]
    fn a_policy_of_an_unknown_kind_closes_what_it_holds_for() {
        let spec = r#"{"entry": {"resource": {"kind": "QuotaPolicy",
            "spec": {"targetRefs": [{"kind": "Service", "name": "web"}]}}}}"#;
        check("quotapolicies/shop/q", spec, Some(("shop/q.unreadable-quotapolicies", &["web"])));
        check("quotapolicies/shop/q", "{", Some(("shop/q.unreadable-quotapolicies", &[])));
        check("quotapolicies//q", "{}", Some(("weft-system/q.unreadable-quotapolicies", &[])));
        check("quotapolicies/shop/q", r#"{"restricts": false}"#, None);
        check("dashboards/shop/d", spec, None);
        check("faultpolicies/shop/f", spec, None);
        check("filterpolicies/shop/f", "{", Some(("shop/f.unreadable-filter-policy", &[])));
    }

    /// The access policy keeps nothing from leaving.
    #[test]
    fn what_judged_calls_lets_none_out() {
        let check = |key: &str, spec: &str, expect: bool| {
            let record = format!(r#"{{"entry": {{"resource": {{"spec": {spec}}}}}}}"#);
            let (reason, key) = ("unknown variant".to_owned(), key.to_owned());
            let unreadable = Unreadable { table: "objects", key, reason, record };
            let domain = "cluster.local".parse().expect("a domain");
            let closed = closed_calls(&unreadable, &domain, Revision(1));
            assert_eq!(closed.is_some(), expect, "{spec}");
            assert_eq!(stand_ins(&unreadable).len(), 1 + usize::from(expect), "{spec}");
            let Some(Entry { resource: Resource::FilterPolicy(policy), .. }) = closed else { return };
            assert_eq!((policy.spec.direction, policy.spec.mode), (Direction::Outbound, PolicyMode::Enforce));
        };
        let (rule, filter) = (r#"[{"kind": "HTTPRoute", "name": "r", "sectionName": "s"}]"#, "filterpolicies/shop/f");
        check(filter, r#"{"direction": "Outbound", "targetRefs": [{"kind": "Workload", "name": "w"}]}"#, true);
        check(filter, r#"{"direction": "Both", "targetRefs": 5}"#, true);
        check(filter, &format!(r#"{{"targetRefs": {rule}}}"#), true);
        check(filter, "5", true);
        check("quotapolicies/shop/q", r#"{"direction": "Outbound"}"#, true);
        check(filter, r#"{"direction": "Inbound"}"#, false);
        check(filter, r#"{"targetRefs": [{"kind": "Service", "name": "web"}]}"#, false);
    }
}
