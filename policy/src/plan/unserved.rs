//! Everything that services ask for, that is taken and that nothing acts on.

use std::collections::BTreeMap;

use super::World;
use super::route_status::{Condition, in_words};
use super::select::selected_by;
use crate::resource::core::{PortSpec, TargetPort};
use crate::resource::{Object, ServiceSpec, Unserved, WorkloadSpec};

/// The port of the app that a port of a service leads to.
///
/// # Errors
/// It is named, and the workloads behind the service don't declare one port by that name: why not.
pub(crate) fn target(port: &PortSpec, workloads: &[&Object<WorkloadSpec>]) -> Result<u16, String> {
    let name = match &port.target_port {
        None => return Ok(port.port),
        Some(TargetPort::Number(number)) => return Ok(*number),
        Some(TargetPort::Name(name)) => name,
    };
    let mut found: BTreeMap<u16, String> = BTreeMap::new();
    for workload in workloads {
        if let Some(number) = port.target_at(&workload.spec) {
            found.entry(number).or_insert_with(|| workload.name().to_string());
        }
    }
    let mut found = found.into_iter();
    match (found.next(), found.next()) {
        (Some((number, _)), None) => Ok(number),
        (Some((one, at_one)), Some((other, at_other))) => Err(format!(
            "port {} is not served: {name} is {one} at Workload {at_one} and {other} at Workload {at_other}",
            port.port
        )),
        (None, _) => {
            Err(format!("port {} is not served: no workload behind it declares a port named {name}", port.port))
        }
    }
}

/// Everything of a service that nothing acts on, in this world.
pub(crate) fn of_service(world: &World, service: &Object<ServiceSpec>) -> Vec<Unserved> {
    let mut found = service.spec.unserved();
    let named = |port: &PortSpec| matches!(port.target_port, Some(TargetPort::Name(_)));
    if !service.spec.served_ports().any(named) {
        return found;
    }
    let workloads: Vec<_> = selected_by(world, service).collect();
    for (index, port) in service.spec.ports.iter().enumerate() {
        let Some(TargetPort::Name(name)) = port.target_port.as_ref().filter(|_| port.is_served()) else { continue };
        let key = format!("ports[{index}].targetPort");
        match target(port, &workloads) {
            Err(message) => found.push(Unserved { key, message }),
            Ok(_) => {
                let without = workloads.iter().filter(|workload| port.target_at(&workload.spec).is_none());
                found.extend(without.map(|workload| {
                    let message = format!("Workload {} declares no port named {name}", workload.name());
                    Unserved { key: key.clone(), message }
                }));
            }
        }
    }
    found
}

/// Tells whether all of a service is served.
pub fn service_status(world: &World, service: &Object<ServiceSpec>) -> Vec<Condition> {
    let unserved = of_service(world, service);
    let condition = match unserved.first() {
        None => Condition::good("Served", "all that it asks for"),
        Some(first) => Condition {
            kind: "Served",
            status: false,
            reason: if first.key.ends_with("targetPort") { "TargetPortNotFound" } else { "UnsupportedValue" },
            message: in_words(&unserved),
            key: format!("spec.{}", first.key),
        },
    };
    vec![condition]
}
