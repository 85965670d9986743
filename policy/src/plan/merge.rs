//! The settings of a service out of all policies that are for it, in one order: for the Mesh, for its tier, for its namespace,
//! for the service itself. The nearest that says a setting wins, setting by setting; of equally near ones the oldest, then the
//! first by name, as Gateway API resolves conflicts of policies.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::select::is_missing;
use super::{Entry, World};
use crate::bundle::{ObjectName, Revision};
use crate::resource::template::{TIER, TemplateRef, named};
use crate::resource::{
    Object, PolicyTemplateSpec, ROOT_NAMESPACE, ServiceSpec, Spec as _, TargetKind, TargetRef, TrafficPolicySpec,
};

/// How near to a service a setting is said; the nearer wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    Mesh,
    Tier,
    Namespace,
    Service,
}

/// Who says a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub level: Level,
    pub by: Setter,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Setter {
    /// The Mesh itself, by its name.
    Mesh(String),
    /// The service by its own fields.
    Service(ObjectName),
    /// The template of the service's tier.
    Template(String),
    Policy {
        name: ObjectName,
        /// The template that it has the setting from.
        template: Option<String>,
    },
}

impl Source {
    /// The TrafficPolicy; `None` where another kind says it.
    #[must_use]
    pub fn policy(&self) -> Option<&ObjectName> {
        match &self.by {
            Setter::Policy { name, .. } => Some(name),
            Setter::Mesh(_) | Setter::Service(_) | Setter::Template(_) => None,
        }
    }

    /// As bundles name it.
    pub(super) fn name(&self) -> ObjectName {
        match &self.by {
            Setter::Policy { name, .. } | Setter::Service(name) => name.clone(),
            Setter::Mesh(name) | Setter::Template(name) => named(name),
        }
    }

    /// `TrafficPolicy shop/all says for the namespace`.
    pub(crate) fn says(&self) -> String {
        match self.whole() {
            "" => format!("{} says", self.by),
            whole => format!("{} says for the {whole}", self.by),
        }
    }

    /// What it is for; nothing where that is the service itself or follows from the kind.
    fn whole(&self) -> &'static str {
        match (self.level, &self.by) {
            (Level::Service, _) | (_, Setter::Mesh(_) | Setter::Service(_)) => "",
            (Level::Mesh, Setter::Template(_) | Setter::Policy { .. }) => "mesh",
            (Level::Tier, Setter::Template(_) | Setter::Policy { .. }) => "tier",
            (Level::Namespace, Setter::Template(_) | Setter::Policy { .. }) => "namespace",
        }
    }
}

/// `TrafficPolicy shop/all, of the namespace`.
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.whole() {
            "" => self.by.fmt(f),
            whole => write!(f, "{}, of the {whole}", self.by),
        }
    }
}

impl fmt::Display for Setter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mesh(name) => write!(f, "Mesh {name}"),
            Self::Service(name) => write!(f, "Service {name}"),
            Self::Template(name) => write!(f, "PolicyTemplate {name}"),
            Self::Policy { name, template: None } => write!(f, "TrafficPolicy {name}"),
            Self::Policy { name, template: Some(template) } => {
                write!(f, "TrafficPolicy {name} by PolicyTemplate {template}")
            }
        }
    }
}

/// Settings that a policy says in vain, since an equally near one is older.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Idle {
    pub policy: ObjectName,
    pub settings: Vec<&'static str>,
    pub older: ObjectName,
}

/// Who says what, by the key of the setting.
pub(crate) type Sources = BTreeMap<&'static str, Source>;

/// The settings of a service, each with who says it, by its key.
#[derive(Debug, Default)]
pub(super) struct Merged {
    pub(super) spec: TrafficPolicySpec,
    pub(super) sources: Sources,
    pub(super) idle: Vec<Idle>,
}

pub(super) fn merged(world: &World, service: &ObjectName) -> Merged {
    let mut merged = Merged::default();
    merged.take(world, Level::Service, &policies_for(world, At::Service(service)));
    merged.take(world, Level::Namespace, &policies_for(world, At::Namespace(&service.namespace)));
    let tier = world.service(service).and_then(tier_of);
    if let Some(template) = tier.and_then(|tier| template_of(world, tier, &service.namespace)) {
        merged.take_template(template);
    }
    merged.take(world, Level::Mesh, &policies_for(world, At::Mesh));
    merged
}

