//! Everything that services ask for, that is taken and that nothing acts on.

use std::collections::BTreeMap;

use super::World;
use super::route_status::{Condition, in_words};
use super::select::selected_by;
use crate::bundle::ObjectName;
use crate::resource::core::{PortSpec, TargetPort};
use crate::resource::{Object, ServiceSpec, Unserved, WorkloadSpec};

/// The ports of the app that a port of a service leads to: that of most workloads, and those that have another or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Targets {
    pub(crate) port: u16,
    pub(crate) others: BTreeMap<ObjectName, Option<u16>>,
}

/// Where a port of a service leads to.
///
/// # Errors
/// It is named, and no workload behind the service declares a port by that name: why not.
pub(crate) fn targets(port: &PortSpec, workloads: &[&Object<WorkloadSpec>]) -> Result<Targets, String> {
    let own = |workload: &&Object<WorkloadSpec>| port.served_at(&workload.spec);
    let others = |most: u16| {
        let all = workloads.iter().map(|workload| (workload.name(), own(workload)));
        all.filter(|(_, number)| *number != Some(most)).collect()
    };
    let name = match &port.target_port {
        None => return Ok(Targets { port: port.port, others: others(port.port) }),
        Some(TargetPort::Number(number)) => return Ok(Targets { port: *number, others: others(*number) }),
        Some(TargetPort::Name(name)) => name,
    };
    let mut counts: BTreeMap<u16, usize> = BTreeMap::new();
    for number in workloads.iter().filter_map(own) {
        *counts.entry(number).or_default() += 1;
    }
    // Of as many the lowest number.
    let common = counts.iter().max_by_key(|(number, count)| (**count, std::cmp::Reverse(**number)));
    let Some((&common, _)) = common else {
        return Err(format!("port {} is not served: no workload behind it declares a port named {name}", port.port));
    };
    Ok(Targets { port: common, others: others(common) })
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
        match targets(port, &workloads) {
            Err(message) => found.push(Unserved { key, message }),
            Ok(_) => {
                let without = workloads.iter().filter(|workload| port.target_at(&workload.spec).is_none());
                found.extend(without.map(|workload| {
                    let message = format!(
                        "Workload {} declares no port named {name}: it is no endpoint of port {}",
                        workload.name(),
                        port.port
                    );
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
        None => Condition::good("Served", "all that it asks for is served"),
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
