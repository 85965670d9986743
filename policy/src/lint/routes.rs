//! Routes by themselves: parents, backends, header changes, deadlines.

use std::collections::BTreeSet;

use super::lens::Lens;
use super::{Code, Report, Severity};
use crate::bundle::{ObjectName, Protocol};
use crate::plan::{Displaced, Led, OffPorts, misattached, resolve, service_protocol, targets, uneditable};
use crate::resource::core::PortSpec;
use crate::resource::route::{
    FilterType, HeaderField, PathModifierSpec, Place, RedirectSpec, Referred, RouteFilter, RuleSpec,
};
use crate::resource::{AnyRoute, Kind, Object, ObjectKey, ServiceSpec, duration_text};

pub(super) fn check(lens: &Lens<'_>, report: &mut Report) {
    for (route, _) in lens.routes() {
        let of = Of { lens, route, object: route.key() };
        of.parents(report);
        for (index, rule) in route.spec.rules.iter().enumerate() {
            of.rule(&format!("spec.rules[{index}]"), rule, report);
        }
    }
}

struct Of<'l, 'w> {
    lens: &'l Lens<'w>,
    route: AnyRoute<'w>,
    object: ObjectKey,
}

/// `; 8080 is the app's, the Service's is 80`, where that is so.
fn meant_port(lens: &Lens<'_>, service: &Object<ServiceSpec>, port: u16) -> String {
    let behind = lens.behind(&service.name());
    let leads = |known: &&PortSpec| targets(known, &behind).is_ok_and(|targets| targets.port == port);
    let meant = service.spec.served_ports().find(leads);
    meant.map(|known| format!("; {port} is the app's, the Service's is {}", known.port)).unwrap_or_default()
}

impl Of<'_, '_> {
    fn tell(&self, code: Code, key: String, message: impl Into<String>, report: &mut Report) {
        report.tell(code, &self.object, key, message);
    }

    fn parents(&self, report: &mut Report) {
        for undoable in self.route.spec.undoable() {
            let message = format!("{}: every request that the route matches is answered 500", undoable.message);
            self.tell(Code::NotAttached, format!("spec.{}", undoable.key), message, report);
        }
        for unserved in self.route.unserved() {
            self.tell(Code::Unserved, format!("spec.{}", unserved.key), unserved.message, report);
        }
        if !self.route.kind.is_of_bytes() && !self.route.spec.hostnames.is_empty() {
            let message =
                "nothing is inferred of them in a mesh (GEP-1294): a match of the header Host takes what they would";
            report.tell_as(Severity::Note, Code::Unserved, &self.object, "spec.hostnames", message);
        }
        self.parents_outside(report);
        let parents = &self.route.spec.parent_refs;
        if !parents.iter().any(|parent| self.route.may_hold_at(parent)) {
            let message = "no Service among them: the route is attached to nothing";
            self.tell(Code::NotAttached, "spec.parentRefs".to_owned(), message, report);
        }
        for (index, parent) in parents.iter().enumerate().filter(|(_, parent)| parent.is_service()) {
            let key = format!("spec.parentRefs[{index}]");
            let name = self.route.named(parent.namespace.as_deref(), &parent.name);
            let Some(service) = self.lens.world.service(&name) else {
                if !self.lens.world.is_unreadable(Kind::Service, &name) {
                    self.tell(Code::ParentMissing, key, self.lens.no_service(&name), report);
                }
                continue;
            };
            let names_all = parent.port.is_none() && parent.section_name.is_none();
            if !names_all && !service.spec.served_ports().any(|port| parent.is_at(port)) {
                let number = parent.port.map(|port| format!(" {port}")).unwrap_or_default();
                let section = parent.section_name.as_ref().map(|name| format!(" named {name}")).unwrap_or_default();
                let meant = parent.port.map(|port| meant_port(self.lens, service, port)).unwrap_or_default();
                let message = format!("Service {name} has no port{number}{section}{meant}");
                self.tell(Code::ParentPortMissing, key.clone(), message, report);
            }
            if let Some(off) = OffPorts::of(self.lens.world, self.route, parent) {
                self.tell(Code::RouteOffBytes, key.clone(), off.to_string(), report);
            }
            if let Some(displaced) = Displaced::of(self.lens.world, self.route, parent) {
                self.tell(Code::OtherKind, key, displaced.to_string(), report);
            }
        }
    }

