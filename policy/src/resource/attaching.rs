//! The policies that attach a filter to workloads, whichever kind each is written as. A FilterPolicy says all of it;
//! one of a typed kind says what is wanted, and is the FilterPolicy of a shipped filter to everybody who plans.

use std::borrow::Cow;
use std::ops::Deref;

use serde_json::Value;

use super::capability::{Capability, LimitsSpec};
use super::filter::{FilterRef, Phase, PolicyMode};
use super::{FilterPolicySpec, Kind, Metadata, Object, ObjectKey, ROOT_NAMESPACE, Resource, TargetRef};
use crate::bundle::{Direction, ObjectName, OnFailure};

impl Kind {
    /// Kinds whose objects attach a filter.
    pub const ATTACHING: [Self; 4] = [Self::FilterPolicy, Self::RateLimitPolicy, Self::FaultPolicy, Self::JwtPolicy];

    pub fn attaches_filters(self) -> bool {
        Self::ATTACHING.contains(&self)
    }

    /// True for policies that hold for workloads.
    pub fn is_of_workloads(self) -> bool {
        self == Self::AccessPolicy || self.attaches_filters()
    }
}

/// A policy that attaches a filter, as a FilterPolicy has it.
#[derive(Debug, Clone)]
pub struct Attaching<'r> {
    /// As it is written.
    pub kind: Kind,
    policy: Cow<'r, Object<FilterPolicySpec>>,
}

impl Deref for Attaching<'_> {
    type Target = Object<FilterPolicySpec>;

    fn deref(&self) -> &Self::Target {
        &self.policy
    }
}

impl<'r> Attaching<'r> {
    /// `None`: it attaches none.
    pub fn of(resource: &'r Resource) -> Option<Self> {
        let (kind, policy) = match resource {
            Resource::FilterPolicy(policy) => (Kind::FilterPolicy, Cow::Borrowed(policy)),
            Resource::RateLimitPolicy(policy) => (Kind::RateLimitPolicy, Cow::Owned(attaching(policy))),
            Resource::FaultPolicy(policy) => (Kind::FaultPolicy, Cow::Owned(attaching(policy))),
            Resource::JwtPolicy(policy) => (Kind::JwtPolicy, Cow::Owned(attaching(policy))),
            Resource::Namespace(_)
            | Resource::Mesh(_)
            | Resource::Service(_)
            | Resource::Workload(_)
            | Resource::ReferenceGrant(_)
            | Resource::HttpRoute(_)
            | Resource::GrpcRoute(_)
            | Resource::TlsRoute(_)
            | Resource::TcpRoute(_)
            | Resource::Filter(_)
            | Resource::FilterPublisher(_)
            | Resource::Secret(_)
            | Resource::AccessPolicy(_)
            | Resource::PolicyTemplate(_)
            | Resource::ExternalService(_)
            | Resource::TrafficPolicy(_) => return None,
        };
        Some(Self { kind, policy })
    }

    pub fn key(&self) -> ObjectKey {
        ObjectKey::new(self.kind, &self.metadata.namespace, &self.metadata.name)
    }

    /// The name of its attachment, which no other policy's has.
    pub fn attachment(&self) -> String {
        attachment_name(self.kind, &self.name())
    }

    /// Where its manifest says something that the FilterPolicy says in its `config`, or names its filter by: the key of
    /// either, which a typed policy has not.
    pub fn place<'k>(&self, key: &'k str) -> &'k str {
        let is_written = self.kind == Kind::FilterPolicy
            || !["spec.config", "spec.filter", "spec.capabilities", "spec.limits"]
                .iter()
                .any(|own| key.starts_with(own));
        if is_written { key } else { "spec" }
    }
}

/// The name that the attachment of a policy has. `#` is in the name of no object.
pub fn attachment_name(kind: Kind, policy: &ObjectName) -> String {
    if kind == Kind::FilterPolicy { policy.to_string() } else { format!("{policy}#{kind}") }
}

/// The policy whose attachment has this name.
pub fn policy_of_attachment(attachment: &str) -> Option<ObjectKey> {
    let (policy, kind) = match attachment.split_once('#') {
        None => (attachment, Kind::FilterPolicy),
        Some((policy, kind)) => (policy, Kind::ATTACHING.into_iter().find(|known| known.as_str() == kind)?),
    };
    let (namespace, name) = policy.split_once('/')?;
    Some(ObjectKey::new(kind, namespace, name))
}

/// What a policy that holds for workloads says of whom it holds for, and how.
#[derive(Debug, Clone, Copy)]
pub struct Holding<'r> {
    pub kind: Kind,
    pub metadata: &'r Metadata,
    pub targets: &'r [TargetRef],
    pub direction: Direction,
    pub mode: PolicyMode,
}

