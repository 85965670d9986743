//! Services and the workloads behind them: selectors, ports, addresses, weights.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::lens::{Lens, key_of};
use super::{Code, Report, Severity};
use crate::bundle::{ObjectName, Protocol};
use crate::plan::unserved_of;
use crate::resource::core::{ACCOUNTS, Transport};
use crate::resource::{Kind, Object, ServiceSpec, WorkloadSpec};
use crate::text::nearest;

pub(super) fn check(lens: &Lens<'_>, report: &mut Report) {
    addresses(lens, report);
    sockets(lens, report);
    for service in lens.all::<ServiceSpec>() {
        let of = Behind { lens, service, workloads: lens.behind(&service.name()) };
        of.selector(report);
        of.ports(report);
        of.weights(report);
        of.accounts(report);
    }
    for workload in lens.all::<WorkloadSpec>() {
        unserved(workload, lens.in_front(&workload.name()).iter().copied(), report);
    }
}

/// A virtual address that is another service's or a workload's can't be told apart: whoever dials it means that one.
fn addresses(lens: &Lens<'_>, report: &mut Report) {
    let mut taken = BTreeMap::<IpAddr, String>::new();
    for workload in lens.all::<WorkloadSpec>() {
        for address in all_addresses(workload) {
            taken.entry(address).or_insert_with(|| format!("Workload {}", workload.name()));
        }
    }
    for service in lens.all::<ServiceSpec>() {
        let Some(address) = service.spec.cluster_ip else { continue };
        if let Some(other) = taken.insert(address, format!("Service {}", service.name())) {
            let message = format!("{address} is the address of {other} already");
            report.tell(Code::SameAddress, &key_of(Kind::Service, &service.metadata), "spec.clusterIP", message);
        }
    }
}

fn all_addresses(workload: &Object<WorkloadSpec>) -> BTreeSet<IpAddr> {
    std::iter::once(&workload.spec.address).chain(&workload.spec.addresses).map(IpAddr::to_canonical).collect()
}

/// Sockets that two workloads have. In one namespace somebody counted wrong; in two one takes what the other is sent.
fn sockets(lens: &Lens<'_>, report: &mut Report) {
    let mut seen = BTreeMap::<SocketAddr, ObjectName>::new();
    for workload in lens.all::<WorkloadSpec>() {
        for (index, port) in workload.spec.ports.iter().enumerate() {
            for address in all_addresses(workload) {
                let socket = SocketAddr::new(address, port.port);
                let Some(other) = seen.insert(socket, workload.name()).filter(|other| *other != workload.name()) else {
                    continue;
                };
                let of_another = other.namespace != workload.metadata.namespace;
                let severity = if of_another { Severity::Error } else { Severity::Warning };
                let message = format!("{socket} is a port of Workload {other} already");
                let (object, key) = (key_of(Kind::Workload, &workload.metadata), format!("spec.ports[{index}]"));
                report.tell_as(severity, Code::SameSocket, &object, key, message);
            }
        }
    }
}

/// A workload that serves no port of a service in front of it.
pub(super) fn unserved<'w>(
    workload: &Object<WorkloadSpec>,
    in_front: impl Iterator<Item = &'w Object<ServiceSpec>>,
    report: &mut Report,
) {
    for service in in_front {
        if let Some(message) = unserved_by(service, workload) {
            report.tell(Code::UnservedByWorkload, &key_of(Kind::Workload, &workload.metadata), "spec.ports", message);
        }
    }
}