/// The same of an ExternalService, which is of no tier.
pub(super) fn merged_outside(world: &World, external: &ObjectName) -> Merged {
    let mut merged = Merged::default();
    merged.take(world, Level::Service, &policies_for(world, At::External(external)));
    merged.take(world, Level::Namespace, &policies_for(world, At::Namespace(&external.namespace)));
    merged.take(world, Level::Mesh, &policies_for(world, At::Mesh));
    merged
}

impl Merged {
    /// Takes what policies of one level say and no nearer one has said.
    fn take(&mut self, world: &World, level: Level, policies: &[&Object<TrafficPolicySpec>]) {
        let Self { spec, sources, idle } = self;
        for policy in policies {
            let (own, from_template) = with_template(world, policy);
            let mut vain = BTreeMap::<&ObjectName, Vec<&'static str>>::new();
            spec.fill(&own, |key, is_taken| {
                if is_taken {
                    let template = policy.spec.template.as_ref().filter(|_| from_template.contains(key));
                    let template = template.map(|template| template.name.clone());
                    sources.insert(key, Source { level, by: Setter::Policy { name: policy.name(), template } });
                }
            });
            for key in own.said() {
                let older = sources.get(key).filter(|source| source.level == level).and_then(Source::policy);
                if let Some(older) = older.filter(|older| **older != policy.name()) {
                    vain.entry(older).or_default().push(key);
                }
            }
            let told = vain.into_iter().map(|(older, settings)| Idle {
                policy: policy.name(),
                settings,
                older: older.clone(),
            });
            idle.extend(told);
        }
    }

    fn take_template(&mut self, template: &Object<PolicyTemplateSpec>) {
        let Some(settings) = template.spec.settings(&BTreeMap::new()) else { return };
        let Self { spec, sources, idle: _ } = self;
        spec.fill(&settings, |key, is_taken| {
            if is_taken {
                let by = Setter::Template(template.metadata.name.clone());
                sources.insert(key, Source { level: Level::Tier, by });
            }
        });
    }

    /// The nearest of those that say a setting.
    pub(super) fn nearest(&self) -> Option<&Source> {
        self.sources.values().max_by_key(|source| source.level)
    }
}

/// What a policy says with its template, and the keys that it has from there.
fn with_template<'w>(
    world: &World,
    policy: &'w Object<TrafficPolicySpec>,
) -> (Cow<'w, TrafficPolicySpec>, BTreeSet<&'static str>) {
    let mut from_template = BTreeSet::new();
    let Some(settings) = policy.spec.template.as_ref().and_then(|used| used.settings(world, &policy.name())) else {
        return (Cow::Borrowed(&policy.spec), from_template);
    };
    let mut own = policy.spec.clone();
    own.fill(&settings, |key, is_taken| {
        if is_taken {
            from_template.insert(key);
        }
    });
    (Cow::Owned(own), from_template)
}

impl TemplateRef {
    /// What the template says for a policy. `None`: it is not there, is for other namespaces, or does not take the values.
    fn settings(&self, world: &World, policy: &ObjectName) -> Option<TrafficPolicySpec> {
        let template = world.template(&self.name).filter(|template| template.spec.admits(&policy.namespace))?;
        template.spec.settings(&self.parameters)
    }
}

