//! What a change of policies opens, as it is told and audited. It is refused to nobody who may write the policy.

use weft_policy::lint::{Code, Finding, Severity};
use weft_policy::plan::{Opening, World, openings};

use super::AUDITED;

/// So many workloads that open are told of one by one.
const TOLD: usize = 16;

/// What opens by a change, but for what is told as lost by it.
pub(super) struct Opens(Vec<Opening>);

impl Opens {
    pub(super) fn between(before: &World, after: &World) -> Self {
        Self(openings(before, after))
    }

    pub(super) fn findings(&self) -> Vec<Finding> {
        let more = self.0.len().saturating_sub(TOLD);
        let told = |(index, opening): (usize, &Opening)| {
            let tail =
                if more > 0 && index + 1 == TOLD { format!("; and {more} more workloads open") } else { String::new() };
            let message = format!("{opening}{tail}");
            let (object, code, key) = (opening.policy.clone(), Code::Opens, "spec".to_owned());
            Finding { code, severity: Severity::Warning, object, key, message }
        };
        self.0.iter().take(TOLD).enumerate().map(told).collect()
    }

    /// For the audit log, behind what else there is to say.
    pub(super) fn noted(&self, detail: String) -> String {
        let opened: Vec<_> =
            self.0.iter().take(AUDITED).map(|it| format!("{} by {}: {}", it.workload, it.policy, it.what)).collect();
        match (opened.is_empty(), detail.is_empty()) {
            (true, _) => detail,
            (false, true) => format!("opens: {}", opened.join(", ")),
            (false, false) => format!("{detail}; opens: {}", opened.join(", ")),
        }
    }
}
