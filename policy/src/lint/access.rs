//! Rules of access policies: entries that match nothing, and rules that never hold.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

use serde_json::Value;

use super::condition::{Side, never_asked, never_calls, severity};
use super::lens::{Lens, key_of};
use super::names::may_be_elsewhere;
use super::{Code, Report};
use crate::authz::Action;
use crate::bundle::{Direction, ObjectName};
use crate::identity::SpiffeId;
use crate::plan::targets;
use crate::resource::access::{OperationSpec, RuleSpec, SourceSpec};
use crate::resource::filter::PolicyMode;
use crate::resource::{AccessPolicySpec, Attaching, Kind, Object, ObjectKey, ServiceSpec, WorkloadSpec};
use crate::route::METHODS;
use crate::text::did_you_mean;

pub(super) fn check(lens: &Lens<'_>, report: &mut Report) {
    for policy in lens.all::<AccessPolicySpec>() {
        let object = key_of(Kind::AccessPolicy, &policy.metadata);
        let judged = Judged { lens, held: lens.held(&object), object, policy, ports: OnceCell::new() };
        for (index, rule) in policy.spec.rules.iter().enumerate() {
            judged.rule(&format!("spec.rules[{index}]"), rule, report);
        }
    }
}

/// True for a policy of the filter `jwt` that tells a claim to the filters behind it.
fn tells(policy: &Attaching<'_>, claim: &str) -> bool {
    let spec = &policy.spec;
    let claims = spec.config.get("claims").and_then(Value::as_array).into_iter().flatten();
    let mut names = claims.filter_map(|told| told.get("claim")?.as_str());
    spec.filter.name == "jwt"
        && (spec.direction, spec.mode) == (Direction::Inbound, PolicyMode::Enforce)
        && names.any(|name| name.eq_ignore_ascii_case(claim))
}

/// A policy and the workloads that it holds for.
struct Judged<'l, 'w> {
    lens: &'l Lens<'w>,
    object: ObjectKey,
    policy: &'w Object<AccessPolicySpec>,
    held: Rc<[&'w Object<WorkloadSpec>]>,
    ports: OnceCell<Ports>,
}

/// The ports of the workloads that a policy holds for.
#[derive(Default)]
struct Ports {
    served: BTreeSet<u16>,
    /// Ports of services in front of them that lead to another port, with that one.
    leading: BTreeMap<u16, (ObjectName, u16)>,
}

impl Judged<'_, '_> {
    fn action(&self) -> Action {
        self.policy.spec.action
    }

    fn rule(&self, at: &str, rule: &RuleSpec, report: &mut Report) {
        for (index, from) in rule.from.iter().enumerate() {
            let at = format!("{at}.from[{index}]");
            self.source(&at, from, report);
            self.claims(&at, from, report);
            self.contradiction(&at, never_calls(from), report);
        }
        for (index, to) in rule.to.iter().enumerate() {
            let at = format!("{at}.to[{index}]");
            self.methods(&at, to, report);
            self.ports(&at, to, report);
            self.contradiction(&at, never_asked(to), report);
        }
    }

    fn contradiction(&self, at: &str, never: Option<(String, String)>, report: &mut Report) {
        if let Some((key, why)) = never {
            let severity = severity(self.action(), Side::For);
            report.tell_as(severity, Code::Contradiction, &self.object, format!("{at}{key}"), why);
        }
    }

    fn source(&self, at: &str, from: &SourceSpec, report: &mut Report) {
        for (key, list, side) in
            [("principals", &from.principals, Side::For), ("notPrincipals", &from.not_principals, Side::Except)]
        {
            for (index, text) in list.iter().enumerate() {
                self.principal(&format!("{at}.{key}[{index}]"), text, side, report);
            }
        }
        for (key, list) in [("namespaces", &from.namespaces), ("notNamespaces", &from.not_namespaces)] {
            for (index, name) in list.iter().enumerate() {
                self.namespace(&format!("{at}.{key}[{index}]"), name, report);
            }
        }
        let accounts = [&from.service_accounts, &from.not_service_accounts];
        for (key, list) in ["serviceAccounts", "notServiceAccounts"].into_iter().zip(accounts) {
            for (index, text) in list.iter().enumerate() {
                if let Some((namespace, account)) = text.split_once('/') {
                    self.account(&format!("{at}.{key}[{index}]"), namespace, account, report);
                }
            }
        }
    }

    /// A claim that no filter tells is never there: who must have it is never met, and who must not is anybody.
    fn claims(&self, at: &str, from: &SourceSpec, report: &mut Report) {
        for (index, claim) in from.claims.iter().enumerate() {
            let is_told = |workload: &&Object<WorkloadSpec>| {
                let near = self.lens.world.policies_of(workload).filter_map(Attaching::of);
                near.into_iter().any(|policy| tells(&policy, &claim.name))
            };
            let mut without = self.held.iter().filter(|workload| !is_told(workload));
            if let Some(workload) = without.next() {
                let more = match without.count() {
                    0 => String::new(),
                    more => format!(" and {more} more"),
                };
                let message =
                    format!("no JwtPolicy tells the claim {} at Workload {}{more}", claim.name, workload.name());
                report.tell(Code::ClaimNotTold, &self.object, format!("{at}.claims[{index}].name"), message);
            }
        }
    }