    /// The ExternalServices among the parents.
    fn parents_outside(&self, report: &mut Report) {
        let (route, world) = (self.route, self.lens.world);
        let parents = route.spec.parent_refs.iter().enumerate();
        for (index, parent) in parents.filter(|(_, parent)| parent.is_external() && route.may_hold_at(parent)) {
            let name = route.named(parent.namespace.as_deref(), &parent.name);
            let Some(message) = misattached(world, route, parent, &name) else { continue };
            let code = match world.external(&name) {
                Some(_) => Code::ParentPortMissing,
                None if world.is_unreadable(Kind::ExternalService, &name) => continue,
                None => Code::ParentMissing,
            };
            self.tell(code, format!("spec.parentRefs[{index}]"), message, report);
        }
    }

    fn rule(&self, at: &str, rule: &RuleSpec, report: &mut Report) {
        self.matches(at, rule, report);
        self.filters(&format!("{at}.filters"), &rule.filters, report);
        let total: u64 = rule.backend_refs.iter().map(|backend| u64::from(backend.weight)).sum();
        let redirects = rule.has(FilterType::RequestRedirect);
        self.redirect(at, rule, report);
        if total == 0 && !redirects {
            let (key, message) = match rule.backend_refs.as_slice() {
                [] => (at.to_owned(), "it has no backend: what meets it is answered 500"),
                _ => (format!("{at}.backendRefs"), "all have the weight 0: what meets the rule is answered 500"),
            };
            self.tell(Code::NoWeight, key, message, report);
        }
        for (index, backend) in rule.backend_refs.iter().enumerate() {
            let at = format!("{at}.backendRefs[{index}]");
            self.filters(&format!("{at}.filters"), &backend.filters, report);
            if backend.weight == 0 && total > 0 {
                self.tell(Code::ZeroWeight, format!("{at}.weight"), "it gets no request", report);
            }
            self.backend(at, backend.referred(), backend.weight > 0, report);
        }
        for (field, mirror) in rule.mirrored() {
            self.backend(format!("{at}.{field}"), mirror, true, report);
        }
        self.deadline(at, rule, report);
    }

    fn matches(&self, at: &str, rule: &RuleSpec, report: &mut Report) {
        for (index, matching) in rule.matches.iter().enumerate() {
            let at = format!("{at}.matches[{index}]");
            if matching.method.as_deref() == Some("CONNECT") {
                self.tell(Code::ConnectNeverRouted, format!("{at}.method"), "no route sees CONNECT", report);
            }
            let headers = matching.headers.iter().map(|header| &header.name);
            self.matched_twice(&format!("{at}.headers"), headers, report);
            let params = matching.query_params.iter().map(|param| &param.name);
            self.matched_twice(&format!("{at}.queryParams"), params, report);
        }
    }