/// What policies are for.
#[derive(Debug, Clone, Copy)]
enum At<'a> {
    Service(&'a ObjectName),
    External(&'a ObjectName),
    Namespace(&'a str),
    Mesh,
}

/// The policies for one thing, the oldest first.
fn policies_for<'w>(world: &'w World, at: At<'_>) -> Vec<&'w Object<TrafficPolicySpec>> {
    let index = world.index();
    let entries: Vec<&Entry> = match at {
        At::Service(service) => index.targeting(service).collect(),
        At::External(external) => index.targeting_external(external).collect(),
        At::Namespace(namespace) => index.targeting_namespace(namespace).collect(),
        At::Mesh => index.targeting_mesh().collect(),
    };
    let is_for = |policy: &Object<TrafficPolicySpec>| match at {
        At::Service(_) | At::External(_) => true,
        At::Namespace(namespace) => policy.metadata.namespace == namespace,
        At::Mesh => policy.metadata.namespace == ROOT_NAMESPACE && has_mesh(world, policy),
    };
    let of = |entry: &'w Entry| Some((entry.created, TrafficPolicySpec::of(&entry.resource)?));
    let policies = entries.into_iter().filter_map(of);
    let mut policies: Vec<_> = policies.filter(|&(_, policy)| is_for(policy)).collect();
    policies.sort_by_key(|(created, policy)| (*created, &policy.metadata.name));
    policies.into_iter().map(|(_, policy)| policy).collect()
}

/// True where a policy is for the Mesh that there is.
fn has_mesh(world: &World, policy: &Object<TrafficPolicySpec>) -> bool {
    let mut targets = policy.spec.target_refs.iter();
    targets.any(|target| target.kind == TargetKind::Mesh && !is_missing(world, &policy.metadata, target))
}

/// What a target is, which is called this where it is a Service or an ExternalService. `None`: refused at apply, and
/// for nobody where a store has one.
fn at<'a>(target: &'a TargetRef, service: &'a ObjectName) -> Option<At<'a>> {
    match target.kind {
        TargetKind::Service => Some(At::Service(service)),
        TargetKind::ExternalService => Some(At::External(service)),
        TargetKind::Namespace => Some(At::Namespace(&target.name)),
        TargetKind::Mesh => Some(At::Mesh),
        TargetKind::Workload | TargetKind::HttpRoute | TargetKind::GrpcRoute => None,
    }
}

/// TrafficPolicies that may be for one Service, Namespace or Mesh: each of them is read for each of its services.
pub const MAX_FOR_ONE: usize = 16;

/// How many TrafficPolicies there are for each target of these.
pub fn crowds<'p>(world: &World, policies: impl Iterator<Item = &'p ObjectName>) -> BTreeMap<String, usize> {
    let mut crowds = BTreeMap::new();
    for policy in policies.filter_map(|name| world.traffic_policy(name)) {
        for target in &policy.spec.target_refs {
            let service = ObjectName::new(policy.metadata.namespace.clone(), &target.name);
            let Some(at) = at(target, &service) else { continue };
            let told = super::protection::named(&policy.metadata, target);
            crowds.entry(told).or_insert_with(|| policies_for(world, at).len());
        }
    }
    crowds
}

/// The settings that older policies for the same target say in a policy's place, by the number of its target.
pub(crate) fn overruled(world: &World, policy: &Object<TrafficPolicySpec>) -> Vec<(usize, Idle)> {
    let name = policy.name();
    let of_target = |(index, target): (usize, &TargetRef)| {
        let service = ObjectName::new(policy.metadata.namespace.clone(), &target.name);
        let Some(at) = at(target, &service) else { return Vec::new() };
        let mut level = Merged::default();
        level.take(world, Level::Service, &policies_for(world, at));
        let own = level.idle.into_iter().filter(|idle| idle.policy == name);
        own.map(|idle| (index, idle)).collect()
    };
    policy.spec.target_refs.iter().enumerate().flat_map(of_target).collect()
}

/// The tier that a service says it is of.
pub(crate) fn tier_of(service: &Object<ServiceSpec>) -> Option<&str> {
    service.metadata.labels.get(TIER).map(String::as_str)
}

fn by_age<'w>((template, created): &(&'w Object<PolicyTemplateSpec>, Revision)) -> (Revision, &'w str) {
    (*created, template.metadata.name.as_str())
}

/// The template that says what services of a tier get in a namespace: the oldest.
pub(crate) fn template_of<'w>(world: &'w World, tier: &str, namespace: &str) -> Option<&'w Object<PolicyTemplateSpec>> {
    let is_its = |spec: &PolicyTemplateSpec| spec.tier.as_deref() == Some(tier) && spec.admits(namespace);
    let all = world.templates().filter(|(template, _)| is_its(&template.spec));
    all.min_by_key(by_age).map(|(template, _)| template)
}

/// An older template of the same tier, in whose place this one stands for no namespace that both are for.
pub(crate) fn older_of_tier<'w>(
    world: &'w World,
    template: &Object<PolicyTemplateSpec>,
) -> Option<&'w Object<PolicyTemplateSpec>> {
    let tier = template.spec.tier.as_ref()?;
    let rivals = world.templates().filter(|(other, _)| {
        other.spec.tier.as_ref() == Some(tier)
            && (other.metadata.name == template.metadata.name || other.spec.meets(&template.spec))
    });
    let oldest = rivals.min_by_key(by_age).map(|(oldest, _)| oldest);
    oldest.filter(|oldest| oldest.metadata.name != template.metadata.name)
}
