//! ExternalServices as proxies are told of them: those of the workloads' own namespaces, and those of the root namespace that
//! are for the whole mesh.

use std::collections::BTreeSet;

use super::merge::merged_outside;
use super::route_status::Condition;
use super::{World, traffic};
use crate::bundle::{External, ExternalEndpoint, ExternalPort, ExternalTls, ObjectName, Revision};
use crate::resource::external::{ExternalPortSpec, ExternalTlsSpec, TlsVersion, Visibility};
use crate::resource::{ExternalServiceSpec, Object, ROOT_NAMESPACE};

/// True where callers of every namespace see it. Elsewhere than in the root namespace nobody may ask for that.
pub(super) fn is_mesh_wide(object: &Object<ExternalServiceSpec>) -> bool {
    object.spec.visibility == Visibility::Mesh && object.metadata.namespace == ROOT_NAMESPACE
}

/// True where callers of these namespaces see it.
pub(super) fn is_seen(object: &Object<ExternalServiceSpec>, namespaces: &BTreeSet<&str>) -> bool {
    is_mesh_wide(object) || namespaces.contains(object.metadata.namespace.as_str())
}

/// Those that callers of these namespaces see.
pub(super) fn seen<'w>(
    world: &'w World,
    namespaces: &BTreeSet<&str>,
) -> impl Iterator<Item = &'w Object<ExternalServiceSpec>> + use<'w> {
    let own: Vec<_> =
        namespaces.iter().flat_map(|namespace| world.of_namespace::<ExternalServiceSpec>(namespace)).collect();
    let of_root =
        (!namespaces.contains(ROOT_NAMESPACE)).then(|| world.of_namespace::<ExternalServiceSpec>(ROOT_NAMESPACE));
    let wide = of_root.into_iter().flatten().filter(|object| is_mesh_wide(object));
    own.into_iter().chain(wide)
}

/// One as proxies are told of it.
pub(super) fn external_entry(world: &World, object: &Object<ExternalServiceSpec>) -> External {
    let spec = &object.spec;
    let port = |port: &ExternalPortSpec| ExternalPort {
        port: port.port,
        target_port: port.target_port.unwrap_or(port.port),
        protocol: port.protocol,
    };
    let endpoints = spec.endpoints.iter();
    let endpoints = endpoints.map(|it| ExternalEndpoint { address: it.address.clone(), port: it.port });
    let tls = |tls: &ExternalTlsSpec| ExternalTls {
        server_name: tls.sni.clone(),
        roots_pem: tls.ca_bundle.clone(),
        under_tcp: tls.under_tcp,
        takes_tls12: tls.min_version == TlsVersion::V1_2,
        certificate: tls.client_certificate.clone(),
    };
    External {
        name: object.name(),
        mesh_wide: is_mesh_wide(object),
        created: world.external_created(&object.name()),
        hosts: spec.hosts.clone(),
        ports: spec.ports.iter().map(port).collect(),
        endpoints: endpoints.collect(),
        tls: spec.tls.as_ref().map(tls),
        traffic: traffic::settings_outside(&merged_outside(world, &object.name())).map(Box::new),
    }
}

/// The older ones of its namespace that claim a host of it at one of its ports, each with the place of the host.
pub(crate) fn claimed_before(world: &World, object: &Object<ExternalServiceSpec>) -> Vec<(usize, ObjectName)> {
    let age = |name: &ObjectName| -> (Revision, ObjectName) { (world.external_created(name), name.clone()) };
    let own = age(&object.name());
    let shares_port = |other: &Object<ExternalServiceSpec>| {
        let is_own = |port: &ExternalPortSpec| object.spec.ports.iter().any(|own| own.port == port.port);
        other.spec.ports.iter().any(is_own)
    };
    let others = world.of_namespace::<ExternalServiceSpec>(&object.metadata.namespace);
    let older: Vec<_> = others.filter(|other| age(&other.name()) < own && shares_port(other)).collect();
    let of_host = |(index, host): (usize, &String)| {
        let claiming = older.iter().filter(|other| other.spec.hosts.contains(host));
        claiming.min_by_key(|other| age(&other.name())).map(|other| (index, other.name()))
    };
    object.spec.hosts.iter().enumerate().filter_map(of_host).collect()
}

/// Tells whether it holds for its hosts: of each that an older one claims.
pub fn external_status(world: &World, object: &Object<ExternalServiceSpec>) -> Vec<Condition> {
    let claimed = claimed_before(world, object);
    let good = Condition::good("Accepted", "no older ExternalService of its namespace claims one of its hosts");
    let Some((first, _)) = claimed.first() else { return vec![good] };
    let key = format!("spec.hosts[{first}]");
    let words = claimed.iter().map(|(index, older)| {
        format!("for {} the older ExternalService {older} holds at the ports that both have", object.spec.hosts[*index])
    });
    let message = words.collect::<Vec<_>>().join("; ");
    vec![Condition { status: false, reason: "Conflicted", message, key, ..good }]
}