impl<'r> Holding<'r> {
    /// `None`: it is no policy that holds for workloads.
    pub fn of(resource: &'r Resource) -> Option<Self> {
        let inbound = Direction::Inbound;
        let Frame { targets, direction, mode, .. } = match resource {
            Resource::AccessPolicy(Object { spec, .. }) => Frame::new(&spec.target_refs, inbound, spec.mode),
            Resource::FilterPolicy(Object { spec, .. }) => Frame::new(&spec.target_refs, spec.direction, spec.mode),
            Resource::RateLimitPolicy(policy) => policy.spec.frame(),
            Resource::FaultPolicy(policy) => policy.spec.frame(),
            Resource::JwtPolicy(policy) => policy.spec.frame(),
            Resource::Namespace(_)
            | Resource::Mesh(_)
            | Resource::Service(_)
            | Resource::Workload(_)
            | Resource::ReferenceGrant(_)
            | Resource::HttpRoute(_)
            | Resource::GrpcRoute(_)
            | Resource::TlsRoute(_)
            | Resource::TcpRoute(_)
            | Resource::Filter(_)
            | Resource::FilterPublisher(_)
            | Resource::Secret(_)
            | Resource::PolicyTemplate(_)
            | Resource::ExternalService(_)
            | Resource::TrafficPolicy(_) => return None,
        };
        Some(Self { kind: resource.kind(), metadata: resource.metadata(), targets, direction, mode })
    }
}

/// The fields that all typed policies have.
pub(super) struct Frame<'s> {
    pub(super) targets: &'s [TargetRef],
    pub(super) direction: Direction,
    pub(super) order: i32,
    pub(super) mode: PolicyMode,
    pub(super) on_failure: OnFailure,
}

impl<'s> Frame<'s> {
    fn new(targets: &'s [TargetRef], direction: Direction, mode: PolicyMode) -> Self {
        Self { targets, direction, order: 0, mode, on_failure: OnFailure::Deny }
    }
}

/// The direction of a policy that need not name one: rules of routes are decided on the way out.
pub(super) fn direction_for(named: Option<Direction>, targets: &[TargetRef]) -> Direction {
    let of_routes = targets.iter().any(|target| target.kind.route().is_some());
    named.unwrap_or(if of_routes { Direction::Outbound } else { Direction::Inbound })
}

/// The spec of a kind that says what is wanted of a shipped filter.
pub(super) trait Typed {
    const FILTER: &'static str;
    const PHASE: Phase;

    fn frame(&self) -> Frame<'_>;

    /// What the filter needs.
    fn capabilities(&self) -> Vec<Capability>;

    /// The filter's configuration, for the policy of this name.
    fn config(&self, policy: &ObjectName) -> Value;
}

/// As the FilterPolicy that it is.
pub(super) fn as_filter_policy<T: Typed>(spec: &T, policy: &ObjectName) -> FilterPolicySpec {
    let Frame { targets, direction, order, mode, on_failure } = spec.frame();
    FilterPolicySpec {
        target_refs: targets.to_vec(),
        direction,
        phase: T::PHASE,
        order,
        mode,
        on_failure,
        filter: FilterRef {
            name: T::FILTER.to_owned(),
            namespace: ROOT_NAMESPACE.to_owned(),
            version: None,
            channel: None,
        },
        config: spec.config(policy),
        capabilities: spec.capabilities(),
        limits: LimitsSpec::default(),
    }
}

fn attaching<T: Typed>(policy: &Object<T>) -> Object<FilterPolicySpec> {
    Object { metadata: policy.metadata.clone(), spec: as_filter_policy(&policy.spec, &policy.name()) }
}

/// What is wrong about the fields that all typed policies have.
pub(super) fn check_frame<T: Typed>(spec: &T) -> Vec<(String, String)> {
    as_filter_policy(spec, &ObjectName::new("", "")).check()
}

/// The attaching policy that a typed spec of the tests is, in JSON.
#[cfg(test)]
pub(super) fn tested<T: Typed>(spec: &T) -> Value {
    serde_json::to_value(as_filter_policy(spec, &ObjectName::new("shop", "p"))).unwrap()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attachments_are_named_by_their_policies() {
        let policy = ObjectName::new("shop", "a.b");
        let mut names = std::collections::BTreeSet::new();
        for kind in Kind::ATTACHING {
            let name = attachment_name(kind, &policy);
            assert_eq!(policy_of_attachment(&name), Some(ObjectKey::new(kind, "shop", "a.b")), "{name}");
            names.insert(name);
        }
        assert_eq!(names.len(), Kind::ATTACHING.len());
        assert_eq!(attachment_name(Kind::FilterPolicy, &policy), "shop/a.b", "as it was before there were others");
        for other in ["", "shop", "weft-system/authz#1", "shop/a#AccessPolicy"] {
            assert_eq!(policy_of_attachment(other), None, "{other}");
        }
    }
}
