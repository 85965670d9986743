//! Templates, the policies that use them, and the tiers of services.

use super::lens::{Lens, key_of};
use super::{Code, Report};
use crate::plan::{lacks_template, older_of_tier, taken_tier, template_of, tier_of, unfit_template};
use crate::resource::template::TIER;
use crate::resource::{Kind, PolicyTemplateSpec, ServiceSpec, TrafficPolicySpec};
use crate::text::did_you_mean;

pub(super) fn check(lens: &Lens<'_>, report: &mut Report) {
    for template in lens.all::<PolicyTemplateSpec>() {
        if let Some(older) = older_of_tier(lens.world, template) {
            let object = key_of(Kind::PolicyTemplate, &template.metadata);
            report.tell(Code::TierTaken, &object, "spec.tier", taken_tier(older));
        }
    }
    for policy in lens.all::<TrafficPolicySpec>() {
        let object = key_of(Kind::TrafficPolicy, &policy.metadata);
        if let Some(used) = policy.spec.template.as_ref().filter(|_| lacks_template(lens.world, policy)) {
            let known = lens.world.templates().map(|(template, _)| template.metadata.name.as_str());
            let meant = did_you_mean(&used.name, lens.compared(known));
            let message = format!("PolicyTemplate {} does not exist{meant}", used.name);
            report.tell(Code::TemplateMissing, &object, "spec.template.name", message);
        }
        for (key, message) in unfit_template(lens.world, policy) {
            report.tell(Code::TemplateRefuses, &object, format!("spec.{key}"), message);
        }
    }
    // A template that can't be read may be of any tier.
    if !lens.world.has_unreadable(Kind::PolicyTemplate) {
        tiers(lens, report);
    }
}

/// Services of a tier that no template is for.
fn tiers(lens: &Lens<'_>, report: &mut Report) {
    for service in lens.all::<ServiceSpec>() {
        let Some(tier) = tier_of(service) else { continue };
        let namespace = &service.metadata.namespace;
        if template_of(lens.world, tier, namespace).is_some() {
            continue;
        }
        let of_tier = |tier: &str| lens.world.templates().find(|(it, _)| it.spec.tier.as_deref() == Some(tier));
        let message = match of_tier(tier) {
            Some((other, _)) => {
                format!("PolicyTemplate {} is of tier {tier}, and not for namespace {namespace}", other.metadata.name)
            }
            None => {
                let known = lens.world.templates().filter_map(|(template, _)| template.spec.tier.as_deref());
                format!("no PolicyTemplate is of tier {tier}{}", did_you_mean(tier, lens.compared(known)))
            }
        };
        let object = key_of(Kind::Service, &service.metadata);
        report.tell(Code::TierMissing, &object, format!("metadata.labels.{TIER}"), message);
    }
}
