//! Access policies that are audited: what they would refuse of what is let in.

use super::told::EndpointExplanation;
use super::{Asked, Engine};
use crate::bundle::WorkloadPort;
use crate::plan::audited_config;
use crate::resource::{Object, WorkloadSpec};

impl Asked<'_> {
    /// The rule by which a workload would refuse what it lets in, were its audited policies enforced.
    pub(super) fn audited(
        &self,
        workload: &Object<WorkloadSpec>,
        served: &WorkloadPort,
        judged: &EndpointExplanation,
    ) -> Option<String> {
        let engine = Engine::new(&audited_config(self.world, workload)?).ok()?;
        let mut would = EndpointExplanation { allowed: false, reason: String::new(), rule: None, ..judged.clone() };
        self.judge(&engine, served, &mut would);
        (!would.allowed).then(|| would.rule.unwrap_or(would.reason))
    }
}