    fn principal(&self, at: &str, text: &str, side: Side, report: &mut Report) {
        let own = format!("spiffe://{}/", self.lens.world.trust_domain);
        let can_be_own = match text.strip_suffix('*') {
            Some(prefix) => own.starts_with(prefix) || prefix.starts_with(&own),
            None => text.starts_with(&own),
        };
        if !can_be_own {
            let message = format!(
                "nobody is {text}: peers of trust domains other than {} are not let in",
                self.lens.world.trust_domain
            );
            report.tell_as(severity(self.action(), side), Code::ForeignPrincipal, &self.object, at, message);
        } else if let Ok(id) = text.parse::<SpiffeId>() {
            self.account(at, id.namespace(), id.service_account(), report);
        }
    }

    fn namespace(&self, at: &str, name: &str, report: &mut Report) {
        if self.lens.knows_workloads() && !self.lens.has_namespace(name) && !may_be_elsewhere(self.lens, name) {
            let message = format!("nothing is in a namespace {name}{}", self.lens.meant_namespace(name));
            report.tell(Code::UnknownNamespace, &self.object, at, message);
        }
    }

    fn account(&self, at: &str, namespace: &str, account: &str, report: &mut Report) {
        if self.lens.knows_workloads()
            && !self.lens.has_account(namespace, account)
            && !may_be_elsewhere(self.lens, namespace)
        {
            let meant = match self.lens.has_namespace(namespace) {
                true => self.lens.meant_account(namespace, account),
                false => self.lens.meant_namespace(namespace),
            };
            let message = format!("no workload has the account {namespace}/{account}{meant}");
            report.tell(Code::UnknownAccount, &self.object, at, message);
        }
    }

    fn methods(&self, at: &str, to: &OperationSpec, report: &mut Report) {
        for (key, list, side) in [("methods", &to.methods, Side::For), ("notMethods", &to.not_methods, Side::Except)] {
            for (index, method) in list.iter().enumerate() {
                let at = format!("{at}.{key}[{index}]");
                if method.contains('*') {
                    let message = format!("no request has the method {method:?}; leave {key} out to mean every method");
                    report.tell_as(severity(self.action(), side), Code::AnyMethod, &self.object, at, message);
                } else if method == "CONNECT" {
                    let message = "no request is judged with the method CONNECT: a tunnel is judged as a connection, an \
                                   upgraded request as GET";
                    report.tell(Code::ConnectNeverJudged, &self.object, at, message);
                } else if !METHODS.contains(&method.as_str())
                    && let meant = did_you_mean(method, METHODS)
                    && !meant.is_empty()
                {
                    let message = format!("no standard has the method {method}{meant}");
                    report.tell(Code::MisspeltMethod, &self.object, at, message);
                }
            }
        }
    }

    fn ports(&self, at: &str, to: &OperationSpec, report: &mut Report) {
        for (key, list, side) in [("ports", &to.ports, Side::For), ("notPorts", &to.not_ports, Side::Except)] {
            for (index, port) in list.iter().enumerate() {
                self.port(&format!("{at}.{key}[{index}]"), *port, side, report);
            }
        }
    }

    fn known_ports(&self) -> &Ports {
        self.ports.get_or_init(|| {
            let mut ports = Ports::default();
            let mut in_front = BTreeMap::<ObjectName, &Object<ServiceSpec>>::new();
            for workload in self.held.iter() {
                ports.served.extend(workload.spec.ports.iter().map(|own| own.port));
                in_front.extend(self.lens.in_front(&workload.name()).iter().map(|service| (service.name(), *service)));
            }
            for (name, service) in in_front {
                for known in service.spec.served_ports() {
                    let led = targets(known, &self.lens.behind(&name)).ok().map(|targets| targets.port);
                    let led = led.filter(|led| *led != known.port);
                    if let Some(led) = led {
                        ports.leading.entry(known.port).or_insert_with(|| (name.clone(), led));
                    }
                }
            }
            ports
        })
    }

    fn port(&self, at: &str, port: u16, side: Side, report: &mut Report) {
        let Ports { served, leading } = self.known_ports();
        if served.is_empty() || served.contains(&port) {
            return;
        }
        match leading.get(&port) {
            Some((name, target)) => {
                let message = format!("{port} is the port of Service {name}; the app's, which rules name, is {target}");
                report.tell_as(severity(self.action(), side), Code::ServicePort, &self.object, at, message);
            }
            None => {
                let message = format!("no workload that the policy holds for has the port {port}");
                report.tell(Code::UnservedRulePort, &self.object, at, message);
            }
        }
    }
}
