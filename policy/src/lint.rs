//! Findings about resources that are fit in themselves: references that lead nowhere, rules that can never hold, objects
//! that contradict each other. Pure, over a [`World`]; each kind of finding has a [`Code`] that stays the same.

mod access;
mod code;
mod condition;
mod filters;
mod lens;
mod names;
mod near;
mod overlap;
mod ports;
mod reference;
mod routes;
mod services;
mod shadow;
mod targets;
mod templates;
#[cfg(test)]
pub(crate) mod tests;

use std::collections::BTreeSet;

use serde::Serialize;

use crate::plan::World;
use crate::resource::{Object, ObjectKey, WorkloadSpec};
pub use code::{About, CODES, Code, CodeError};
use lens::Lens;
pub use near::Near;
pub use reference::reference;

/// Something about one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub code: Code,
    pub severity: Severity,
    pub object: ObjectKey,
    /// Place inside the manifest: `spec.filter.name`; empty for the object as a whole.
    pub key: String,
    pub message: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// A world that gets such a finding is refused.
    Error,
    /// It works, but perhaps not as meant.
    Warning,
    /// Worth knowing, and often meant.
    Note,
}

impl Severity {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// How much of the mesh a world holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All of it.
    Whole,
    /// Only what somebody may read of it.
    Part,
    /// Only what some files say: the rest may be elsewhere, and workloads register themselves.
    Files,
}

impl Finding {
    /// Findings of one place are the same, in whatever words.
    #[must_use]
    pub fn place(&self) -> (Code, &ObjectKey, &str) {
        (self.code, &self.object, &self.key)
    }
}

/// Everything that there is to say, by object, then by severity.
#[must_use]
pub fn check(world: &World, scope: Scope) -> Vec<Finding> {
    run(&Lens::new(world, scope, None), REFUSING.iter().chain(ADVISING))
}

/// The same about some objects.
#[must_use]
pub fn check_near(world: &World, near: &Near) -> Vec<Finding> {
    run(&Lens::new(world, Scope::Whole, near.keys()), REFUSING.iter().chain(ADVISING))
}

/// The errors alone: a change that brings one is refused.
#[must_use]
pub fn errors(world: &World) -> Vec<Finding> {
    errors_near(world, &Near::Everything)
}

/// The same about some objects.
#[must_use]
pub fn errors_near(world: &World, near: &Near) -> Vec<Finding> {
    let mut findings = run(&Lens::new(world, Scope::Whole, near.keys()), REFUSING);
    findings.retain(|finding| finding.severity == Severity::Error);
    findings
}

/// Findings about the ports of one workload, as it joins: requests to a service that reach it may fail.
#[must_use]
pub fn of_workload(world: &World, workload: &Object<WorkloadSpec>) -> Vec<Finding> {
    let mut report = Report::new(Scope::Whole);
    services::unserved(workload, world.selecting(workload), &mut report);
    report.findings
}

type Pass = fn(&Lens<'_>, &mut Report);

/// Passes that can find an error.
const REFUSING: &[Pass] =
    &[targets::check, templates::check, filters::check, access::check, routes::check, services::check];
/// Those that never do.
const ADVISING: &[Pass] = &[shadow::check, overlap::check, ports::check, names::check];

fn run<'p>(lens: &Lens<'_>, passes: impl IntoIterator<Item = &'p Pass>) -> Vec<Finding> {
    let mut report = Report::new(lens.scope);
    passes.into_iter().for_each(|pass| pass(lens, &mut report));
    let mut findings = report.findings;
    findings.sort_by(|a, b| (&a.object, a.severity, a.code).cmp(&(&b.object, b.severity, b.code)));
    findings
}

/// The findings so far.
struct Report {
    scope: Scope,
    findings: Vec<Finding>,
    /// What was told of the object that the newest finding is about, by key and message.
    told: BTreeSet<(Code, String, String)>,
}

impl Report {
    fn new(scope: Scope) -> Self {
        Self { scope, findings: Vec::new(), told: BTreeSet::new() }
    }

    /// Notes a finding with the severity that its code has.
    fn tell(&mut self, code: Code, object: &ObjectKey, key: impl Into<String>, message: impl Into<String>) {
        self.tell_as(code.about().severity, code, object, key, message);
    }

    fn tell_as(
        &mut self,
        severity: Severity,
        code: Code,
        object: &ObjectKey,
        key: impl Into<String>,
        message: impl Into<String>,
    ) {
        let (severity, mut message) = (severity, message.into());
        let severity = match self.scope {
            Scope::Files if code.about().needs_world => {
                message.push_str("; judged by these files alone");
                Severity::Note
            }
            Scope::Part if code.about().needs_world => {
                message.push_str("; judged by what this token may read");
                severity
            }
            Scope::Whole | Scope::Part | Scope::Files => severity,
        };
        if self.findings.last().is_none_or(|newest| newest.object != *object) {
            self.told.clear();
        }
        let key = key.into();
        if self.told.insert((code, key.clone(), message.clone())) {
            self.findings.push(Finding { code, severity, object: object.clone(), key, message });
        }
    }
}
