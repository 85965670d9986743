//! Names that look misspelt: annotations that nothing reads, namespaces that nobody made.

use std::collections::{BTreeMap, BTreeSet};

use super::lens::Lens;
use super::{Code, Report, Scope};
use crate::resource::core::{ACCOUNTS, GRANTED_SERVICES, MADE_FOR, PATH_READING, REGISTERED_BY, STARTING};
use crate::resource::retry::RETRY_METHODS;
use crate::resource::{Kind, ROOT_NAMESPACE, USES};
use crate::text::{did_you_mean, nearest};

/// Annotations under this prefix are read by the mesh or by nobody.
const PREFIX: &str = "weft.dev/";

pub(super) fn check(lens: &Lens<'_>, report: &mut Report) {
    annotations(lens, report);
    namespaces(lens, report);
}

fn annotations(lens: &Lens<'_>, report: &mut Report) {
    for (object, entry) in lens.entries() {
        let read: &[&str] = match object.kind {
            Kind::Service => &[ACCOUNTS, PATH_READING, MADE_FOR],
            Kind::Workload => &[REGISTERED_BY, GRANTED_SERVICES, STARTING, USES],
            Kind::Namespace => &[USES],
            Kind::HttpRoute => &[RETRY_METHODS],
            Kind::Mesh
            | Kind::ReferenceGrant
            | Kind::GrpcRoute
            | Kind::TlsRoute
            | Kind::TcpRoute
            | Kind::Filter
            | Kind::FilterPublisher
            | Kind::Secret
            | Kind::FilterPolicy
            | Kind::RateLimitPolicy
            | Kind::FaultPolicy
            | Kind::JwtPolicy
            | Kind::AccessPolicy
            | Kind::PolicyTemplate
            | Kind::ExternalService
            | Kind::TrafficPolicy => &[],
        };
        let names = entry.resource.metadata().annotations.keys();
        for name in names.filter(|name| name.starts_with(PREFIX) && !read.contains(&name.as_str())) {
            let message =
                format!("nothing reads {name} of a {}{}", object.kind, did_you_mean(name, read.iter().copied()));
            report.tell(Code::UnknownAnnotation, object, format!("metadata.annotations.{name}"), message);
        }
    }
}

fn namespaces(lens: &Lens<'_>, report: &mut Report) {
    let made: BTreeSet<&str> = lens.world.of_kind(Kind::Namespace).map(|(key, _)| key.name.as_str()).collect();
    let mut meant = BTreeMap::<&str, Option<&str>>::new();
    for (object, _) in lens.entries().filter(|(key, _)| !key.namespace.is_empty() && key.namespace != ROOT_NAMESPACE) {
        let name = object.namespace.as_str();
        let near = || (!made.contains(name)).then(|| nearest(name, lens.compared(made.iter().copied()))).flatten();
        if let Some(near) = *meant.entry(name).or_insert_with(near) {
            let message = format!("there is no Namespace {name}, but one that is called {near}");
            report.tell(Code::MisspeltNamespace, object, "metadata.namespace", message);
        }
    }
}

/// True for a label, account or namespace of the root: with files alone, whatever is made elsewhere.
pub(super) fn may_be_elsewhere(lens: &Lens<'_>, namespace: &str) -> bool {
    lens.scope == Scope::Files && namespace == ROOT_NAMESPACE
}
