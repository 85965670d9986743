//! Addresses are of the whole mesh: whoever has one gets what every proxy sends there. An operator who is bound to
//! namespaces therefore takes those only that the token grants; what an object has already it keeps.

use std::net::IpAddr;

use weft_policy::resource::{ObjectKey, Resource};

use super::super::Actor;

/// An address that an object may not take.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{object}: {key}: {address} is of the whole mesh: an operator of all namespaces may set it, or a token with --address {address}"
)]
pub struct Misplaced {
    pub object: ObjectKey,
    /// `spec.clusterIP` ...
    pub key: String,
    address: IpAddr,
}

/// Every address that `actor` may not give the object, which had those of `known`.
pub(super) fn misplaced(actor: &Actor, resource: &Resource, known: Option<&Resource>) -> Vec<Misplaced> {
    let Some(granted) = &actor.addresses else { return Vec::new() };
    let had: Vec<IpAddr> = known.map(addresses).unwrap_or_default().into_iter().map(|(_, address)| address).collect();
    let is_free = |address: &IpAddr| had.contains(address) || granted.iter().any(|range| range.contains(address));
    let told = |(key, address)| Misplaced { object: resource.key(), key, address };
    addresses(resource).into_iter().filter(|(_, address)| !is_free(address)).map(told).collect()
}

fn addresses(resource: &Resource) -> Vec<(String, IpAddr)> {
    let named = |key: &str, address: IpAddr| (key.to_owned(), address.to_canonical());
    match resource {
        Resource::Service(service) => {
            service.spec.cluster_ip.map(|it| named("spec.clusterIP", it)).into_iter().collect()
        }
        Resource::Workload(workload) => {
            let spec = &workload.spec;
            let further = spec.addresses.iter().enumerate();
            let further = further.map(|(index, address)| named(&format!("spec.addresses[{index}]"), *address));
            let mesh = spec.mesh_address.map(|socket| named("spec.meshAddress", socket.ip()));
            std::iter::once(named("spec.address", spec.address)).chain(further).chain(mesh).collect()
        }
        Resource::Namespace(_)
        | Resource::Mesh(_)
        | Resource::ReferenceGrant(_)
        | Resource::HttpRoute(_)
        | Resource::GrpcRoute(_)
        | Resource::TlsRoute(_)
        | Resource::TcpRoute(_)
        | Resource::Filter(_)
        | Resource::FilterPublisher(_)
        | Resource::Secret(_)
        | Resource::FilterPolicy(_)
        | Resource::RateLimitPolicy(_)
        | Resource::FaultPolicy(_)
        | Resource::JwtPolicy(_)
        | Resource::AccessPolicy(_)
        | Resource::PolicyTemplate(_)
        | Resource::ExternalService(_)
        | Resource::TrafficPolicy(_) => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hub::tests::resources;

    #[test]
    fn a_bound_operator_takes_granted_addresses_only() {
        let workload = |address: &str, mesh: &str| {
            let text = format!(
                "{{apiVersion: weft.dev/v1alpha1, kind: Workload, metadata: {{name: w, namespace: shop}}, spec: {{address: \
                 {address}, addresses: [10.1.0.9], meshAddress: '{mesh}', ports: [{{port: 80}}]}}}}"
            );
            resources(&text).remove(0)
        };
        let bound = |ranges: &[&str]| Actor {
            addresses: Some(ranges.iter().map(|range| range.parse().unwrap()).collect()),
            ..Actor::default()
        };
        let check = |actor: &Actor, resource: &Resource, known: Option<&Resource>, expect: &[&str]| {
            let keys: Vec<_> = misplaced(actor, resource, known).into_iter().map(|it| it.key).collect();
            assert_eq!(keys, expect);
        };
        let taken = workload("8.8.4.4", "10.2.0.1:15008");
        check(&Actor::default(), &taken, None, &[]);
        check(&bound(&[]), &taken, None, &["spec.address", "spec.addresses[0]", "spec.meshAddress"]);
        check(&bound(&["10.0.0.0/8"]), &taken, None, &["spec.address"]);
        check(&bound(&[]), &taken, Some(&taken), &[]);
        check(&bound(&[]), &workload("8.8.4.5", "10.2.0.1:15008"), Some(&taken), &["spec.address"]);
        let service = "{apiVersion: v1, kind: Service, metadata: {name: s, namespace: shop}, spec: {clusterIP: 198.51.100.7, \
                       selector: {app: s}, ports: [{port: 80}]}}";
        let told = misplaced(&bound(&["10.0.0.0/8"]), &resources(service).remove(0), None).remove(0).to_string();
        assert!(told.starts_with("Service shop/s: spec.clusterIP: 198.51.100.7 is of the whole mesh"), "{told}");
    }
}