    fn matched_twice<'n>(&self, at: &str, names: impl Iterator<Item = &'n String>, report: &mut Report) {
        let mut seen = BTreeSet::new();
        for (number, name) in names.enumerate().filter(|(_, name)| !seen.insert(*name)) {
            let message = format!("{name} is matched already; the first entry counts");
            self.tell(Code::RepeatedHeaderMatch, format!("{at}[{number}]"), message, report);
        }
    }

    fn filters(&self, at: &str, filters: &[RouteFilter], report: &mut Report) {
        for (index, filter) in filters.iter().enumerate() {
            let Some((_, field, modifier)) = filter.modifier() else { continue };
            let at = format!("{at}[{index}].{field}");
            let names = |list: &[HeaderField]| list.iter().map(|field| field.name.clone()).collect::<Vec<_>>();
            let lists =
                [("set", names(&modifier.set)), ("add", names(&modifier.add)), ("remove", modifier.remove.clone())];
            for (key, list) in lists {
                let mut seen = BTreeSet::new();
                for (number, name) in list.iter().enumerate() {
                    let is_repeated = !seen.insert(name);
                    let at = if key == "remove" {
                        format!("{at}.{key}[{number}]")
                    } else {
                        format!("{at}.{key}[{number}].name")
                    };
                    if let Some(why) = uneditable(name) {
                        self.tell(Code::UneditableHeader, at, format!("{name} can't be changed: {why}"), report);
                    } else if is_repeated && key != "remove" {
                        let message = format!("{name} is in `{key}` already; the first entry counts");
                        self.tell(Code::RepeatedHeaderChange, at, message, report);
                    }
                }
            }
        }
    }

    fn redirect(&self, at: &str, rule: &RuleSpec, report: &mut Report) {
        for (index, filter) in rule.filters.iter().enumerate() {
            let RouteFilter::RequestRedirect(RedirectSpec { scheme, hostname, path, port, status_code: _ }) = filter
            else {
                continue;
            };
            let keeps_path = match path {
                None => true,
                Some(PathModifierSpec::ReplacePrefixMatch { replace_prefix_match: to }) => {
                    rule.prefix() == Some(to.as_str())
                }
                Some(PathModifierSpec::ReplaceFullPath { .. }) => false,
            };
            if keeps_path && scheme.is_none() && hostname.is_none() && port.is_none() {
                let key = format!("{at}.filters[{index}].requestRedirect");
                self.tell(Code::RedirectsToItself, key, "it leads to the address that was asked for", report);
            }
        }
    }

    fn backend(&self, key: String, backend: Referred<'_>, gets_requests: bool, report: &mut Report) {
        let name = backend.object_name(&self.route.metadata.namespace);
        let service = match resolve(self.lens.world, self.route, backend) {
            Ok(Led::Service(service)) => service,
            // What is behind it nobody here knows.
            Ok(Led::External(_)) => return,
            Err((reason, message)) => return self.unresolved(key, backend, &name, reason, message, report),
        };
        let behind = self.lens.behind(&name);
        let port = service.spec.port(backend.port).filter(|_| !self.route.kind.is_of_bytes());
        if port.is_some_and(|port| matches!(service_protocol(port, &behind), Protocol::Tcp | Protocol::Udp)) {
            let message = format!("port {} of Service {name} is declared tcp: no request is sent to it", backend.port);
            return self.tell(Code::BackendNotHttp, key, message, report);
        }
        if behind.is_empty() && gets_requests && self.lens.knows_workloads() {
            let message = format!("no workload stands behind Service {name}");
            self.tell(Code::BackendWithoutEndpoints, key, message, report);
        }
    }

    fn unresolved(
        &self,
        key: String,
        backend: Referred<'_>,
        name: &ObjectName,
        reason: &str,
        message: String,
        report: &mut Report,
    ) {
        if backend.place == Some(Place::External) && reason == "BackendNotFound" {
            let code = match self.lens.world.external(name) {
                Some(_) => Code::BackendPortMissing,
                None if self.lens.world.is_unreadable(Kind::ExternalService, name) => return,
                None => Code::BackendMissing,
            };
            return self.tell(code, key, message, report);
        }
        match (reason, self.lens.world.service(name)) {
            ("InvalidKind" | "UnsupportedProtocol", _) => self.tell(Code::BackendNotHttp, key, message, report),
            ("RefNotPermitted", _) => self.tell(Code::BackendForeign, key, message, report),
            (_, Some(service)) => {
                let message = message + &meant_port(self.lens, service, backend.port);
                self.tell(Code::BackendPortMissing, key, message, report);
            }
            (_, None) if self.lens.world.is_unreadable(Kind::Service, name) => {}
            (_, None) => self.tell(Code::BackendMissing, key, self.lens.no_service(name), report),
        }
    }

    fn deadline(&self, at: &str, rule: &RuleSpec, report: &mut Report) {
        let Some(own) = rule.timeouts.as_ref().and_then(|timeouts| timeouts.request_ms) else { return };
        let key = format!("{at}.timeouts.request");
        let mesh = self.lens.world.mesh().and_then(|mesh| mesh.spec.defaults.request_timeout_ms).filter(|ms| *ms > 0);
        match mesh {
            Some(mesh) if own == 0 => {
                let message = format!("0s lifts the mesh's deadline of {}", duration_text(mesh));
                self.tell(Code::NoDeadline, key, message, report);
            }
            Some(mesh) if own > mesh => {
                let message = format!("{} is longer than the mesh's {}", duration_text(own), duration_text(mesh));
                self.tell(Code::NoDeadline, key, message, report);
            }
            None if own == 0 => {
                let message = "0s means no deadline, as without it";
                report.tell_as(Severity::Note, Code::NoDeadline, &self.object, key, message);
            }
            Some(_) | None => {}
        }
    }
}