/// Why a workload is no endpoint of a service that it stands behind, if it has none of the ports that requests go to.
fn unserved_by(service: &Object<ServiceSpec>, workload: &Object<WorkloadSpec>) -> Option<String> {
    let own: Vec<u16> = workload.spec.ports.iter().map(|port| port.port).collect();
    let targets: Vec<u16> = service.spec.served_ports().filter_map(|port| port.target_at(&workload.spec)).collect();
    // A target by a name that the workload doesn't declare is told of the service.
    let served: BTreeSet<u16> = own.iter().copied().collect();
    if targets.is_empty() || targets.iter().any(|target| served.contains(target)) {
        return None;
    }
    let list = |ports: &[u16]| match ports {
        [] => "no port".to_owned(),
        [one] => format!("port {one}"),
        more => format!("ports {}", more.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")),
    };
    Some(format!(
        "stands behind Service {}, which leads to {} of its workloads, and serves {}: it is no endpoint of it",
        service.name(),
        list(&targets),
        list(&own)
    ))
}

/// A service and its workloads.
struct Behind<'l, 'w> {
    lens: &'l Lens<'w>,
    service: &'w Object<ServiceSpec>,
    workloads: Rc<[&'w Object<WorkloadSpec>]>,
}

impl Behind<'_, '_> {
    fn tell(&self, code: Code, key: impl Into<String>, message: impl Into<String>, report: &mut Report) {
        report.tell(code, &key_of(Kind::Service, &self.service.metadata), key, message);
    }

    fn selector(&self, report: &mut Report) {
        if self.service.spec.selector.is_empty() {
            // Where there is a route, that decides who answers.
            if self.lens.world.has_routes(&self.service.name()) {
                return;
            }
            return self.tell(Code::NoSelector, "spec.selector", "no workload ever stands behind it", report);
        }
        if self.workloads.is_empty() && self.lens.knows_workloads() {
            let message = format!("no workload of namespace {} has these labels", self.service.metadata.namespace);
            self.tell(Code::SelectsNobody, "spec.selector", message + &self.meant_label(), report);
        }
    }

    /// The label of a workload of the namespace that is nearly one of the selector's.
    fn meant_label(&self) -> String {
        let of_namespace =
            |workload: &&Object<WorkloadSpec>| workload.metadata.namespace == self.service.metadata.namespace;
        let workloads: Vec<_> = self.lens.compared(self.lens.world.workloads().filter(of_namespace)).collect();
        for (key, value) in &self.service.spec.selector {
            let values = workloads.iter().filter_map(|workload| workload.metadata.labels.get(key)).map(String::as_str);
            if workloads.iter().any(|workload| workload.metadata.labels.get(key) == Some(value)) {
                continue;
            }
            if let Some(near) = nearest(value, values) {
                return format!("; did you mean {key}: {near}?");
            }
            let keys = workloads.iter().flat_map(|workload| &workload.metadata.labels);
            let keys = keys.filter(|(_, own)| *own == value).map(|(own, _)| own.as_str());
            if let Some(near) = nearest(key, keys) {
                return format!("; did you mean {near}: {value}?");
            }
        }
        String::new()
    }

    fn ports(&self, report: &mut Report) {
        for unserved in unserved_of(self.lens.world, self.service) {
            self.tell(Code::Unserved, format!("spec.{}", unserved.key), unserved.message, report);
        }
        for (index, port) in
            self.service.spec.ports.iter().enumerate().filter(|(_, port)| port.protocol == Transport::Tcp)
        {
            let own = |workload: &Object<WorkloadSpec>| {
                let target = port.target_at(&workload.spec)?;
                Some((target, workload.spec.ports.iter().find(|own| own.port == target).cloned()))
            };
            let targets: Vec<_> =
                self.workloads.iter().filter_map(|workload| Some((workload, own(workload)?))).collect();
            if let Some((_, (target, None))) = targets.first()
                && targets.iter().all(|(_, (_, own))| own.is_none())
            {
                let key = if port.target_port.is_some() { "targetPort" } else { "port" };
                let message = format!("no workload behind it serves port {target}");
                self.tell(Code::UnservedPort, format!("spec.ports[{index}].{key}"), message, report);
            }
            let declared = port.protocol();
            let differs = |protocol: Protocol| protocol != Protocol::Auto && protocol != declared;
            let other = targets.iter().find(|(_, (_, own))| own.as_ref().is_some_and(|own| differs(own.protocol)));
            if let Some((workload, (target, _))) = other.filter(|_| declared != Protocol::Auto) {
                let message = format!("port {target} of Workload {} is declared otherwise", workload.name());
                self.tell(Code::DeclaredOtherwise, format!("spec.ports[{index}].appProtocol"), message, report);
            }
        }
    }

    fn weights(&self, report: &mut Report) {
        if !self.workloads.is_empty() && self.workloads.iter().all(|workload| workload.spec.weight == 0) {
            let message = "all workloads behind it have the weight 0, and share its requests as if each had 1";
            self.tell(Code::ZeroWeights, "spec.selector", message, report);
        }
    }

    fn accounts(&self, report: &mut Report) {
        let namespace = self.service.metadata.namespace.as_str();
        for account in self.service.accounts() {
            if self.lens.knows_workloads() && !self.lens.has_account(namespace, account) {
                let meant = self.lens.meant_account(namespace, account);
                let message = format!("no workload of {namespace} has the account {account}{meant}");
                self.tell(Code::UnknownListedAccount, format!("metadata.annotations.{ACCOUNTS}"), message, report);
            }
        }
    }
}
